"""Does `landmark-triplets forecast` come true? Each forecast beside the build that it forecasts.

In every round the sample of images is another one, so that the spread shows the luck of the sample too. Counts have to
be equal, bytes of the dataset within 5 %, CPU-seconds within 25 %; the program ends with status 1 if the median of a
config is not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import statistics
import sys
import time
from typing import Any

from benchmarks import builds, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import add_common_arguments, progress

DEFAULT_CONFIGS = (
    "64px",
    "128px",
    "128px_all",
    "128px_area_all",
    "256px",
    "512px_1per",
    "landmark_images/128px_all",
)
_MOST_BYTES_OFF, _MOST_CPU_OFF = 0.05, 0.25


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A forecast and the build; ratios are forecast / build."""

    config: str
    forecast_examples: int
    examples: int
    forecast_images: int
    images: int
    bytes_ratio: float
    bank_ratio: float
    cpu_ratio: float
    wall_ratio: float
    build_bytes: int
    build_cpu_s: float
    build_wall_s: float
    forecast_wall_s: float


def compare(config: str, corpus: Path, work: Path, *, num_sampled: int, seed: int) -> Comparison:
    """Forecasts a build of a config, builds it and compares."""
    builds.tfds()
    from etils import epath

    from landmark_triplets_tfds.build.options import BuildOptions
    from landmark_triplets_tfds.commands.datasets import find_config
    from landmark_triplets_tfds.commands.forecast.forecast import Forecaster
    from landmark_triplets_tfds.competition.source import find_source

    choice = find_config(config, builds.DATASET)
    options = dataclasses.replace(BuildOptions.from_environment(), bank=os.fspath(work / "bank"))
    started = time.perf_counter()
    source = find_source(epath.Path(corpus), options.bank)
    source.prepare(options.num_readers(False), lambda num_done, num_all: None)
    forecaster = Forecaster(source, options, num_sampled=num_sampled, seed=seed)
    with builds.quiet():
        made = forecaster.forecast(choice)
    forecast_wall_s = time.perf_counter() - started
    with builds.temporary_folder(work) as folder:
        measured, builder = builds.build(
            choice.config, corpus, folder / "data", bank=folder / "bank", dataset=choice.dataset
        )
        num_bytes = sum(path.stat().st_size for path in Path(builder.data_dir).iterdir())
        bank_bytes = sum(path.stat().st_size for path in (folder / "bank").iterdir())
    return Comparison(
        config=config,
        forecast_examples=made.total_examples,
        examples=sum(split.num_examples for split in builder.info.splits.values()),
        forecast_images=made.num_images,
        images=builder.info.metadata["counts"]["num_images_read"],
        bytes_ratio=made.num_bytes / num_bytes,
        bank_ratio=made.num_bank_bytes / bank_bytes,
        cpu_ratio=made.cpu_s / measured.cpu_s,
        wall_ratio=made.wall_s / measured.wall_s,
        build_bytes=num_bytes,
        build_cpu_s=measured.cpu_s,
        build_wall_s=measured.wall_s,
        forecast_wall_s=forecast_wall_s,
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _is_met(comparisons: Sequence[Comparison]) -> bool:
    counts_equal = all(c.forecast_examples == c.examples and c.forecast_images == c.images for c in comparisons)
    bytes_off = abs(statistics.median(c.bytes_ratio for c in comparisons) - 1)
    cpu_off = abs(statistics.median(c.cpu_ratio for c in comparisons) - 1)
    return counts_equal and bytes_off <= _MOST_BYTES_OFF and cpu_off <= _MOST_CPU_OFF


def main() -> int:
    """Prints a line per config; returns 1 if one is off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser, runs=3)
    parser.add_argument("--config", nargs="+", default=DEFAULT_CONFIGS, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, help="per trial (default: %(default)s)")
    args = parser.parse_args()
    machine = report.describe_machine()
    measured: dict[str, list[Comparison]] = {config: [] for config in args.config}
    with open_corpus(args) as corpus, builds.temporary_folder(args.work) as work:
        builds.read_all(corpus)
        builds.timed_build(args.config[0].rpartition("/")[2], corpus, work)  # a warm-up
        for seed in range(args.runs):
            for config in args.config:
                progress(f"round {seed + 1} of {args.runs}: {config}")
                measured[config].append(compare(config, corpus, work, num_sampled=args.images, seed=seed))
    progress("")
    rows: list[tuple[Any, ...]] = []
    for config, all_rounds in measured.items():
        first = all_rounds[0]
        rows.append(
            (
                config,
                f"{first.forecast_examples:,} / {first.examples:,}",
                f"{first.forecast_images:,} / {first.images:,}",
                _spread([c.bytes_ratio for c in all_rounds]),
                _spread([c.bank_ratio for c in all_rounds]),
                f"{statistics.median(c.build_cpu_s for c in all_rounds):.2f}",
                _spread([c.cpu_ratio for c in all_rounds]),
                _spread([c.wall_ratio for c in all_rounds]),
                "met" if _is_met(all_rounds) else "missed",
            )
        )
    report.print_machine(machine)
    print("Forecast / build; medians, with minimum and maximum over the rounds in brackets.")
    header = ("config", "examples", "images", "bytes", "bank", "CPU s", "CPU", "wall", "")
    report.print_table(header, rows)
    report.write_json(args.json, "forecast", machine=machine, comparisons=measured)
    return 0 if all(_is_met(all_rounds) for all_rounds in measured.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
