"""Whether a build stays as fast, and as small, when the table is large: bookkeeping, measured on tiny pictures.

    python -m benchmarks.scaling

It carries "Large tables" in docs/performance.md. Datasets of every image as anchor are built from corpora of two sizes;
each build is a process of its own. What its CPU time grows by from one size to the other, for each triplet, is what
bounds a machine of many cores; workers' time is theirs. ``--rows 1580470`` is the size of the competition, at which the
targets are 500 MiB for the parent and 200 for a worker that met plain JPEGs only.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import time

from benchmarks import builds
from benchmarks.corpus import make_tiny_corpus
from benchmarks.harness import Figures, PeakMemory, Program, in_fresh_process, print_figures, progress, ratio
from landmark_triplets_tfds import LandmarkTripletsConfig

RESOLUTION = 16


def build(corpus: Path, work: Path) -> Figures:
    """Builds all triplets of a corpus of tiny pictures."""
    config = LandmarkTripletsConfig(name=f"{RESOLUTION}px_all", resolution=RESOLUTION, images_per_landmark=None)
    builds.tfds()
    own_cpu_s, written = time.process_time(), _bytes_written()
    with PeakMemory() as memory:
        made, _ = builds.build(config, corpus, work / "data", bank=work / "bank")
    own_cpu_s, written = time.process_time() - own_cpu_s, _bytes_written() - written
    kept = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return {
        "triplets": made["number"],
        "triplets/s": made["a second"],
        "CPU s": made["CPU s"],
        "of the parent": own_cpu_s,
        "MiB of the parent": memory.own_bytes / 2**20,
        "of a worker": memory.largest_worker_bytes / 2**20,
        "bytes written / kept": written / kept,
    }


def _bytes_written() -> int:
    """Returns what this process and its children that have ended have written, pipes included; 0 if unknown."""
    path = Path("/proc/self/io")
    return int(path.read_text().partition("wchar: ")[2].split()[0]) if path.exists() else 0


def main() -> None:
    """Prints speed and memory by size."""
    program = Program(__doc__, runs=3, has_corpus=False)
    add = program.parser.add_argument
    add("--small", type=int, default=40_000, help="images of the small corpus (default: %(default)s)")
    add("--large", type=int, default=160_000, help="images of the large one (default: %(default)s)")
    add("--rows", type=int, help="images of one more build, whose memory is looked at")
    with program:
        args = program.args

        def build_of(size: int) -> Callable[[], Figures]:
            progress(f"making {size:,} tiny pictures")
            corpus = program.folder()
            make_tiny_corpus(corpus, size)
            return lambda: in_fresh_process(build, corpus, program.folder())

        small, large = (f"build of {size:,}" for size in (args.small, args.large))
        results = program.alternate({small: build_of(args.small), large: build_of(args.large)}, warm_up=False)
        if args.rows:
            results[f"build of {args.rows:,}"] = [build_of(args.rows)()]
    more = args.large - args.small
    pairs = zip(results[large], results[small], strict=True)
    each_us = [(run["of the parent"] - less["of the parent"]) / more * 1e6 for run, less in pairs]
    ratios = [
        (f"triplets/s: {large} / {small}", ratio(results, "triplets/s", large, small), ">= 0.9"),
        ("the parent's microseconds of CPU for each triplet more", each_us, "<= 15"),
    ]
    print_figures("process", results, ratios)


if __name__ == "__main__":
    main()
