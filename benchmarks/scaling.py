"""Whether a build stays as fast, and as small, when the table is large: bookkeeping, measured on tiny pictures.

    python -m benchmarks.scaling

It carries "Large tables" in docs/performance.md. Datasets of every image as anchor are built from corpora of two sizes;
each build is a process of its own. Thumbnails are 16 x 16 px, so that nearly all of the time is TFDS's and the
bookkeeping's. Memory is compared with TFDS's own writer fed constant records of the same number and size: it buffers up
to 1000 MiB of records by itself. ``--rows 1580470`` is the size of the competition.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import builds, yardsticks
from benchmarks.corpus import NUM_COMPETITION_IMAGES, make_tiny_corpus
from benchmarks.harness import (
    Figures,
    Measurement,
    PeakMemory,
    Program,
    divide,
    in_fresh_process,
    print_figures,
    print_ratios,
    progress,
)

RESOLUTION = 16
MIN_SPEED_RATIO = 0.9
MAX_EXTRA_MIB = 512


def build(corpus: Path, work: Path) -> Figures:
    """Builds all triplets of a corpus of tiny pictures."""
    from landmark_triplets_tfds import LandmarkTripletsConfig

    config = LandmarkTripletsConfig(name=f"{RESOLUTION}px_all", resolution=RESOLUTION, images_per_landmark=None)
    with PeakMemory() as memory:
        measurement, builder = builds.build(config, corpus, work / "data", bank=work / "bank")
    return _figures(measurement, builder.info.splits["train"].num_bytes, memory)


def write_constants(num_triplets: int, num_bytes: int, work: Path) -> Figures:
    """Writes constant records with TFDS's own writer."""
    builds.tfds()
    with PeakMemory() as memory:
        measurement = yardsticks.build_constant(num_triplets, num_bytes, work)
    return _figures(measurement, num_bytes, memory)


def _figures(measurement: Measurement, num_bytes: int, memory: PeakMemory) -> Figures:
    return {
        "triplets": measurement.count,
        "bytes": num_bytes,
        "triplets/s": measurement.per_second,
        "peak MiB": memory.peak_bytes / 2**20,
    }


def main() -> None:
    """Prints speed and memory by size."""
    program = Program(__doc__, runs=3, has_corpus=False)
    add = program.parser.add_argument
    add("--small", type=int, default=10_000, help="images of the small corpus (default: %(default)s)")
    add("--large", type=int, default=160_000, help="images of the large one (default: %(default)s)")
    add("--rows", type=int, help="images of the build whose memory is compared (default: those of the large corpus)")
    with program:
        args, rows = program.args, program.args.rows or program.args.large

        def build_of(size: int) -> Callable[[], Figures]:
            progress(f"making {size:,} tiny pictures")
            corpus = program.folder()
            make_tiny_corpus(corpus, size)
            return lambda: in_fresh_process(build, corpus, program.folder())

        small, large, whole = (f"build of {size:,}" for size in (args.small, args.large, rows))
        results = program.alternate({small: build_of(args.small), large: build_of(args.large)}, warm_up=False)
        if whole not in results:
            results[whole] = [build_of(rows)()]
        size = (int(results[whole][0][what]) for what in ("triplets", "bytes"))
        results["constant records"] = [in_fresh_process(write_constants, *size, program.folder())]
    print_figures("process", results)
    of_large, of_small = ([run["triplets/s"] for run in results[name]] for name in (large, small))
    label = f"triplets/s at {args.large:,} / at {args.small:,}"
    print_ratios([(label, divide(of_large, of_small), f">= {MIN_SPEED_RATIO}")])
    whole_mib, constant_mib = (max(run["peak MiB"] for run in results[name]) for name in (whole, "constant records"))
    print(
        f"\nPeak memory at {rows:,} rows: {whole_mib - constant_mib:,.0f} MiB above TFDS's writer fed constant records"
        f" (target: at most {MAX_EXTRA_MIB} at {NUM_COMPETITION_IMAGES:,})"
    )


if __name__ == "__main__":
    main()
