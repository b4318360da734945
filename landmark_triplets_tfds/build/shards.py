"""A shard is a pure function of the table, the config and the thumbnails: what is in it, and how it is written.

TFDS puts the records of a split in the order of a hash of their keys and cuts them into shards of about equal numbers.
Both follow from the plan, so which examples a shard holds is known before there is any. A shard is written whole by one
worker, record by record, from rows and thumbnails; nothing is shuffled, buffered or written twice. The same function
runs in the processes of one machine and on the workers of a cluster.

The borders of shards are those of the planned examples: an example that is left out makes its shard shorter, and moves
no other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import struct
from typing import Any
import uuid

from etils import epath
import google_crc32c
import numpy as np
import numpy.typing as npt
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, expected_bytes
from landmark_triplets_tfds.triplets.examples import ExampleKind
from landmark_triplets_tfds.triplets.plan import CHUNK_SIZE, ExamplePlan, make_example


@dataclasses.dataclass(frozen=True)
class Target:
    """Where shards go, and in which form: what TFDS says of a dataset that is to be written.

    Attributes:
      file_format: by its name, such as 'tfrecord'.
      shard_config: a ``tfds.core.utils.shard_utils.ShardConfig``.
      template_of: gives the ``tfds.core.ShardedFileTemplate`` of a split.
      beam_runner, beam_options: with what a cluster is asked, as Beam has them.
    """

    file_format: str
    shard_config: Any
    template_of: Callable[[str], Any]
    beam_runner: Any = None
    beam_options: Any = None


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What came of a shard: how many records it holds, and the sum of their sizes in bytes."""

    num_examples: int
    num_bytes: int


# --- Which examples are in which shard


def record_order(plan: ExamplePlan, num_examples: int, split: str) -> npt.NDArray[np.int32]:
    """Returns int32[num_examples]: the numbers of the planned examples in the order in which TFDS puts their records.

    That is the order of the MD5 of their keys, with the name of the split as salt.

    Raises:
      ValueError: if two keys have the same hash.
    """
    from tensorflow_datasets.core import hashing

    hash_key = hashing.Hasher(split).hash_key
    hashes = bytearray()
    for first in range(0, num_examples, CHUNK_SIZE):
        for key in plan.keys(first, min(first + CHUNK_SIZE, num_examples)):
            hashes += hash_key(key).to_bytes(16, "big")
    words = np.frombuffer(hashes, dtype=">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((words[:, 1], words[:, 0])).astype(np.int32)
    ordered = words[order]
    same = np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1))
    if len(same):
        number = int(order[same[0]])
        raise ValueError(f"Two examples of split {split!r} share the key {plan.keys(number, number + 1)[0]!r}.")
    return order


# Of a record, for each image: ids, landmarks, names of features.
_OVERHEAD_BYTES = 90


def expected_size(num_examples: int, kind: ExampleKind, spec: ThumbnailSpec) -> int:
    """Returns about how many bytes so many examples of photographs take: half of it to twice as many."""
    return round(num_examples * kind.num_images * (expected_bytes(spec) + _OVERHEAD_BYTES))


def choose_num_shards(num_examples: int, kind: ExampleKind, spec: ThumbnailSpec, config: Any) -> int:
    """Returns the number of shards: the one asked for, or TFDS's choice for the size that is expected.

    The size follows from the config and the number of examples alone, so that it is the same wherever and from whatever
    images a dataset is built.

    Args:
      num_examples: planned.
      kind: of the examples.
      spec: of their images.
      config: ``tfds.core.utils.shard_utils.ShardConfig``. As real sizes may be twice those expected, shards are cut so
        that its max_shard_size holds then too.

    Raises:
      ValueError: if more shards are asked for than there are examples.
    """
    if config.num_shards:
        if config.num_shards > num_examples:
            raise ValueError(f"{config.num_shards:,} shards are asked for, and there are {num_examples:,} examples.")
        return int(config.num_shards)
    total = expected_size(num_examples, kind, spec)
    num_shards = max(config.get_number_shards(total, num_examples), -(-2 * total // config.max_shard_size))
    return int(min(num_shards, num_examples))


def shard_bounds(num_examples: int, num_shards: int) -> list[int]:
    """Returns where shards begin and end, num_shards + 1 numbers, among the planned examples in record order."""
    from tensorflow_datasets.core.utils import shard_utils

    return [0, *shard_utils.get_shard_boundaries(num_examples, num_shards)]


# --- Writing one


def make_record(kind: ExampleKind, table: LandmarkTable, rows: list[int], thumbnails: Sequence[bytes]) -> bytes:
    """Returns the record of an example, a ``tf.train.Example``, with the bytes that TFDS gives it.

    TFDS serializes a protobuf map, whose order changes from process to process. Here it is serialized in the order of
    the names, so that equal datasets are equal byte for byte, and a checksum of a dataset is worth publishing.
    ``rows`` are those of the example's k images.
    """
    example = tf_example_pb2.Example()
    features = example.features.feature
    for name, value in make_example(kind, table, rows, thumbnails).items():
        if name in kind.landmark_features:
            features[name].int64_list.value.append(value)
        else:
            features[name].bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    record: bytes = example.SerializeToString(deterministic=True)
    return record


def write_shard(path: epath.PathLike, file_format: str, records: Iterable[bytes]) -> ShardResult:
    """Writes a shard under a temporary name and renames it, so that its own name stands for a whole shard.

    Raises:
      OSError: if it cannot be written.
    """
    num_examples = num_bytes = 0

    def counted() -> Iterator[bytes]:
        nonlocal num_examples, num_bytes
        for record in records:
            num_examples += 1
            num_bytes += len(record)
            yield record

    final = epath.Path(path)
    unfinished = final.parent / f"incomplete.{uuid.uuid4().hex}.{final.name}"  # TFDS removes files that begin so
    try:
        write_records(unfinished, file_format, counted())
        unfinished.replace(final)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return ShardResult(num_examples, num_bytes)


# A TFRecord: length, uint64, and its checksum; the record and its checksum; all little-endian. Checksums are CRC-32C,
# rotated and shifted (https://www.tensorflow.org/tutorials/load_data/tfrecord).
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8

_BYTES_PER_WRITE = 1 << 20  # records are smaller than what it pays to write


def write_records(path: epath.PathLike, file_format: str, records: Iterable[bytes]) -> None:
    """Writes serialized examples to a file of one of TFDS's formats.

    TFRecords are framed here: TFDS's own adapter imports TensorFlow, 650 MiB and seconds in every worker.
    """
    from tensorflow_datasets.core import file_adapters

    if file_format != file_adapters.FileFormat.TFRECORD.value:
        adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
        adapter.write_examples(path, enumerate(records))
        return
    with epath.Path(path).open("wb") as file:
        parts: list[bytes] = []
        num_bytes = 0
        for record in records:
            length = _LENGTH.pack(len(record))
            parts += (length, masked_crc(length), record, masked_crc(record))
            num_bytes += len(record)
            if num_bytes > _BYTES_PER_WRITE:
                file.write(b"".join(parts))
                parts.clear()
                num_bytes = 0
        file.write(b"".join(parts))


def masked_crc(data: bytes) -> bytes:
    """Returns the checksum of a part of a TFRecord, as it is stored."""
    crc = google_crc32c.value(data)
    return _CHECKSUM.pack(((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF)
