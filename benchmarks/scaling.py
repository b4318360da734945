"""Whether a build stays as fast, and as small, when the table is large: bookkeeping, measured on tiny pictures.

Datasets of every image as anchor are built from corpora of two sizes; each build is a process of its own. Thumbnails
are 16 x 16 px, so that nearly all of the time is TFDS's and the bookkeeping's. Memory is compared with TFDS's own
writer fed constant records of the same number and size: it buffers up to 1000 MiB of records by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
import statistics
import time
from typing import Any

from benchmarks import builds, naive_builder, processes, report
from benchmarks.corpus import NUM_COMPETITION_IMAGES, open_tiny_corpus
from benchmarks.harness import Measurement, add_common_arguments, progress

RESOLUTION = 16
MIN_SPEED_RATIO = 0.9
MAX_EXTRA_BYTES = 512 << 20

_MODULE = "benchmarks.scaling"


def build_in_this_process(corpus: Path, work: Path, with_bank: bool) -> dict[str, Any]:
    """Builds all triplets of a corpus of tiny pictures."""
    from landmark_triplets_tfds import LandmarkTripletsConfig

    config = LandmarkTripletsConfig(name=f"{RESOLUTION}px_all", resolution=RESOLUTION, images_per_landmark=None)
    with processes.PeakMemory() as memory, builds.temporary_folder(work) as folder:
        bank = folder / "bank" if with_bank else None
        measurement, builder = builds.build(config, corpus, folder / "data", bank=bank)
    return _result(measurement, memory, builder.info.splits["train"].num_bytes)


def write_constants_in_this_process(num_triplets: int, num_bytes: int, work: Path) -> dict[str, Any]:
    """Writes constant records with TFDS's own writer."""
    builds.tfds()
    with processes.PeakMemory() as memory:
        measurement = naive_builder.build_constant(num_triplets, num_bytes, work)
    return _result(measurement, memory, num_bytes)


def _result(measurement: Measurement, memory: processes.PeakMemory, num_bytes: int) -> dict[str, Any]:
    return {
        "triplets": measurement.count,
        "bytes": num_bytes,
        "per_second": measurement.per_second,
        "cpu_us": measurement.cpu_s / measurement.count * 1e6,
        "peak_bytes": memory.peak_bytes,
    }


def measure(args: argparse.Namespace, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Builds and writes in child processes, the two sizes of the speed comparison in turns."""
    results: dict[str, list[dict[str, Any]]] = {}

    def child(name: str, *arguments: object) -> dict[str, Any]:
        progress(name)
        result = processes.run_child(_MODULE, "--child", *map(str, [*arguments, work, args.bank]))
        results.setdefault(name, []).append(result)
        progress("")
        print(
            f"{name}: {result['per_second']:,.0f} triplets/s, peak {result['peak_bytes'] / 2**20:,.0f} MiB", flush=True
        )
        return result

    with contextlib.ExitStack() as stack:
        corpora = {}
        for size in sorted({args.small, args.large, args.rows}):
            start = time.perf_counter()
            corpora[size] = stack.enter_context(open_tiny_corpus(args.corpora, size))
            print(f"corpus of {size:,} tiny pictures: ready in {time.perf_counter() - start:.0f} s", flush=True)
        for _ in range(args.runs):
            for size in (args.small, args.large):
                child(f"build of {size:,}", "build", corpora[size], 0)
        name = f"build of {args.rows:,}"
        largest = results[name][0] if name in results else child(name, "build", corpora[args.rows], 0)
        child(f"constant records, {args.rows:,}", "constant", largest["triplets"], largest["bytes"])
    progress("")
    return results


def main() -> None:
    """Prints speed and memory by size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, runs=3)
    parser.add_argument("--small", type=int, default=10_000, help="images of the small corpus (default: %(default)s)")
    parser.add_argument("--large", type=int, default=160_000, help="images of the large one (default: %(default)s)")
    parser.add_argument(
        "--rows",
        type=int,
        help="images of the build whose memory is compared (default: those of the large corpus;"
        f" the competition: {NUM_COMPETITION_IMAGES})",
    )
    parser.add_argument("--corpora", type=Path, metavar="DIR", help="keep the tiny pictures there, for other runs")
    parser.add_argument("--bank", choices=("empty", "off"), default="empty", help="(default: %(default)s)")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, first, second, work, bank = args.child
        if what == "build":
            result = build_in_this_process(Path(first), Path(work), bank == "empty")
        else:
            result = write_constants_in_this_process(int(first), int(second), Path(work))
        print(json.dumps(result))
        return

    args.rows = args.rows or args.large
    machine = report.describe_machine()
    report.print_machine(machine)
    with builds.temporary_folder(args.work) as work:
        results = measure(args, work)
    rows = []
    for name, runs in results.items():
        speeds = [run["per_second"] for run in runs]
        peak = max(run["peak_bytes"] for run in runs)
        cpu = statistics.median(run["cpu_us"] for run in runs)
        rows.append(
            (
                name,
                f"{runs[0]['triplets']:,}",
                f"{min(speeds):,.0f}",
                f"{statistics.median(speeds):,.0f}",
                f"{max(speeds):,.0f}",
                f"{cpu:.0f}",
                f"{peak / 2**20:,.0f}",
            )
        )
    report.print_table(("process", "triplets", "triplets/s: min", "median", "max", "CPU us each", "peak MiB"), rows)
    small, large = results[f"build of {args.small:,}"], results[f"build of {args.large:,}"]
    ratio = report.Ratio(
        f"triplets/s at {args.large:,} / at {args.small:,}",
        [b["per_second"] / a["per_second"] for a, b in zip(small, large, strict=True)],
        at_least=MIN_SPEED_RATIO,
    )
    report.print_ratios([ratio])
    peak = max(run["peak_bytes"] for run in results[f"build of {args.rows:,}"])
    extra = peak - results[f"constant records, {args.rows:,}"][0]["peak_bytes"]
    print(
        f"\nPeak memory at {args.rows:,} rows: {extra / 2**20:,.0f} MiB above TFDS's writer fed constant records"
        f" (target: at most {MAX_EXTRA_BYTES >> 20} MiB at {NUM_COMPETITION_IMAGES:,}:"
        f" {'met' if extra <= MAX_EXTRA_BYTES else 'missed'}{'' if args.rows >= 1_500_000 else ' at this size'})"
    )
    report.write_json(args.json, "scaling", machine=machine, results=results, ratios=[ratio], extra_bytes=extra)


if __name__ == "__main__":
    main()
