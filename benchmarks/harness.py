"""How things are measured: cases in turns, times and memory of all processes, and what is printed in the end.

Importing this module before TensorFlow silences its start-up messages and hides graphics cards, so that every
contestant runs on the same cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
import contextlib
import functools
import gc
import importlib.metadata
import multiprocessing
import os
from pathlib import Path
import platform
import re
import resource
import statistics
import sys
import tempfile
import threading
import time
from typing import Any

import loky
import numpy as np
import psutil

from benchmarks.corpus import multiply_corpus

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

_SECONDS_BETWEEN_SAMPLES = 0.5
_VERSIONS_SHOWN = ("tensorflow", "tensorflow-datasets", "numpy", "pandas", "simplejpeg", "opencv-python-headless")

Figures = dict[str, float]  # of one run, by what they are, as a table's header has it
Case = Callable[[], Figures]
Results = Mapping[str, Sequence[Figures]]


# --- Time


class Stopwatch:
    """Times the body of a ``with`` statement; CPU time is that of all threads and child processes."""

    def __enter__(self) -> Stopwatch:
        self.cpu_s = cpu_seconds()
        self.wall_s = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wall_s = time.perf_counter() - self.wall_s
        self.cpu_s = cpu_seconds() - self.cpu_s

    def figures(self, count: int) -> Figures:
        return {"number": count, "wall s": self.wall_s, "CPU s": self.cpu_s, "a second": count / self.wall_s}


def measure_each(do: Callable[[Any], object], items: Sequence[Any]) -> Figures:
    with Stopwatch() as watch:
        for item in items:
            do(item)
    return watch.figures(len(items))


# --- Processes: worker processes count like threads, for a build is no cheaper because its work happens next door.


def cpu_seconds() -> float:
    """Returns the CPU time, user and system, used so far by this process and all its children, living or ended."""
    seconds = time.process_time() + sum(os.times()[2:4])  # finer than the hundredths of a second of psutil
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended
            seconds += sum(process.cpu_times()[:4])  # its own, and those of its children that have ended
    return seconds


def _own_peak_bytes() -> int:
    """Returns the peak of this process, as the kernel knows it.

    On Linux from VmHWM and not from ru_maxrss, into which Linux carries the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class PeakMemory:
    """A context manager that finds the peak of resident memory, from start of the process to leaving the context.

    Living children are looked at every half second.

    Attributes:
      before_bytes: what this process occupied on entering.
      own_bytes: peak of this process.
      largest_worker_bytes: peak of the largest child that is a Python.
      peak_bytes: peak of this process plus peak of the sum of its children.
    """

    def __enter__(self) -> PeakMemory:
        self._this = psutil.Process()
        self.before_bytes = self.now_bytes()
        self.largest_worker_bytes = self._children_peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()
        self.own_bytes = _own_peak_bytes()
        self.peak_bytes = self.own_bytes + self._children_peak

    def now_bytes(self) -> int:
        return int(self._this.memory_info().rss)

    def _sample(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_SAMPLES):
            total = 0
            for process in self._this.children(recursive=True):
                with contextlib.suppress(psutil.Error):  # it has ended
                    size = process.memory_info().rss
                    total += size
                    if process.name().startswith("python"):
                        self.largest_worker_bytes = max(self.largest_worker_bytes, size)
            self._children_peak = max(self._children_peak, total)


def in_fresh_process(function: Callable[..., Figures], *arguments: Any) -> Figures:
    """Calls a function in a process that starts afresh, so that its peak of memory is that of the call alone."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- Reports


def ratio(results: Results, what: str, above: str, below: str, factor: float = 1.0) -> list[float]:
    """Divides a figure of two cases round by round; the factor is for cases that count different things."""
    pairs = zip(results.get(above, ()), results.get(below, ()), strict=False)  # one may not have been measured
    return [factor * run[what] / other[what] for run, other in pairs]


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


def _in_figures(value: float) -> str:
    if value != value:  # NaN: what this case does not have
        return ""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Returns the median, with minimum and maximum in brackets where these differ."""
    median, lowest, highest = map(_in_figures, (statistics.median(values), min(values), max(values)))
    return median if lowest == highest else f"{median} ({lowest} to {highest})"


def print_figures(what: str, results: Results, ratios: Iterable[tuple[str, Sequence[float], str]] = ()) -> None:
    """Prints a row for each case; and ratios: what is divided, the quotients of the rounds, their median's target."""
    names = next(iter(results.values()))[0]
    rows = [(case, *(spread([run[name] for run in runs]) for name in names)) for case, runs in results.items()]
    print_table((what, *names), rows)
    if rows := [(label, spread(values), target) for label, values, target in ratios if values]:
        print_table(("ratio, round by round", "median (lowest to highest)", "target"), rows)


def _describe_machine() -> str:
    """Returns what a reader needs to judge figures by: processor, usable cores, memory, load, versions."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = names[0] if names else platform.processor()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS_SHOWN)
    return (
        f"{processor}, {loky.cpu_count()} usable cores, {memory_bytes / 2**30:.1f} GiB,"
        f" load before {os.getloadavg()[0]:.2f}; Python {platform.python_version()}, {versions}"
    )


def temporary_folder(parent: Path | None) -> contextlib.AbstractContextManager[str]:
    """Gives a new folder below ``parent`` (None: the system's temporary folder) that is removed afterwards."""
    return tempfile.TemporaryDirectory(prefix="benchmark.", dir=parent, ignore_cleanup_errors=True)


class Program:
    """A program's options and the folders it works in. Options are added to `parser` before the context is entered."""

    args: argparse.Namespace
    work: Path  # is removed in the end

    def __init__(self, doc: str | None, *, runs: int = 5, has_corpus: bool = True):
        """Takes the program's docstring, the default number of rounds and whether it reads a corpus of pictures."""
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        self._stack = contextlib.ExitStack()
        add = self.parser.add_argument
        add("--runs", type=int, default=runs, help="rounds that count (default: %(default)s)")
        add("--no-warm-up", dest="warm_up", action="store_false", help="every round counts")
        add("--work", type=Path, metavar="DIR", help="where to build (default: the temporary folder)")
        if has_corpus:
            add("--corpus", type=Path, metavar="DIR", help="what `benchmarks.corpus` has made, or its like")
            add("--times", type=int, default=1, metavar="N", help="take each picture so often, under other ids")

    def __enter__(self) -> Program:
        self.args = self.parser.parse_args()
        if self.args.work:
            self.args.work.mkdir(parents=True, exist_ok=True)
        self.work = self.folder()
        print(_describe_machine())
        return self

    def __exit__(self, *exc_info: object) -> None:
        progress("")
        self._stack.close()

    def folder(self) -> Path:
        """Returns a new folder that is removed in the end."""
        return Path(self._stack.enter_context(temporary_folder(self.args.work))).resolve()

    @functools.cached_property
    def corpus(self) -> Path:
        """The folder with the competition's files, all read once, so that later reads come from the page cache."""
        folder: Path = self.args.corpus or self.parser.error("--corpus is needed; benchmarks.corpus makes one.")
        sizes = [len(path.read_bytes()) for path in folder.glob("train/*/*/*/*.jpg")]
        if not sizes:
            self.parser.error(f"--corpus {folder} holds no photographs; benchmarks.corpus makes a folder that does.")
        print(f"corpus: {len(sizes):,} images of {np.mean(sizes) / 1000:.0f} kB, {self.args.times} times", flush=True)
        if self.args.times > 1:
            multiply_corpus(folder.resolve(), self.args.times, corpus := self.folder())
            return corpus
        return folder.resolve()

    def alternate(self, cases: Mapping[str, Case], warm_up: bool = True) -> dict[str, list[Figures]]:
        """Runs every case once per round, for ``--runs`` rounds after a round that does not count.

        In turns, because a machine's speed drifts over minutes: what is compared is measured side by side. Every other
        round goes backwards, so that no case always follows the same one.
        """
        results: dict[str, list[Figures]] = {name: [] for name in cases}
        for round_number in range(0 if warm_up and self.args.warm_up else 1, self.args.runs + 1):
            for name in list(cases)[:: 1 if round_number % 2 else -1]:
                progress(f"round {round_number} of {self.args.runs}: {name}" if round_number else f"warm-up: {name}")
                gc.collect()  # what an earlier case left behind is not this one's cost
                result = cases[name]()
                if round_number:
                    results[name].append(result)
        progress("")
        return results
