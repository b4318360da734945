"""What all benchmarks share: timers, alternating runs, common options.

Importing this module before TensorFlow silences its start-up messages and hides graphics cards, so that every
contestant runs on the same cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import gc
import itertools
import os
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks import processes

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run did.

    Attributes:
      count: of triplets, images or rows.
      wall_s: elapsed time.
      cpu_s: CPU time, user and system, of all threads and child processes.
    """

    count: int
    wall_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.count / self.wall_s

    def plus(self, other: Measurement, share: float) -> Measurement:
        """Adds a share of another measurement's time, for work that was done once for many such runs."""
        return Measurement(self.count, self.wall_s + share * other.wall_s, self.cpu_s + share * other.cpu_s)


class Stopwatch:
    """Times the body of a ``with`` statement; `measurement` is there afterwards."""

    def __init__(self, *, collect: bool = True):
        """Takes whether to collect garbage first: what an earlier run left behind is not this one's cost."""
        self._collect = collect

    def __enter__(self) -> Stopwatch:
        if self._collect:
            gc.collect()
        self._cpu = processes.cpu_seconds()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = processes.cpu_seconds() - self._cpu

    def measurement(self, count: int) -> Measurement:
        return Measurement(count, self._wall, self._cpu)


class NotAvailableError(Exception):
    """The installed package lacks what a case measures; the message says what."""


Case = Callable[[], Measurement]


@dataclasses.dataclass
class Results:
    """Measurements of several cases, taken in turns.

    Attributes:
      measurements: by name of the case, in order of the rounds.
      skipped: reasons by name of the case.
    """

    measurements: dict[str, list[Measurement]] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


def alternate(cases: Mapping[str, Case], runs: int, warm_up: bool = True) -> Results:
    """Runs every case once per round, for ``runs`` rounds after a round that does not count.

    In turns, because a machine's speed drifts over minutes: what is compared is measured side by side. Every other
    round goes backwards, so that no case always follows the same one.
    """
    results = Results()
    left = dict(cases)
    for round_number in range(0 if warm_up else 1, runs + 1):
        names = list(left) if round_number % 2 else list(left)[::-1]
        for name in names:
            label = f"round {round_number} of {runs}" if round_number else "warm-up"
            progress(f"{label}: {name}")
            try:
                measurement = left[name]()
            except NotAvailableError as error:
                results.skipped[name] = str(error)
                del left[name]
                continue
            if round_number:
                results.measurements.setdefault(name, []).append(measurement)
    progress("")
    results.measurements = {name: results.measurements[name] for name in cases if name in results.measurements}
    return results


def progress(text: str) -> None:
    """Shows what is going on, on stderr and only to people."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measure_batches(batches: Iterable[Any], names: Sequence[str], num_before: int) -> Measurement:
    """Reads all batches, dicts with arrays; counts what is under ``names`` in those after the first ``num_before``."""
    gc.collect()
    iterator = iter(batches)
    for _ in itertools.islice(iterator, num_before):
        pass
    count = 0
    with Stopwatch(collect=False) as watch:  # a pause here would let the pipeline run ahead of the clock
        for batch in iterator:
            count += sum(len(batch[name]) for name in names)
    if hasattr(iterator, "close"):
        iterator.close()  # ends Grain's worker processes
    return watch.measurement(count)


def add_common_arguments(parser: argparse.ArgumentParser, runs: int = 5) -> None:
    parser.add_argument("--runs", type=int, default=runs, help="rounds that count (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements there too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where to build (default: the temporary folder)")
