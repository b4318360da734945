"""Ends builds in each of their phases and looks at what is left: the same bytes in the end, and no work done twice.

    python -m benchmarks.kill_resume --corpus CORPUS --runs 50

It carries "Kills" in docs/performance.md, and ends with status 1 if a build went wrong. Each round starts a build with
an empty bank, sees by its files which phase it is in, and sends a signal to it or to a worker at a random moment of the
phase. A build that has ended is started again, and then

* all files have the names that a build has left that was never disturbed, and the shards the same bytes;
* the only images made again are ones whose file was read less than a second before the signal;
* no worker is left, and after SIGTERM and SIGINT no unfinished file, even before the build is started again.

Of 50 rounds 20 fall into making thumbnails and 10 into each other phase, of which the last is from the report through
the renaming of the folder; 10 send SIGTERM or SIGINT, the others SIGKILL, 10 of these to a worker if there is one.
"""

from __future__ import annotations

from collections import Counter
import contextlib
import hashlib
import itertools
import multiprocessing
import os
from pathlib import Path
import random
import signal
import sys
import time

import numpy as np
import psutil

from benchmarks import builds
from benchmarks.harness import Program, print_table, temporary_folder

MAX_REPEATED_S = 1.0
MAX_TRIES = 30
TOO_OLD = f"of these over {MAX_REPEATED_S:.0f} s before"
COLUMNS = ("killed", "SIGTERM or SIGINT", "equal", "leftovers", "images read", "read twice", TOO_OLD)

# Phases of a build, and what is in the path of the first file or folder that it makes in each of them.
SIGNS = {"planning": "/incomplete.", "thumbnails": "/images-", "shards": "-of-", "renaming": "/build_report.json"}
PHASES = ("planning", "thumbnails", "shards", "thumbnails", "renaming")
WORKER, ENDED_BY_HAND = "worker", ("SIGTERM", "SIGINT")
SIGNALS = ("SIGKILL", WORKER, "SIGTERM", "SIGKILL", "SIGKILL", "SIGKILL", WORKER, "SIGINT", "SIGKILL", "SIGKILL")


def build(config: str, corpus: Path, folder: Path, bank: Path | None, log: Path, slow_down: float) -> None:
    """Builds in this process and its workers; appends time and id of every image that is read to ``log``."""
    from landmark_triplets_tfds.common import worker_pool

    vars(worker_pool)["_WORTH_S"] = 0.0  # a small corpus is to have workers too
    builds.build(config, corpus, folder / "data", bank=bank, workers=2, slow_down=slow_down, log=log, num_shards=4)


class Build:
    """A build in a process of its own, with its log."""

    def __init__(self, program: Program, folder: Path, bank: Path | None, name: str):
        self.folder, self.log = folder, folder / f"{name}.log"
        arguments = (program.args.config, program.corpus, folder, bank, self.log, program.args.slow_down)
        self.process = multiprocessing.get_context("spawn").Process(target=build, args=arguments)
        self.process.start()

    def phase(self) -> str:
        """Returns the phase that the build is in; '' before the first one, and when its folder has been renamed."""
        paths = ""
        for folder, folders, files in os.walk(self.folder / "data"):  # it minds no folder that goes meanwhile
            folder = folder.removeprefix(str(self.folder))
            if "/.config" not in folder:  # where TFDS has unfinished files for a moment
                found = (f"{folder}/{each}\n" for each in folders + files)
                paths += "".join(path for path in found if "/incomplete." in path)
        return next((phase for phase, sign in reversed(SIGNS.items()) if sign in paths), "")

    def watch(self, until: str = "end") -> dict[str, float]:
        """Waits for a phase, or for the end; returns when each phase was seen first, and the end of the last one."""
        seen: dict[str, float] = {}
        while self.process.is_alive() and until not in seen:
            phase = self.phase()
            seen.setdefault(phase or ("end" if len(seen) > 1 else "start"), time.time())
            time.sleep(0.0005)
        seen.setdefault("end", time.time())
        return seen

    def signal(self, how: str) -> list[psutil.Process]:
        """Sends a signal to the build, or SIGKILL to a worker if there is one; returns workers that outlive it."""
        workers: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            this = psutil.Process(self.process.pid)
            workers += [each for each in this.children() if any("popen_loky" in word for word in each.cmdline())]
            number = signal.SIGKILL if how == WORKER else signal.Signals[how]
            (workers[0] if how == WORKER and workers else this).send_signal(number)
        self.process.join()
        left: list[psutil.Process] = psutil.wait_procs(workers, timeout=60)[1]  # one may be starting yet
        return left

    def reads(self) -> list[tuple[str, float]]:
        """Returns which images were read, and when."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(image, float(seconds)) for seconds, image in map(str.split, lines)]

    def files(self) -> dict[str, object]:
        """Returns the sha256 of every shard, by name, and False for every other file that is there."""
        paths = [path for path in self.folder.glob("data/**/*") if path.is_file()]
        hashes = ("-of-" in path.name and hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
        return dict(zip((str(path.relative_to(self.folder)) for path in paths), hashes, strict=True))


def kill_and_resume(
    program: Program, phase: str, delay: float, how: str, files: dict[str, object]
) -> Counter[str] | None:
    """Plays one round; returns what is to be counted, None if the phase was over before the signal."""
    with temporary_folder(program.work) as name:
        folder = Path(name)
        killed = Build(program, folder, folder / "bank", "killed")
        killed.watch(until=phase)
        time.sleep(delay)
        killed_at = time.time()
        if killed.phase() != phase:
            killed.process.join()
            return None
        left: list[object] = list(killed.signal(how))
        if how in ENDED_BY_HAND:
            left += folder.glob("data/*/*/incomplete.*")
        resumed = Build(program, folder, folder / "bank", "resumed")
        resumed.process.join()
        found, first, again = resumed.files(), dict[str, float](), list[float]()
        for image, seconds in killed.reads() + resumed.reads():
            if first.setdefault(image, seconds) != seconds:
                again.append(first[image])
        left += found.keys() - files.keys()
        too_old = sum(seconds < killed_at - MAX_REPEATED_S for seconds in again)
        is_equal = files.items() <= found.items()
        print(f"{phase}, {how} after {delay:.3f} s: {len(again)} images twice, {too_old} too old, {is_equal=}, {left=}")
        values = (1, how in ENDED_BY_HAND, is_equal, bool(left), len(first), len(again), too_old)
        return Counter(dict(zip(COLUMNS, map(int, values), strict=True)))


def main() -> int:
    """Returns 1 if a resumed build is not right."""
    program = Program(__doc__, runs=50)
    add = program.parser.add_argument
    add("--config", default="128px_all", help="(default: %(default)s)")
    add("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    add("--slow-down", type=float, default=0.0, help="seconds added to each thumbnail (default: %(default)s)")
    with program:
        whole = Build(program, program.folder(), None, "whole")
        seen, files = whole.watch(), whole.files()
        names = [*SIGNS, "end"]
        starts = [seen.get(name, seen["end"]) for name in names]  # a phase may have been too short to be seen
        lengths = dict(zip(SIGNS, np.diff(starts).tolist(), strict=True))
        print("undisturbed:", ", ".join(f"{name} {seconds:.3f} s" for name, seconds in lengths.items()))
        chooser, counted = random.Random(program.args.seed), dict[str, Counter[str]]()
        for how, phase in itertools.islice(itertools.product(SIGNALS, PHASES), program.args.runs):
            for attempt in range(1, MAX_TRIES + 1):  # a busy machine was slower when it was measured, or is now
                delay = chooser.uniform(0, lengths[phase]) / attempt
                if found := kill_and_resume(program, phase, delay, how, files):
                    counted.setdefault(phase, Counter()).update(found)
                    break
            else:
                raise RuntimeError(f"No build was met while {phase}.")
        counted["all"] = sum(counted.values(), Counter[str]())
        rows = [(phase, *(counts[name] for name in COLUMNS)) for phase, counts in counted.items()]
        print_table(("phase", *COLUMNS), rows)
    every = counted["all"]
    return 0 if every["equal"] == every["killed"] and not every["leftovers"] + every[TOO_OLD] else 1


if __name__ == "__main__":
    sys.exit(main())
