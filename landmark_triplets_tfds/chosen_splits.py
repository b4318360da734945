"""Which triplets of a file make up which split: checked against the table of images, and left out where it says so.

Nothing in the file is passed over in silence. What contradicts the table is an error with its line; what the config
leaves out on purpose (excluded landmarks, images dropped as missing) takes its triplets along, and these are counted.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.chosen_triplets import ChosenTriplets, TripletsFileSpec
from landmark_triplets_tfds.counter_hash import hash_words
from landmark_triplets_tfds.errors import NoTripletError
from landmark_triplets_tfds.holdout import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.triplets_file import TripletsFile
from landmark_triplets_tfds.triplets_formats import ID_COLUMNS

# Why a triplet of the file is not planned.
EXCLUDED_LANDMARK = "excluded landmark"
DROPPED_IMAGE = "dropped image"

_ANCHOR, _POSITIVE, _NEGATIVE = range(len(ID_COLUMNS))

_RowNumbers = npt.NDArray[np.int32]  # half the memory of int64, and there may be many triplets


class ChosenSplits:
    """The triplets of a file, split by split."""

    def __init__(
        self,
        file: TripletsFile,
        spec: TripletsFileSpec,
        whole: LandmarkTable,
        not_excluded: LandmarkTable,
        kept: LandmarkTable,
    ):
        """Checks the file against the table.

        Args:
          file: of the triplets.
          spec: of any split.
          whole: the table as it was read.
          not_excluded: the table without excluded landmarks.
          kept: this table without images dropped as missing; the rows of the splits are rows of this one.

        Raises:
          TripletsFileError: with the line, if an id is not in the table, a positive is of another landmark or is the
            anchor, a negative is of the same landmark or of the other split, or a triplet occurs twice.
        """
        self._path, self._num_triplets = file.path, file.num_triplets  # but not the ids, for the time of the build
        self._validation_percent = spec.validation_percent
        rows = _find_rows(file, whole)
        held_out = is_held_out(whole.landmark_ids, spec.validation_percent)
        _check(file, spec, whole, rows, held_out)
        _check_repetitions(file, rows)
        rows_of_kept = _row_in(kept, whole)[rows]
        # Numbered in the file as a whole, so that a key stays the same whatever else is left out.
        self._numbers: _RowNumbers = np.column_stack([rows_of_kept, _count_up(rows[:, _ANCHOR])])
        self._is_dropped = (rows_of_kept < 0).any(axis=1)
        self._is_excluded = (_row_in(not_excluded, whole)[rows] < 0).any(axis=1)
        self._is_validation = held_out[rows[:, _ANCHOR]]

    def of_split(self, split: str) -> tuple[ChosenTriplets, Counter[str]]:
        """Returns the triplets of a split, in the order of the file, and how many are left out, by reason.

        Raises:
          NoTripletError: if there are none.
        """
        in_split = self._is_validation == (split == VALIDATION)
        is_excluded = in_split & self._is_excluded
        is_dropped = in_split & self._is_dropped & ~is_excluded
        counts = {EXCLUDED_LANDMARK: int(is_excluded.sum()), DROPPED_IMAGE: int(is_dropped.sum())}
        left_out = Counter({reason: count for reason, count in counts.items() if count})
        chosen = ChosenTriplets(self._numbers[in_split & ~is_excluded & ~is_dropped])
        if not chosen.num_triplets:
            self._raise_empty(split, int(in_split.sum()), left_out)
        return chosen, left_out

    def _raise_empty(self, split: str, num_in_split: int, left_out: Counter[str]) -> None:
        if num_in_split:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
            raise NoTripletError(
                f"All {num_in_split:,} triplets that {self._path} has for split {split!r} are left out ({listed})."
            )
        side = "held out" if split == VALIDATION else "not held out"
        raise NoTripletError(
            f"Split {split!r} would be empty: of the {self._num_triplets:,} triplets in {self._path}, none has an"
            f" anchor whose landmark is {side} by validation_percent={self._validation_percent:g}. Add triplets of such"
            " landmarks, or build without validation_percent."
        )


def _row_in(table: LandmarkTable, of: LandmarkTable) -> _RowNumbers:
    """Returns int32[of.num_images]: in which row of the table each image of another one is, -1: in none."""
    if table is of:
        return np.arange(of.num_images, dtype=np.int32)
    import pandas as pd  # late, for the same reason as in `landmarks`

    return pd.Index(table.image_ids).get_indexer(pd.Index(of.image_ids)).astype(np.int32)


def _find_rows(file: TripletsFile, table: LandmarkTable) -> _RowNumbers:
    """Returns int32[num_triplets, 3] rows; raises TripletsFileError for the first id that is not in the table."""
    import pandas as pd

    index = pd.Index(table.image_ids)
    rows = np.empty(file.ids.shape, dtype=np.int32)
    for column in range(len(ID_COLUMNS)):
        rows[:, column] = index.get_indexer(pd.Index(file.ids[:, column]))
    unknown = (rows < 0).any(axis=1)
    if unknown.any():
        number = int(unknown.argmax())
        column = int((rows[number] < 0).argmax())
        raise file.problem(
            number,
            f"{ID_COLUMNS[column]} {format_image_id(file.ids[number, column])} is not in the table of images"
            f" ({table.num_images:,} ids). Was the file made for another copy of the dataset?",
        )
    return rows


def _check(
    file: TripletsFile, spec: TripletsFileSpec, table: LandmarkTable, rows: _RowNumbers, held_out: npt.NDArray[np.bool_]
) -> None:
    """Raises TripletsFileError for the first triplet that is none."""
    landmarks = table.landmark_ids[rows]
    of_anchor, of_positive, of_negative = landmarks.T
    in_validation = held_out[rows]
    problems = {
        "another landmark": of_positive != of_anchor,
        "the anchor": (rows[:, _POSITIVE] == rows[:, _ANCHOR]) & (not spec.positive_may_be_anchor),
        "the same landmark": of_negative == of_anchor,
        "another split": in_validation[:, _NEGATIVE] != in_validation[:, _ANCHOR],
    }
    is_wrong = np.logical_or.reduce(list(problems.values()))
    if not is_wrong.any():
        return
    number = int(is_wrong.argmax())
    kind = next(kind for kind, where in problems.items() if where[number])
    anchor, positive, negative = map(format_image_id, file.ids[number].tolist())
    landmark, landmark_of_positive, landmark_of_negative = landmarks[number].tolist()
    splits = [VALIDATION if validation else TRAIN for validation in in_validation[number].tolist()]
    message = {
        "another landmark": f"positive_id {positive} shows landmark {landmark_of_positive}, but anchor_id {anchor}"
        f" shows landmark {landmark}. Both must show the same.",
        "the anchor": f"positive_id {positive} is the anchor itself. Where that is wanted, set"
        " positive_may_be_anchor=True.",
        "the same landmark": f"negative_id {negative} shows landmark {landmark}, as anchor_id {anchor} does. It must"
        " show another one.",
        "another split": f"negative_id {negative} is in split {splits[_NEGATIVE]!r} (landmark {landmark_of_negative}),"
        f" but anchor_id {anchor} is in {splits[_ANCHOR]!r} (landmark {landmark}), by validation_percent="
        f"{spec.validation_percent:g}. Choose negatives within the anchor's split, which landmark_triplets_tfds.holdout"
        " tells, or build without validation_percent.",
    }[kind]
    raise file.problem(number, message)


def _check_repetitions(file: TripletsFile, rows: _RowNumbers) -> None:
    """Raises TripletsFileError for the first triplet that is in the file before, with the same key if it has keys."""
    hashes = hash_words(*rows.T)
    order = np.argsort(hashes)
    is_equal = np.diff(hashes[order]) == 0
    if not is_equal.any():
        return
    candidates = np.sort(order[np.append(is_equal, False) | np.insert(is_equal, 0, False)])
    import pandas as pd

    repeated: list[int] = candidates[pd.DataFrame(rows[candidates]).duplicated(keep=False)].tolist()
    if not repeated:
        return
    has_keys = file.places(repeated[:1])[repeated[0]].key is not None
    places = file.places(repeated) if has_keys else {}
    first: dict[tuple[int | str | None, ...], int] = {}
    for number in repeated:
        triplet = (*rows[number].tolist(), places[number].key if has_keys else None)
        if triplet in first:
            listed = ", ".join(map(format_image_id, file.ids[number].tolist()))
            where = file.places([first[triplet]])[first[triplet]].where
            raise file.problem(number, f"the triplet {listed} is there already, on {where}; each must occur once.")
        first[triplet] = number


def _count_up(values: _RowNumbers) -> _RowNumbers:
    """Returns int32[n]: how often each value occurs before it."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-1))  # of the runs of equal values
    counts = np.empty(len(values), dtype=np.int32)
    counts[order] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return counts
