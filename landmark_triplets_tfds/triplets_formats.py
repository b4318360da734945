"""The two formats of a file of triplets: their ids, read fast, and where in the file a triplet is.

Arrow reads both, a part at a time, so that memory holds the ids and little else. It says nothing useful about a wrong
CSV file, so a slow pass follows there, which names the line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.csv_records import CsvRecords, shorten
from landmark_triplets_tfds.errors import TripletsFileError
from landmark_triplets_tfds.landmarks import IMAGE_ID_HEX_DIGITS, parse_image_id, parse_image_ids, parse_joined_ids

ID_COLUMNS = ("anchor_id", "positive_id", "negative_id")
LISTED_COLUMNS = f"{', '.join(ID_COLUMNS[:-1])} and {ID_COLUMNS[-1]}"

# Tells rows apart that are equal otherwise. triplets.csv has it: there, chance may draw a triplet twice.
KEY_COLUMN = "key"

_TEXT_TYPES = ("string", "large_string", "string_view", "null")  # null: of a column without any value
_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 1 << 17

Ids = npt.NDArray[np.uint64]


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
