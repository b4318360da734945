"""Files of triplets at full size: how long reading and checking take, and how much memory.

A made-up table of the competition's size, and 5 million triplets of it, in each format. Each file is read in a process
of its own, so that the peak of its memory can be told from what was there before (the imports and the table).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
import statistics
import time
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import builds, corpus, processes, report
from benchmarks.harness import add_common_arguments, progress
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler
from landmark_triplets_tfds.triplets.triplets_file import (
    ID_COLUMNS,
    GivenTriplets,
    TripletsFileSpec,
    read_triplets_file,
)

_FILES = {"CSV": "plain.csv", "CSV with quotes": "quoted.csv", "Parquet": "triplets.parquet"}
_TABLE = "table.npz"


def write_files(folder: Path, num_images: int, num_triplets: int) -> None:
    """Writes the table and the triplets, all different, in each format."""
    rng = np.random.default_rng(0)
    num_landmarks = max(2, round(num_images * corpus.NUM_COMPETITION_LANDMARKS / corpus.NUM_COMPETITION_IMAGES))
    sizes = corpus.long_tail_sizes(num_landmarks, num_images, rng)
    image_ids, landmark_ids = corpus.random_table(sizes, rng)
    np.savez(folder / _TABLE, image_ids=image_ids, landmark_ids=landmark_ids)
    table = LandmarkTable(image_ids, landmark_ids)
    per_anchor = 1 + num_triplets // table.num_images
    sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None, triplets_per_anchor=per_anchor))
    rows = pd.DataFrame(sampler.plan()).drop_duplicates().to_numpy()[:num_triplets]
    texts = np.array([f"{image_id:016x}" for image_id in image_ids.tolist()])
    frame = pd.DataFrame({name: texts[rows[:, i]] for i, name in enumerate(ID_COLUMNS)})
    frame.to_csv(folder / _FILES["CSV"], index=False)
    frame.to_csv(folder / _FILES["CSV with quotes"], index=False, quoting=csv.QUOTE_ALL)
    frame.to_parquet(folder / _FILES["Parquet"], index=False)


def measure_in_this_process(folder: Path, name: str) -> dict[str, float]:
    """Reads and checks a file; to be called in a fresh process."""
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    with np.load(folder / _TABLE) as arrays:
        table = LandmarkTable(arrays["image_ids"], arrays["landmark_ids"])
    path = str(folder / name)
    with processes.PeakMemory() as memory:
        before = processes.resident_bytes()
        start = time.perf_counter()
        file = read_triplets_file(path)
        read = time.perf_counter()
        spec = TripletsFileSpec(path=path)
        given, _ = GivenTriplets(file, spec, table, table, table).of_split(spec.split)
        checked = time.perf_counter()
    return {
        "triplets": len(given),
        "read_s": read - start,
        "check_s": checked - read,
        "bytes": memory.peak_bytes - before,
    }


def main() -> None:
    """Measures each format, in child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument(
        "--images", type=int, default=corpus.NUM_COMPETITION_IMAGES, help="rows of the table (default: %(default)s)"
    )
    parser.add_argument("--triplets", type=int, default=5_000_000, help="in each file (default: %(default)s)")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_in_this_process(Path(args.child[0]), args.child[1])))
        return
    machine = report.describe_machine()
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in _FILES}
    with builds.temporary_folder(args.work) as folder:
        progress("writing the files")
        write_files(folder, args.images, args.triplets)
        for run in range(args.runs):
            for name, file_name in _FILES.items():
                progress(f"run {run + 1} of {args.runs}: {name}")
                child = ["--child", str(folder), file_name]
                measured[name].append(processes.run_child("benchmarks.triplets_files", *child))
        megabytes = {name: (folder / file_name).stat().st_size / 1e6 for name, file_name in _FILES.items()}
    progress("")
    report.print_machine(machine)
    rows = [
        (
            name,
            f"{runs[0]['triplets']:,}",
            f"{megabytes[name]:,.0f}",
            *(f"{statistics.median(run[what] for run in runs):.1f}" for what in ("read_s", "check_s")),
            f"{max(run['bytes'] for run in runs) / 1e6:,.0f}",
        )
        for name, runs in measured.items()
    ]
    report.print_table(("file", "triplets", "MB", "read s", "check s", "peak MB of memory"), rows)
    report.write_json(args.json, "triplets_files", machine=machine, measurements=measured)


if __name__ == "__main__":
    main()
