"""What building the whole data on a cluster takes: computed from figures per image, of which memory is measured here.

    python -m benchmarks.cluster_cost

It carries "Full-size runs" in docs/clusters.md. Memory of a worker process is measured with two made-up tables, one
twice as large as the other, each read by a process of its own, as a worker does; the difference is what an image costs.
The other figures are those of `cluster` and `forecast`, typed in below. Nothing is measured at full size.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from etils import epath
import numpy as np

from benchmarks.corpus import NUM_COMPETITION_IMAGES, random_table
from benchmarks.harness import Figures, PeakMemory, Program, in_fresh_process, print_figures, print_table

# The competition, and all of the Google Landmarks Dataset v2, with an anchor for every image.
_DATASETS = {"competition": NUM_COMPETITION_IMAGES, "GLDv2": 4_132_914}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImage:
    """Measured figures of one resolution.

    Attributes:
      cpu_s: CPU time of an image with its triplet in a build through Beam, two worker processes; `cluster`.
      file_bytes: of a photograph.
      thumbnail_bytes: of a stored image.
      record_bytes: of a record with three images; `forecast`.
    """

    cpu_s: float
    file_bytes: int
    thumbnail_bytes: int
    record_bytes: int


_MEASURED = {
    128: PerImage(cpu_s=0.0024, file_bytes=64_000, thumbnail_bytes=7_340, record_bytes=22_295),
    512: PerImage(cpu_s=0.0172, file_bytes=64_000, thumbnail_bytes=76_500, record_bytes=229_853),
}

# Thumbnails that are sent to ranges of triplets, for each image: to the range in which it is anchor and positives, and
# as a negative to one other.
_COPIES_SENT = 2.0

# Bytes of the numbers that say which image goes where, as Beam encodes them.
_PLAN_BYTES = 20

# One range of triplets with its thumbnails and examples.
_RANGE_BYTES = 3 * (16 << 20)

# TFDS's writer holds a whole shard, and Beam the records that come in for it.
_COPIES_OF_SHARD = 2


def write_table(path: Path, num_images: int) -> None:
    image_ids, landmark_ids = random_table(num_images, np.random.default_rng(0))
    lines = (f"{i:016x},{k}\n" for i, k in zip(image_ids.tolist(), landmark_ids.tolist(), strict=True))
    path.write_text("id,landmark_id\n" + "".join(lines))


def measure_worker(path: Path) -> Figures:
    """Does what a worker does before its first triplet, and draws some."""
    with PeakMemory() as memory:
        import tensorflow  # noqa: F401
        import tensorflow_datasets  # noqa: F401

        import landmark_triplets_tfds.build.beam_pipeline  # noqa: F401
        from landmark_triplets_tfds.competition.tables import read_landmark_table
        from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler

        after_imports = memory.now_bytes()
        table = read_landmark_table(epath.Path(path))
        sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None))
        sampler.plan(0, min(4096, sampler.num_triplets))
    return {"MB after imports": after_imports / 1e6, "MB at the peak": memory.peak_bytes / 1e6}


def print_memory(program: Program) -> tuple[float, float]:
    """Prints what a worker takes with both tables; returns bytes after imports, and per image at the peak."""
    sizes = (program.args.rows, 2 * program.args.rows)
    workers = []
    for num_images in sizes:
        write_table(program.work / "train.csv", num_images)
        workers.append(in_fresh_process(measure_worker, program.work / "train.csv"))
    print_figures("images of the table", {f"{size:,}": [worker] for size, worker in zip(sizes, workers, strict=True)})
    one, two = (worker["MB at the peak"] for worker in workers)
    per_image = (two - one) * 1e6 / program.args.rows
    print(f"\n{per_image:.0f} bytes per image of the table")
    return workers[0]["MB after imports"] * 1e6, per_image


def main() -> None:
    """Prints the memory of a worker, and the table of docs/clusters.md."""
    program = Program(__doc__, has_corpus=False)
    program.parser.add_argument("--rows", type=int, default=NUM_COMPETITION_IMAGES, help="of the small table")
    with program:
        from tensorflow_datasets.core.utils.shard_utils import ShardConfig

        process_bytes, table_bytes = print_memory(program)
        rows = []
        for name, num_images in _DATASETS.items():
            for resolution, per_image in _MEASURED.items():
                num_bytes = num_images * per_image.record_bytes
                num_shards = ShardConfig().get_number_shards(num_bytes, num_images, uses_precise_sharding=False)
                memory = process_bytes + num_images * table_bytes + _RANGE_BYTES
                memory += _COPIES_OF_SHARD * num_bytes // num_shards
                thumbnails = num_images * _COPIES_SENT * (per_image.thumbnail_bytes + _PLAN_BYTES)
                rows.append(
                    (
                        f"{num_images:,} ({name})",
                        f"{resolution} px",
                        f"{num_images * per_image.cpu_s / 3600:,.1f}",
                        f"{num_images * per_image.file_bytes / 1e9:,.0f} GB",
                        f"{thumbnails / 1e9:,.0f} GB",
                        f"{num_bytes / 1e9:,.0f} GB",
                        f"{num_bytes / 1e9:,.0f} GB in {num_shards:,} shards",
                        f"{memory / 1e9:.1f} GB",
                    )
                )
        header = ("images", "stored", "CPU-hours", "read", "shuffled: thumbnails", "records", "written")
        print_table((*header, "memory per worker"), rows)


if __name__ == "__main__":
    main()
