"""Does `landmark-triplets forecast` come true? Each forecast beside the build that it forecasts.

    python -m benchmarks.forecast --corpus CORPUS --runs 3

It carries a figure of docs/commands.md ("forecast") and, of the builds, the bytes per triplet in docs/configs.md. In
every round the sample of images is another one, so that the spread shows the luck of the sample too. Counts have to be
equal, bytes of the dataset within 5 %, CPU-seconds within 25 %, and what the number of shards is chosen by within
0.5 and 2; the program ends with status 1 if the median of a config is not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import statistics
import subprocess
import sys

from benchmarks import builds
from benchmarks.harness import Figures, Program, print_figures, progress, temporary_folder
from landmark_triplets_tfds.build.shards import expected_size

CONFIGS = ("64px", "128px", "128px_all", "128px_area_all", "256px", "512px_1per", "landmark_images/128px_all")
_MOST_OFF = {"examples": 0.0, "images": 0.0, "bytes": 0.05, "CPU": 0.25}  # of what is forecast, as a share


def compare(config: str, corpus: Path, work: Path, num_sampled: int, seed: int) -> Figures:
    """Forecasts a build of a config, builds it, and divides what was forecast by what came."""
    dataset, _, name = config.rpartition("/")
    with temporary_folder(work) as folder:
        bank = Path(folder, "bank")
        command = [sys.executable, "-m", "landmark_triplets_tfds", "forecast", "--manual_dir", os.fspath(corpus)]
        command += ["--config", config, "--images", str(num_sampled), "--seed", str(seed), "--json"]
        environment = os.environ | {"LANDMARK_TRIPLETS_BANK": os.fspath(bank)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        (made,) = json.loads(done.stdout)["forecasts"]
        measured, builder = builds.build(
            name, corpus, Path(folder, "data"), bank=bank, dataset=dataset or builds.DATASET
        )
        num_bytes, bank_bytes = (
            sum(path.stat().st_size for path in Path(files).rglob("*") if path.is_file())
            for files in (builder.data_dir, bank)
        )
    splits, config_made = builder.info.splits.values(), builder.builder_config
    num_examples = sum(split.num_examples for split in splits)
    return {
        "number": num_examples,
        "bytes each": sum(split.num_bytes for split in splits) / num_examples,
        "CPU s": measured.cpu_s,
        "examples": sum(made["splits"].values()) / num_examples,
        "images": made["num_distinct_images"] / builder.info.metadata["counts"]["num_images_read"],
        "bytes": made["dataset_bytes"] / num_bytes,
        "bank": made["bank_bytes"] / bank_bytes,
        "rule of shards": expected_size(num_examples, config_made.kind, config_made.thumbnail_spec()) / num_bytes,
        "CPU": made["cpu_seconds"] / measured.cpu_s,
        "wall": made["seconds"] / measured.wall_s,
    }


def is_met(rounds: list[Figures]) -> bool:
    off = {what: abs(statistics.median(each[what] for each in rounds) - 1) for what in _MOST_OFF}
    by_rule = statistics.median(each["rule of shards"] for each in rounds)
    return 0.5 <= by_rule <= 2 and all(off[what] <= most for what, most in _MOST_OFF.items())


def main() -> int:
    """Prints a line per config; returns 1 if one is off."""
    program = Program(__doc__, runs=3)
    add = program.parser.add_argument
    add("--config", nargs="+", default=CONFIGS, help="(default: %(default)s)")
    add("--images", type=int, default=1000, help="per trial (default: %(default)s)")
    with program:
        args, corpus, work = program.args, program.corpus, program.work
        measured: dict[str, list[Figures]] = {config: [] for config in args.config}
        builds.first_build("64px", corpus, work)  # a warm-up
        for seed in range(args.runs):
            for config, rounds in measured.items():
                progress(f"round {seed + 1} of {args.runs}: {config}")
                rounds.append(compare(config, corpus, work, args.images, seed))
        progress("")
    print("Number, bytes and CPU time of what was built, then forecast / build.")
    print_figures("config", measured)
    off = [config for config, rounds in measured.items() if not is_met(rounds)]
    print("\nOff: " + ", ".join(off) if off else "\nAll within the limits.")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
