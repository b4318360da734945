"""Values, lines and rows of both kinds of files; what tables and triplet files refuse is tested with these."""

from __future__ import annotations

import csv
import io
import itertools
import pathlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from landmark_triplets_tfds.competition import columns as columns_module
from landmark_triplets_tfds.competition.columns import Columns, CsvColumns, ParquetColumns, TextKind
from landmark_triplets_tfds.errors import LandmarkTableError, TripletsFileError
from tests.support.helpers import time_limit


def to_texts(texts: pa.Array) -> np.ndarray:
    if any(text is None or text == "wrong" for text in texts.to_pylist()):
        raise ValueError
    return texts.to_numpy(zero_copy_only=False)


TEXT = TextKind(re.compile("(?!wrong).*", re.DOTALL), "right", to_texts)
KINDS = {"b": TEXT, "a": TEXT}


def csv_columns(content: str | bytes, error: type[ValueError] = TripletsFileError) -> CsvColumns:
    data = content.encode() if isinstance(content, str) else content
    return CsvColumns(lambda: data, "x.csv", KINDS, error)


def parquet_columns(path: pathlib.Path, **columns: object) -> ParquetColumns:
    pa.parquet.write_table(pa.table(columns), path)
    return ParquetColumns(path.read_bytes, "x", KINDS, TripletsFileError)


def rows_of(columns: Columns) -> list[tuple[str, ...]]:
    return list(zip(*(values.tolist() for values in columns.read()), strict=True))


def lines_of(columns: Columns) -> list[int]:
    places = itertools.takewhile(lambda place: place.startswith("line "), map(columns.where, range(100)))
    return [int(place.removeprefix("line ")) for place in places]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("a,b\n1,2\n3,4", [(2, ("2", "1")), (3, ("4", "3"))], id="plain"),
        pytest.param("\ufeff\r\na,c,b\r\n1,é,2\r\n \r\n3,,4\r\n", [(3, ("2", "1")), (5, ("4", "3"))], id="blank lines"),
        pytest.param(" \na,b\n\n\t\n1,2\n", [(5, ("2", "1"))], id="a line of white space first"),
        pytest.param('a,b,c\n1,2,"x\n\ny"\n3,4,5\n', [(2, ("2", "1")), (5, ("4", "3"))], id="newlines within quotes"),
        pytest.param('\ufeff"a","b"\n"1","2"\n', [(2, ("2", "1"))], id="a byte order mark and quotes"),
        pytest.param('a,b,c\n1,2,5" x 7"\n', [(2, ("2", "1"))], id="quotes within a field"),
        pytest.param('a,b\n"""1""",","\n', [(2, (",", '"1"'))], id="quotes within quotes"),
        pytest.param("a,b\r1,2\r", [(2, ("2", "1"))], id="lines that end as on old Macs"),
        pytest.param("a,b\n", [], id="a header alone"),
    ],
)
def test_csv(content: str, expected: list[tuple[int, tuple[str, ...]]]) -> None:
    columns = csv_columns(content)
    assert rows_of(columns) == [row for _, row in expected]
    assert lines_of(columns) == [line for line, _ in expected]


@pytest.mark.parametrize("error", [LandmarkTableError, TripletsFileError])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"x\.csv is empty\. Expected a CSV file with the columns b and a\."),
        ("\ufeff\n \n", r"x\.csv is empty"),
        ("a,c\n1,2\n", r"x\.csv, line 1: the header must have the columns b and a, each once, got 'a,c'"),
        ("a,b,a\n1,2,3\n", r"line 1: the header must have .* each once, got 'a,b,a'"),
        ("a,b\n1,2\n1\n", r"x\.csv, line 3: expected 2 fields as in the header, got 1: \['1'\]"),
        ("a,b\n\n1,2,3\n", r"x\.csv, line 3: expected 2 fields as in the header, got 3"),
        ('a,b\n1,"2\n', r"x\.csv, line 2: not CSV"),
        ('a,b\n1,"2"x\n', r"x\.csv, line 2: not CSV"),
        ('a,b\n1,"2\n3,4\n5,"6"\n', r"x\.csv, line 2: not CSV"),
        (b"a,b,c\n1,2,\xff\n", r"x\.csv, line 2: the byte b'\\xff' is no part of UTF-8"),
        (b"a,b,c\n1,2,\xc3", r"x\.csv, line 2: the byte b'\\xc3' is no part of UTF-8"),
        ("a,b\n1,2\0\n", r"x\.csv, line 2: the byte b'\\x00' is no part of UTF-8"),
        ("<!DOCTYPE html>\n<p>Sign in</p>", r"x\.csv, line 1: not a table, but an HTML page\. .* Fetch"),
        (
            "version https://git-lfs.github.com/spec/v1\n",
            r"line 1: not a table, but a Git LFS pointer\. .*git lfs pull",
        ),
        ('a,b\n"\n",2\n\n1,wrong\n', r"x\.csv, line 5: b must be right, got 'wrong'\."),
    ],
)
def test_refuses_csv(content: str | bytes, message: str, error: type[ValueError]) -> None:
    with pytest.raises(error, match=message):
        csv_columns(content, error).read()


@pytest.mark.parametrize("quote", ["", '"'])
def test_lines_of_large_files(monkeypatch: pytest.MonkeyPatch, quote: str) -> None:
    """Parts end within the file, and within a character."""
    monkeypatch.setattr(columns_module, "_CHUNK_BYTES", 1000)
    lines = [f"{quote}é{i}{quote},{quote}{i}{quote}\r\n" for i in range(500)]
    lines[400:401] = ["\r\n", " \r\n", lines[400]]
    columns = csv_columns("a,b\r\n" + "".join(lines))
    assert rows_of(columns) == [(f"{i}", f"é{i}") for i in range(500)]
    assert lines_of(columns)[:3] == [2, 3, 4]
    assert [columns.where(400), columns.where(499)] == ["line 404", "line 503"]
    assert columns.texts("b", np.array([0, 400, 499])) == ["0", "400", "499"]
    lines[450] = "1,wrong\r\n"
    with pytest.raises(TripletsFileError, match=r"x\.csv, line 452: b must be right"):
        csv_columns("a,b\r\n" + "".join(lines)).read()


def test_places_and_texts_of_another_column() -> None:
    columns = csv_columns("a,b,key\n1,2,k\n\n3,4,l\n")
    assert columns.header() == ["a", "b", "key"]
    assert columns.texts("key", np.array([0, 1])) == ["k", "l"]
    assert columns.texts("key", np.array([1])) == ["l"]
    assert str(columns.problem(1, "is wrong.")) == "x.csv, line 4: is wrong."
    assert str(columns.problem(2, "is wrong.")) == "x.csv, row 3: is wrong."  # of a file that has changed since


def test_parquet(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns_module, "_BATCH_ROWS", 7)
    texts = [str(i) for i in range(50)]
    columns = parquet_columns(tmp_path / "x", key=range(50), a=texts, b=pa.array(texts).dictionary_encode())
    assert columns.header() == ["key", "a", "b"]
    assert rows_of(columns) == [(text, text) for text in texts]
    assert columns.texts("key", np.array([0, 49])) == ["0", "49"]
    assert columns.where(30) == "row 31"
    texts[40] = "wrong"
    with pytest.raises(TripletsFileError, match="x, row 41: a must be right, got 'wrong'"):
        parquet_columns(tmp_path / "x", a=texts, b=[""] * 50).read()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": ["1"]}, "x must have the columns b and a, each once, got 'a'"),
        ({"a": ["1"], "b": [2]}, "x: the column b must hold texts of right, got int64. Write the ids as texts"),
        ({"a": ["1", None], "b": ["2", "3"]}, "x, row 2: a must be right, got None"),
    ],
)
def test_refuses_parquet(tmp_path: pathlib.Path, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(TripletsFileError, match=message):
        parquet_columns(tmp_path / "x", **columns).read()


def test_damaged_parquet(tmp_path: pathlib.Path) -> None:
    columns = parquet_columns(tmp_path / "x", a=["1"], b=["2"])
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-1])
    with pytest.raises(TripletsFileError, match="x is damaged, or Parquet of an unusual kind"):
        columns.read()


_PIECES = ["a,b", "1", "é", ",", "\n", "\r\n", "\r", '"', '""', "1,2\n", '"1","2"\n', " ", "\t", "\ufeff"]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=14).map("".join), st.sampled_from([1, 2, 5, 12, 1 << 20]))
def test_arrow_and_the_csv_module_agree(text: str, chunk_bytes: int) -> None:
    """Otherwise rows would be lost, or the lines that messages name would be others, wherever parts of a file end."""
    columns = csv_columns("a,b\n" + text)
    reader = csv.reader(io.StringIO("a,b\n" + text, newline=""), strict=True)
    lines, expected = [], []
    wrong = None
    while wrong is None:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error:
            wrong = f"line {line}: not CSV"
            continue
        if len(fields) == 2:
            lines.append(line)
            expected.append(tuple(fields[::-1]))
        elif len(fields) > 2 or "".join(fields).strip():
            wrong = f"line {line}: expected 2 fields"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "_CHUNK_BYTES", chunk_bytes)
        if wrong:
            with pytest.raises(TripletsFileError, match=rf"x\.csv, {wrong}"):
                columns.read()
        else:
            assert rows_of(columns) == expected[1:]
            assert lines_of(columns) == lines[1:]


@pytest.mark.parametrize("quote", ["", '"'])
def test_long_fields(quote: str) -> None:
    """Python's csv module takes 131,072 characters by default, and goes on doing so elsewhere."""
    text = f"a,b,c\n1,2,{quote}{'x' * 3_000_000}{quote}\n3,{quote}{'é' * 200_000}{quote},4\n"
    columns = csv_columns(text)
    assert rows_of(columns) == [("2", "1"), ("é" * 200_000, "3")]
    assert lines_of(columns) == [2, 3]
    with pytest.raises(TripletsFileError, match=r"x\.csv, line 4: expected 3 fields"):
        csv_columns(text + "1,2\n").read()
    with pytest.raises(TripletsFileError, match=r"x\.csv, line 4: a must be right, got 'wrong'"):
        csv_columns(text + "wrong,2,3\n").read()
    assert csv.field_size_limit() == 131_072


_ROW, _LONG = b"1,2\n", 20_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"a" * _LONG, r"line 1: not CSV \(a record of over 4 MB\)", id="a line"),
        pytest.param(b"a,b\n" + _ROW + b"a" * _LONG, r"line 3: not CSV \(a record of over 4 MB\)", id="a line at last"),
        pytest.param(b"a,b\n" + b"," * _LONG, r"line 2: not CSV \(a record of over 4 MB\)", id="commas"),
        pytest.param(b"," * _LONG, r"line 1: not CSV \(a record", id="a header of commas"),
        pytest.param(bytes(_LONG), r"line 1: the byte b'\\x00' is no part of UTF-8", id="NULs"),
        pytest.param(b"a,b\n" + _ROW + bytes(_LONG), r"line 3: the byte b'\\x00'", id="NULs at last"),
        pytest.param(b"\xe9" * _LONG, r"line 1: the byte b'\\xe9' is no part of UTF-8", id="no UTF-8"),
        pytest.param(b" " * _LONG, r"line 1: not CSV \(a record", id="spaces"),
        pytest.param(b"\n" * _LONG, r"is empty", id="line ends"),
        pytest.param(b"\n" * _LONG + b"x,y\n", rf"line {_LONG + 1}: the header must have", id="line ends first"),
        pytest.param(b"\r\n" * _LONG + b"a,b\r\n1\r\n", rf"line {_LONG + 2}: expected 2 fields", id="CRLF"),
        pytest.param(b"a,b\n" + b"\r" * _LONG + b"wrong,1", rf"line {_LONG + 2}: a must be right", id="CR"),
        pytest.param(b"a,b\n" + _ROW + b'"' + b"a" * _LONG, r"line 3: not CSV \(unexpected end", id="a quote"),
        pytest.param(b'a,b\n"' + b"\n" * _LONG + b'",1\n', r"line 2: not CSV \(unexpected end", id="lines in quotes"),
        pytest.param(b"a,b\n" + b'"' * _LONG, r"line 2: not CSV \(a record of over 4 MB\)", id="quotes"),
        pytest.param(b"a,b\n" + _ROW * (_LONG // 4) + b"1\n", rf"line {_LONG // 4 + 2}: expected 2", id="short rows"),
    ],
)
def test_a_large_file_that_is_no_table_is_refused_at_once(content: bytes, message: str) -> None:
    """Small archives hold such files; line by line, they took minutes, and lines of this length gigabytes."""
    with time_limit(60), pytest.raises(TripletsFileError, match=rf"x\.csv,? {message}"):
        csv_columns(content).read()
