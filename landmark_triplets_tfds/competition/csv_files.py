"""Records of a CSV file, each with its line: the slow way to read, whose job is to say what is wrong where.

pandas and Arrow read a million lines in about a second, but report problems poorly or read over them: a quote that is
not closed takes the rest of the file into one field. So files are read fast, and those that are refused, or hold
quotes, again like this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import csv
import io
import re
from typing import IO

from landmark_triplets_tfds.common.file_access import ADVICE, stand_in

_HEAD_BYTES = 64

# What Python's "surrogateescape" makes of bytes that are not UTF-8; no UTF-8 text holds these.
_NOT_UTF8_PATTERN = re.compile("[\udc80-\udcff]")


class CsvRecords:
    """Iterates over the records of a CSV file and gives the values of some columns.

    Other columns are ignored. A byte order mark, CRLF line ends and blank lines are accepted.

    Attributes:
      header: the names of all columns.
      fields: all values of the latest record.
      line: where that record starts, from 1.
    """

    def __init__(self, file: IO[bytes], name: str, columns: Sequence[str], error: type[ValueError]):
        """Reads the header.

        Args:
          file: at its beginning; it can be searched, and must stay open.
          name: of the file, for messages.
          columns: each must be in the header, once.
          error: type of what is raised, here and while iterating, with name, line and value, for whatever is not CSV
            with these columns.
        """
        self._name = name
        self._error = error
        self._columns = f"{', '.join(columns[:-1])} and {columns[-1]}"
        kind = stand_in(file.read(_HEAD_BYTES))
        if kind:
            article = "an" if kind.startswith("H") else "a"
            raise error(f"{name}, line 1: not a table, but {article} {kind}. {ADVICE[kind]}")
        file.seek(0)
        self._file = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._reader = csv.reader(self._lines(), strict=True)  # an open quote at the end is an error
        self.fields: list[str] = []
        self.line = 0
        header = self._next()
        if header is None:
            raise error(f"{name} is empty. Expected a CSV file with the columns {self._columns}.")
        self.header = header
        for column in columns:
            if header.count(column) != 1:
                raise self.problem(
                    f"expected a header with the columns {self._columns}, each once, got {shorten(','.join(header))}."
                )
        self._indices = [header.index(column) for column in columns]

    def __iter__(self) -> Iterator[list[str]]:
        while (fields := self._next()) is not None:
            if len(fields) != len(self.header):
                raise self.problem(
                    f"expected {len(self.header)} fields as in the header, got {len(fields)}: {shorten(fields)}."
                )
            self.fields = fields
            yield [fields[index] for index in self._indices]

    def problem(self, message: str) -> ValueError:
        """Returns the error to raise for something that is wrong with the latest record."""
        return self._error(f"{self._name}, line {self.line}: {message}")

    def detach(self) -> None:
        """Lets go of the file, which otherwise is closed together with this object."""
        self._file.detach()

    def _next(self) -> list[str] | None:
        """Returns the next record that is not a blank line."""
        while True:
            self.line = self._reader.line_num + 1  # where the record starts; line_num is where it ends
            try:
                fields = next(self._reader, None)
            except csv.Error as csv_error:
                raise self.problem(f"not CSV ({csv_error}).") from None
            if fields is None or len(fields) > 1 or (fields and fields[0].strip()):
                return fields

    def _lines(self) -> Iterator[str]:
        for line, text in enumerate(self._file, 1):
            if not text.isascii() and (match := _NOT_UTF8_PATTERN.search(text)):
                byte = match[0].encode(errors="surrogateescape")
                raise self._error(
                    f"{self._name}, line {line}: the byte {byte!r} is not UTF-8 text. Expected a CSV file with the"
                    f" columns {self._columns}; was an archive or another file given this name?"
                )
            if "\0" in text:
                raise self._error(
                    f"{self._name}, line {line}: a NUL byte ({shorten(chr(0))}) is not text. Expected a CSV file with"
                    f" the columns {self._columns}; was the file cut off or damaged on its way?"
                )
            yield text


def shorten(value: object) -> str:
    """Returns a value as messages show it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
