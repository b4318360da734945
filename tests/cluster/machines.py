"""What Flink and Spark share here: Java programs that Maven fetches, as machines that each have Python workers."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
import zipfile

from tests.cluster.fleet import Fleet, free_ports

_RESOLVE = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cluster</groupId><artifactId>cluster</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""

# The pool of a machine's own Python workers, by the name that each resolves for itself; see forward.py.
_POOL_HOST = "worker-pool"


class NotAvailableError(Exception):
    """An engine cannot be run here; the message says why."""


class Machines:
    """The machines of a cluster: each a process of the engine and a pool of Python workers. Base of the engines.

    Attributes:
      name: the engine with its version.
      versions: of the engine and of Beam's runner for it.
    """

    name: str
    versions: str

    def __init__(self, fleet: Fleet, folder: Path, worker_python: Path):
        """Starts nothing.

        Args:
          fleet: starts and ends the processes.
          folder: for files.
          worker_python: of the workers; has the package and what it needs.
        """
        self._fleet = fleet
        self._folder = folder
        self._worker_python = worker_python
        self._num_machines = 0
        (self._pool_port,) = free_ports(1)
        self._hosts = f"127.0.0.1 localhost {socket.gethostname()}\n"
        (folder / "hosts").write_text(self._hosts)

    def recipe(self) -> list[str]:
        """Returns the options of docs/clusters.md; with them each build starts a job server of its own."""
        raise NotImplementedError

    def num_failures(self) -> int:
        """Returns how often the engine has noticed that it lost something."""
        raise NotImplementedError

    def _start_machine(self, number: int, address: str, hosts: Path) -> None:
        """Starts the engine's process, called ``machine_<number>``, which resolves names with the file ``hosts``."""
        raise NotImplementedError

    def add_machine(self) -> None:
        """Starts one more."""
        number = self._num_machines
        self._num_machines += 1
        # The pool starts its workers as `python`; these must find the package that was installed, not its sources.
        path = f"{self._worker_python.parent}{os.pathsep}{os.environ['PATH']}"
        module = "apache_beam.runners.worker.worker_pool_main"
        (port,) = free_ports(1)
        command = [self._worker_python, "-m", module, "--service_port", port]
        self._fleet.start(f"worker_pool_{number}", command, {"PATH": path, "PYTHONPATH": ""})
        address = f"127.0.0.{2 + number}"
        forward = [sys.executable, Path(__file__).parent / "forward.py", address, self._pool_port, port]
        self._fleet.start(f"forward_{number}", forward)
        hosts = self._folder / f"hosts_{number}"
        hosts.write_text(f"{self._hosts}{address} {_POOL_HOST}\n")
        self._start_machine(number, address, hosts)
        self._fleet.wait_for_port(port)

    def kill_machine(self, number: int) -> None:
        """Kills a machine as if it had lost power: its pool and its workers die with it."""
        for name in ("machine", "worker_pool", "forward"):
            self._fleet.kill(f"{name}_{number}")

    def workers(self) -> dict[int, int]:
        """Returns the numbers of their machines by the process ids of all Python workers that run."""
        numbers = range(self._num_machines)
        return {pid: number for number in numbers for pid in self._fleet.children(f"worker_pool_{number}")}

    def _worker_options(self) -> list[str]:
        return ["environment_type=EXTERNAL", f"environment_config={_POOL_HOST}:{self._pool_port}"]


def check_programs() -> None:
    """Raises `NotAvailableError` if there is no Java or Maven."""
    for program in ("java", "mvn"):
        if not shutil.which(program):
            raise NotAvailableError(f"there is no {program} on this machine")


def make_job_server_jar(folder: Path, classpath: str, main: str) -> Path:
    """Returns a jar that ``java -jar`` starts as Beam's job server: as published, or one that names the class path."""
    paths = [Path(path) for path in classpath.split(":")]
    for path in paths:
        if "-job-server-" in path.name:
            return path
    attributes = {
        "Manifest-Version": "1.0",
        "Main-Class": main,
        "Class-Path": " ".join(path.as_uri() for path in paths),
    }
    jar = folder / "job-server.jar"
    lines: list[str] = []
    with zipfile.ZipFile(jar, "w") as file:
        for name, value in attributes.items():
            line = f"{name}: {value}"  # of 72 bytes at most, then it goes on in lines that begin with a space
            lines += [line[:70], *(f" {line[i : i + 69]}" for i in range(70, len(line), 69))]
        file.writestr("META-INF/MANIFEST.MF", "".join(f"{line}\r\n" for line in lines))
    return jar


def resolve(folder: Path, artifacts: list[str]) -> str | None:
    """Returns the class path of artifacts with all they need; None if Maven cannot find one of them."""
    dependencies = ""
    for artifact in artifacts:
        group, name, version = artifact.split(":")
        dependencies += f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        dependencies += f"<version>{version}</version></dependency>"
    (folder / "pom.xml").write_text(_POM.format(dependencies=dependencies))
    output = folder / "classpath"
    output.unlink(missing_ok=True)
    command = [
        "mvn",
        "-B",
        "-q",
        f"{_RESOLVE}:build-classpath",
        f"-Dmdep.outputFile={output}",
        "-DincludeScope=runtime",
    ]
    subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return output.read_text().strip() if output.exists() else None
