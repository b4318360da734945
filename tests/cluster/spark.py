"""Apache Spark, standalone, from artifacts that Maven fetches: a master, workers, and Beam's job server as driver."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.fleet import Fleet, free_ports
from tests.cluster.machines import Machines, NotAvailableError, check_programs, make_job_server_jar, resolve

# Beam's Spark runner as a library, the newest of which Maven finds all parts. Pipelines cross versions of Beam.
_BEAM = "2.62.0"
_SPARK = "3.5.9"
_ARTIFACTS = [
    f"org.apache.beam:beam-runners-spark-3:{_BEAM}",
    "org.slf4j:slf4j-api:2.0.7",  # that of Spark, where Beam asks for an older one
    *(f"org.apache.spark:spark-{part}_2.12:{_SPARK}" for part in ("core", "streaming", "sql")),
]

# Programs that run for a minute are done before they are compiled well.
_QUICK_START = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]

# What Spark's own start scripts open to it on Java 17; it passes them on to executors.
_JVM = [
    f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in (
        "java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util",
        "java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref", "sun.nio.ch", "sun.nio.cs",
        "sun.security.action", "sun.util.calendar",
    )
] + _QUICK_START  # fmt: skip

# What the driver, which is in the job server, is given. A task whose Python worker has died fails again at once as long
# as that is kept: it has to go to another executor.
_DRIVER = [
    "-Dspark.default.parallelism=8",
    "-Dspark.excludeOnFailure.enabled=true",
    "-Dspark.excludeOnFailure.killExcludedExecutors=true",
    "-Dspark.driver.host=localhost",
    "-Dspark.ui.enabled=false",
    *_QUICK_START,
]


class SparkCluster(Machines):
    """A cluster of processes of this machine. What it starts belongs to the fleet."""

    def __init__(self, fleet: Fleet, folder: Path, worker_python: Path, num_workers: int = 2):
        """Starts everything and waits until it is ready.

        Args:
          fleet: starts and ends the processes.
          folder: for files.
          worker_python: of the Python workers; has the package and what it needs.
          num_workers: of Spark, with one core each.

        Raises:
          NotAvailableError: if there is no Java or Maven, or no Spark to be fetched.
        """
        super().__init__(fleet, folder, worker_python)
        check_programs()
        classpath = resolve(folder, _ARTIFACTS)
        if not classpath:
            raise NotAvailableError(f"Maven does not find all of {', '.join(_ARTIFACTS)}")
        self.name = f"Spark {_SPARK}"
        self.versions = f"{self.name}, Beam's beam-runners-spark-3 {_BEAM}"
        self._classpath = classpath
        (folder / "jars").mkdir()  # what executors have on their class path
        for path in map(Path, classpath.split(":")):
            (folder / "jars" / path.name).symlink_to(path)
        self._master_port, web_port = free_ports(2)
        master = "org.apache.spark.deploy.master.Master"
        options = ("--host", "localhost", "--port", self._master_port, "--webui-port", web_port)
        fleet.start("master", ["java", *_JVM, "-cp", classpath, master, *options])
        fleet.wait_for_port(self._master_port)
        for _ in range(num_workers):
            self.add_machine()
        self._job_server_jar = make_job_server_jar(
            folder, classpath, "org.apache.beam.runners.spark.SparkJobServerDriver"
        )
        fleet.wait_until(
            lambda: fleet.log("master").count("Registering worker") == num_workers, 120, "Not all workers are there"
        )

    def recipe(self) -> list[str]:
        return [
            "runner=SparkRunner",
            f"spark_master_url=spark://localhost:{self._master_port}",
            f"spark_job_server_jar={self._job_server_jar}",
            # Workers keep their Python for the next task. Otherwise each task starts one, which looks like a hang.
            "environment_cache_millis=5000",
            # Not the whole class path that the jar names: executors have it in their folder of jars.
            f"files_to_stage={self._job_server_jar}",
            *(f"job_server_jvm_properties={option}" for option in _DRIVER),
            *self._worker_options(),
        ]

    def _start_machine(self, number: int, address: str, hosts: Path) -> None:
        main = "org.apache.spark.deploy.worker.Worker"
        (web_port,) = free_ports(1)
        options = ("--host", address, "--cores", 1, "--memory", "1g", "--webui-port", web_port, "--work-dir", "work")
        environment = {  # of its executors, too
            "SPARK_HOME": str(self._folder),
            "SPARK_SCALA_VERSION": "2.12",
            "SPARK_LOCAL_IP": address,
            "JAVA_TOOL_OPTIONS": " ".join([f"-Djdk.net.hosts.file={hosts}", *_QUICK_START]),
        }
        command = ["java", *_JVM, "-cp", self._classpath, main, *options, f"spark://localhost:{self._master_port}"]
        self._fleet.start(f"machine_{number}", command, environment)

    def num_failures(self) -> int:
        """Counts tasks that failed, as executors say, and workers that the master lost."""
        logs = [path.read_text(errors="replace") for path in self._folder.glob("machine_*/work/*/*/stderr")]
        tasks = sum(log.count("ERROR Executor: Exception in task") for log in logs)
        return tasks + self._fleet.log("master").count("Master: Removing worker")
