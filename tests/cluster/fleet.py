"""Processes that a cluster test starts: each with a log, found by its id, ended at the latest when the test ends."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import TypeVar

from tests.support.sources import copy_sources

_Found = TypeVar("_Found")


class Fleet:
    """A context manager: leaving it ends every process that it started, and their children.

    Attributes:
      folder: holds a folder for each process.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._processes:
            self.kill(name)

    def start(self, name: str, command: list[object], environment: dict[str, str] | None = None) -> None:
        """Starts a process in a working folder of its own; what it says goes to ``<folder>/<name>/log``."""
        folder = self.folder / name
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
        """Kills a process and its children, as a power failure would; also what children it has left behind."""
        process = self._processes[name]
        with contextlib.suppress(ProcessLookupError):  # each has a process group of its own
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def is_running(self, name: str) -> bool:
        return self._processes[name].poll() is None

    def wait(self, name: str, timeout_s: float) -> None:
        """Waits until a process has ended by itself, as it should; then it is no longer one of the fleet.

        Raises:
          TimeoutError: if it takes longer than that; it is killed.
          RuntimeError: if it fails, with the end of its log.
        """
        try:
            self.wait_until(lambda: not self.is_running(name), timeout_s, f"{name} has not ended")
        finally:
            self.kill(name)
        status = self._processes.pop(name).returncode
        if status:
            raise RuntimeError(f"{name} ended with status {status}:\n{self.log_end(name)}")

    def children(self, name: str) -> list[int]:
        """Returns the ids of a process's children that run, the oldest first."""
        pid = self._processes[name].pid
        found = []
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(word) for word in children.read_text().split()]
        return sorted(child for child in found if cpu_seconds(child) is not None)

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text(errors="replace")

    def log_end(self, name: str) -> str:
        return self.log(name)[-6000:]

    def check(self) -> None:
        """Raises if a process has failed by itself."""
        for name, process in self._processes.items():
            if process.poll() not in (None, 0, -signal.SIGKILL):
                raise RuntimeError(f"{name} ended with status {process.poll()}:\n{self.log_end(name)}")

    def wait_until(self, find: Callable[[], _Found], timeout_s: float, problem: str) -> _Found:
        """Asks again and again until there is an answer that counts as true, and returns it.

        Raises:
          TimeoutError: if there is none after so long; names the problem.
          RuntimeError: if a process has failed meanwhile.
        """
        deadline = time.monotonic() + timeout_s
        while not (found := find()):
            self.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{problem} after {timeout_s:.0f} s.")
            time.sleep(0.1)
        return found

    def wait_for_port(self, port: int, timeout_s: float = 120) -> None:
        """Waits until something listens there."""

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("localhost", port), timeout=1):
                return True
            return False

        self.wait_until(listens, timeout_s, f"Nothing listens on port {port}")


def cpu_seconds(pid: int) -> float | None:
    """Returns the CPU time that a process has used so far, user and system; None if it has ended.

    A process that was killed stays in the list of its parent's children, as a zombie, until the parent asks for it.
    """
    try:
        # The command's name, in parentheses, may hold spaces. After it: the state, and as 12th and 13th the times.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


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
    sources = folder / "sources"
    copy_sources(repository, sources)
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
