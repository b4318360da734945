"""How things are measured: cases in turns, times and memory of all processes, and what is printed in the end.

Importing this module before TensorFlow silences its start-up messages and hides graphics cards, so that every
contestant runs on the same cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
import itertools
import json
import multiprocessing
import os
from pathlib import Path
import platform
import resource
import statistics
import sys
import tempfile
import threading
import time
from typing import Any, TypeVar

import loky
import numpy as np
import psutil

from benchmarks import corpus

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_SECONDS_BETWEEN_SAMPLES = 0.5
_VERSIONS_SHOWN = ("tensorflow", "tensorflow-datasets", "numpy", "pandas", "simplejpeg", "imagecodecs")

_Result = TypeVar("_Result")


# --- Time


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
        self._cpu = cpu_seconds()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._wall = time.perf_counter() - self._wall
        self._cpu = cpu_seconds() - self._cpu

    def measurement(self, count: int) -> Measurement:
        return Measurement(count, self._wall, self._cpu)


class NotAvailableError(Exception):
    """A case needs what is not installed; the message says what."""


Case = Callable[[], Measurement]
Results = Mapping[str, Sequence[Measurement]]


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


# --- Processes: worker processes count like threads, for a build is no cheaper because its work happens next door.


def cpu_seconds() -> float:
    """Returns the CPU time, user and system, used so far by this process and all its children, living or ended."""
    this, seconds = psutil.Process(), 0.0
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            seconds += sum(process.cpu_times()[:4])  # its own, and those of its children that have ended
    return seconds


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """Returns the memory that processes occupy together."""
    num_bytes = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            num_bytes += process.memory_info().rss
    return num_bytes


def _own_peak_bytes() -> int:
    """Returns the peak of this process, as the kernel knows it.

    On Linux from VmHWM and not from ru_maxrss, into which Linux carries the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class PeakMemory:
    """A context manager that finds the peak of resident memory, from start of the process to leaving the context.

    Living children are looked at every half second.

    Attributes:
      before_bytes: what this process occupied on entering.
      peak_bytes: peak of this process plus peak of the sum of its children.
    """

    def __enter__(self) -> PeakMemory:
        self._this = psutil.Process()
        self.before_bytes = self.now_bytes()
        self.peak_bytes = self._children_peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = _own_peak_bytes() + self._children_peak

    @property
    def added_bytes(self) -> int:
        return self.peak_bytes - self.before_bytes

    def now_bytes(self) -> int:
        return resident_bytes([self._this])

    def _sample(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_SAMPLES):
            self._children_peak = max(self._children_peak, resident_bytes(self._this.children(recursive=True)))


def in_fresh_process(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Calls a function in a process that starts afresh, so that its peak of memory is that of the call alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- Reports


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A quotient of two cases, one value per round, and the project's target for its median."""

    label: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None

    def row(self) -> list[str]:
        median = statistics.median(self.values)
        target = verdict = ""
        if self.at_least is not None:
            target, verdict = f">= {self.at_least:g}", "met" if median >= self.at_least else "missed"
        elif self.at_most is not None:
            target, verdict = f"<= {self.at_most:g}", "met" if median <= self.at_most else "missed"
        return [self.label, *(f"{v:.2f}" for v in (min(self.values), median, max(self.values))), target, verdict]


def ratios(
    results: Results,
    label: str,
    above: str,
    below: str,
    what: str = "per_second",
    *,
    factor: float = 1,
    **target: float,
) -> list[Ratio]:
    """Divides two cases round by round.

    Args:
      results: of both, if they were measured.
      label: what the quotient is.
      above: name of one case.
      below: name of the other.
      what: attribute of `Measurement` that is divided.
      factor: by which the quotient is multiplied, for cases that count different things.
      **target: ``at_least`` or ``at_most``.

    Returns:
      One ratio; none if a case is missing.
    """
    if above not in results or below not in results:
        return []
    pairs = zip(results[above], results[below], strict=True)
    return [Ratio(label, [factor * getattr(a, what) / getattr(b, what) for a, b in pairs], **target)]


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a Markdown table; all columns but the first are right-aligned."""
    lines = [header, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))]
        print("| " + " | ".join(cells) + " |")
        if not number:
            print("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")


def progress(text: str) -> None:
    """Shows what is going on, on stderr and only to people."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Returns the median, with minimum and maximum in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def _describe_machine() -> dict[str, Any]:
    """Returns what a reader needs to judge figures by: processor, usable cores, memory, load, versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "usable_cores": loky.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_SHOWN},
    }


def temporary_folder(parent: Path | None) -> contextlib.AbstractContextManager[str]:
    """Gives a new folder below ``parent`` (None: the system's temporary folder) that is removed afterwards."""
    return tempfile.TemporaryDirectory(prefix="benchmark.", dir=parent, ignore_cleanup_errors=True)


def _encode(value: Any) -> Any:
    """Returns what JSON has for something it knows nothing of."""
    return dataclasses.asdict(value) if isinstance(value, Measurement | Ratio) else str(value)


class Program:
    """A program's options, the folders it works in, and its report. As a context manager, from start to end.

    Attributes:
      parser: to add options to, before the context is entered.
      args: the options.
      work: a folder that is removed in the end.
      record: what `--json` writes in the end, as far as the program puts it there.
    """

    args: argparse.Namespace
    work: Path

    def __init__(self, doc: str | None, *, runs: int = 5, has_corpus: bool = True):
        """Takes the program's docstring, the default number of rounds and whether it reads a corpus of pictures."""
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._stack = contextlib.ExitStack()
        self.record: dict[str, Any] = {"benchmark": Path(sys.argv[0]).stem}
        add = self.parser.add_argument
        add("--runs", type=int, default=runs, help="rounds that count (default: %(default)s)")
        add("--json", type=Path, metavar="FILE", help="write all measurements there too")
        add("--work", type=Path, metavar="DIR", help="where to build (default: the temporary folder)")
        if has_corpus:
            where = "use the corpus in this folder; made there, and kept, if there is none (default: a temporary one)"
            add("--corpus", type=Path, metavar="DIR", help=where)
            add("--photos", type=Path, metavar="DIR", help="make it of the photographs below this folder, not drawn")
            size = "landmarks of the corpus that is made, 6.5 images each (default: %(default)s)"
            add("--landmarks", type=int, default=corpus.DEFAULT_NUM_LANDMARKS, metavar="N", help=size)

    def __enter__(self) -> Program:
        self.args = self.parser.parse_args()
        machine = self.record["machine"] = _describe_machine()
        if self.args.work:
            self.args.work.mkdir(parents=True, exist_ok=True)
        self.work = self.folder().resolve()
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        print(
            f"{machine['processor']}, {machine['usable_cores']} usable cores, {machine['memory_gib']} GiB,"
            f" load before {machine['load_before']}; Python {machine['python']}, {versions}"
        )
        return self

    def __exit__(self, error: object, *exc_info: object) -> None:
        progress("")
        self._stack.close()
        if error is None and self.args.json:
            self.args.json.write_text(json.dumps(self.record, indent=2, default=_encode) + "\n", encoding="utf-8")
            print(f"\nWritten to {self.args.json}")

    def folder(self) -> Path:
        """Returns a new folder that is removed in the end."""
        return Path(self._stack.enter_context(temporary_folder(self.args.work)))

    @functools.cached_property
    def corpus(self) -> Path:
        """The folder with the competition's files, all read once, so that later reads come from the page cache."""
        args = self.args
        folder = self.open_corpus(args.corpus, lambda it: corpus.make_picture_corpus(it, args.photos, args.landmarks))
        sizes = [len(path.read_bytes()) for path in folder.glob("train/*/*/*/*.jpg")]
        self.record["corpus"] = {"num_images": len(sizes), "num_bytes": sum(sizes)}
        print(f"corpus: {len(sizes):,} images of {np.mean(sizes) / 1000:.0f} kB", flush=True)
        return folder

    def open_corpus(self, kept: Path | None, make: Callable[[Path], object]) -> Path:
        """Returns a folder with a corpus: ``kept``, where it is made if it is missing; None: a temporary one."""
        folder = (kept or self.folder()).resolve()
        if not (folder / "train.csv").exists():
            progress("making a corpus")
            folder.mkdir(parents=True, exist_ok=True)
            make(folder)
            progress("")
        return folder

    def alternate(self, cases: Mapping[str, Case], warm_up: bool = True) -> Results:
        """Runs every case once per round, for ``--runs`` rounds after a round that does not count.

        In turns, because a machine's speed drifts over minutes: what is compared is measured side by side. Every other
        round goes backwards, so that no case always follows the same one.

        Returns:
          The measurements by name of the case, in the order of the rounds; without cases that are not available.
        """
        results: dict[str, list[Measurement]] = {name: [] for name in cases}
        for round_number in range(0 if warm_up else 1, self.args.runs + 1):
            for name in list(results)[:: 1 if round_number % 2 else -1]:
                progress(f"round {round_number} of {self.args.runs}: {name}" if round_number else f"warm-up: {name}")
                try:
                    measurement = cases[name]()
                except NotAvailableError as error:
                    print(f"skipped {name}: {error}")
                    del results[name]
                    continue
                if round_number:
                    results[name].append(measurement)
        progress("")
        self.record["results"] = results
        return results

    def print_measurements(self, results: Results, units: Mapping[str, str] | str) -> None:
        """Prints wall and CPU time (medians) and speed (min, median, max) of every case, and what its ``units`` are."""
        rows = []
        for name, runs in results.items():
            speeds = [run.per_second for run in runs]
            unit = units if isinstance(units, str) else units[name]
            times = [statistics.median(getattr(run, what) for run in runs) for what in ("wall_s", "cpu_s")]
            speed = [f"{value:,.0f}" for value in (min(speeds), statistics.median(speeds), max(speeds))]
            rows.append([name, f"{runs[0].count:,} {unit}", *(f"{seconds:.2f}" for seconds in times), *speed])
        print_table(("case", "of", "wall s", "CPU s", "a second: min", "median", "max"), rows)

    def print_ratios(self, ratios: Sequence[Ratio]) -> None:
        """Prints and records ratios, if there are any."""
        self.record["ratios"] = ratios
        if ratios:
            rows = [ratio.row() for ratio in ratios]
            print_table(("ratio, round by round", "min", "median", "max", "target", ""), rows)
