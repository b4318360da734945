"""Damaged images, tables and archives through the code of a build: no crash, no hang, bounded memory, clear errors.

The cases run one after the other in a process of their own, which this one watches: a case that ends the process or
takes more than `MAX_SECONDS` of CPU time is noted, and where it does not end the rest goes on in a new process. Each
case is made from its number, so that any of them can be run again: ``--kind zip --first 123 --count 1``.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import multiprocessing
from multiprocessing.connection import Connection
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from benchmarks import harness

MAX_SECONDS = 5.0
MAX_BYTES = 2 << 30

COUNTS = {"image": 10_000, "table": 1_000, "zip": 1_000, "tar": 1_000}

_SLOW = "WRONG: more than 5 s of CPU time"
_HANG = "WRONG: not done within 30 s"
_CRASH = "WRONG: the process ended"
_HANG_SECONDS = 30.0  # of wall time: other programs may be using the cores
_START_SECONDS = 120.0  # imports, TensorFlow's among them


@dataclasses.dataclass
class Findings:
    """What came of the cases of one kind.

    Attributes:
      outcomes: how many cases ended in which way.
      wrong: the number of each case that must not end as it did, with what happened.
      slowest_s: the longest CPU time that a case took.
      slowest: the number of that case.
      peak_bytes: of resident memory, with the imports.
    """

    outcomes: Counter[str] = dataclasses.field(default_factory=Counter)
    wrong: dict[int, str] = dataclasses.field(default_factory=dict)
    slowest_s: float = 0.0
    slowest: int = -1
    peak_bytes: int = 0


def run(kind: str, first: int, count: int) -> Findings:
    """Runs cases of one kind and returns what came of them."""
    findings = Findings()
    number = first
    while number < first + count:
        with (
            tempfile.TemporaryDirectory(prefix="fuzz.") as folder,
            _started(kind, number, first + count, folder) as pipe,
        ):
            for outcome, seconds, peak_bytes in _watch(pipe):
                findings.outcomes[outcome.split(":")[0] if outcome.startswith("WRONG") else outcome] += 1
                if seconds > findings.slowest_s:
                    findings.slowest_s, findings.slowest = seconds, number
                findings.peak_bytes = max(findings.peak_bytes, peak_bytes)
                if outcome.startswith("WRONG"):
                    findings.wrong[number] = outcome
                number += 1
                harness.progress(f"{kind}: {number - first:,} of {count:,}")
                if number == first + count:
                    break
    harness.progress("")
    return findings


@contextlib.contextmanager
def _started(kind: str, first: int, end: int, folder: str) -> Iterator[Connection]:
    """Starts a process that runs cases, and yields the pipe by which it tells of each."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_cases, args=(kind, first, end, folder, sending), daemon=True)
    process.start()
    sending.close()
    try:
        yield receiving
    finally:
        process.kill()
        process.join()
        receiving.close()


def _watch(pipe: Connection) -> Iterator[tuple[str, float, int]]:
    """Yields outcome, CPU seconds and peak memory of each case, until one hangs or ends the process."""
    limit = _START_SECONDS  # until the process says that it is ready
    while True:
        started = time.perf_counter()
        try:
            if not pipe.poll(limit):
                yield _HANG, time.perf_counter() - started, 0
                return
            message = pipe.recv()
        except EOFError:
            yield _CRASH, time.perf_counter() - started, 0
            return
        limit = _HANG_SECONDS
        if message is None:
            continue
        outcome, seconds, peak_bytes = message
        yield _SLOW if seconds > MAX_SECONDS else outcome, seconds, peak_bytes


def _run_cases(kind: str, first: int, end: int, folder: str, pipe: Connection) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what codecs say of damaged files
    from landmark_triplets_tfds.common.tensorflow_ops import run_tensorflow
    from tests.fuzz import fuzz_cases

    if kind != "table":
        run_tensorflow("decode_jpeg", fuzz_cases.base_images()[0])  # the first file that needs it would wait for it
    pipe.send(None)
    for number in range(first, end):
        started = time.process_time()
        with harness.PeakMemory() as memory:
            outcome = fuzz_cases.run_case(kind, number, Path(folder) / str(number))
        pipe.send((outcome, time.process_time() - started, memory.peak_bytes))


def is_right(findings: Findings) -> bool:
    """Returns whether nothing went wrong and memory stayed within bounds."""
    return not findings.wrong and findings.peak_bytes <= MAX_BYTES


def _describe(kind: str, findings: Findings) -> str:
    lines = [
        f"{kind}: {findings.outcomes.total():,} cases, the slowest ({findings.slowest}) {findings.slowest_s:.2f} s,"
        f" peak {findings.peak_bytes / 1e6:,.0f} MB"
    ]
    lines += [f"  {count:6,} {outcome}" for outcome, count in findings.outcomes.most_common()]
    lines += [f"  case {number}: {what}" for number, what in list(findings.wrong.items())[:20]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(COUNTS), action="append", help="only this kind (may be given again)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument("--count", type=int, help="cases of each kind (default: 10,000 images, 1,000 of the others)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the findings there too")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    all_right = True
    for kind in arguments.kind or COUNTS:
        findings = run(kind, arguments.first, arguments.count or COUNTS[kind])
        print(_describe(kind, findings), flush=True)
        found[kind] = vars(findings)
        all_right = all_right and is_right(findings)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if all_right:
        print(
            f"No crash, no case over {MAX_SECONDS:.0f} s of CPU time, no peak of memory over {MAX_BYTES / 1e9:.1f} GB,"
            " no error that a build would not report."
        )
    else:
        print("Something went wrong, see above.")
    sys.exit(not all_right)


if __name__ == "__main__":
    main()
