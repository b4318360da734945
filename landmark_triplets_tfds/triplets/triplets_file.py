"""Triplets that someone chose, by mining or by hand: a CSV or Parquet file of image ids.

What is checked here needs the file alone; `chosen_splits` compares it with the table of images. Places in the file
are looked up only when there is something to say about them.

The two formats of a file of triplets: their ids, read fast, and where in the file a triplet is.

Arrow reads both, a part at a time, so that memory holds the ids and little else. It says nothing useful about a wrong
CSV file, so a slow pass follows there, which names the line.

Triplets given one by one, by their rows: what a plan needs of them, and how workers of a cluster get them.

Which triplets of a file make up which split: checked against the table of images, and left out where it says so.

Nothing in the file is passed over in silence. What contradicts the table is an error with its line; what the config
leaves out on purpose (excluded landmarks, images dropped as missing) takes its triplets along, and these are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from typing import IO, Any, NamedTuple

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.csv_files import CsvRecords, shorten
from landmark_triplets_tfds.competition.tables import (
    IMAGE_ID_HEX_DIGITS,
    LandmarkTable,
    format_image_id,
    parse_image_id,
    parse_image_ids,
    parse_joined_ids,
)
from landmark_triplets_tfds.errors import NoExampleError, TripletsFileError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, hash_words, is_held_out
from landmark_triplets_tfds.triplets.examples import TRIPLETS

_PARQUET_MAGIC = b"PAR1"


@dataclasses.dataclass(frozen=True, eq=False)
class TripletsFile:
    """The triplets of a file, in its order. Their numbers count from 0.

    Attributes:
      path: of the file.
      ids: uint64[num_triplets, 3]: ids of anchor, positive and negative.
    """

    path: str
    ids: Ids

    @property
    def num_triplets(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def content_hash(self) -> str:
        """'sha256:' and the hash of the ids in their order: the same for CSV and Parquet, whatever else they hold."""
        digest = hashlib.sha256(b"Triplets 1\n")
        digest.update(self.ids.astype("<u8", order="C", copy=False).data)
        return f"sha256:{digest.hexdigest()}"

    def places(self, numbers: Collection[int]) -> dict[int, Place]:
        """Returns where these triplets are. It reads the file again, up to the last of them."""
        wanted = set(numbers)
        places = {number: Place(f"triplet {number + 1}", None) for number in wanted}  # of a file that has changed since
        with _open(self.path) as file:
            find = find_in_parquet if _is_parquet(file) else find_in_csv
            for number, place in find(file, self.path, wanted):
                places[number] = place
                wanted.remove(number)
                if not wanted:
                    break
        return places

    def problem(self, number: int, message: str) -> TripletsFileError:
        """Returns the error to raise for something that is wrong with a triplet; its message names the place."""
        return TripletsFileError(f"{self.path}, {self.places([number])[number].where}: {message}")


def read_triplets_file(path: str) -> TripletsFile:
    """Reads a file of triplets; its first bytes tell whether it is Parquet or CSV, not its name.

    Args:
      path: local, where ~ stands for the user's folder, or remote, such as ``gs://``.

    Raises:
      TripletsFileError: with line or row and value, if a column is missing, a record has too many or too few fields, an
        id is not a text of 16 hex digits, there is no triplet, or the file is neither CSV nor Parquet.
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
    """
    path = os.fspath(epath.Path(path).expanduser())
    with _open(path) as file:
        read = read_parquet if _is_parquet(file) else read_csv_fast
        ids = read(file, path)
    if ids is None:
        with _open(path) as file:  # anew: threads of a reader that gave up may still be reading
            ids = read_csv_slowly(file, path)
    if not len(ids):
        raise TripletsFileError(f"{path} has the columns {LISTED_COLUMNS}, but no triplets.")
    return TripletsFile(path, ids)


def _open(path: str) -> IO[bytes]:
    try:
        file = file_access.open_file(path)
        if not file_access.is_remote(path):
            return file
        with file:  # it is read from several times, and not all remote files can be searched
            return io.BytesIO(file.read())
    except FileNotFoundError:
        looked_in = "" if file_access.is_remote(path) else f" (looked for in {pathlib.Path.cwd()})"
        raise FileNotFoundError(
            f"There is no file {path}{looked_in}. triplets_file must name a CSV or Parquet file with the columns"
            f" {LISTED_COLUMNS}."
        ) from None
    except IsADirectoryError:
        raise TripletsFileError(
            f"{path} is a folder. triplets_file must name one CSV or Parquet file. pandas joins the parts that Spark"
            " writes: read_parquet(folder).to_parquet(file)."
        ) from None


def _is_parquet(file: IO[bytes]) -> bool:
    magic = file.read(len(_PARQUET_MAGIC))
    file.seek(0)
    return magic == _PARQUET_MAGIC


ID_COLUMNS = TRIPLETS.id_features
LISTED_COLUMNS = f"{', '.join(ID_COLUMNS[:-1])} and {ID_COLUMNS[-1]}"

# Tells rows apart that are equal otherwise. triplets.csv has it: there, chance may draw a triplet twice.
KEY_COLUMN = "key"

_TEXT_TYPES = ("string", "large_string", "string_view", "null")  # null: of a column without any value
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 1 << 17

Ids = npt.NDArray[np.uint64]

# int32[num_triplets, 4]: rows of anchor, positive and negative in the table; and which one of its anchor's triplets in
# the file each is, from 0. int64 would take twice the memory, and there may be many triplets.
GivenRows = npt.NDArray[np.int32]


class Place(NamedTuple):
    """Where a triplet is in its file.

    Attributes:
      where: 'line 7' or, in Parquet, 'row 7'; both count from 1.
      key: what the file has in its column `key`; None without one.
    """

    where: str
    key: str | None


def _parse_batch(columns: list[Any]) -> Ids:
    """Returns uint64[n, 3] for Arrow arrays of n texts each; raises ValueError if some text is no id."""
    ids = np.empty((len(columns[0]), len(columns)), dtype=np.uint64)
    for i, texts in enumerate(columns):
        if texts.null_count:
            raise ValueError("some id is missing")
        _, offsets, characters = texts.buffers()
        ends = np.frombuffer(offsets, dtype=np.int32, count=len(texts) + 1, offset=4 * texts.offset)
        if (np.diff(ends) != IMAGE_ID_HEX_DIGITS).any():
            raise ValueError("some id has another length")
        joined = memoryview(characters)[ends[0] : ends[-1]] if len(texts) else b""
        ids[:, i] = parse_joined_ids(str(joined, "latin-1"))
    return ids


def _join(batches: list[Ids]) -> Ids:
    return np.concatenate([np.zeros((0, len(ID_COLUMNS)), dtype=np.uint64), *batches])


def _raise_first_problem(columns: Sequence[Sequence[object]], where: str, numbers: Sequence[int]) -> None:
    """Raises TripletsFileError for the first record with a value that is no id."""
    for number, *texts in zip(numbers, *columns, strict=True):
        for text, column in zip(texts, ID_COLUMNS, strict=True):
            try:
                parse_image_id(text, column)
            except ValueError as error:
                raise TripletsFileError(f"{where} {number}: {error}") from None


# --- CSV


def read_csv_fast(file: IO[bytes], path: str) -> Ids | None:
    """Returns the ids in a CSV file; None for one that only `read_csv_slowly` can judge.

    Args:
      file: at its beginning.
      path: of it, for messages.

    Raises:
      TripletsFileError: if the header is wrong.
    """
    import pyarrow as pa
    import pyarrow.csv

    CsvRecords(file, path, ID_COLUMNS, TripletsFileError).detach()
    if any(b'"' in block for block in _blocks(file)):
        return None  # Arrow takes an open quote for the start of one long field, and says nothing
    file.seek(0)
    try:
        reader = pyarrow.csv.open_csv(
            pa.PythonFile(file, mode="r"),
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pyarrow.csv.ParseOptions(quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(ID_COLUMNS),
                column_types=dict.fromkeys(ID_COLUMNS, pa.string()),
                strings_can_be_null=False,
            ),
        )
        return _join([_parse_batch(batch.columns) for batch in reader])
    except (ValueError, pa.ArrowException):
        return None


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        yield block


def read_csv_slowly(file: IO[bytes], path: str) -> Ids:
    """Returns the ids in a CSV file; raises TripletsFileError with the line if there is something wrong with it."""
    records = CsvRecords(file, path, ID_COLUMNS, TripletsFileError)
    batches: list[Ids] = []
    texts: list[str] = []
    lines: list[int] = []

    def parse() -> None:
        try:
            batches.append(parse_image_ids(texts).reshape(len(lines), len(ID_COLUMNS)))
        except ValueError:
            _raise_first_problem([texts[i :: len(ID_COLUMNS)] for i in range(len(ID_COLUMNS))], f"{path}, line", lines)
            raise
        texts.clear()
        lines.clear()

    for texts_of_record in records:
        texts += texts_of_record
        lines.append(records.line)
        if len(lines) == _BATCH_ROWS:
            parse()
    parse()
    return _join(batches)


def find_in_csv(file: IO[bytes], path: str, wanted: Collection[int]) -> Iterator[tuple[int, Place]]:
    """Yields the number and place of each triplet that is wanted, in their order."""
    records = CsvRecords(file, path, ID_COLUMNS, TripletsFileError)
    key_at = records.header.index(KEY_COLUMN) if records.header.count(KEY_COLUMN) == 1 else None
    for number, _ in enumerate(records):
        if number in wanted:
            yield number, Place(f"line {records.line}", None if key_at is None else records.fields[key_at])


# --- Parquet


def read_parquet(file: IO[bytes], path: str) -> Ids:
    """Returns the ids in a Parquet file; raises TripletsFileError with the row if there is something wrong with it."""
    import pyarrow as pa

    batches: list[Ids] = []
    num_rows = 0
    for columns in _parquet_batches(file, path, ID_COLUMNS):
        columns = [column.cast(pa.string()) for column in columns]
        try:
            batches.append(_parse_batch(columns))
        except ValueError:
            numbers = range(num_rows + 1, num_rows + len(columns[0]) + 1)
            _raise_first_problem([_as_texts(column) for column in columns], f"{path}, row", numbers)
            raise
        num_rows += len(columns[0])
    return _join(batches)


def _as_texts(column: Any) -> list[str | None]:
    """Returns the values of an Arrow array of texts, which in a damaged file need not be UTF-8."""
    import pyarrow as pa

    values = column.cast(pa.binary()).to_pylist()
    return [None if value is None else value.decode(errors="backslashreplace") for value in values]


def _parquet_batches(file: IO[bytes], path: str, columns: Collection[str]) -> Iterator[list[Any]]:
    """Yields the columns of a part of the file at a time, as Arrow arrays; raises TripletsFileError."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        parquet = pyarrow.parquet.ParquetFile(pa.PythonFile(file, mode="r"))
        schema = parquet.schema_arrow
        for column in ID_COLUMNS:
            if schema.names.count(column) != 1:
                raise TripletsFileError(
                    f"{path}: expected the columns {LISTED_COLUMNS}, each once, got {shorten(','.join(schema.names))}."
                )
            of_column = schema.field(column).type
            of_values = of_column.value_type if pa.types.is_dictionary(of_column) else of_column
            if str(of_values) not in _TEXT_TYPES:
                raise TripletsFileError(
                    f"{path}: the column {column} must hold texts of 16 hex digits, got {of_column}. Write the ids as"
                    " texts, as train.csv has them."
                )
        for batch in parquet.iter_batches(_BATCH_ROWS, columns=list(columns)):
            yield [batch.column(column) for column in columns]
    except TripletsFileError:
        raise
    except (pa.ArrowException, ValueError, OSError) as error:
        raise TripletsFileError(f"{path} is damaged, or Parquet of an unusual kind ({error}).") from None


def find_in_parquet(file: IO[bytes], path: str, wanted: Collection[int]) -> Iterator[tuple[int, Place]]:
    """Yields the number and place of each triplet that is wanted, in their order."""
    import pyarrow as pa
    import pyarrow.parquet

    names = pyarrow.parquet.ParquetFile(pa.PythonFile(file, mode="r")).schema_arrow.names
    if names.count(KEY_COLUMN) != 1:
        yield from ((number, Place(f"row {number + 1}", None)) for number in sorted(wanted))
        return
    start = 0
    for (keys,) in _parquet_batches(file, path, [KEY_COLUMN]):
        for number in sorted(number for number in wanted if start <= number < start + len(keys)):
            yield number, Place(f"row {number + 1}", str(keys[number - start].as_py()))
        start += len(keys)


# --- triplets.csv, a build option: which images make up which triplet. Its lines are in the order of the plan.

CSV_FEATURES = tuple(dict.fromkeys((*TRIPLETS.id_features, *TRIPLETS.landmark_features)))
CSV_HEADER = ",".join((KEY_COLUMN, *CSV_FEATURES)) + "\n"


def csv_name(split: str) -> str:
    """Returns the name of the file that lists the triplets of a split."""
    return "triplets.csv" if split == TRAIN else f"triplets-{split}.csv"


def format_csv_line(key: str, example: Mapping[str, Any]) -> str:
    """Returns the line of one triplet. Ids are hex digits and whole numbers, so nothing needs quoting."""
    return ",".join([key, *(str(example[feature]) for feature in CSV_FEATURES)]) + "\n"


_ANCHOR = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TripletsFileSpec:
    """What a config says about the triplets of a split that a file names.

    Attributes:
      path: of the file.
      positive_may_be_anchor: True lets a positive be the anchor itself.
      validation_percent: share of the landmarks that is held out, see `is_held_out`.
      split: 'train' or 'validation'.
    """

    path: str
    positive_may_be_anchor: bool = False
    validation_percent: float = 0
    split: str = TRAIN


# Why a triplet of the file is not planned.
EXCLUDED_LANDMARK = "excluded landmark"
DROPPED_IMAGE = "dropped image"

_POSITIVE, _NEGATIVE = 1, 2

_RowNumbers = npt.NDArray[np.int32]


class GivenTriplets:
    """The triplets of a file as rows of a table, split by split."""

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
        self._given: GivenRows = np.column_stack([rows_of_kept, _count_up(rows[:, _ANCHOR])])
        self._is_dropped = (rows_of_kept < 0).any(axis=1)
        self._is_excluded = (_row_in(not_excluded, whole)[rows] < 0).any(axis=1)
        self._is_validation = held_out[rows[:, _ANCHOR]]

    def of_split(self, split: str) -> tuple[GivenRows, Counter[str]]:
        """Returns the triplets of a split, in the order of the file, and how many are left out, by reason.

        Raises:
          NoExampleError: if there are none.
        """
        in_split = self._is_validation == (split == VALIDATION)
        is_excluded = in_split & self._is_excluded
        is_dropped = in_split & self._is_dropped & ~is_excluded
        counts = {EXCLUDED_LANDMARK: int(is_excluded.sum()), DROPPED_IMAGE: int(is_dropped.sum())}
        left_out = Counter({reason: count for reason, count in counts.items() if count})
        given = self._given[in_split & ~is_excluded & ~is_dropped]
        if not len(given):
            self._raise_empty(split, int(in_split.sum()), left_out)
        return given, left_out

    def _raise_empty(self, split: str, num_in_split: int, left_out: Counter[str]) -> None:
        if num_in_split:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
            raise NoExampleError(
                f"All {num_in_split:,} triplets that {self._path} has for split {split!r} are left out ({listed})."
            )
        side = "held out" if split == VALIDATION else "not held out"
        raise NoExampleError(
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
        f"{spec.validation_percent:g}. Choose negatives within the anchor's split, or build without"
        " validation_percent.",
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
