"""Apache Flink, standalone, from artifacts that Maven fetches: a job manager, task managers and Beam's job server."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys
from typing import Any
import urllib.request
import zipfile

from tests.cluster.fleet import Fleet, free_ports

# Beam's Flink runner as published: with the job server in one jar, of the installed version of Beam; or, where Maven
# does not find that, as a library with its dependencies. Portable pipelines cross versions of Beam. Flink 2 would need
# another configuration.
_JOB_SERVER_JARS = ("1.20", "1.19")
_LIBRARIES = (("1.19", "2.62.0"),)
_LOGGING = "org.slf4j:slf4j-simple:1.7.30"

# One slot in each of two task managers.
_PARALLELISM = 2

# The pool of a task manager's own Python workers, by the name that each resolves for itself; see forward.py.
_POOL_HOST = "worker-pool"

_RESOLVE = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>cluster</groupId><artifactId>cluster</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""

# What Flink's own start scripts open to it on Java 17.
_JVM = [
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in (
        "java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "java.text", "java.time", "java.util",
        "java.util.concurrent", "java.util.concurrent.atomic", "java.util.concurrent.locks", "sun.nio.ch",
    )),
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
]  # fmt: skip

_CONFIG = """\
jobmanager.rpc.address: localhost
jobmanager.rpc.port: {rpc_port}
rest.address: localhost
rest.bind-address: localhost
rest.port: {rest_port}
taskmanager.numberOfTaskSlots: {slots}
taskmanager.load-balance.mode: SLOTS
taskmanager.cpu.cores: {slots}.0
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 128m
taskmanager.memory.jvm-overhead.max: 128m
taskmanager.memory.task.heap.size: 512m
taskmanager.memory.task.off-heap.size: 128m
taskmanager.memory.network.min: 128m
taskmanager.memory.network.max: 128m
taskmanager.memory.managed.size: 1g
classloader.resolve-order: parent-first
heartbeat.interval: 1000
heartbeat.timeout: 8000
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 10
restart-strategy.fixed-delay.delay: 5 s
taskmanager.runtime.large-record-handler: true
io.tmp.dirs: {folder}
"""


class NotAvailableError(Exception):
    """Flink cannot be run here; the message says why."""


class FlinkCluster:
    """A cluster of processes of this machine. What it starts belongs to the fleet.

    Attributes:
      name: Flink with its version.
      versions: of Flink and of Beam's runner for it.
    """

    def __init__(self, fleet: Fleet, folder: Path, worker_python: Path, num_task_managers: int = 2):
        """Starts everything and waits until it is ready.

        Args:
          fleet: starts and ends the processes.
          folder: for files.
          worker_python: of the workers; has the package and what it needs.
          num_task_managers: each has two slots, so that one can do the work of two.

        Raises:
          NotAvailableError: if there is no Java or Maven, or no Flink to be fetched.
        """
        self._fleet = fleet
        self._folder = folder
        self._worker_python = worker_python
        self._num_task_managers = 0
        self.versions, self._classpath = _fetch(folder)
        self.name = self.versions.partition(",")[0]
        rpc_port, self._rest_port, job_port, self._pool_port = free_ports(4)
        (folder / "flink-conf.yaml").write_text(
            _CONFIG.format(rpc_port=rpc_port, rest_port=self._rest_port, slots=2, folder=folder)
        )
        self._hosts = f"127.0.0.1 localhost {socket.gethostname()}\n"
        (folder / "hosts").write_text(self._hosts)
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        hosts = f"-Djdk.net.hosts.file={folder / 'hosts'}"
        fleet.start("job_manager", self._java(hosts, main, "--configDir", folder))
        for _ in range(num_task_managers):
            self.add_task_manager()
        self._job_endpoint = f"localhost:{job_port}"
        self._job_server_jar = _job_server_jar(folder, self._classpath)
        server = (
            f"--flink-master=localhost:{self._rest_port}",
            f"--job-port={job_port}",
            "--artifact-port=0",
            "--expansion-port=0",
            f"--artifacts-dir={folder}",
        )
        fleet.start("job_server", ["java", "-jar", self._job_server_jar, *server])
        fleet.wait_for_port(job_port)
        fleet.wait_for_port(self._rest_port)
        self.wait_for_task_managers(num_task_managers)

    def recipe(self) -> list[str]:
        """Returns the options of docs/clusters.md; with them each build starts a job server of its own."""
        return [
            "runner=FlinkRunner",
            f"flink_master=localhost:{self._rest_port}",
            f"flink_job_server_jar={self._job_server_jar}",
            *self._worker_options(),
        ]

    def job_options(self, parallelism: int = _PARALLELISM) -> list[str]:
        """Returns the options with which a build uses the job server that runs already."""
        return ["runner=PortableRunner", f"job_endpoint={self._job_endpoint}", *self._worker_options(parallelism)]

    def _worker_options(self, parallelism: int = _PARALLELISM) -> list[str]:
        return [
            f"parallelism={parallelism}",
            "environment_type=EXTERNAL",
            f"environment_config={_POOL_HOST}:{self._pool_port}",
            # Workers stay for the next stage of the job. Otherwise each stage starts new ones. But dead ones are kept
            # as well, so this must be less than the pause before a restart.
            "environment_cache_millis=3000",
            # Read where a job is submitted: what it says of large records.
            f"flink_conf_dir={self._folder}",
        ]

    def add_task_manager(self) -> int:
        """Starts one more, with a pool of Python workers, and returns its number."""
        number = self._num_task_managers
        self._num_task_managers += 1
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
        memory = ("-Xmx768m", "-XX:MaxDirectMemorySize=512m", f"-Djdk.net.hosts.file={hosts}")
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._fleet.start(f"task_manager_{number}", self._java(*memory, main, "--configDir", self._folder))
        self._fleet.wait_for_port(port)
        return number

    def kill_task_manager(self, number: int) -> None:
        """Kills a task manager as if its machine had lost power: its pool and its workers die with it."""
        for name in ("task_manager", "worker_pool", "forward"):
            self._fleet.kill(f"{name}_{number}")

    def workers(self) -> dict[int, int]:
        """Returns the numbers of their task managers by the process ids of all Python workers that run."""
        numbers = range(self._num_task_managers)
        return {pid: number for number in numbers for pid in self._fleet.children(f"worker_pool_{number}")}

    def wait_for_task_managers(self, count: int, timeout_s: float = 120) -> None:
        self._fleet.wait_until(
            lambda: len(self._get("/taskmanagers")["taskmanagers"]) == count,
            timeout_s,
            f"There are not {count} task managers",
        )

    def num_restarts(self) -> int:
        """Returns how often the jobs so far were restarted, in all.

        Counted in the job manager's log, since its metric of the same name is seconds late.
        """
        return self._fleet.log("job_manager").count("switched from state RUNNING to RESTARTING")

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://localhost:{self._rest_port}{path}", timeout=10) as response:
            return json.load(response)

    def _java(self, *arguments: object) -> list[object]:
        return ["java", *_JVM, "-cp", self._classpath, *arguments]


def _fetch(folder: Path) -> tuple[str, str]:
    """Fetches Flink and Beam's runner for it; returns their versions and the class path."""
    for program in ("java", "mvn"):
        if not shutil.which(program):
            raise NotAvailableError(f"there is no {program} on this machine")
    import apache_beam

    version = apache_beam.__version__
    tried = []
    candidates = [(f, f"beam-runners-flink-{f}-job-server", version) for f in _JOB_SERVER_JARS]
    candidates += [(f, f"beam-runners-flink-{f}", v) for f, v in _LIBRARIES]
    for flink, artifact, beam in candidates:
        classpath = _resolve(folder, [f"org.apache.beam:{artifact}:{beam}", _LOGGING])
        if classpath:
            jar = next((name for name in classpath.split(":") if "/flink-runtime/" in name), f"flink-{flink}.jar")
            return f"Flink {Path(jar).stem.rpartition('-')[2]}, Beam's {artifact} {beam}", classpath
        tried.append(f"{artifact}:{beam}")
    raise NotAvailableError(f"Maven finds none of {', '.join(tried)}")


def _job_server_jar(folder: Path, classpath: str) -> Path:
    """Returns a jar that ``java -jar`` starts as Beam's job server: as published, or one that names the class path."""
    paths = [Path(path) for path in classpath.split(":")]
    for path in paths:
        if "-job-server-" in path.name:
            return path
    attributes = {
        "Manifest-Version": "1.0",
        "Main-Class": "org.apache.beam.runners.flink.FlinkJobServerDriver",
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


def _resolve(folder: Path, artifacts: list[str]) -> str | None:
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
