"""Processes that a cluster test starts: each with a log, found by its id, ended at the latest when the test ends."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import TracebackType


class Fleet:
    """A context manager: leaving it ends every process that it started, and their children."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):  # each has a process group of its own
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, name: str, command: list[object], environment: dict[str, str] | None = None) -> None:
        """Starts a process in a working folder of its own; what it says goes to ``<folder>/<name>/log``."""
        folder = self._folder / name
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """Kills a process and its children, as a power failure would."""
        process = self._processes[name]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def children(self, name: str) -> list[int]:
        """Returns the ids of a process's children that run, the oldest first."""
        pid = self._processes[name].pid
        found = []
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in children.read_text().split()]
        return sorted(found)

    def log(self, name: str) -> str:
        return (self._folder / name / "log").read_text(errors="replace")

    def check(self) -> None:
        """Raises if a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() not in (None, -signal.SIGKILL):
                raise RuntimeError(f"{name} ended with status {process.poll()}:\n{self.log(name)[-4000:]}")

    def wait_for_port(self, port: int, timeout_s: float = 60) -> None:
        """Waits until something listens there."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"Nothing listens on port {port} after {timeout_s} s.")
            time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Returns ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]


def make_worker_python(folder: Path, repository: Path, *, fresh: bool) -> Path:
    """Makes a virtual environment into which the package is installed from its wheel, and returns its Python.

    Args:
      folder: for wheel and environment.
      repository: with the package's sources.
      fresh: True installs all requirements too, which takes minutes; False finds them in this environment.
    """
    quiet = ("--disable-pip-version-check", "--quiet")
    sources = folder / "sources"  # a copy, since building leaves files behind
    ignored = shutil.ignore_patterns(".git", "build", "*.egg-info", ".*cache", "__pycache__")
    shutil.copytree(repository, sources, ignore=ignored)
    run(sys.executable, "-m", "pip", *quiet, "wheel", "--no-deps", "--wheel-dir", folder / "dist", sources)
    (wheel,) = (folder / "dist").iterdir()
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    run(python, "-m", "pip", *quiet, "install", *(() if fresh else ("--no-deps",)), wheel)
    if not fresh:
        own = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        here = [path for path in sys.path if path.endswith("site-packages")]
        (Path(own) / "requirements.pth").write_text("\n".join(here) + "\n")  # comes after the environment's own
    return python


def run(*command: object) -> str:
    """Runs a command and returns what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{command} ended with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
