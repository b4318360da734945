"""Columns of a file of texts, CSV or Parquet, or what is wrong with it where.

Arrow reads a million lines in a fraction of a second, a part at a time. But it says little about a wrong file, and
takes a quote that is not closed for the start of one long field. So the bytes are looked at before Arrow gets them, and
where a file is refused, or something is to be said about a row, Python's csv module walks to it, line by line, within
the part that it is in.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterator, Mapping
import csv
import dataclasses
import io
import itertools
import re
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import shorten
from landmark_triplets_tfds.common.file_access import ADVICE, Content, stand_in

PARQUET_MAGIC = b"PAR1"

_HEAD_BYTES = 64
_CHUNK_BYTES = 1 << 20
_MAX_RECORD_BYTES = 4 << 20  # a landmark with 240,000 images
_NUM_FIELDS_SHOWN = 40
_BATCH_ROWS = 1 << 17

# A field that begins with a quote and ends with one, or else is wrong, and all that follows.
_QUOTED_PATTERN = re.compile(rb'"(?<![^,\r\n]")(?:[^"]*(?:""[^"]*)*"(?![^,\r\n])|(?P<wrong>[\s\S]*))')
# NUL, and what Python's "surrogateescape" makes of bytes that are not UTF-8; no UTF-8 text holds these.
_NO_TEXT_PATTERN = re.compile("[\0\udc80-\udcff]")

_TEXT_TYPES = ("string", "large_string", "string_view", "null")  # of Parquet; null: a column without any value


@dataclasses.dataclass(frozen=True)
class TextKind:
    """What the texts of a column are.

    Attributes:
      pattern: what each text must match as a whole.
      rule: the same in words: 'a whole number'.
      convert: makes an array of n values of an Arrow array of n strings; raises ValueError if some text does not match.
    """

    pattern: re.Pattern[str]
    rule: str
    convert: Callable[[Any], npt.NDArray[Any]]


class Columns:
    """Base of what reads columns of a file. Rows count from 0, without the header and blank lines."""

    def __init__(
        self, get_content: Callable[[], Content], name: str, kinds: Mapping[str, TextKind], error: type[ValueError]
    ):
        """Reads nothing yet.

        Args:
          get_content: gives the bytes of the file, anew for each time that it is read.
          name: of the file, for messages.
          kinds: the columns that are read, and what their texts are. Each must be there once; others are ignored.
          error: type of what is raised, with name, line or row, and value, for whatever is wrong with the file.
        """
        self._get_content = get_content
        self._name = name
        self._kinds = kinds
        *others, last = kinds
        self._listed = f"the columns {', '.join(others)} and {last}"
        self._error = error

    def header(self) -> list[str]:
        """Returns the names of all columns."""
        return self._find_header()[1]

    def read(self) -> list[npt.NDArray[Any]]:
        """Returns the values of the columns, an array of n values for each; n may be 0.

        Raises:
          ValueError: of the type that was given, if it is no file with these columns, or a text does not match.
        """
        import pyarrow as pa

        place, header = self._find_header()
        if any(header.count(column) != 1 for column in self._kinds):
            raise self._error(f"{place} must have {self._listed}, each once, got {shorten(','.join(header))}.")
        kinds = self._kinds.values()
        batches: list[list[npt.NDArray[Any]]] = []
        num_rows = 0
        for columns in self._batches(list(self._kinds)):
            try:
                batches.append([kind.convert(texts) for kind, texts in zip(kinds, columns, strict=True)])
            except ValueError:
                self._raise_for_texts(num_rows, columns)
                raise
            num_rows += len(columns[0])
        pa.default_memory_pool().release_unused()  # 55 MB for 1.6 million rows, which Arrow would keep
        return [np.concatenate(parts) for parts in zip(*batches, strict=True)] or [np.zeros(0)] * len(kinds)

    def texts(self, column: str, rows: npt.NDArray[np.int64]) -> list[str | None]:
        """Returns the texts of any column that is there once in rows, int64[n], that ascend."""
        found: list[str | None] = []
        start = 0
        for (texts,) in self._batches([column]):
            found += _decode(texts.take(rows[(start <= rows) & (rows < start + len(texts))] - start))
            start += len(texts)
        return found

    def where(self, row: int) -> str:
        """Returns where a row is: 'line 7' or, in Parquet, 'row 7'; both count from 1."""
        return f"row {row + 1}"

    def problem(self, row: int, message: str) -> ValueError:
        """Returns the error to raise for something that is wrong with a row; its message names the place."""
        return self._error(f"{self._name}, {self.where(row)}: {message}")

    def _find_header(self) -> tuple[str, list[str]]:
        """Returns what messages call the header, with its place, and the names in it."""
        raise NotImplementedError

    def _batches(self, names: list[str]) -> Iterator[list[Any]]:
        """Yields columns of a part of the file at a time, as Arrow arrays of strings."""
        raise NotImplementedError

    def _raise_for_texts(self, start: int, columns: list[Any]) -> None:
        """Raises the error for the first text that does not match, in columns of rows from ``start`` on."""
        for row, texts in enumerate(zip(*map(_decode, columns), strict=True), start):
            for text, (column, kind) in zip(texts, self._kinds.items(), strict=True):
                if text is None or not kind.pattern.fullmatch(text):
                    raise self.problem(row, f"{column} must be {kind.rule}, got {shorten(text)}.")


class CsvColumns(Columns):
    """Columns of a CSV file with a header. A byte order mark, any line ends, and blank lines are accepted."""

    def where(self, row: int) -> str:
        place = row + 1  # the header is the first record
        for line, chunk, (texts,) in self._parts(self._find_header()[1][:1]):
            if place < len(texts):
                start, _ = next(itertools.islice(self._records(line, chunk), place, None))
                return f"line {start}"
            place -= len(texts)
        return super().where(row)  # the file may have changed since

    def _find_header(self) -> tuple[str, list[str]]:
        for line, chunk in self._chunks():
            for where, header in self._records(line, chunk):
                return f"{self._name}, line {where}: the header", header
        raise self._error(f"{self._name} is empty. Expected a CSV file with {self._listed}.")

    def _batches(self, names: list[str]) -> Iterator[list[Any]]:
        num_to_skip = 1  # to Arrow, the header is a row
        for _, _, columns in self._parts(names):
            yield [texts[num_to_skip:] for texts in columns]
            num_to_skip = max(0, num_to_skip - len(columns[0]))

    def _parts(self, names: list[str]) -> Iterator[tuple[int, bytes, list[Any]]]:
        """Yields parts of the file, the header included: the line each starts on, its bytes, and columns of it."""
        import pyarrow as pa
        import pyarrow.csv

        _, header = self._find_header()
        numbers = [str(header.index(name)) for name in names]
        convert = pyarrow.csv.ConvertOptions(include_columns=numbers, column_types=dict.fromkeys(numbers, pa.string()))
        for line, chunk in self._chunks():
            try:
                _check_text(chunk)
                table = pyarrow.csv.read_csv(
                    pa.BufferReader(b"\n" + chunk),  # it would take a byte order mark away, wherever the chunk is from
                    pyarrow.csv.ReadOptions(column_names=list(map(str, range(len(header)))), block_size=len(chunk) + 2),
                    pyarrow.csv.ParseOptions(newlines_in_values=b'"' in chunk, invalid_row_handler=_skip_blank),
                    convert,
                )
            except (ValueError, pa.ArrowException) as error:  # a UnicodeDecodeError is a ValueError
                for _ in self._records(line, chunk, len(header)):
                    pass
                raise self._error(f"{self._name} is not CSV ({error}).") from None
            yield line, chunk, [column.combine_chunks() for column in table.columns]

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yields parts of the file of whole records, but for white space: the line that each starts on, and its bytes.

        Whatever is in the file, only a few megabytes of it are looked at in the slow way, record by record.
        """
        content = self._get_content()
        kind = stand_in(content[:_HEAD_BYTES])
        if kind:
            article = "an" if kind.startswith("H") else "a"
            raise self._error(f"{self._name}, line 1: not a table, but {article} {kind}. {ADVICE[kind]}")
        for line, chunk, is_cut in _split(content):
            if is_cut:
                for _ in self._records(line, chunk):
                    pass
                raise self._error(
                    f"{self._name}, line {line}: not CSV (a record of over {_MAX_RECORD_BYTES / 1e6:.0f} MB)."
                )
            if not chunk.isspace():
                yield line, chunk

    def _records(self, line: int, chunk: bytes, num_fields: int = 0) -> Iterator[tuple[int, list[str]]]:
        """Yields line and fields of each record in a chunk, which starts on a line; raises for the first wrong one.

        Each must have ``num_fields`` fields; 0: as many as the first.
        """
        reader = csv.reader(self._lines(line, chunk), strict=True)  # an open quote at the end is an error
        while True:
            start = line + reader.line_num  # of the record; line_num is where the one before ended
            limit = csv.field_size_limit(_MAX_RECORD_BYTES)  # of the whole process
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise self._error(f"{self._name}, line {start}: not CSV ({error}).") from None
            finally:
                csv.field_size_limit(limit)
            if fields is None:
                return
            if _is_blank(fields):
                continue
            if num_fields and len(fields) != num_fields:
                raise self._error(
                    f"{self._name}, line {start}: expected {num_fields} fields as in the header, got {len(fields)}:"
                    f" {shorten(fields[:_NUM_FIELDS_SHOWN])}."
                )
            num_fields = len(fields)
            yield start, fields

    def _lines(self, line: int, chunk: bytes) -> Iterator[str]:
        lines = io.TextIOWrapper(io.BytesIO(chunk), encoding="utf-8", errors="surrogateescape", newline="")
        for number, text in enumerate(lines, line):
            if match := _NO_TEXT_PATTERN.search(text):
                byte = match[0].encode(errors="surrogateescape")
                raise self._error(
                    f"{self._name}, line {number}: the byte {byte!r} is no part of UTF-8 text. Expected a CSV file with"
                    f" {self._listed}; was the file damaged on its way, or an archive or another file given this name?"
                )
            yield text


class ParquetColumns(Columns):
    """Columns of a Parquet file, whose first bytes are `PARQUET_MAGIC`."""

    def _find_header(self) -> tuple[str, list[str]]:
        return self._name, list(self._parse().schema_arrow.names)

    def _batches(self, names: list[str]) -> Iterator[list[Any]]:
        import pyarrow as pa

        file = self._parse()
        for name in (name for name in names if name in self._kinds):
            of_column = file.schema_arrow.field(name).type
            of_values = of_column.value_type if pa.types.is_dictionary(of_column) else of_column
            if str(of_values) not in _TEXT_TYPES:
                raise self._error(
                    f"{self._name}: the column {name} must hold texts of {self._kinds[name].rule}, got {of_column}."
                    " Write the ids as texts, as train.csv has them."
                )
        try:
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield [batch.column(name).cast(pa.string()) for name in names]
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damaged(error) from None

    def _parse(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(pa.BufferReader(pa.py_buffer(self._get_content())))
        except (pa.ArrowException, ValueError, OSError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ValueError:
        return self._error(f"{self._name} is damaged, or Parquet of an unusual kind ({error}).")


def _split(content: Content) -> Iterator[tuple[int, bytes, bool]]:
    """Yields parts of a CSV file of whole records: the line that each starts on, its bytes, and False.

    The last one has True if no record ends in it: it is too long, or has a quote that is not closed where a field ends.
    """
    line = 1
    start = len(codecs.BOM_UTF8) if content[: len(codecs.BOM_UTF8)] == codecs.BOM_UTF8 else 0
    while start < len(content):
        for size in (_CHUNK_BYTES, _MAX_RECORD_BYTES):
            chunk = content[start : start + size]
            length = _find_end(chunk, is_last=start + size >= len(content))
            if length:
                break
        yield line, chunk[: length or None], not length
        if not length:
            return
        line += _count_lines(chunk[:length])
        start += length


def _find_end(chunk: bytes, *, is_last: bool, num_quoted: int | None = 64) -> int:
    """Returns where the last record ends that ends in a chunk, which starts with a record; 0 if none ends.

    In the last chunk of a file, the last record may have no line end. That but ``num_quoted`` quoted fields are
    remembered saves time.
    """
    end = len(chunk) if is_last else len(chunk) - 1  # behind a "\r" at the end, there may be a "\n"
    quoted = deque(_QUOTED_PATTERN.finditer(chunk) if b'"' in chunk else (), num_quoted)
    is_whole = len(quoted) != num_quoted
    if quoted and quoted[-1]["wrong"] is not None:
        end, is_last = quoted.pop().start(), False
    if is_last:
        return end
    while end := max(chunk.rfind(b"\n", 0, end), chunk.rfind(b"\r", 0, end)) + 1:
        while quoted and quoted[-1].start() >= end:
            quoted.pop()
        if not quoted and not is_whole:
            return _find_end(chunk, is_last=False, num_quoted=None)
        if not quoted or quoted[-1].end() < end:
            return end + (chunk[end - 1 : end + 1] == b"\r\n")
        end = quoted.pop().start()
    return 0


def _count_lines(chunk: bytes) -> int:
    """Returns how many lines end in a chunk, in any of the three ways."""
    codes = np.frombuffer(chunk, dtype=np.uint8)
    num_lone = np.count_nonzero((codes[:-1] == ord("\r")) & (codes[1:] != ord("\n")))
    return int(np.count_nonzero(codes == ord("\n")) + num_lone) + chunk.endswith(b"\r")


def _check_text(chunk: bytes) -> None:
    """Raises ValueError if bytes are not UTF-8 text without NUL."""
    chunk.decode()
    if b"\0" in chunk:
        raise ValueError("a NUL byte")


def _skip_blank(row: Any) -> str:
    """Says what Arrow is to do with a row that has more or fewer fields than the header."""
    return "skip" if _is_blank(next(csv.reader([row.text]), [])) else "error"


def _is_blank(fields: list[str]) -> bool:
    return len(fields) <= 1 and not "".join(fields).strip()


def _decode(texts: Any) -> list[str | None]:
    """Returns the values of an Arrow array of strings, which in a damaged Parquet file need not be UTF-8."""
    import pyarrow as pa

    values = texts.cast(pa.binary()).to_pylist()
    return [None if value is None else value.decode(errors="backslashreplace") for value in values]
