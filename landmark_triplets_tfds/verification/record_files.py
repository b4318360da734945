"""The records of a shard, checked as they are read: the file formats TFRecord and array_record.

Readers of TensorFlow and TFDS stop at the first damaged record without saying which one it is, so TFRecords are taken
apart here. A TFRecord file is a sequence of: length, uint64; checksum of the length, uint32; the bytes; checksum of the
bytes, uint32; all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord). Array records have checksums
too, which their own library verifies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import hashlib
import os
import struct
from typing import Any, BinaryIO

from etils import epath
import google_crc32c

from landmark_triplets_tfds.errors import CommandError

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"
FILE_FORMATS = (TFRECORD, ARRAY_RECORD)

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_BLOCK_SIZE = 4 << 20  # 4 MiB
_MASK_DELTA = 0xA282EAD8

# Places where a next record may begin that are tried in a shard, once a length is damaged: some seconds at most.
_MAX_NUM_TRIED = 2_000_000

# Array records read with one call.
_NUM_TOGETHER = 64

# A record, or what is wrong with it.
Read = tuple[bytes | None, str]

# Says which one a damaged record is, from what is left of its bytes.
DescribeDamaged = Callable[[bytes], str]


def _say_nothing(record: bytes) -> str:
    return ""


def read_records(
    path: epath.Path, file_format: str, describe_damaged: DescribeDamaged = _say_nothing
) -> Iterator[Read]:
    """Reads a shard.

    Args:
      path: of the shard.
      file_format: of the two above.
      describe_damaged: gives words to add where the bytes of a TFRecord fail their checksum, or ''.

    Yields:
      (record, '') for each one, in order; (None, what is wrong) in place of one that is damaged.

    Raises:
      OSError: if the file cannot be read.
    """
    if file_format == TFRECORD:
        with path.open("rb") as file:
            yield from TFRecordReader(file, path.stat().length, describe_damaged).read_all()
    else:
        yield from _read_array_records(path)


def choose_records(path: epath.Path, file_format: str, numbers: Sequence[int]) -> list[bytes | None]:
    """Returns the records with these numbers; None for one that is damaged or not there.

    The others are stepped over: in a TFRecord file from length to length, which takes some microseconds each.
    """
    if file_format == ARRAY_RECORD:
        with _ArrayRecordFile(path) as reader:
            return [reader.read_one(number)[0] if number < reader.num_records else None for number in numbers]
    chosen: dict[int, bytes] = {}
    with path.open("rb") as file:
        for number in range(max(numbers, default=-1) + 1):
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                break
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                break
            if number not in numbers:
                file.seek(length + _FOOTER.size, 1)
                continue
            record, footer = file.read(length), file.read(_FOOTER.size)
            if len(footer) == _FOOTER.size and masked_crc(record) == _FOOTER.unpack(footer)[0]:
                chosen[number] = record
    return [chosen.get(number) for number in numbers]


def hash_file(path: epath.Path) -> str:
    """Returns the sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_SIZE):
            digest.update(block)
    return digest.hexdigest()


def masked_crc(data: bytes) -> int:
    """Returns the checksum of a TFRecord: a CRC-32C, rotated and shifted so that it may be stored beside its data."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


class TFRecordReader:
    """Reads a TFRecord file from its beginning and goes on behind damaged records."""

    def __init__(self, file: BinaryIO, size: int, describe_damaged: DescribeDamaged = _say_nothing):
        """Takes the open file and its size in bytes; see `read_records` for the rest."""
        self._file = file
        self._describe_damaged = describe_damaged
        self._size = size
        self._buffer = b""
        self._at = 0  # of the next byte, in the buffer
        self._offset = 0  # of the buffer, in the file
        self._num_tried = 0

    def read_all(self) -> Iterator[Read]:
        """Yields each record, or what is wrong with it."""
        while (position := self._offset + self._at) < self._size:
            if not self._has(_HEADER.size):
                yield None, f"cut off: the file ends within its length, at byte {self._size:,}"
                return
            length, crc = _HEADER.unpack_from(self._buffer, self._at)
            if masked_crc(self._buffer[self._at : self._at + 8]) != crc:
                found = self._find_next()
                after = "" if found else ", and no record is found behind it"
                yield None, f"its length, at byte {position:,}, fails its checksum{after}"
                if not found:
                    return
                continue
            if position + _HEADER.size + length + _FOOTER.size > self._size:
                there = self._size - position - _HEADER.size
                yield None, f"cut off: the file ends after {there:,} of its {length:,} bytes"
                return
            self._has(_HEADER.size + length + _FOOTER.size)
            start = self._at + _HEADER.size
            record = self._buffer[start : start + length]
            (crc,) = _FOOTER.unpack_from(self._buffer, start + length)
            self._at = start + length + _FOOTER.size
            if masked_crc(record) == crc:
                yield record, ""
            else:
                where = f"its {length:,} bytes, from byte {position + _HEADER.size:,}"
                yield None, f"{where}, fail their checksum{self._describe_damaged(record)}"

    def _has(self, count: int) -> bool:
        """Makes so many bytes be in the buffer; returns whether the file has them."""
        while len(self._buffer) - self._at < count:
            block = self._file.read(max(_BLOCK_SIZE, count))
            if not block:
                return False
            self._offset += self._at
            self._buffer = self._buffer[self._at :] + block
            self._at = 0
        return True

    def _find_next(self) -> bool:
        """Moves behind a damaged length to where the next record begins; returns whether there is one.

        A length is below 2**32, so its upper half is zero, which is rare in JPEG data and quick to find.
        """
        start = self._at + 1
        while True:
            zeros = self._buffer.find(bytes(4), start + 4)
            if zeros < 0:
                self._at = max(start, len(self._buffer) - 7)  # a length may begin there and end in what is read next
                if not self._has(_HEADER.size + 1):
                    return False
                start = self._at
                continue
            start = zeros - 4
            self._at = start
            self._num_tried += 1
            if self._num_tried > _MAX_NUM_TRIED:
                return False
            if self._has(_HEADER.size):
                start = self._at
                length, crc = _HEADER.unpack_from(self._buffer, start)
                if masked_crc(self._buffer[start : start + 8]) == crc and (
                    self._offset + start + _HEADER.size + length + _FOOTER.size <= self._size
                ):
                    return True
            start = self._at + 1


class _ArrayRecordFile:
    """An array_record file. The library wants a path it can open itself."""

    def __init__(self, path: epath.Path):
        try:
            from array_record.python.array_record_module import ArrayRecordReader
        except ImportError as error:
            raise CommandError(
                f"{path} is an array_record file, which the package array_record reads: pip install array_record"
                f" ({error})."
            ) from error
        self._name = os.fspath(path)
        self._reader: Any = None
        try:
            self._reader = ArrayRecordReader(self._name, "readahead_buffer_size:0")
            self.num_records = int(self._reader.num_records())
            self.problem = ""
        except Exception as error:  # of no type of its own
            self.num_records, self.problem = 0, self._describe(error)

    def read_together(self, start: int, stop: int) -> list[Read]:
        """Returns some records, or what is wrong with them."""
        try:
            return [(record, "") for record in self._reader.read(list(range(start, stop)))]
        except Exception:
            return [self.read_one(number) for number in range(start, stop)]

    def read_one(self, number: int) -> Read:
        """Returns a record, or what is wrong with it."""
        try:
            return self._reader.read([number])[0], ""
        except Exception as error:
            return None, self._describe(error)

    def _describe(self, error: Exception) -> str:
        text = " ".join(str(error).replace(self._name, "the file").split())
        return f"array_record refuses it ({text[:200]})"

    def __enter__(self) -> _ArrayRecordFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._reader is not None:
            with contextlib.suppress(Exception):  # of a damaged file it says again what it said before
                self._reader.close()


def _read_array_records(path: epath.Path) -> Iterator[Read]:
    path.stat()  # an error of the operating system is raised as such
    with _ArrayRecordFile(path) as reader:
        if reader.problem:
            yield None, f"the file as a whole: {reader.problem}"
        for start in range(0, reader.num_records, _NUM_TOGETHER):
            yield from reader.read_together(start, min(start + _NUM_TOGETHER, reader.num_records))
