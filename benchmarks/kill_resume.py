"""Kills builds at random moments and looks at what is left: the same bytes in the end, and next to no work done twice.

    python -m benchmarks.kill_resume --corpus CORPUS --runs 50

It carries "Kills" in docs/performance.md, and ends with status 1 if a build went wrong. Each round starts a build with
an empty bank, sends it SIGKILL at a random moment after its first thumbnail, starts it again, and checks that

* the shards are those of a build that was never disturbed, byte for byte;
* the only images encoded again are ones whose first encoding ended less than a second before the kill;
* nothing of the killed build is left beside the dataset.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from pathlib import Path
import random
import sys
import time

from benchmarks import builds
from benchmarks.harness import Program, temporary_folder

MAX_REPEATED_S = 1.0


def build(config: str, corpus: Path, folder: Path, bank: Path | None, log: Path, slow_down: float) -> None:
    """Builds in this process; appends time and image of every thumbnail made to ``log``."""
    from landmark_triplets_tfds.thumbnails import maker
    from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def make_and_log(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
        thumbnail = make_thumbnail(image_bytes, spec)
        time.sleep(slow_down)
        os.write(log_file, f"{time.time()} {hashlib.sha256(image_bytes).hexdigest()}\n".encode())
        return thumbnail

    vars(maker)["make_thumbnail"] = make_and_log
    builds.build(config, corpus, folder / "data", bank=bank, num_shards=4)


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

    def kill_after(self, seconds: float) -> float:
        """Sends SIGKILL so long after the first thumbnail; returns when that was."""
        while not (self.log.exists() and self.log.stat().st_size) and self.process.is_alive():
            time.sleep(0.005)
        time.sleep(seconds)
        self.process.kill()
        killed_at = time.time()
        self.process.join()
        return killed_at

    def encoded(self) -> dict[str, float]:
        """Returns when each image was encoded, by the hash of its bytes."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return {image: float(seconds) for seconds, image in map(str.split, lines)}

    def shards(self) -> dict[str, str]:
        """Returns the sha256 of every shard, by name."""
        paths = sorted(path for path in self.folder.glob("data/**/*-of-*") if path.is_file())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kill_and_resume(program: Program, folder: Path, delay: float, shards: dict[str, str]) -> bool:
    """Plays one round and prints what came of it; returns whether all is well."""
    killed = Build(program, folder, folder / "bank", "killed")
    killed_at = killed.kill_after(delay)
    resumed = Build(program, folder, folder / "bank", "resumed")
    resumed.wait()
    before, after = killed.encoded(), resumed.encoded()
    repeated = before.keys() & after.keys()
    too_old = [image for image in repeated if before[image] < killed_at - MAX_REPEATED_S]
    same = resumed.shards() == shards
    left = list(folder.glob("data/**/incomplete.*"))
    print(
        f"killed after {delay:.2f} s, {len(before)} encoded; resumed: {len(after)} encoded,"
        f" {len(repeated)} of them again ({len(too_old)} older than {MAX_REPEATED_S:.0f} s);"
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
        times, shards = sorted(whole.encoded().values()), whole.shards()
        duration = times[-1] - times[0]
        print(f"undisturbed: {len(times)} thumbnails in {duration:.2f} s, {len(shards)} shards")
        chooser = random.Random(program.args.seed)
        right = []
        for _ in range(program.args.runs):
            with temporary_folder(program.work) as folder:
                right.append(kill_and_resume(program, Path(folder), chooser.uniform(0, duration * 1.1), shards))
        print(f"{sum(right)} of {len(right)} resumed builds right")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
