"""Builds a dataset on a real engine and compares it with the local build; with --kill again, while machines are killed.

    python -m tests.cluster.run flink --kill   Apache Flink: a job manager, two task managers, processes of their own
    python -m tests.cluster.run spark --kill   Apache Spark: a master, two workers with their executors, as well
    python -m tests.cluster.run job_service    Beam's portable job service; needs no Java, tries nothing again

Fetches what it needs with Maven (Flink and Spark need java and mvn), installs the package from its wheel into a virtual
environment for the workers, makes a corpus unless it is given one, and ends everything that it started. The exit status
is 0 if everything was equal, 77 if no engine of those named can be had here, with the reasons, and 1 otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import contextlib
import json
import os
from pathlib import Path
import random
import signal
import sys
import tempfile
import time

from tests.cluster.fleet import Fleet, cpu_seconds, free_ports, make_worker_python
from tests.cluster.flink import FlinkCluster
from tests.cluster.machines import Machines, NotAvailableError
from tests.cluster.spark import SparkCluster

REPOSITORY = Path(__file__).resolve().parents[2]

_NOT_AVAILABLE = 77
_IMAGES_PER_BROKEN = 16

# CPU time after which a worker has got work to lose. Starting takes 1.5 s; the import of TensorFlow, 3 s, comes in the
# midst of the work. The worker is killed soon after it has begun, the machine when it holds what stages have made.
_WORKER_CPU_SECONDS = 2.5
_MACHINE_CPU_SECONDS = 6.0
_MAX_SECONDS_TO_WORK = 300
_MAX_SECONDS_TO_NOTICE = 240  # Beam waits three minutes for a worker that dies before it has asked for data


def say(text: str) -> None:
    print(f"[{time.perf_counter() - _STARTED:5.1f} s] {text}", flush=True)


_STARTED = time.perf_counter()


# --- Builds


class Build:
    """A build with the command that users type, as a process of the fleet."""

    def __init__(
        self, fleet: Fleet, name: str, config: str, corpus: Path, timeout_s: float, beam_options: Sequence[str] = ()
    ):
        """Starts it, in a folder of that name, where the dataset and the log are."""
        self._fleet = fleet
        self._name = name
        self._dataset = fleet.folder / name / "landmark_triplets" / config
        self._started = time.perf_counter()
        self._timeout_s = timeout_s
        command: list[object] = [
            sys.executable,
            "-m",
            "tensorflow_datasets.scripts.cli.main",
            "build",
            f"landmark_triplets/{config}",
        ]
        command += ["--imports", "landmark_triplets_tfds"]
        command += ["--manual_dir", str(corpus), "--data_dir", str(fleet.folder / name), "--num_shards", "4"]
        if beam_options:
            command += ["--beam_pipeline_options", ",".join(beam_options)]
        # A tenth of the corpus may be broken: some of it is.
        options = {"BANK": "off", "TRIPLETS_CSV": "on", "MAX_UNREADABLE": "30%"}
        environment = {f"LANDMARK_TRIPLETS_{option}": value for option, value in options.items()}
        environment |= {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(fleet.folder)}
        fleet.start(name, command, environment)

    def is_running(self) -> bool:
        return self._fleet.is_running(self._name)

    def wait(self) -> Path:
        """Waits for its end and returns the folder of the version.

        Raises:
          TimeoutError: if it takes too long.
          RuntimeError: if it fails.
        """
        left_s = self._timeout_s - (time.perf_counter() - self._started)
        self._fleet.wait(self._name, max(left_s, 1))
        say(f"{self._name}: built in {time.perf_counter() - self._started:.1f} s")
        (version,) = self._dataset.iterdir()
        return version


def compare(local: Path, clustered: Path) -> str:
    """Raises if two builds differ in anything but what they took; returns a summary."""
    files = {path.name: path.read_bytes() for path in local.iterdir()}
    others = {path.name: path.read_bytes() for path in clustered.iterdir()}
    reports = [json.loads(each.pop("build_report.json")) for each in (files, others)]
    different = [name for name in files.keys() | others.keys() if files.get(name) != others.get(name)]
    if different:
        raise AssertionError(f"Files differ, or are not there: {sorted(different)}")
    for field in ("counts", "unreadable_images"):
        if reports[0][field] != reports[1][field]:
            raise AssertionError(f"{field} differ:\n{reports[0][field]}\n{reports[1][field]}")
    counts = reports[0]["counts"]
    return (
        f"equal: {len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB, {counts['num_triplets']:,} triplets;"
        f" {counts['num_images_read']:,} images read, {counts['num_images_unreadable']} of them unreadable;"
        f" {counts['num_triplets_redrawn']} triplets redrawn"
    )


# --- The corpus


def make_corpus(folder: Path, photos: Path | None, num_landmarks: int) -> Path:
    from benchmarks.corpus import make_picture_corpus

    corpus = folder / "corpus"
    corpus.mkdir()
    make_picture_corpus(corpus, photos, num_landmarks)
    images = sorted(corpus.glob("train/*/*/*/*.jpg"))
    broken = random.Random(0).sample(images, len(images) // _IMAGES_PER_BROKEN)
    for number, image in enumerate(broken):
        image.write_bytes((b"", b"<html></html>", image.read_bytes()[:2000])[number % 3])
    say(f"corpus: {len(images):,} images, {len(broken)} of them broken")
    return corpus


# --- Engines


class JobService:
    """Beam's own job service: the in-process engine behind the interface that clusters have."""

    def __init__(self, fleet: Fleet, folder: Path, worker_python: Path):
        import apache_beam

        job_port, self._pool_port = free_ports(2)
        module = "apache_beam.runners.portability.local_job_service_main"
        fleet.start("job_server", [sys.executable, "-m", module, "--job_port", job_port, "--staging_dir", folder])
        path = f"{worker_python.parent}{os.pathsep}{os.environ['PATH']}"  # the pool starts its workers as `python`
        module = "apache_beam.runners.worker.worker_pool_main"
        pool = [worker_python, "-m", module, "--service_port", self._pool_port]
        fleet.start("worker_pool", pool, {"PATH": path, "PYTHONPATH": ""})
        fleet.wait_for_port(job_port)
        fleet.wait_for_port(self._pool_port)
        self._job_endpoint = f"localhost:{job_port}"
        self.versions = f"Beam {apache_beam.__version__}'s portable job service"

    def recipe(self) -> list[str]:
        return [
            "runner=PortableRunner",
            f"job_endpoint={self._job_endpoint}",
            "environment_type=EXTERNAL",
            f"environment_config=localhost:{self._pool_port}",
        ]


_ENGINES: dict[str, type[FlinkCluster | JobService | SparkCluster]] = {
    "flink": FlinkCluster,
    "job_service": JobService,
    "spark": SparkCluster,
}


def kill_machines(fleet: Fleet, cluster: Machines, build: Build) -> None:
    """Kills a worker process and then a machine while a build runs, each when there is work to lose.

    Raises:
      AssertionError: if the build ends first.
      TimeoutError: if a worker gets no work, or the engine does not notice what it lost.
    """

    def find_worker(before: dict[int, float | None], min_cpu_s: float) -> tuple[int, int] | None:
        if not build.is_running():
            build.wait()  # raises if it has failed
            raise AssertionError("The build had ended before it was disturbed; take a larger corpus (--landmarks).")
        used = [
            ((cpu_seconds(pid) or 0) - (before.get(pid) or 0), pid, number) for pid, number in cluster.workers().items()
        ]
        cpu_s, pid, number = max(used, default=(0.0, 0, 0))
        return (pid, number) if cpu_s >= min_cpu_s else None

    def disturb(what: str, kill: Callable[[int, int], str], min_cpu_s: float) -> None:
        before = {pid: cpu_seconds(pid) for pid in cluster.workers()}
        no_work = f"No Python worker has used {min_cpu_s} s of CPU time"
        pid, number = fleet.wait_until(lambda: find_worker(before, min_cpu_s), _MAX_SECONDS_TO_WORK, no_work)
        num_failures = cluster.num_failures()
        say(kill(pid, number))
        not_noticed = f"The engine has not noticed the loss of {what}"
        fleet.wait_until(lambda: cluster.num_failures() > num_failures, _MAX_SECONDS_TO_NOTICE, not_noticed)
        say("the engine has noticed")

    def kill_worker(pid: int, number: int) -> str:
        os.kill(pid, signal.SIGKILL)
        return f"killed a worker of machine {number}"

    def kill_machine(pid: int, number: int) -> str:
        cluster.kill_machine(number)
        cluster.add_machine()
        return f"killed machine {number} with its workers, and started another"

    disturb("a worker", kill_worker, _WORKER_CPU_SECONDS)
    disturb("a machine", kill_machine, _MACHINE_CPU_SECONDS)


def run(args: argparse.Namespace, folder: Path) -> list[str]:
    """Runs the engines, each after the other; returns why some of them could not be had."""
    python = make_worker_python(folder, REPOSITORY, fresh=args.fresh)
    requirements = "of its own" if args.fresh else "of this environment"
    say(f"workers' Python: the package from its wheel, requirements {requirements}")
    corpus = args.corpus.resolve() if args.corpus else make_corpus(folder, args.photos, args.landmarks)
    with Fleet(folder) as fleet:
        local = Build(fleet, "local", args.config, corpus, args.timeout).wait()
    left_out = []
    for engine in args.engines:
        (folder / engine).mkdir()
        with Fleet(folder / engine) as fleet:
            try:
                cluster = _ENGINES[engine](fleet, folder / engine, python)
            except NotAvailableError as error:
                left_out.append(f"{engine} is left out: {error}.")
                continue
            say(f"{engine}: {cluster.versions}")
            options = cluster.recipe()
            say(compare(local, Build(fleet, "build", args.config, corpus, args.timeout, options).wait()))
            if isinstance(cluster, Machines) and args.kill:
                say(f"failures without being disturbed: {cluster.num_failures()}")
                build = Build(fleet, "disturbed", args.config, corpus, args.timeout, options)
                kill_machines(fleet, cluster, build)
                say(compare(local, build.wait()))
                say(f"failures in all: {cluster.num_failures()}")
    return left_out


def main() -> int:
    """Runs the engines that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", choices=sorted(_ENGINES))
    parser.add_argument("--config", default="128px_all", help="(default: %(default)s)")
    parser.add_argument("--landmarks", type=int, default=80, help="of the corpus, 6.5 images each (%(default)s)")
    parser.add_argument("--photos", type=Path, help="make the corpus from photographs below this folder, not drawn")
    parser.add_argument("--corpus", type=Path, help="use this corpus instead")
    parser.add_argument(
        "--kill", action="store_true", help="build once more while machines of Flink or Spark are killed"
    )
    parser.add_argument("--fresh", action="store_true", help="install the workers' requirements anew (minutes)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a build may take (%(default).0f)")
    parser.add_argument("--keep", type=Path, help="work in this new folder and keep it, with all logs")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that everything is ended then, too
    with contextlib.ExitStack() as stack:
        if args.keep:
            args.keep.mkdir(parents=True)
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster.")))
        left_out = run(args, folder.resolve())
        for reason in left_out:
            say(reason)
        if len(left_out) == len(args.engines):
            return _NOT_AVAILABLE
        say("all equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
