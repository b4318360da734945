"""How much memory a worker process of a cluster takes: for its libraries, and for each image of the table.

Two made-up tables, one twice as large as the other, each read by a process of its own, as a worker does; the difference
of the peaks is what an image costs. Thumbnails come on top: 16 MiB for a range of triplets, and its examples.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import tempfile

from etils import epath
import numpy as np

from benchmarks import processes, report
from benchmarks.corpus import NUM_COMPETITION_IMAGES, NUM_COMPETITION_LANDMARKS
from landmark_triplets_tfds.competition.tables import read_landmark_table
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler


def write_table(path: Path, num_images: int) -> None:
    image_ids = np.unique(np.random.default_rng(0).integers(0, 2**64, num_images, dtype=np.uint64))
    landmark_ids = np.arange(len(image_ids)) % NUM_COMPETITION_LANDMARKS
    lines = (f"{i:016x},{k}\n" for i, k in zip(image_ids.tolist(), landmark_ids.tolist(), strict=True))
    path.write_text("id,landmark_id\n" + "".join(lines))


def measure_in_this_process(path: str) -> dict[str, int]:
    """Does what a worker does before its first triplet, and draws some."""
    with processes.PeakMemory() as memory:
        import tensorflow  # noqa: F401
        import tensorflow_datasets  # noqa: F401

        import landmark_triplets_tfds.build.beam_pipeline  # noqa: F401

        imports = processes.resident_bytes()
        table = read_landmark_table(epath.Path(path))
        TripletSampler(table, SamplingSpec(images_per_landmark=None)).plan(0, 4096)
        resident = processes.resident_bytes()
    return {"imports": imports, "resident": resident, "peak": memory.peak_bytes}


def main() -> None:
    """Prints both tables' figures and the difference per image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=NUM_COMPETITION_IMAGES, help="of the small one (%(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_in_this_process(args.child)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for num_images in (args.rows, 2 * args.rows):
            path = Path(folder) / f"{num_images}.csv"
            write_table(path, num_images)
            results.append((num_images, processes.run_child("benchmarks.worker_memory", "--child", str(path))))
    rows = [
        (f"{num_images:,}", *(f"{result[name] / 1e6:,.0f}" for name in ("imports", "resident", "peak")))
        for num_images, result in results
    ]
    report.print_table(("images", "MB after imports", "with the table", "peak"), rows)
    for name in ("resident", "peak"):
        print(f"{name}: {(results[1][1][name] - results[0][1][name]) / args.rows:.0f} bytes per image")


if __name__ == "__main__":
    main()
