"""Planning the whole competition: 1,580,470 images of 81,313 landmarks, time and memory.

The table is made up, with these numbers and a long tail. Each planning runs in a process of its own, so that the peak
of its memory can be told from what was there before (the imports and the table). Beside it, the procedure of the
notebook: pandas, groupby and one function call per row. It takes minutes, so by default it draws for part of the rows
only, and the time of drawing is multiplied up; --full draws for all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import statistics
import time
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import builds, corpus, notebook, processes, report
from benchmarks.harness import add_common_arguments, progress

MAX_SECONDS = 1.0
MAX_BYTES = 500_000_000

_MODULE = "benchmarks.plan_speed"


def measure_package(table_file: Path, images_per_landmark: int | None) -> dict[str, Any]:
    """Plans all triplets with this package; to be called in a fresh process."""
    from landmark_triplets_tfds.competition.tables import LandmarkTable
    from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler

    with np.load(table_file) as arrays:
        table = LandmarkTable(image_ids=arrays["image_ids"], landmark_ids=arrays["landmark_ids"])
    with processes.PeakMemory() as memory:
        before = processes.resident_bytes()
        start = time.perf_counter()
        plan = TripletSampler(table, SamplingSpec(images_per_landmark=images_per_landmark)).plan()
        seconds = time.perf_counter() - start
    return {"triplets": len(plan), "seconds": seconds, "bytes": memory.peak_bytes - before, "of": len(plan)}


def measure_notebook(table_file: Path, images_per_landmark: int | None, num_drawn: int) -> dict[str, Any]:
    """Plans with the notebook's procedure, drawing for ``num_drawn`` anchors; to be called in a fresh process.

    What comes before the drawing is done and timed for the whole table.
    """
    with np.load(table_file) as arrays:
        names = [f"{image_id:016x}" for image_id in arrays["image_ids"].tolist()]
        table = pd.DataFrame({"id": names, "landmark_id": arrays["landmark_ids"]})
    with processes.PeakMemory() as memory:
        before = processes.resident_bytes()
        start = time.perf_counter()
        sample = notebook.take_sample(table, images_per_landmark)
        pools = notebook.group_images(table, sample)
        once = time.perf_counter() - start
        anchors = notebook.every_nth(sample, num_drawn)
        start = time.perf_counter()
        notebook.draw_triplets(anchors, pools)
        drawing = time.perf_counter() - start
    seconds = once + drawing * len(sample) / len(anchors)
    return {
        "triplets": len(sample),
        "seconds": seconds,
        "bytes": memory.peak_bytes - before,
        "of": len(anchors),
    }


def measure_in_children(args: argparse.Namespace, table_file: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns the measurements by name of the case, taken in turns."""
    num_drawn = args.images if args.full else args.draws
    cases = {
        f"{who}, {'all images' if limit is None else f'{limit} per landmark'}": (who, limit)
        for limit in (None, 2)
        for who in ("package", "notebook")
    }
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for run in range(args.runs):
        for name, (who, limit) in cases.items():
            if who == "notebook" and run:
                continue  # once is enough to see a factor of a hundred
            progress(f"run {run + 1} of {args.runs}: {name}")
            child = ["--child", who, str(limit or 0), str(table_file), str(num_drawn)]
            measured[name].append(processes.run_child(_MODULE, *child))
    progress("")
    return measured


def main() -> None:
    """Measures planning, in child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument(
        "--images", type=int, default=corpus.NUM_COMPETITION_IMAGES, help="rows of the table (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=int, default=20_000, help="rows the notebook's procedure draws for (default: %(default)s)"
    )
    parser.add_argument("--full", action="store_true", help="let the notebook's procedure draw for all rows")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        who, limit, table_file, num_drawn = args.child
        images_per_landmark = int(limit) or None
        if who == "package":
            print(json.dumps(measure_package(Path(table_file), images_per_landmark)))
        else:
            print(json.dumps(measure_notebook(Path(table_file), images_per_landmark, int(num_drawn))))
        return

    machine = report.describe_machine()
    num_landmarks = max(2, round(args.images * corpus.NUM_COMPETITION_LANDMARKS / corpus.NUM_COMPETITION_IMAGES))
    with builds.temporary_folder(args.work) as folder:
        rng = np.random.default_rng(0)
        sizes = corpus.long_tail_sizes(num_landmarks, args.images, rng)
        image_ids, landmark_ids = corpus.random_table(sizes, rng)
        np.savez(folder / "table.npz", image_ids=image_ids, landmark_ids=landmark_ids)
        measured = measure_in_children(args, folder / "table.npz")

    report.print_machine(machine)
    print(
        f"{args.images:,} images of {num_landmarks:,} landmarks; of these {np.mean(sizes == 2):.0%} have two images,"
        f" the largest {sizes.max():,}."
    )
    rows = []
    for name, runs in measured.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        most = max(run["bytes"] for run in runs)
        verdict = "met" if seconds <= MAX_SECONDS and most <= MAX_BYTES else "missed"
        extrapolated = "" if runs[0]["of"] == runs[0]["triplets"] else f"from {runs[0]['of']:,} rows"
        span = f"{min(run['seconds'] for run in runs):.2f}-{max(run['seconds'] for run in runs):.2f}"
        verdict = verdict if name.startswith("package") else extrapolated
        rows.append((name, f"{runs[0]['triplets']:,}", f"{seconds:.2f}", span, f"{most / 1e6:,.0f}", verdict))
    report.print_table(("planning", "triplets", "median s", "min-max s", "peak MB", "target: 1 s, 500 MB"), rows)
    report.write_json(args.json, "plan_speed", machine=machine, measurements=measured)


if __name__ == "__main__":
    main()
