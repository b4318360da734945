"""What building the whole data on a cluster takes: computed from figures per image and per triplet.

    python docs/full_size.py

The figures below are measured; docs/clusters.md says how. Nothing here is measured at full size.
"""

from __future__ import annotations

import dataclasses

from tensorflow_datasets.core.utils.shard_utils import ShardConfig

# The competition, and all of the Google Landmarks Dataset v2, with an anchor for every image.
_DATASETS = {"competition": 1_580_470, "GLDv2": 4_132_914}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerImage:
    """Measured figures of one resolution.

    Attributes:
      cpu_s: CPU time of an image with its triplet in a build through Beam, two worker processes; benchmarks.cluster.
      file_bytes: of a photograph.
      thumbnail_bytes: of a stored image.
      record_bytes: of a record with three images; docs/measure_sizes.py.
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
# as a negative to one other; benchmarks.beam_designs counts as many reads per image for the design that sends none.
_COPIES_SENT = 2.0

# Bytes of the numbers that say which image goes where, as Beam encodes them.
_PLAN_BYTES = 20

# A worker process: TensorFlow, TFDS and Beam; the table, per image; and one range with its thumbnails and examples.
_PROCESS_BYTES = 730_000_000  # benchmarks.worker_memory
_TABLE_BYTES_PER_IMAGE = 220
_RANGE_BYTES = 3 * (16 << 20)

# TFDS's writer holds a whole shard, and Beam the records that come in for it.
_COPIES_OF_SHARD = 2


def main() -> None:
    """Prints a Markdown table."""
    print("| images | stored | CPU-hours | read | shuffled: thumbnails | records | written | memory per worker |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, num_images in _DATASETS.items():
        for resolution, per_image in _MEASURED.items():
            num_bytes = num_images * per_image.record_bytes
            num_shards = ShardConfig().get_number_shards(num_bytes, num_images, uses_precise_sharding=False)
            memory = _PROCESS_BYTES + num_images * _TABLE_BYTES_PER_IMAGE + _RANGE_BYTES
            memory += _COPIES_OF_SHARD * num_bytes // num_shards
            cells = (
                f"{num_images * per_image.cpu_s / 3600:,.1f}",
                f"{num_images * per_image.file_bytes / 1e9:,.0f} GB",
                f"{num_images * _COPIES_SENT * (per_image.thumbnail_bytes + _PLAN_BYTES) / 1e9:,.0f} GB",
                f"{num_bytes / 1e9:,.0f} GB",
                f"{num_bytes / 1e9:,.0f} GB in {num_shards:,} shards",
                f"{memory / 1e9:.1f} GB",
            )
            print(f"| {num_images:,} ({name}) | {resolution} px | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
