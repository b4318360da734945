"""Does `landmark-triplets forecast` come true? Each forecast beside the build that it forecasts.

    python -m benchmarks.forecast --corpus CORPUS --runs 3

It carries a figure of docs/commands.md ("forecast") and, of the builds, the bytes per triplet in docs/configs.md. In
every round the sample of images is another one, so that the spread shows the luck of the sample too. Counts have to be
equal, bytes of the dataset within 5 %, CPU-seconds within 25 %, and what the number of shards is chosen by within
0.5 and 2.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
import subprocess
import sys

from benchmarks import builds
from benchmarks.harness import Figures, Program, print_figures, progress, temporary_folder
from landmark_triplets_tfds.build.shards import expected_size

CONFIGS = ("64px", "128px", "128px_all", "128px_area_all", "256px", "512px_1per", "landmark_images/128px_all")


def compare(config: str, corpus: Path, work: Path, seed: int) -> Figures:
    """Forecasts a build of a config, builds it, and divides what was forecast by what came."""
    dataset, _, name = config.rpartition("/")
    with temporary_folder(work) as folder:
        bank = Path(folder, "bank")
        command = [sys.executable, "-m", "landmark_triplets_tfds", "forecast", "--manual_dir", os.fspath(corpus)]
        command += ["--config", config, "--images", "1000", "--seed", str(seed), "--json"]
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
        "CPU s": measured["CPU s"],
        "examples": sum(made["splits"].values()) / num_examples,
        "images": made["num_distinct_images"] / builder.info.metadata["counts"]["num_images_read"],
        "bytes": made["dataset_bytes"] / num_bytes,
        "bank": made["bank_bytes"] / bank_bytes,
        "rule of shards": expected_size(num_examples, config_made.kind, config_made.thumbnail_spec()) / num_bytes,
        "CPU": made["cpu_seconds"] / measured["CPU s"],
        "wall": made["seconds"] / measured["wall s"],
    }


def main() -> None:
    """Prints a line per config."""
    program = Program(__doc__, runs=3)
    program.parser.add_argument("--config", nargs="+", default=CONFIGS, help="(default: %(default)s)")
    with program:
        corpus, work, configs = program.corpus, program.work, program.args.config
        measured: dict[str, list[Figures]] = {config: [] for config in configs}
        builds.first_build("64px", corpus, work)  # a warm-up
        for seed, config in itertools.product(range(program.args.runs), configs):
            progress(f"round {seed + 1} of {program.args.runs}: {config}")
            measured[config].append(compare(config, corpus, work, seed))
    print("Number, bytes and CPU time of what was built, then forecast / build.")
    print_figures("config", measured)


if __name__ == "__main__":
    main()
