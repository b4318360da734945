"""Records out of a shard, in the two file formats that datasets of this package have: TFRecord and array_record.

Readers of TensorFlow and TFDS stop at the first damaged record without saying which one it is, so TFRecords are taken
apart here. A TFRecord file is a sequence of: length, uint64; checksum of the length, uint32; the bytes; checksum of the
bytes, uint32; all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord). Where only the bytes are
damaged, the next record begins behind them; where the length is, nobody knows where, and the rest of the shard is lost.
Array records have checksums too, which their own library verifies.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
import hashlib
import itertools
import os

from etils import epath
import google_crc32c

from landmark_triplets_tfds.errors import MissingPackageError

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"
FILE_FORMATS = (TFRECORD, ARRAY_RECORD)

_BLOCK_SIZE = 4 << 20  # 4 MiB
_MASK_DELTA = 0xA282EAD8

# Array records read with one call.
_NUM_TOGETHER = 64

# A record, or None and what is wrong with it.
Read = tuple[bytes | None, str]
_NOT_WANTED: Read = (None, "it was stepped over")


def read_records(path: epath.Path, file_format: str, wanted: Collection[int] | None = None) -> Iterator[Read]:
    """Reads a shard.

    Args:
      path: of the shard.
      file_format: `TFRECORD` or `ARRAY_RECORD`.
      wanted: the numbers of the records to read; the others are stepped over, which takes some microseconds each.
        None: all.

    Yields:
      (record, '') for each one, in order; (None, what is wrong) in place of one that is damaged or not wanted.

    Raises:
      OSError: if the file cannot be read.
      MissingPackageError: if it takes a package that is not installed.
    """
    read = _read_tfrecords if file_format == TFRECORD else _read_array_records
    return read(path, wanted)


def choose_records(path: epath.Path, file_format: str, numbers: Sequence[int]) -> list[bytes | None]:
    """Returns the records with these numbers; None for one that is damaged or not there."""
    records = itertools.islice(read_records(path, file_format, numbers), max(numbers, default=-1) + 1)
    chosen = {number: record for number, (record, _) in enumerate(records) if record is not None}
    return [chosen.get(number) for number in numbers]


def hash_file(path: epath.Path) -> str:
    """Returns the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_SIZE):
            digest.update(block)
    return digest.hexdigest()


def masked_crc(data: bytes) -> bytes:
    """Returns the checksum of a TFRecord: a CRC-32C, rotated and shifted so that it may be stored beside its data."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF).to_bytes(4, "little")


def _read_tfrecords(path: epath.Path, wanted: Collection[int] | None) -> Iterator[Read]:
    size, position = path.stat().length, 0
    with path.open("rb") as file:
        for number in itertools.count():
            if position >= size:
                return
            header = file.read(12)
            if masked_crc(header[:8]) != header[8:]:
                what = "is cut off" if len(header) < 12 else "fails its checksum"
                yield None, f"its length, at byte {position:,}, {what}, so what is behind it cannot be read"
                return
            start, length = position + 12, int.from_bytes(header[:8], "little")
            position = start + length + 4
            if position > size:
                yield None, f"cut off: the file ends after {size - start:,} of its {length:,} bytes"
                return
            if wanted is not None and number not in wanted:
                file.seek(position)
                yield _NOT_WANTED
                continue
            record = file.read(length)
            if file.read(4) == masked_crc(record):
                yield record, ""
            else:
                yield None, f"its {length:,} bytes, from byte {start:,}, fail their checksum"


def _read_array_records(path: epath.Path, wanted: Collection[int] | None) -> Iterator[Read]:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError as error:
        raise MissingPackageError(
            f"{path} is an array_record file, which the package array_record reads: pip install array_record ({error})."
        ) from error
    path.stat()  # an error of the operating system is raised as such
    name = os.fspath(path)

    def describe(error: Exception) -> str:
        text = " ".join(str(error).replace(name, "the file").split())
        return f"array_record refuses it ({text[:200]})"

    def read(numbers: Sequence[int]) -> list[Read]:
        try:
            return [(record, "") for record in reader.read(list(numbers))]
        except Exception as error:  # of no type of its own
            return [(None, describe(error))] if len(numbers) == 1 else [read([number])[0] for number in numbers]

    try:
        reader = ArrayRecordReader(name, "readahead_buffer_size:0")
        num_records = int(reader.num_records())
    except Exception as error:
        yield None, f"the file as a whole: {describe(error)}"
        return
    for start in range(0, num_records, _NUM_TOGETHER):
        together = range(start, min(start + _NUM_TOGETHER, num_records))
        if wanted is None:
            yield from read(together)
        else:
            yield from (read([number])[0] if number in wanted else _NOT_WANTED for number in together)
