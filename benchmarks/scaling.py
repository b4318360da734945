"""Whether a build stays as fast, and as small, when the table is large: bookkeeping, measured on tiny pictures.

    python -m benchmarks.scaling

It carries "Large tables" in docs/performance.md. Datasets of every image as anchor are built from corpora of two sizes;
each build is a process of its own. Thumbnails are 16 x 16 px, so that nearly all of the time is TFDS's and the
bookkeeping's. Memory is compared with TFDS's own writer fed constant records of the same number and size: it buffers up
to 1000 MiB of records by itself. ``--rows 1580470`` is the size of the competition.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from pathlib import Path
import statistics
from typing import Any

from benchmarks import builds, yardsticks
from benchmarks.corpus import NUM_COMPETITION_IMAGES, make_tiny_corpus
from benchmarks.harness import Measurement, PeakMemory, Program, Ratio, in_fresh_process, print_table, progress

RESOLUTION = 16
MIN_SPEED_RATIO = 0.9
MAX_EXTRA_BYTES = 512 << 20


def build(corpus: Path, work: Path, with_bank: bool) -> dict[str, Any]:
    """Builds all triplets of a corpus of tiny pictures."""
    from landmark_triplets_tfds import LandmarkTripletsConfig

    config = LandmarkTripletsConfig(name=f"{RESOLUTION}px_all", resolution=RESOLUTION, images_per_landmark=None)
    with PeakMemory() as memory:
        measurement, builder = builds.build(config, corpus, work / "data", bank=work / "bank" if with_bank else None)
    return _result(measurement, memory, builder.info.splits["train"].num_bytes)


def write_constants(num_triplets: int, num_bytes: int, work: Path) -> dict[str, Any]:
    """Writes constant records with TFDS's own writer."""
    builds.tfds()
    with PeakMemory() as memory:
        measurement = yardsticks.build_constant(num_triplets, num_bytes, work)
    return _result(measurement, memory, num_bytes)


def _result(measurement: Measurement, memory: PeakMemory, num_bytes: int) -> dict[str, Any]:
    return {
        "triplets": measurement.count,
        "bytes": num_bytes,
        "per_second": measurement.per_second,
        "cpu_us": measurement.cpu_s / measurement.count * 1e6,
        "peak_bytes": memory.peak_bytes,
    }


def measure(program: Program) -> dict[str, list[dict[str, Any]]]:
    """Builds and writes in processes of their own, the two sizes of the speed comparison in turns."""
    args = program.args
    results: dict[str, list[dict[str, Any]]] = {}

    def run(name: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        progress(name)
        results.setdefault(name, []).append(in_fresh_process(function, *arguments))

    def run_build(size: int) -> None:
        run(f"build of {size:,}", build, corpora[size], program.folder(), args.bank == "empty")

    corpora = {}
    for size in sorted({args.small, args.large, args.rows}):
        kept = args.corpora and args.corpora / f"tiny_{size}"
        corpora[size] = program.open_corpus(kept, functools.partial(make_tiny_corpus, num_images=size))
    for _ in range(args.runs):
        run_build(args.small)
        run_build(args.large)
    if args.rows not in (args.small, args.large):
        run_build(args.rows)
    largest = results[f"build of {args.rows:,}"][0]
    name = f"constant records, {args.rows:,}"
    run(name, write_constants, largest["triplets"], largest["bytes"], program.folder())
    return results


def main() -> None:
    """Prints speed and memory by size."""
    program = Program(__doc__, runs=3, has_corpus=False)
    add = program.parser.add_argument
    add("--small", type=int, default=10_000, help="images of the small corpus (default: %(default)s)")
    add("--large", type=int, default=160_000, help="images of the large one (default: %(default)s)")
    add("--rows", type=int, help="images of the build whose memory is compared (default: those of the large corpus)")
    add("--corpora", type=Path, metavar="DIR", help="keep the tiny pictures there, for other runs")
    add("--bank", choices=("empty", "off"), default="empty", help="(default: %(default)s)")
    with program:
        args = program.args
        args.rows = args.rows or args.large
        results = program.record["results"] = measure(program)
        rows = []
        for name, runs in results.items():
            speeds = [run["per_second"] for run in runs]
            figures = (
                min(speeds),
                statistics.median(speeds),
                max(speeds),
                statistics.median(run["cpu_us"] for run in runs),
            )
            peak = max(run["peak_bytes"] for run in runs) / 2**20
            rows.append((name, f"{runs[0]['triplets']:,}", *(f"{figure:,.0f}" for figure in (*figures, peak))))
        print_table(("process", "triplets", "triplets/s: min", "median", "max", "CPU us each", "peak MiB"), rows)
        small, large = results[f"build of {args.small:,}"], results[f"build of {args.large:,}"]
        values = [b["per_second"] / a["per_second"] for a, b in zip(small, large, strict=True)]
        label = f"triplets/s at {args.large:,} / at {args.small:,}"
        program.print_ratios([Ratio(label, values, at_least=MIN_SPEED_RATIO)])
        peak = max(run["peak_bytes"] for run in results[f"build of {args.rows:,}"])
        extra = program.record["extra_bytes"] = peak - results[f"constant records, {args.rows:,}"][0]["peak_bytes"]
        print(
            f"\nPeak memory at {args.rows:,} rows: {extra / 2**20:,.0f} MiB above TFDS's writer fed constant records"
            f" (target: at most {MAX_EXTRA_BYTES >> 20} MiB at {NUM_COMPETITION_IMAGES:,}:"
            f" {'met' if extra <= MAX_EXTRA_BYTES else 'missed'}{'' if args.rows >= 1_500_000 else ' at this size'})"
        )


if __name__ == "__main__":
    main()
