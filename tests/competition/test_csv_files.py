"""Lines and values of records; what is refused is tested with the tables and files that are read this way."""

import io

import pytest

from landmark_triplets_tfds.competition.csv_files import CsvRecords, shorten
from landmark_triplets_tfds.errors import LandmarkTableError, TripletsFileError


def read(content: str | bytes, error: type[ValueError] = TripletsFileError) -> list[tuple[int, list[str]]]:
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    records = CsvRecords(file, "x.csv", ["b", "a"], error)
    return [(records.line, values) for values in records]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("a,b\n1,2\n3,4", [(2, ["2", "1"]), (3, ["4", "3"])], id="plain"),
        pytest.param("\ufeff\r\na,c,b\r\n1,é,2\r\n \r\n3,,4\r\n", [(3, ["2", "1"]), (5, ["4", "3"])], id="blank lines"),
        pytest.param('a,b,c\n1,2,"x\n\ny"\n3,4,5\n', [(2, ["2", "1"]), (5, ["4", "3"])], id="newlines within quotes"),
        pytest.param("a,b\r1,2\r", [(2, ["2", "1"])], id="lines that end as on old Macs"),
        pytest.param("a,b\n", [], id="a header alone"),
    ],
)
def test_lines_and_values(content: str, expected: list[tuple[int, list[str]]]) -> None:
    assert read(content) == expected


@pytest.mark.parametrize("error", [LandmarkTableError, TripletsFileError])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"x\.csv is empty\. Expected a CSV file with the columns b and a\."),
        ("a,c\n1,2\n", r"x\.csv, line 1: expected a header with the columns b and a, each once, got 'a,c'"),
        ("a,b\n1,2\n1\n", r"x\.csv, line 3: expected 2 fields as in the header, got 1: \['1'\]"),
        ('a,b\n1,"2\n', r"x\.csv, line 2: not CSV"),
        (b"a,b,c\n1,2,\xff\n", r"x\.csv, line 2: the byte b'\\xff' is not UTF-8"),
        ("a,b\n1,2\0\n", r"x\.csv, line 2: a NUL byte"),
    ],
)
def test_errors_are_of_the_type_that_is_asked_for(content: str | bytes, message: str, error: type[ValueError]) -> None:
    with pytest.raises(error, match=message):
        read(content, error)


def test_a_detached_file_stays_open() -> None:
    file = io.BytesIO(b"a,b\n1,2\n")
    CsvRecords(file, "x.csv", ["a", "b"], TripletsFileError).detach()
    assert not file.closed


def test_shorten() -> None:
    assert shorten("a") == "'a'"
    assert len(shorten("a" * 1000)) == 80
