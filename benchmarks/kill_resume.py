"""Kills builds at random moments and looks at what is left: the same bytes in the end, and next to no work done twice.

    python -m benchmarks.kill_resume --corpus CORPUS --runs 50

It carries "Kills" in docs/performance.md, and ends with status 1 if a build went wrong. Each round starts a build with
an empty bank, sends SIGKILL to it or to one of its workers at a random moment after its first thumbnail, starts it
again if it has ended, and checks that

* the shards are those of a build that was never disturbed, byte for byte;
* the only images made again are ones whose file was read less than a second before the kill;
* nothing of the killed build is left beside the dataset, no worker either.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
from pathlib import Path
import random
import sys
import time

import psutil

from benchmarks import builds
from benchmarks.harness import Program, temporary_folder

MAX_REPEATED_S = 1.0


def build(config: str, corpus: Path, folder: Path, bank: Path | None, log: Path, slow_down: float) -> None:
    """Builds in this process and its workers; appends time and id of every image that is read to ``log``."""
    from landmark_triplets_tfds.common import worker_pool

    vars(worker_pool)["_WORTH_S"] = 0.0  # a small corpus is to have workers too
    builds.build(config, corpus, folder / "data", bank=bank, workers=2, slow_down=slow_down, log=log, num_shards=4)


class Build:
    """A build in a process of its own, with its log."""

    def __init__(self, program: Program, folder: Path, bank: Path | None, name: str):
        self.folder = folder
        self.log = folder / f"{name}.log"
        arguments = (program.args.config, program.corpus, folder, bank, self.log, program.args.slow_down)
        self.process = multiprocessing.get_context("spawn").Process(target=build, args=arguments)
        self.process.start()

    def wait(self) -> None:
        """Waits for the end; raises if the build failed."""
        self.process.join()
        if self.process.exitcode:
            raise RuntimeError("The build failed.")

    def kill_after(self, seconds: float, chooser: random.Random | None) -> float:
        """Sends SIGKILL so long after the first thumbnail, to the build or to a worker; returns when that was."""
        while not (self.log.exists() and self.log.stat().st_size) and self.process.is_alive():
            time.sleep(0.005)
        time.sleep(seconds)
        self._workers = self._living_workers()
        with contextlib.suppress(psutil.Error):
            killed = self._workers if chooser and self._workers else [psutil.Process(self.process.pid)]
            (chooser.choice(killed) if chooser else killed[0]).kill()
        killed_at = time.time()
        self.process.join()
        return killed_at

    def _living_workers(self) -> list[psutil.Process]:
        workers: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            workers.extend(each for each in children if any("popen_loky" in word for word in each.cmdline()))
        return workers

    def workers_left(self) -> list[psutil.Process]:
        """Returns the workers of a killed build that have not ended within two seconds."""
        left: list[psutil.Process] = psutil.wait_procs(self._workers, timeout=2)[1]
        return left

    def reads(self) -> list[tuple[str, float]]:
        """Returns which images were read, and when."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(image, float(seconds)) for seconds, image in map(str.split, lines)]

    def shards(self) -> dict[str, str]:
        """Returns the sha256 of every shard, by name."""
        paths = sorted(path for path in self.folder.glob("data/**/*-of-*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kill_and_resume(
    program: Program, folder: Path, delay: float, chooser: random.Random | None, shards: dict[str, str]
) -> bool:
    """Plays one round and prints what came of it; returns whether all is well."""
    killed = Build(program, folder, folder / "bank", "killed")
    killed_at = killed.kill_after(delay, chooser)
    resumed = Build(program, folder, folder / "bank", "resumed")
    resumed.wait()
    before: dict[str, float] = {}
    again: list[float] = []  # when images were read for the first time that were read twice
    for image, seconds in killed.reads() + resumed.reads():
        if image in before:
            again.append(before[image])
        else:
            before[image] = seconds
    too_old = [seconds for seconds in again if seconds < killed_at - MAX_REPEATED_S]
    same = resumed.shards() == shards
    left = [*folder.glob("data/**/incomplete.*"), *killed.workers_left()]
    print(
        f"{'worker' if chooser else 'build'} killed after {delay:.2f} s, {len(killed.reads())} read; resumed:"
        f" {len(resumed.reads())} read; {len(again)} twice ({len(too_old)} older than {MAX_REPEATED_S:.0f} s);"
        f" shards {'identical' if same else 'DIFFER'}{'; LEFT: ' + str(left) if left else ''}",
        flush=True,
    )
    return same and not too_old and not left


def main() -> int:
    """Returns 1 if a resumed build is not right."""
    program = Program(__doc__, runs=50)
    add = program.parser.add_argument
    add("--config", default="128px_all", help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    add("--slow-down", type=float, default=0.0, help="seconds added to each thumbnail (default: %(default)s)")
    with program:
        whole = Build(program, program.folder(), None, "whole")
        whole.wait()
        times, shards = sorted(seconds for _, seconds in whole.reads()), whole.shards()
        duration = times[-1] - times[0]
        print(f"undisturbed: {len(times)} thumbnails in {duration:.2f} s, {len(shards)} shards")
        chooser = random.Random(program.args.seed)
        right = []
        for number in range(program.args.runs):
            with temporary_folder(program.work) as folder:
                delay, of_worker = chooser.uniform(0, duration * 1.1), chooser if number % 2 else None
                right.append(kill_and_resume(program, Path(folder), delay, of_worker, shards))
        print(f"{sum(right)} of {len(right)} resumed builds right")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
