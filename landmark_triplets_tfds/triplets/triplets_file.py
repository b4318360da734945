"""Triplets that someone chose, by mining or by hand: a CSV or Parquet file of image ids, read and split.

Nothing in such a file is passed over in silence. What contradicts the table of images is an error with its line; what
the config leaves out on purpose (excluded landmarks, images dropped as missing) takes its triplets along, and these are
counted. What remains are rows of the table, an array: a plan takes them in place of triplets that are drawn, and the
workers of a cluster load them.

``triplets.csv``, in which a build lists its triplets on request, is such a file too, for looking at without pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.columns import PARQUET_MAGIC, Columns, CsvColumns, ParquetColumns
from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.tables import IMAGE_ID, LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError, TripletsFileError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, hash_words, is_held_out
from landmark_triplets_tfds.triplets.examples import TRIPLETS

ID_COLUMNS = TRIPLETS.id_features
_ANCHOR, _POSITIVE, _NEGATIVE = range(len(ID_COLUMNS))
_LISTED_COLUMNS = f"{', '.join(ID_COLUMNS[:-1])} and {ID_COLUMNS[-1]}"

# Tells rows apart that are equal otherwise. triplets.csv has it: there, chance may draw a triplet twice.
_KEY_COLUMN = "key"

# Why a triplet of the file is not planned.
EXCLUDED_LANDMARK = "excluded landmark"
DROPPED_IMAGE = "dropped image"

# int32[num_triplets, 4]: rows of anchor, positive and negative in the table; and which one of its anchor's triplets in
# the file each is, from 0. int64 would take twice the memory, and there may be many triplets.
GivenRows = npt.NDArray[np.int32]

_TripletRows = npt.NDArray[np.int32]  # [num_triplets, 3]: of anchor, positive and negative


@dataclasses.dataclass(frozen=True, kw_only=True)
class TripletsFileSpec:
    """What a config says about the triplets of a split that a file names; fields are as in `SamplingSpec`."""

    path: str
    positive_may_be_anchor: bool = False
    validation_percent: float = 0
    split: str = TRAIN


# --- The file by itself


@dataclasses.dataclass(frozen=True, eq=False)
class TripletsFile:
    """The triplets of a file, in its order. Their numbers count from 0.

    Attributes:
      path: of the file.
      columns: reads the file again where something is to be said about a triplet.
      ids: uint64[num_triplets, 3]: ids of anchor, positive and negative.
    """

    path: str
    columns: Columns
    ids: npt.NDArray[np.uint64]

    @functools.cached_property
    def content_hash(self) -> str:
        """'sha256:' and the hash of the ids in their order: the same for CSV and Parquet, whatever else they hold."""
        digest = hashlib.sha256(b"Triplets 1\n")
        digest.update(self.ids.astype("<u8", order="C", copy=False).data)
        return f"sha256:{digest.hexdigest()}"


def read_triplets_file(path: str) -> TripletsFile:
    """Reads a file of triplets; its first bytes tell whether it is Parquet or CSV, not its name.

    Args:
      path: local, where ~ stands for the user's folder, or remote, such as ``gs://``.

    Raises:
      TripletsFileError: with line or row and value, if a column is missing, a record has too many or too few fields, an
        id is not a text of 16 hex digits, there is no triplet, or the file is neither CSV nor Parquet, or cannot be
        read.
      FileNotFoundError: if there is no such file.
    """
    path = os.fspath(epath.Path(path).expanduser())
    reader = ParquetColumns if _map_file(path)[: len(PARQUET_MAGIC)] == PARQUET_MAGIC else CsvColumns
    columns = reader(lambda: _map_file(path), path, dict.fromkeys(ID_COLUMNS, IMAGE_ID), TripletsFileError)
    ids = np.stack(columns.read(), axis=1)
    if not len(ids):
        raise TripletsFileError(f"{path} has the columns {_LISTED_COLUMNS}, but no triplets.")
    return TripletsFile(path, columns, ids)


def _map_file(path: str) -> file_access.Content:
    expected = f"triplets_file must name a CSV or Parquet file with the columns {_LISTED_COLUMNS}."
    try:
        return file_access.map_file(path)
    except FileNotFoundError:
        looked_in = "" if file_access.is_remote(path) else f" (looked for in {pathlib.Path.cwd()})"
        raise FileNotFoundError(f"There is no file {path}{looked_in}. {expected}") from None
    except IsADirectoryError:
        raise TripletsFileError(
            f"{path} is a folder. triplets_file must name one CSV or Parquet file. pandas joins the parts that Spark"
            " writes: read_parquet(folder).to_parquet(file)."
        ) from None
    except OSError as error:
        raise TripletsFileError(f"{path} cannot be read ({error}). {expected}") from None


# --- Beside the table


class GivenTriplets:
    """The triplets of a file as rows of a table, split by split."""

    def __init__(self, file: TripletsFile, spec: TripletsFileSpec, selection: Selection):
        """Checks the file against the table; the rows of splits are rows of ``selection.images.table``.

        Raises:
          TripletsFileError: with the line, if an id is not in the table, a positive is of another landmark or is the
            anchor, a negative is of the same landmark or of the other split, or a triplet occurs twice.
        """
        self._path = file.path  # but not the ids, for the time of the build
        self._validation_percent = spec.validation_percent
        whole = selection.whole
        rows = _find_rows(file, whole)
        held_out = is_held_out(whole.landmark_ids, spec.validation_percent)
        _check(file, spec, whole, rows, held_out)
        _check_repetitions(file, rows)
        rows_of_kept = _row_in(selection.images.table, whole)[rows]
        # Numbered in the file as a whole, so that a key stays the same whatever else is left out.
        self._given: GivenRows = np.column_stack([rows_of_kept, _count_up(rows[:, _ANCHOR])])
        self._is_dropped = (rows_of_kept < 0).any(axis=1)
        self._is_excluded = (_row_in(selection.not_excluded, whole)[rows] < 0).any(axis=1)
        self._is_validation = held_out[rows[:, _ANCHOR]]

    def of_split(self, split: str) -> tuple[GivenRows, Counter[str]]:
        """Returns the triplets of a split, in the order of the file, and how many are left out, by reason.

        Raises:
          NoExampleError: if there are none.
        """
        in_split = self._is_validation == (split == VALIDATION)
        is_excluded = in_split & self._is_excluded
        is_dropped = in_split & self._is_dropped & ~is_excluded
        left_out = +Counter({EXCLUDED_LANDMARK: int(is_excluded.sum()), DROPPED_IMAGE: int(is_dropped.sum())})
        given = self._given[in_split & ~is_excluded & ~is_dropped]
        if len(given):
            return given, left_out
        if left_out:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
            raise NoExampleError(
                f"All {left_out.total():,} triplets that {self._path} has for split {split!r} are left out ({listed})."
            )
        side = "held out" if split == VALIDATION else "not held out"
        raise NoExampleError(
            f"Split {split!r} would be empty: of the {len(self._given):,} triplets in {self._path}, none has an anchor"
            f" whose landmark is {side} by validation_percent={self._validation_percent:g}. Add triplets of such"
            " landmarks, or build without validation_percent."
        )


def _find_rows(file: TripletsFile, table: LandmarkTable) -> _TripletRows:
    """Returns the rows of all triplets; raises TripletsFileError for the first id that is not in the table."""
    rows = np.empty(file.ids.shape, dtype=np.int32)
    for column in range(len(ID_COLUMNS)):  # one at a time, to save memory
        rows[:, column] = table.find_rows(file.ids[:, column])
    is_unknown = rows < 0
    if is_unknown.any():
        number = int(is_unknown.any(axis=1).argmax())
        column = int(is_unknown[number].argmax())
        raise file.columns.problem(
            number,
            f"{ID_COLUMNS[column]} {format_image_id(file.ids[number, column])} is not in the table of images"
            f" ({table.num_images:,} ids). Was the file made for another copy of the dataset?",
        )
    return rows


def _row_in(part: LandmarkTable, whole: LandmarkTable) -> npt.NDArray[np.int32]:
    """Returns int32[whole.num_images]: in which row of a part of the table each image is, -1: in none."""
    if part is whole:
        return np.arange(whole.num_images, dtype=np.int32)
    rows = np.full(whole.num_images, -1, dtype=np.int32)
    rows[whole.find_rows(part.image_ids)] = np.arange(part.num_images)
    return rows


def _check(
    file: TripletsFile,
    spec: TripletsFileSpec,
    table: LandmarkTable,
    rows: _TripletRows,
    held_out: npt.NDArray[np.bool_],
) -> None:
    """Raises TripletsFileError for the first triplet that is none."""
    of_anchor, of_positive, of_negative = table.landmark_ids[rows].T
    in_validation = held_out[rows]
    shows_another = of_positive != of_anchor
    is_anchor = (rows[:, _POSITIVE] == rows[:, _ANCHOR]) & (not spec.positive_may_be_anchor)
    shows_the_same = of_negative == of_anchor
    is_elsewhere = in_validation[:, _NEGATIVE] != in_validation[:, _ANCHOR]
    is_wrong = shows_another | is_anchor | shows_the_same | is_elsewhere
    if not is_wrong.any():
        return
    number = int(is_wrong.argmax())
    anchor, positive, negative = map(format_image_id, file.ids[number])
    landmark = of_anchor[number]
    if shows_another[number]:
        message = (
            f"positive_id {positive} shows landmark {of_positive[number]}, but anchor_id {anchor} shows landmark"
            f" {landmark}. Both must show the same."
        )
    elif is_anchor[number]:
        message = f"positive_id {positive} is the anchor itself. Where that is wanted, set positive_may_be_anchor=True."
    elif shows_the_same[number]:
        message = (
            f"negative_id {negative} shows landmark {landmark}, as anchor_id {anchor} does. It must show another one."
        )
    else:
        splits = (TRAIN, VALIDATION) if in_validation[number, _NEGATIVE] else (VALIDATION, TRAIN)
        message = (
            f"negative_id {negative} is in split {splits[1]!r} (landmark {of_negative[number]}), but anchor_id {anchor}"
            f" is in {splits[0]!r} (landmark {landmark}), by validation_percent={spec.validation_percent:g}. Choose"
            " negatives within the anchor's split, or build without validation_percent."
        )
    raise file.columns.problem(number, message)


def _check_repetitions(file: TripletsFile, rows: _TripletRows) -> None:
    """Raises TripletsFileError for the first triplet that is in the file before, with the same key if it has keys."""
    hashes = hash_words(*rows.T)
    order = np.argsort(hashes)
    is_equal = np.diff(hashes[order]) == 0
    if not is_equal.any():
        return
    candidates = np.sort(order[np.append(is_equal, False) | np.insert(is_equal, 0, False)])
    keys: list[str | None] = [None] * len(candidates)
    if file.columns.header().count(_KEY_COLUMN) == 1:
        keys = file.columns.texts(_KEY_COLUMN, candidates)
    first: dict[tuple[int | str | None, ...], int] = {}
    for number, key in zip(candidates.tolist(), keys, strict=False):  # the file may have been cut since
        triplet = (*rows[number].tolist(), key)
        before = first.setdefault(triplet, number)
        if before != number:
            listed = ", ".join(map(format_image_id, file.ids[number]))
            where = file.columns.where(before)
            raise file.columns.problem(
                number, f"the triplet {listed} is there already, on {where}; each must occur once."
            )


def _count_up(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Returns int32[n]: how often each value occurs before it."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))  # of the runs of equal values
    counts = np.empty(len(values), dtype=np.int32)
    counts[order] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return counts


# --- triplets.csv, the list that a build writes. Its lines are in the order of the plan, whoever writes them.

_CSV_FEATURES = tuple(dict.fromkeys((*TRIPLETS.id_features, *TRIPLETS.landmark_features)))
CSV_HEADER = ",".join((_KEY_COLUMN, *_CSV_FEATURES)) + "\n"


def csv_name(split: str) -> str:
    """Returns the name of the file that lists the triplets of a split."""
    return "triplets.csv" if split == TRAIN else f"triplets-{split}.csv"


def format_csv_line(key: str, example: Mapping[str, Any]) -> str:
    """Returns the line of one triplet. Ids are hex digits and whole numbers, so nothing needs quoting."""
    return ",".join([key, *(str(example[feature]) for feature in _CSV_FEATURES)]) + "\n"
