"""How fast `landmark-triplets verify` reads a prepared dataset, beside reading it for training and hashing it.

    python -m benchmarks.verify_speed build/demo/landmark_triplets/128px/1.0.0

The three take turns on the same shards, which are in the operating system's cache after the first round. That one does
not count.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import statistics

from etils import epath

from benchmarks.harness import Stopwatch
from landmark_triplets_tfds.commands.verify.command import verify
from landmark_triplets_tfds.commands.verify.records import hash_file


def measure(folder: epath.Path, num_runs: int) -> dict[str, list[float]]:
    """Returns the seconds of each way to read the dataset, by its name."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    shards = [epath.Path(path) for split in builder.info.splits.values() for path in split.filepaths]

    def load() -> None:
        for split in builder.info.splits:
            for _ in builder.as_dataset(split=split, read_config=tfds.ReadConfig(try_autocache=False)):
                pass

    def check() -> None:
        if verify(folder).findings.num_problems:
            raise SystemExit(f"{folder} is damaged: landmark-triplets verify {folder}")

    ways: dict[str, Callable[[], object]] = {
        "verify": check,
        "tfds.load": load,
        "sha256": lambda: [hash_file(shard) for shard in shards],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(num_runs + 1):
        for name, read in ways.items():
            with Stopwatch() as watch:
                read()
            if run:
                seconds[name].append(watch.measurement(1).wall_s)
    return seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of a prepared version of a dataset")
    parser.add_argument("--runs", type=int, default=5, help="rounds that count (default: %(default)s)")
    args = parser.parse_args()
    for folder in map(epath.Path, args.folders):
        verification = verify(folder)
        num_records, num_bytes = sum(verification.num_records.values()), verification.num_bytes
        shards = f"{len(verification.hashes)} shards"
        print(f"{verification.data.name}: {num_records:,} records, {num_bytes / 1e6:,.0f} MB, {shards}")
        for name, seconds in measure(folder, args.runs).items():
            median = statistics.median(seconds)
            spread = f"{min(seconds):.2f} to {max(seconds):.2f} s"
            rate = f"{num_records / median:,.0f} records/s, {num_bytes / 1e6 / median:,.0f} MB/s"
            print(f"  {name:10} {median:6.2f} s ({spread}): {rate}")


if __name__ == "__main__":
    main()
