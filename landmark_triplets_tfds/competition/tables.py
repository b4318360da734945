"""Which image shows which landmark: ``train.csv``, read and validated.

Everything after this module works on rows of a `LandmarkTable` (integers), never on id strings or paths: 1.58 million
ids are 12.6 MB as uint64 and ten times that as Python strings.

Reading is done twice when something is wrong: pandas reads 1.58 million lines in about a second but reports problems
poorly, so a failed read is followed by a slow pass (`csv_records`) whose only job is to find the line and say what is
wrong with it.

The tables that say which image shows which landmark, in the two forms in which they are published.

``train.csv`` has a line per image; `landmarks` reads it. ``train_clean.csv`` is the competition's subset of the public
Google Landmarks Dataset v2 and has a line per landmark with all its images, which are taken in the order in which they
are listed, line by line. A table's first line tells which form it has, not its name.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import functools
import hashlib
import io
import os
import re

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.competition.csv_files import CsvRecords, shorten
from landmark_triplets_tfds.errors import LandmarkTableError

ID_COLUMN = "id"
LANDMARK_COLUMN = "landmark_id"
NO_LANDMARK = -1

IMAGE_ID_HEX_DIGITS = 16
_IMAGE_ID_PATTERN = re.compile(r"[0-9a-f]{16}")
_MAX_LANDMARK_ID_DIGITS = 18  # any 18 digits fit int64
LANDMARK_ID_PATTERN = re.compile(r"[0-9]{1,18}")
_ALL_HEX_PATTERN = re.compile(r"[0-9a-f]*")


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
    def rows_by_landmark(self) -> npt.NDArray[np.int64]:
        """int64[num_images]: all rows, landmark by landmark (ascending id), in train.csv order within each."""
        return np.argsort(self.landmark_ids, kind="stable")

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
        sorted_ids = self.image_ids[self._rows_by_id]
        places = np.minimum(np.searchsorted(sorted_ids, image_ids), len(sorted_ids) - 1)
        return np.where(sorted_ids[places] == image_ids, self._rows_by_id[places], -1)

    @functools.cached_property
    def _rows_by_id(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.image_ids)

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


def read_landmark_table(path: epath.Path) -> LandmarkTable:
    """Reads and validates a table of images from a file; see `parse_landmark_table`."""
    return parse_landmark_table(path.read_bytes(), os.fspath(path))


def parse_landmark_table(content: bytes, name: str) -> LandmarkTable:
    """Parses and validates a table of images.

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
        id is not 16 hex digits or occurs twice, or a landmark_id is not a whole number from 0 up.
    """
    try:
        return _read_with_pandas(content)
    except (ValueError, OverflowError) as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        problem = str(error)
    _raise_first_problem(name, content)
    raise LandmarkTableError(f"{name}: {problem}")


def _read_with_pandas(content: bytes) -> LandmarkTable:
    """Reads a right table fast; raises ValueError, without saying where, for a wrong one."""
    if b"\0" in content:  # versions of pandas differ in what they make of it
        raise ValueError("a NUL byte")
    columns = _read_header(content)
    if columns.count(ID_COLUMN) != 1 or columns.count(LANDMARK_COLUMN) != 1:
        raise ValueError("wrong header")
    import pandas as pd  # takes as long to import as TFDS, and the package is imported where no table is read

    # pandas cuts off surplus fields and fills up missing ones, which moves a landmark_id behind an unquoted comma.
    if not _has_fields_per_line(content, len(columns)):
        raise ValueError("a line has more or fewer fields than the header")
    frame = pd.read_csv(
        io.BytesIO(content),
        usecols=[ID_COLUMN, LANDMARK_COLUMN],
        dtype=object,
        encoding="utf-8-sig",
        na_filter=False,
        index_col=False,
    )
    image_ids = parse_image_ids(frame[ID_COLUMN].tolist())
    landmark_ids = _parse_landmark_ids(frame[LANDMARK_COLUMN].tolist())
    if not len(image_ids) or len(np.unique(image_ids)) != len(image_ids):
        raise ValueError("no images, or an id twice")
    return LandmarkTable(image_ids=image_ids, landmark_ids=landmark_ids)


def _read_header(content: bytes) -> list[str]:
    """Returns the fields of the first line that is not blank."""
    first_line = re.split(rb"[\r\n]", content.removeprefix(codecs.BOM_UTF8).lstrip(), maxsplit=1)[0]
    try:
        return next(csv.reader([first_line.decode()]), [])
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _has_fields_per_line(content: bytes, num_fields: int) -> bool:
    """Returns whether every line that is not blank has so many fields."""
    if b'"' in content or content.count(b"\r") != content.count(b"\r\n"):
        # Commas and line ends may be within fields, or lines end otherwise: the slow pass knows.
        _raise_first_problem("", content)
        return True
    text = np.frombuffer(content, dtype=np.uint8)
    commas = np.flatnonzero(text == ord(","))
    bounds = np.concatenate([[-1], np.flatnonzero(text == ord("\n")), [len(text)]])  # just before and after each line
    counts = np.diff(np.searchsorted(commas, bounds))
    others = np.flatnonzero(counts != num_fields - 1)
    return not any(content[bounds[line] + 1 : bounds[line + 1]].strip() for line in others)


def parse_image_id(text: object, column: str) -> int:
    """Returns the number that an id is; raises ValueError, which names the column, for anything but 16 hex digits."""
    if not isinstance(text, str) or not _IMAGE_ID_PATTERN.fullmatch(text):
        raise ValueError(f"{column} must be 16 hex digits (0-9, a-f), got {shorten(text)}.")
    return int(text, 16)


def parse_image_ids(texts: list[str]) -> npt.NDArray[np.uint64]:
    """Returns uint64[n] for n texts of 16 hex digits; raises ValueError for anything else."""
    if not all(len(text) == IMAGE_ID_HEX_DIGITS for text in texts):
        raise ValueError("some id is not 16 hex digits")
    return parse_joined_ids("".join(texts))


def parse_joined_ids(joined: str) -> npt.NDArray[np.uint64]:
    """Returns uint64[n] for the ids of 16 digits that are joined to one text; raises ValueError for other characters.

    The text must have 16 n characters.
    """
    if not _ALL_HEX_PATTERN.fullmatch(joined):
        raise ValueError("some id is not 16 hex digits")
    return np.frombuffer(bytes.fromhex(joined), dtype=">u8").astype(np.uint64)


def _parse_landmark_ids(texts: list[str]) -> npt.NDArray[np.int64]:
    """Returns int64[n] for n texts of 1 to 18 decimal digits; raises ValueError for anything else."""
    joined = "".join(texts)
    lengths_right = all(1 <= len(text) <= _MAX_LANDMARK_ID_DIGITS for text in texts)
    if not lengths_right or not (joined.isascii() and joined.isdigit()):
        raise ValueError("some landmark_id is not a whole number")
    return np.fromiter(map(int, texts), dtype=np.int64, count=len(texts))


def _raise_first_problem(name: str, content: bytes) -> None:
    """Raises LandmarkTableError for the first line that is wrong; returns if each line is right by itself."""
    records = CsvRecords(io.BytesIO(content), name, (ID_COLUMN, LANDMARK_COLUMN), LandmarkTableError)
    line_of_id: dict[str, int] = {}
    for image_id, landmark_id in records:
        try:
            parse_image_id(image_id, ID_COLUMN)
        except ValueError as error:
            raise records.problem(str(error)) from None
        if not LANDMARK_ID_PATTERN.fullmatch(landmark_id):
            raise records.problem(f"{LANDMARK_COLUMN} must be a whole number from 0 up, got {shorten(landmark_id)}.")
        if image_id in line_of_id:
            raise records.problem(
                f"{ID_COLUMN} {image_id} is there already, on line {line_of_id[image_id]}; each image must occur once."
            )
        line_of_id[image_id] = records.line
    if not line_of_id:
        raise LandmarkTableError(f"{name} has a header but no images. Fetch it again.")


IMAGES_COLUMN = "images"

_IMAGE_LIST_PATTERN = re.compile(r"[0-9a-f]{16}(?: [0-9a-f]{16})*")
_CLEAN_HEADER_PATTERN = re.compile(rb'\s*"?(?:landmark_id"?\s*,\s*"?images|images"?\s*,\s*"?landmark_id)"?\s*[\r\n]')


def read_image_table(path: str) -> LandmarkTable:
    """Reads and validates a table of images from a file, local or remote; see `parse_image_table`."""
    return parse_image_table(epath.Path(path).read_bytes(), path)


def parse_image_table(content: bytes, name: str) -> LandmarkTable:
    """Parses and validates a table of images of either form.

    Args:
      content: of a CSV file with a header line.
      name: of the file, for messages.

    Raises:
      LandmarkTableError: with file, line number and value, for whatever is wrong with it.
    """
    if _CLEAN_HEADER_PATTERN.match(content.removeprefix(codecs.BOM_UTF8)):
        return _parse_clean_table(content, name)
    return parse_landmark_table(content, name)


def _parse_clean_table(content: bytes, name: str) -> LandmarkTable:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LandmarkTableError(f"{name}, line {line}: not UTF-8 text. Fetch the file again.") from None
    columns: list[str] | None = None
    ids: list[str] = []
    counts: list[int] = []
    line_of_landmark: dict[int, int] = {}
    for line, record in enumerate(re.split("\r\n|\r|\n", text), 1):
        if not record.strip():
            continue
        # Neither ids nor numbers can hold a comma, so quotes, if any, mean nothing.
        fields = [field.strip(" \t").strip('"') for field in record.split(",")]
        if columns is None:
            columns = fields
            continue
        try:
            landmark_id, images = _parse_landmark_line(fields, columns)
            if landmark_id in line_of_landmark:
                raise ValueError(
                    f"{LANDMARK_COLUMN} {landmark_id} is there already, on line {line_of_landmark[landmark_id]}; each"
                    " landmark must have one line."
                )
        except ValueError as error:
            raise LandmarkTableError(f"{name}, line {line}: {error}") from None
        line_of_landmark[landmark_id] = line
        ids += images
        counts.append(len(images))
    if not ids:
        raise LandmarkTableError(f"{name} has a header but no images. Fetch it again.")
    image_ids = parse_image_ids(ids)
    if len(np.unique(image_ids)) != len(image_ids):
        _raise_for_repeated_image(name, ids, np.repeat(list(line_of_landmark.values()), counts).tolist())
    landmark_ids = np.repeat(np.array(list(line_of_landmark), dtype=np.int64), counts)
    return LandmarkTable(image_ids=image_ids, landmark_ids=landmark_ids)


def _parse_landmark_line(fields: list[str], columns: list[str]) -> tuple[int, list[str]]:
    """Returns a landmark and its images; raises ValueError with what is wrong."""
    if len(fields) != len(columns):
        raise ValueError(f"expected {len(columns)} fields as in the header, got {len(fields)}: {shorten(fields)}.")
    landmark_id, images = fields[columns.index(LANDMARK_COLUMN)], fields[columns.index(IMAGES_COLUMN)]
    if not LANDMARK_ID_PATTERN.fullmatch(landmark_id):
        raise ValueError(f"{LANDMARK_COLUMN} must be a whole number from 0 up, got {shorten(landmark_id)}.")
    ids = images.split(" ")
    if not _IMAGE_LIST_PATTERN.fullmatch(images):
        wrong = next((i for i in ids if not _IMAGE_LIST_PATTERN.fullmatch(i)), images)
        raise ValueError(
            f"{IMAGES_COLUMN} must be ids of 16 hex digits (0-9, a-f) with a space between them, got {shorten(wrong)}."
        )
    return int(landmark_id), ids


def _raise_for_repeated_image(name: str, ids: list[str], lines: list[int]) -> None:
    first_line: dict[str, int] = {}
    for image_id, line in zip(ids, lines, strict=True):
        if image_id in first_line:
            raise LandmarkTableError(
                f"{name}, line {line}: image {image_id} is there already, on line {first_line[image_id]}; each image"
                " must occur once."
            )
        first_line[image_id] = line
