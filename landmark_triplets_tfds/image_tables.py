"""The tables that say which image shows which landmark, in the two forms in which they are published.

``train.csv`` has a line per image; `landmarks` reads it. ``train_clean.csv`` is the competition's subset of the public
Google Landmarks Dataset v2 and has a line per landmark with all its images, which are taken in the order in which they
are listed, line by line. A table's first line tells which form it has, not its name.
"""

from __future__ import annotations

import codecs
import re

from etils import epath
import numpy as np

from landmark_triplets_tfds.csv_records import shorten
from landmark_triplets_tfds.errors import LandmarkTableError
from landmark_triplets_tfds.landmarks import (
    LANDMARK_COLUMN,
    LANDMARK_ID_PATTERN,
    LandmarkTable,
    parse_image_ids,
    parse_landmark_table,
)

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
