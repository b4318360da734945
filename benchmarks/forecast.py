"""Does `landmark-triplets forecast` come true? Each forecast beside the build that it forecasts.

    python -m benchmarks.forecast --corpus CORPUS --runs 3

It carries a figure of docs/commands.md ("forecast"). In every round the sample of images is another one, so that the
spread shows the luck of the sample too. Counts have to be equal, bytes of the dataset within 5 %, CPU-seconds within
25 %; the program ends with status 1 if the median of a config is not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import builds
from benchmarks.harness import Program, print_table, progress, spread, temporary_folder

CONFIGS = ("64px", "128px", "128px_all", "128px_area_all", "256px", "512px_1per", "landmark_images/128px_all")
_MOST_BYTES_OFF, _MOST_CPU_OFF = 0.05, 0.25


def forecast(config: str, corpus: Path, bank: Path, num_sampled: int, seed: int) -> dict[str, Any]:
    """Returns what the command prints with ``--json``."""
    command = [sys.executable, "-m", "landmark_triplets_tfds", "forecast", "--manual_dir", os.fspath(corpus), "--json"]
    command += ["--config", config, "--images", str(num_sampled), "--seed", str(seed)]
    environment = os.environ | {"LANDMARK_TRIPLETS_BANK": os.fspath(bank)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    (made,) = json.loads(done.stdout)["forecasts"]
    return dict(made)


def compare(config: str, corpus: Path, work: Path, num_sampled: int, seed: int) -> dict[str, Any]:
    """Forecasts a build of a config, builds it and compares; ratios are forecast / build."""
    dataset, _, name = config.rpartition("/")
    with temporary_folder(work) as folder:
        bank = Path(folder, "bank")
        made = forecast(config, corpus, bank, num_sampled, seed)
        measured, builder = builds.build(
            name, corpus, Path(folder, "data"), bank=bank, dataset=dataset or builds.DATASET
        )
        num_bytes, bank_bytes = (
            sum(path.stat().st_size for path in Path(files).iterdir()) for files in (builder.data_dir, bank)
        )
    num_examples = sum(split.num_examples for split in builder.info.splits.values())
    return {
        "examples": (sum(made["splits"].values()), num_examples),
        "images": (made["num_distinct_images"], builder.info.metadata["counts"]["num_images_read"]),
        "bytes": made["dataset_bytes"] / num_bytes,
        "bank": made["bank_bytes"] / bank_bytes,
        "cpu": made["cpu_seconds"] / measured.cpu_s,
        "wall": made["seconds"] / measured.wall_s,
        "build_bytes": num_bytes,
        "build_cpu_s": measured.cpu_s,
    }


def is_met(rounds: list[dict[str, Any]]) -> bool:
    counts_equal = all(each[what][0] == each[what][1] for each in rounds for what in ("examples", "images"))
    bytes_off, cpu_off = (abs(statistics.median(each[what] for each in rounds) - 1) for what in ("bytes", "cpu"))
    return counts_equal and bytes_off <= _MOST_BYTES_OFF and cpu_off <= _MOST_CPU_OFF


def main() -> int:
    """Prints a line per config; returns 1 if one is off."""
    program = Program(__doc__, runs=3)
    add = program.parser.add_argument
    add("--config", nargs="+", default=CONFIGS, help="(default: %(default)s)")
    add("--images", type=int, default=1000, help="per trial (default: %(default)s)")
    with program:
        args, corpus, work = program.args, program.corpus, program.work
        measured: dict[str, list[dict[str, Any]]] = {config: [] for config in args.config}
        program.record["comparisons"] = measured
        builds.first_build("64px", corpus, work)  # a warm-up
        for seed in range(args.runs):
            for config, rounds in measured.items():
                progress(f"round {seed + 1} of {args.runs}: {config}")
                rounds.append(compare(config, corpus, work, args.images, seed))
        progress("")
        print("Forecast / build; medians, with minimum and maximum over the rounds in brackets.")
        rows = [
            (
                config,
                *("{:,} / {:,}".format(*rounds[0][what]) for what in ("examples", "images")),
                f"{rounds[0]['build_bytes'] / 1e6:,.1f}",
                f"{statistics.median(each['build_cpu_s'] for each in rounds):.2f}",
                *(spread([each[what] for each in rounds]) for what in ("bytes", "bank", "cpu", "wall")),
                "met" if is_met(rounds) else "missed",
            )
            for config, rounds in measured.items()
        ]
        print_table(("config", "examples", "images", "MB", "CPU s", "bytes", "bank", "CPU", "wall", ""), rows)
    return 0 if all(map(is_met, measured.values())) else 1


if __name__ == "__main__":
    sys.exit(main())
