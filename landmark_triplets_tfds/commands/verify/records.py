"""The records of a shard, checked as they are read: the file formats TFRecord and array_record.

Readers of TensorFlow and TFDS stop at the first damaged record without saying which one it is, so TFRecords are taken
apart here. A TFRecord file is a sequence of: length, uint64; checksum of the length, uint32; the bytes; checksum of the
bytes, uint32; all little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord). Array records have checksums
too, which their own library verifies.

What can be wrong with one record, seen by itself: its features, its images and the rules of triplets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import hashlib
import os
import re
import struct
from typing import Any, BinaryIO

from etils import epath
import google_crc32c
import simplejpeg

from landmark_triplets_tfds.build.report import TRIPLETS
from landmark_triplets_tfds.commands.verify.findings import CONTENT, IMAGE, RULE
from landmark_triplets_tfds.commands.verify.prepared import (
    ARRAY_RECORD,
    ID_FEATURES,
    IMAGE_FEATURES,
    LANDMARK_FEATURES,
    TFRECORD,
)
from landmark_triplets_tfds.errors import CommandError

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


_IMAGE_ID_PATTERN = re.compile(rb"[0-9a-f]{16}")

_DIGEST_BYTES = 8

# Digests of images that were decoded already; each takes about 100 bytes. Triplets hold an image about three times.
_MAX_NUM_KNOWN = 1_000_000

AddProblem = Callable[[str, str, str | None], object]


@dataclasses.dataclass(frozen=True)
class RecordRules:
    """What records must be like; the fields are those of `PreparedData`, and of the config.

    Attributes:
      positive_may_be_anchor: whether the anchor may be its own positive.
    """

    noun: str
    features: frozenset[str]
    image_px: tuple[int, int] | None
    positive_may_be_anchor: bool


@dataclasses.dataclass(frozen=True)
class RecordContent:
    """What a record says, of its k images: one, or the anchor, the positive and the negative.

    Attributes:
      image_ids: of each image.
      landmark_ids: of each image.
      digests: of the stored bytes of each image.
    """

    image_ids: tuple[int, ...]
    landmark_ids: tuple[int, ...]
    digests: tuple[int, ...]


def digest_image(image_bytes: bytes) -> int:
    """Returns 64 bits that tell stored images apart."""
    return int.from_bytes(hashlib.blake2b(image_bytes, digest_size=_DIGEST_BYTES).digest(), "little")


class RecordChecker:
    """Checks records one after the other. It keeps the digests of images that it has decoded, to do that once each."""

    def __init__(self, rules: RecordRules):
        """Takes the rules."""
        from tensorflow_datasets.proto import tf_example_pb2  # half a second, which `--help` does without

        self._parse = tf_example_pb2.Example.FromString
        self._rules = rules
        self._images = IMAGE_FEATURES[rules.noun]
        self._ids = ID_FEATURES[rules.noun]
        self._landmarks = LANDMARK_FEATURES[rules.noun]
        self._known: set[int] = set()

    @property
    def num_images(self) -> int:
        """Images in a record."""
        return len(self._images)

    def describe_damaged(self, record: bytes) -> str:
        """Returns words for the key that a damaged record seems to have; '' if none can be read.

        In a serialized tf.train.Example, a text of 16 bytes stands behind the name of its feature and six bytes of
        tags and lengths (https://protobuf.dev/programming-guides/encoding).
        """
        tags = rb"\x12\x14\x0a\x12\x0a\x10"
        match = re.search(re.escape(self._ids[0].encode()) + tags + rb"([0-9a-f]{16})", record)
        return f"; its key reads {match[1].decode()}" if match else ""

    def check(self, record: bytes, add_problem: AddProblem) -> RecordContent | None:
        """Checks a record.

        Args:
          record: the bytes in the shard.
          add_problem: called with kind, message and key of each problem.

        Returns:
          What it says; None if it says too little to be compared with others.
        """
        try:
            features = self._parse(record).features.feature
        except Exception as error:  # google.protobuf.message.DecodeError, and whatever else it comes upon
            add_problem(CONTENT, f"it is no tf.train.Example ({error})", None)
            return None
        found = set(features)
        if found != self._rules.features:
            missing, surplus = sorted(self._rules.features - found), sorted(found - self._rules.features)
            parts = [f"it lacks {', '.join(missing)}"] if missing else []
            parts += [f"it has {', '.join(surplus)}, which features.json does not know"] if surplus else []
            add_problem(CONTENT, "; ".join(parts), None)
            if missing:
                return None
        try:
            ids = [_only_value(features, name, "bytes_list") for name in self._ids]
            landmarks = [_only_value(features, name, "int64_list") for name in self._landmarks]
            images = [_only_value(features, name, "bytes_list") for name in self._images]
        except ValueError as error:
            add_problem(CONTENT, str(error), None)
            return None
        for name, image_id in zip(self._ids, ids, strict=True):
            if not _IMAGE_ID_PATTERN.fullmatch(image_id):
                add_problem(CONTENT, f"{name} must be 16 hex digits (0-9, a-f), got {image_id[:40]!r}", None)
                return None
        key = ids[0].decode()
        digests = tuple(self._check_image(*pair, key, add_problem) for pair in zip(self._images, images, strict=True))
        content = RecordContent(tuple(int(i, 16) for i in ids), tuple(landmarks), digests)
        if self._rules.noun == TRIPLETS:
            self._check_triplet(content, key, add_problem)
        return content

    def _check_image(self, name: str, image_bytes: bytes, key: str, add_problem: AddProblem) -> int:
        """Adds a problem unless it is a whole JPEG of the right size; returns its digest."""
        digest = digest_image(image_bytes)
        if digest not in self._known:
            problem = find_image_problem(image_bytes, self._rules.image_px)
            if problem:
                add_problem(IMAGE, f"{name} {problem}", key)
            elif len(self._known) < _MAX_NUM_KNOWN:
                self._known.add(digest)
        return digest

    def _check_triplet(self, content: RecordContent, key: str, add_problem: AddProblem) -> None:
        anchor, positive, negative = content.image_ids
        landmark, _, negative_landmark = content.landmark_ids
        if min(landmark, negative_landmark) < 0:
            add_problem(RULE, f"a landmark_id must be 0 or more, got {min(landmark, negative_landmark)}", key)
        if anchor == positive and not self._rules.positive_may_be_anchor:
            add_problem(RULE, "the positive is the anchor itself", key)
        if landmark == negative_landmark:
            add_problem(RULE, f"the negative shows the anchor's landmark, {landmark}", key)
        if negative in (anchor, positive):
            add_problem(RULE, f"the negative is the {'anchor' if negative == anchor else 'positive'} itself", key)


def find_image_problem(image_bytes: bytes, image_px: tuple[int, int] | None) -> str:
    """Returns what is wrong with a stored image, as the rest of a sentence; '' if nothing is.

    Args:
      image_bytes: of the JPEG.
      image_px: its height and width; None: any.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(image_bytes)
    except ValueError as error:
        return f"is no JPEG ({error})"
    if image_px not in (None, (height, width)):  # before it is decoded: a wrong size may be an enormous one
        return f"has {height} x {width} px, and features.json says {image_px[0]} x {image_px[1]}"
    try:
        simplejpeg.decode_jpeg(image_bytes, "GRAY", fastdct=True, strict=True)  # the colours need no second look
    except ValueError as error:
        return f"does not decode ({error})"
    return ""


def _only_value(features: Any, name: str, kind: str) -> Any:
    """Returns the single value of a feature; raises ValueError with what it has instead."""
    feature = features[name]
    values = getattr(feature, kind).value
    if len(values) != 1:
        found = feature.WhichOneof("kind") or "nothing"
        count = len(getattr(feature, found).value) if found != "nothing" else 0
        raise ValueError(f"{name} must be one value in a {kind}, got {count} in {found}")
    return values[0]
