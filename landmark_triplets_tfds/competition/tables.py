"""Which image shows which landmark: the tables that are published with the images, read and validated.

``train.csv`` has a line per image. ``train_clean.csv`` is the competition's subset of the public Google Landmarks
Dataset v2 and has a line per landmark with all its images, which are taken in the order in which they are listed, line
by line. A table's header tells which form it has, not its name.

Everything after this module works on rows of a `LandmarkTable` (integers), never on id strings or paths: 1.58 million
ids are 12.6 MB as uint64 and ten times that as Python strings.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import os
import re
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import shorten
from landmark_triplets_tfds.common.file_access import read_file
from landmark_triplets_tfds.competition.columns import CsvColumns, TextKind
from landmark_triplets_tfds.errors import LandmarkTableError

ID_COLUMN = "id"
LANDMARK_COLUMN = "landmark_id"
IMAGES_COLUMN = "images"
NO_LANDMARK = -1
# The largest that is published, of 4.1 million images with their addresses, has about half of it.
MAX_TABLE_BYTES = 1 << 30

_ID_DIGITS = 16
_ID_PATTERN = re.compile(r"[0-9a-f]{16}")
_HEX_PATTERN = re.compile(rb"[0-9a-f]*")
_MAX_LANDMARK_DIGITS = 18  # any 18 digits fit int64
_IDS_PATTERN = re.compile(r"[0-9a-f]{16}(?: [0-9a-f]{16})*")
_LANDMARK_PATTERN = re.compile(r"[0-9]{1,18}")


def format_image_id(image_id: int) -> str:
    """Returns the id as train.csv writes it: 16 lower-case hex digits."""
    return f"{int(image_id):016x}"


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkTable:
    """The images of a competition and the landmark each one shows, in the order of train.csv.

    Attributes:
      image_ids: uint64[num_images], all different.
      landmark_ids: int64[num_images], >= 0; `NO_LANDMARK` throughout in a table of images without labels.
    """

    image_ids: npt.NDArray[np.uint64]
    landmark_ids: npt.NDArray[np.int64]

    @staticmethod
    def without_labels(image_ids: npt.NDArray[np.uint64]) -> LandmarkTable:
        """Returns a table of images of which nobody says what they show."""
        return LandmarkTable(image_ids, np.full(len(image_ids), NO_LANDMARK, dtype=np.int64))

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_landmarks(self) -> int:
        return len(self.block_starts) - 1

    @functools.cached_property
    def rows_by_landmark(self) -> npt.NDArray[np.int32]:
        """int32[num_images]: all rows, landmark by landmark (ascending id), in train.csv order within each."""
        return np.argsort(self.landmark_ids, kind="stable").astype(np.int32)

    @functools.cached_property
    def block_starts(self) -> npt.NDArray[np.int64]:
        """int64[num_landmarks + 1]: landmark b is ``rows_by_landmark[block_starts[b]:block_starts[b + 1]]``."""
        landmarks = self.landmark_ids[self.rows_by_landmark]
        first_of_block = np.flatnonzero(landmarks[1:] != landmarks[:-1]) + 1
        return np.concatenate([[0], first_of_block, [len(landmarks)]]).astype(np.int64)

    def restrict(self, keep: npt.NDArray[np.bool_]) -> LandmarkTable:
        """Returns the table of the rows where ``keep``, bool[num_images], is True; what it never held is not missed."""
        return LandmarkTable(image_ids=self.image_ids[keep], landmark_ids=self.landmark_ids[keep])

    def find_rows(self, image_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Returns int64, of the shape of ``image_ids``: the row of each image, -1 for one that is not in the table."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(image_ids.ravel()), value_set=pa.array(self.image_ids)).fill_null(-1)
        rows: npt.NDArray[np.int64] = found.to_numpy().astype(np.int64).reshape(image_ids.shape)
        return rows

    @functools.cached_property
    def num_landmarks_without_pair(self) -> int:
        """How many landmarks have a single image."""
        return int((np.diff(self.block_starts) == 1).sum())

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the ids and landmarks in their order: equal exactly when the tables are equal."""
        digest = hashlib.sha256(b"LandmarkTable 1\n")
        digest.update(self.image_ids.astype("<u8").tobytes())
        digest.update(self.landmark_ids.astype("<i8").tobytes())
        return digest.hexdigest()


def read_landmark_table(path: epath.PathLike) -> LandmarkTable:
    """Reads and validates a table of images from a file, local or remote; see `parse_landmark_table`.

    Raises:
      LandmarkTableError: also if it cannot be read.
      FileNotFoundError: if there is no such file.
    """
    name = os.fspath(path)
    try:
        content = read_file(name, MAX_TABLE_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LandmarkTableError(f"The table {name} cannot be read ({error}).") from None
    return parse_landmark_table(content, name)


def parse_landmark_table(content: bytes, name: str) -> LandmarkTable:
    """Parses and validates a table of images of either form.

    Columns other than ``id`` and ``landmark_id`` are ignored, so that the tables of the sibling competitions and of
    the public Google Landmarks Dataset v2 (``id,url,landmark_id``) are read too. A byte order mark, CRLF line ends and
    blank lines are accepted.

    Args:
      content: of a CSV file with a header line.
      name: of the file, for messages.

    Returns:
      The table, in the order of the file.

    Raises:
      LandmarkTableError: with file, line number and value, when a column is missing, the file is empty or not CSV, an
        id is not 16 hex digits or occurs twice, or a landmark_id is not a whole number of at most 18 digits.
    """
    kinds = {ID_COLUMN: IMAGE_ID, LANDMARK_COLUMN: LANDMARK_ID}
    columns = CsvColumns(lambda: content, name, kinds, LandmarkTableError)
    if _is_clean_table(columns):
        kinds = {LANDMARK_COLUMN: _ANY_TEXT, IMAGES_COLUMN: _ANY_TEXT}
        columns = CsvColumns(lambda: content, name, kinds, LandmarkTableError)
        image_ids, landmark_ids, rows = _parse_clean_table(columns)
    else:
        image_ids, landmark_ids = columns.read()
        rows = np.arange(len(image_ids))
    if not len(image_ids):
        raise LandmarkTableError(f"{name} has a header but no images. Fetch it again.")
    repeated = find_repeated(image_ids)
    if repeated:
        before, again = rows[list(repeated)].tolist()
        raise columns.problem(
            again,
            f"{ID_COLUMN} {format_image_id(image_ids[repeated[0]])} is there already, on {columns.where(before)}; each"
            " image must occur once.",
        )
    return LandmarkTable(image_ids=image_ids, landmark_ids=landmark_ids)


def _is_clean_table(columns: CsvColumns) -> bool:
    """Returns whether there is a line per landmark. An ``id`` beside ``images`` may be a number of the line, say."""
    header = columns.header()
    if IMAGES_COLUMN not in header or header.count(ID_COLUMN) != 1:
        return IMAGES_COLUMN in header
    return not any(_ID_PATTERN.fullmatch(text or "") for text in columns.texts(ID_COLUMN, np.zeros(1, dtype=np.int64)))


def _parse_clean_table(
    columns: CsvColumns,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns ids and landmarks of the images of a table with a line per landmark, and the row of each image in it."""
    ids: list[str] = []
    counts: list[int] = []
    row_of_landmark: dict[int, int] = {}
    for row, (landmark, images) in enumerate(zip(*columns.read(), strict=True)):
        landmark, images = landmark.strip(" \t"), images.strip(" \t")
        if not _LANDMARK_PATTERN.fullmatch(landmark):
            raise columns.problem(row, f"{LANDMARK_COLUMN} must be {LANDMARK_ID.rule}, got {shorten(landmark)}.")
        listed = images.split(" ")
        if not _IDS_PATTERN.fullmatch(images):
            wrong = next(image_id for image_id in listed if not _ID_PATTERN.fullmatch(image_id))
            raise columns.problem(
                row,
                f"{IMAGES_COLUMN} must be ids of {IMAGE_ID.rule} with a space between them, got {shorten(wrong)}.",
            )
        before = row_of_landmark.setdefault(int(landmark), row)
        if before != row:
            raise columns.problem(
                row,
                f"{LANDMARK_COLUMN} {int(landmark)} is there already, on {columns.where(before)}; each landmark must"
                " have one line.",
            )
        ids += listed
        counts.append(len(listed))
    landmark_ids = np.repeat(np.array(list(row_of_landmark), dtype=np.int64), counts)
    return _parse_joined_ids("".join(ids).encode()), landmark_ids, np.repeat(np.arange(len(counts)), counts)


def find_repeated(image_ids: npt.NDArray[np.uint64]) -> tuple[int, int] | None:
    """Returns the first place that repeats an id, behind the place of what it repeats; None if all ids differ."""
    in_order = np.sort(image_ids)  # np.unique, which hashes in NumPy 2.3 and later, takes ten times as long
    if not (in_order[1:] == in_order[:-1]).any():
        return None
    order = np.argsort(image_ids, kind="stable")
    again = np.flatnonzero(image_ids[order[1:]] == image_ids[order[:-1]])
    at = again[np.argmin(order[again + 1])]
    return int(order[at]), int(order[at + 1])


def parse_image_ids(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Returns uint64[n] for n texts; raises ValueError if one of them is not 16 hex digits."""
    for text in texts:
        if not _ID_PATTERN.fullmatch(text):
            raise ValueError(f"an id must be {IMAGE_ID.rule}, got {shorten(text)}.")
    return _parse_joined_ids("".join(texts).encode())


def _convert_image_ids(texts: Any) -> npt.NDArray[np.uint64]:
    if texts.null_count:
        raise ValueError("some id is missing")
    _, offsets, characters = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32, count=len(texts) + 1, offset=4 * texts.offset) if len(texts) else [0]
    if (np.diff(ends) != _ID_DIGITS).any():
        raise ValueError("some id has another length")
    return _parse_joined_ids(memoryview(characters)[ends[0] : ends[-1]] if len(texts) else b"")


def _parse_joined_ids(digits: bytes | memoryview) -> npt.NDArray[np.uint64]:
    """Returns uint64[n] for 16 n hex digits; raises ValueError for other characters."""
    if not _HEX_PATTERN.fullmatch(digits):
        raise ValueError("some id is not hex digits")
    return np.frombuffer(binascii.unhexlify(digits), dtype=">u8").astype(np.uint64)


def _convert_landmark_ids(texts: Any) -> npt.NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths_right = pc.less_equal(pc.binary_length(texts), _MAX_LANDMARK_DIGITS)
    if not pc.all(pc.and_(pc.ascii_is_decimal(texts), lengths_right), min_count=0).as_py():
        raise ValueError("some landmark_id is not a whole number")
    values: npt.NDArray[np.int64] = texts.cast(pa.int64()).to_numpy()
    return values


IMAGE_ID = TextKind(_ID_PATTERN, "16 hex digits (0-9, a-f)", _convert_image_ids)
LANDMARK_ID = TextKind(_LANDMARK_PATTERN, "a whole number from 0 up, of at most 18 digits", _convert_landmark_ids)
_ANY_TEXT = TextKind(
    re.compile(".*", re.DOTALL),
    "texts",
    lambda texts: texts.to_numpy(zero_copy_only=False),  # Python strings
)
