"""Measures how large the datasets of the whole competition get: the table of sizes in README.md.

Run from the top of the repository: python docs/measure_sizes.py COMPETITION

COMPETITION is a folder with the competition's layout, such as `python -m benchmarks.corpus` makes from photographs. It
is built once per kind of image. The estimate is the mean size of a triplet times the competition's number of triplets.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["LANDMARK_TRIPLETS_BANK"] = "off"

import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkTriplets

CONFIGS = ("64px", "128px", "256px", "512px", "128px_area", "256px_area", "512px_area")
NUM_TRIPLETS = {"1 per landmark": 81_313, "2 per landmark": 162_626, "all": 1_580_470}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("competition", type=Path, help="folder that holds train.csv and train/")
    args = parser.parse_args()
    tfds.disable_progress_bar()
    rows = []
    for name in CONFIGS:
        with tempfile.TemporaryDirectory() as data_dir:
            builder = LandmarkTriplets(config=name, data_dir=data_dir)
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=args.competition))
            train = builder.info.splits["train"]
            bytes_per_triplet = train.num_bytes / train.num_examples
        sizes = " | ".join(f"{bytes_per_triplet * count / 1e9:.1f} GB" for count in NUM_TRIPLETS.values())
        rows.append(f"| {name} | {bytes_per_triplet:,.0f} | {sizes} |")
    print(f"\n| | bytes per triplet | {' | '.join(NUM_TRIPLETS)} |")
    print("|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
