"""Apache Flink, standalone, from artifacts that Maven fetches: a job manager, task managers and Beam's job server."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
import urllib.error
import urllib.request

from tests.cluster.fleet import Fleet, free_ports
from tests.cluster.machines import Machines, NotAvailableError, check_programs, make_job_server_jar, resolve

# Beam's Flink runner as published: with the job server in one jar, of the installed version of Beam; or, where Maven
# does not find that, as a library, the newest of which it finds all parts. Portable pipelines cross versions of Beam.
# Flink 2 would need another configuration.
_JOB_SERVER_JARS = ("1.20", "1.19")
_LIBRARIES = (("1.19", "2.62.0"),)
_LOGGING = "org.slf4j:slf4j-simple:1.7.30"

# One slot in each of two task managers.
_PARALLELISM = 2

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


class FlinkCluster(Machines):
    """A cluster of processes of this machine. What it starts belongs to the fleet."""

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
        super().__init__(fleet, folder, worker_python)
        self.versions, self._classpath = _fetch(folder)
        self.name = self.versions.partition(",")[0]
        rpc_port, self._rest_port, job_port = free_ports(3)
        (folder / "flink-conf.yaml").write_text(
            _CONFIG.format(rpc_port=rpc_port, rest_port=self._rest_port, slots=2, folder=folder)
        )
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        hosts = f"-Djdk.net.hosts.file={folder / 'hosts'}"
        fleet.start("job_manager", self._java(hosts, main, "--configDir", folder))
        for _ in range(num_task_managers):
            self.add_machine()
        self._job_endpoint = f"localhost:{job_port}"
        self._job_server_jar = make_job_server_jar(
            folder, self._classpath, "org.apache.beam.runners.flink.FlinkJobServerDriver"
        )
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
        return [
            "runner=FlinkRunner",
            f"flink_master=localhost:{self._rest_port}",
            f"flink_job_server_jar={self._job_server_jar}",
            *self._flink_options(),
        ]

    def job_options(self) -> list[str]:
        """Returns the options with which a build uses the job server that runs already."""
        return ["runner=PortableRunner", f"job_endpoint={self._job_endpoint}", *self._flink_options()]

    def _flink_options(self) -> list[str]:
        return [
            f"parallelism={_PARALLELISM}",
            *self._worker_options(),
            # Workers stay for the next stage of the job. Otherwise each stage starts new ones. But dead ones are kept
            # as well, so this must be less than the pause before a restart.
            "environment_cache_millis=3000",
            # Read where a job is submitted: what it says of large records.
            f"flink_conf_dir={self._folder}",
        ]

    def _start_machine(self, number: int, address: str, hosts: Path) -> None:
        memory = ("-Xmx768m", "-XX:MaxDirectMemorySize=512m", f"-Djdk.net.hosts.file={hosts}")
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._fleet.start(f"machine_{number}", self._java(*memory, main, "--configDir", self._folder))

    def wait_for_task_managers(self, count: int, timeout_s: float = 120) -> None:
        def are_there() -> bool:
            with contextlib.suppress(urllib.error.HTTPError):  # 503: the job manager is not ready to answer
                return len(self._get("/taskmanagers")["taskmanagers"]) == count
            return False

        self._fleet.wait_until(are_there, timeout_s, f"There are not {count} task managers")

    def num_failures(self) -> int:
        """Counts restarts in the job manager's log, since its metric of them is seconds late."""
        return self._fleet.log("job_manager").count("switched from state RUNNING to RESTARTING")

    def num_bytes_sent(self, step: str) -> int:
        """Returns how much the tasks that do a step sent to others in the last job."""
        job = max(self._get("/jobs/overview")["jobs"], key=lambda each: int(each["start-time"]))
        tasks = self._get(f"/jobs/{job['jid']}")["vertices"]
        return sum(task["metrics"]["write-bytes"] for task in tasks if step in task["name"])

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://localhost:{self._rest_port}{path}", timeout=10) as response:
            return json.load(response)

    def _java(self, *arguments: object) -> list[object]:
        return ["java", *_JVM, "-cp", self._classpath, *arguments]


def _fetch(folder: Path) -> tuple[str, str]:
    """Fetches Flink and Beam's runner for it; returns their versions and the class path."""
    check_programs()
    import apache_beam

    version = apache_beam.__version__
    tried = []
    candidates = [(f, f"beam-runners-flink-{f}-job-server", version) for f in _JOB_SERVER_JARS]
    candidates += [(f, f"beam-runners-flink-{f}", v) for f, v in _LIBRARIES]
    for flink, artifact, beam in candidates:
        classpath = resolve(folder, [f"org.apache.beam:{artifact}:{beam}", _LOGGING])
        if classpath:
            jar = next((name for name in classpath.split(":") if "/flink-runtime/" in name), f"flink-{flink}.jar")
            return f"Flink {Path(jar).stem.rpartition('-')[2]}, Beam's {artifact} {beam}", classpath
        tried.append(f"{artifact}:{beam}")
    raise NotAvailableError(f"Maven finds none of {', '.join(tried)}")
