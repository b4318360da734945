"""Reading files of triplets: both formats, and what is wrong with them by themselves."""

from __future__ import annotations

import csv
import io
import pathlib

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import TripletsFileError
from landmark_triplets_tfds.mining.hard_triplets import MinedTriplets, write_triplets
from landmark_triplets_tfds.triplets import triplets_file
from landmark_triplets_tfds.triplets import triplets_file as triplets_formats
from landmark_triplets_tfds.triplets.triplets_file import read_triplets_file

A, B, C, D = "00000000000000aa", "ffffffffffffffbb", "0123456789abcdef", "1234567890123456"
COLUMNS = ["anchor_id", "positive_id", "negative_id"]
HEADER = ",".join(COLUMNS) + "\n"
ROWS = [(A, B, C), (B, A, D)]
LINES = "".join(",".join(row) + "\n" for row in ROWS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("triplets") / "hard.csv"


def read(path: pathlib.Path, content: str | bytes) -> list[tuple[str, ...]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return rows_of(path)


def rows_of(path: pathlib.Path) -> list[tuple[str, ...]]:
    return [tuple(map(format_image_id, row)) for row in read_triplets_file(str(path)).ids.tolist()]


def write_parquet(path: pathlib.Path, rows: list[tuple[object, ...]], columns: list[str] = COLUMNS, **types) -> None:
    values = zip(*rows, strict=True)
    arrays = [pa.array(list(column), types.get(name)) for name, column in zip(columns, values, strict=True)]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, names=columns), path)


# --- CSV

CSVS = {
    "plain": HEADER + LINES,
    "no newline at the end": HEADER + LINES.rstrip("\n"),
    "byte order mark": "\ufeff" + HEADER + LINES,
    "CRLF": (HEADER + LINES).replace("\n", "\r\n"),
    "blank lines": f"\n{HEADER}\n\n{LINES}\n\n",
    "blank lines, CRLF": f"\n{HEADER}\n\n{LINES}\n\n".replace("\n", "\r\n"),
    "lines of white space": HEADER + " \t\n" + LINES + "  \n",
    "other order of columns": f"negative_id,anchor_id,positive_id\n{C},{A},{B}\n{D},{B},{A}\n",
    "further columns, as pandas writes an index": f",{HEADER.strip()},cosine\n0,{A},{B},{C},0.5\n1,{B},{A},{D},\n",
    "everything quoted, as R does": (HEADER + LINES).replace(",", '","').replace("\n", '"\n"').join('""')[:-2],
    "quoted commas and newlines": f'note,{HEADER.strip()}\n"a,\nb",{A},{B},{C}\n"""",{B},{A},{D}\n',
}


@pytest.mark.parametrize("content", CSVS.values(), ids=CSVS)
def test_accepts(path: pathlib.Path, content: str) -> None:
    assert read(path, content) == ROWS


def test_plain_files_are_read_fast(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplets_formats, "read_csv_slowly", None)
    for name in ("plain", "CRLF", "blank lines", "further columns, as pandas writes an index", "byte order mark"):
        assert read(path, CSVS[name]) == ROWS


@pytest.mark.parametrize("bad", ["ABCDEF0123456789", "a" * 15, "a" * 17, "", "g" * 16, " " + A, "nan", "\uff11" * 16])
@pytest.mark.parametrize("column", range(3))
def test_refuses_ids(path: pathlib.Path, bad: str, column: int) -> None:
    values = [A, B, C]
    values[column] = bad
    with pytest.raises(TripletsFileError) as caught:
        read(path, f"{HEADER}{A},{B},{C}\n\n{','.join(values)}\n{B},{A},{C}\n")
    assert f"{path}, line 4: {COLUMNS[column]} must be 16 hex digits (0-9, a-f), got {bad!r}." in str(caught.value)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        pytest.param(
            f"anchor_id,positive_id\n{A},{B}\n", 1, ["anchor_id, positive_id and negative_id"], id="no negative"
        ),
        pytest.param(f"{A},{B},{C}\n", 1, ["expected a header"], id="no header"),
        pytest.param(
            HEADER.replace(",", ";") + LINES.replace(",", ";"), 1, ["'anchor_id;positive_id"], id="semicolons"
        ),
        pytest.param(f"{HEADER.strip()},anchor_id\n{A},{B},{C},{A}\n", 1, ["each once"], id="a column twice"),
        pytest.param(f"{HEADER}{A},{B},{C}\n{A},{B}\n", 3, ["expected 3 fields", "got 2"], id="too few"),
        pytest.param(f"{HEADER}{A},{B},{C},{D}\n", 2, ["expected 3 fields", "got 4"], id="too many"),
        pytest.param(f'note,{HEADER.strip()}\n"x,{A},{B},{C}\ny,{A},{B},{D}\n', 2, ["not CSV"], id="an open quote"),
        pytest.param(f"{HEADER}{A},{B},{C}\n{HEADER}{LINES}", 3, ["got 'anchor_id'"], id="two files joined"),
        pytest.param(f"{HEADER}{A},{B},{C[:-1]}\0\n", 2, [r"\x00"], id="NUL"),
        pytest.param(HEADER.encode() + b"\xff" * 16 + f",{B},{C}\n".encode(), 2, ["not UTF-8"], id="no text"),
        pytest.param("<!DOCTYPE html>\n<p>Sign in</p>", 1, ["not a table, but an HTML page"], id="an HTML page"),
        pytest.param("version https://git-lfs.github.com/spec/v1\n", 1, ["git lfs pull"], id="a Git LFS pointer"),
        pytest.param(b"\x1f\x8b\x08\x00" + bytes(20), 1, ["archive or another file"], id="gzip"),
    ],
)
def test_refuses(path: pathlib.Path, content: str | bytes, line: int, words: list[str]) -> None:
    with pytest.raises(TripletsFileError) as caught:
        read(path, content)
    assert f"{path}, line {line}: " in str(caught.value)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("\ufeff\n", "is empty"), (HEADER, "but no triplets"), (HEADER + "\n \n", "but no triplets")],
)
def test_refuses_no_triplets(path: pathlib.Path, content: str, message: str) -> None:
    with pytest.raises(TripletsFileError, match=message):
        read(path, content)


@pytest.mark.parametrize("quoted", [False, True])
def test_lines_of_large_files(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, quoted: bool) -> None:
    """Parts end within the file, whichever way it is read."""
    monkeypatch.setattr(triplets_formats, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(triplets_formats, "_BATCH_ROWS", 7)
    rows = [tuple(f"{3 * i + j:016x}" for j in range(3)) for i in range(100)]
    lines = [",".join(f'"{text}"' if quoted else text for text in row) for row in rows]
    assert read(path, HEADER + "\n".join(lines)) == rows
    lines[83] = f"{A},{B},x"
    with pytest.raises(TripletsFileError, match=r"line 85: negative_id must be .* got 'x'"):
        read(path, HEADER + "\n".join(lines))


# --- Parquet


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_reads_parquet(tmp_path: pathlib.Path, text: pa.DataType) -> None:
    path = tmp_path / "without suffix"
    rows = [(0.5, *row) for row in ROWS]
    write_parquet(path, rows, ["cosine", *COLUMNS], **dict.fromkeys(COLUMNS, text))
    assert rows_of(path) == ROWS


def test_reads_what_pandas_writes(tmp_path: pathlib.Path) -> None:
    frame = pd.DataFrame(ROWS, columns=COLUMNS)[["negative_id", "anchor_id", "positive_id"]]
    frame.astype({"anchor_id": "category"}).to_parquet(tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet") == ROWS


def test_parts_of_parquet(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplets_formats, "_BATCH_ROWS", 7)
    rows = [tuple(f"{3 * i + j:016x}" for j in range(3)) for i in range(100)]
    write_parquet(tmp_path / "x", rows)
    assert rows_of(tmp_path / "x") == rows
    rows[83] = (A, None, B)
    write_parquet(tmp_path / "x", rows)
    with pytest.raises(TripletsFileError, match=r"x, row 84: positive_id must be 16 hex digits \(0-9, a-f\), got None"):
        rows_of(tmp_path / "x")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([(A, B)], COLUMNS[:2], r"expected the columns anchor_id, positive_id and negative_id, each once, got"),
        ([(A, B, C, A)], [*COLUMNS, "anchor_id"], "each once"),
        (
            [(1, 2, 3)],
            COLUMNS,
            r"the column anchor_id must hold texts of 16 hex digits, got int64. Write the ids as texts",
        ),
        ([(A, B, C.encode())], COLUMNS, "the column negative_id must hold texts of 16 hex digits, got binary"),
        ([(A, B, "nan")], COLUMNS, "row 1: negative_id must be 16 hex digits .* got 'nan'"),
    ],
)
def test_refuses_parquet(
    tmp_path: pathlib.Path, rows: list[tuple[object, ...]], columns: list[str], message: str
) -> None:
    write_parquet(tmp_path / "x", rows, columns)
    with pytest.raises(TripletsFileError, match=message):
        rows_of(tmp_path / "x")


def test_parquet_that_is_not_utf8(tmp_path: pathlib.Path) -> None:
    write_parquet(tmp_path / "x", [(A, B, C)])
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content.replace(B.encode(), b"\xff" * 16))
    with pytest.raises(TripletsFileError, match=r"x, row 1: positive_id must be 16 hex digits .* got '\\\\xff"):
        rows_of(tmp_path / "x")


def test_refuses_empty_parquet(tmp_path: pathlib.Path) -> None:
    pd.DataFrame(columns=COLUMNS, dtype=str).to_parquet(tmp_path / "x")
    with pytest.raises(TripletsFileError, match="but no triplets"):
        rows_of(tmp_path / "x")


def test_parquet_with_a_column_without_values(tmp_path: pathlib.Path) -> None:
    columns = {"anchor_id": pa.nulls(2), "positive_id": [B, B], "negative_id": [C, C]}
    pa.parquet.write_table(pa.table(columns), tmp_path / "x")
    with pytest.raises(TripletsFileError, match=r"row 1: anchor_id must be 16 hex digits .*, got None"):
        rows_of(tmp_path / "x")


def test_damaged_parquet(tmp_path: pathlib.Path) -> None:
    write_parquet(tmp_path / "whole", [tuple(f"{3 * i + j:016x}" for j in range(3)) for i in range(2000)])
    whole = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(0)
    cut = [whole[:at] for at in (4, 100, len(whole) // 2, len(whole) - 1)]
    changed = []
    for _ in range(100):
        content = bytearray(whole)
        for at in rng.integers(4, len(whole), 30):
            content[at] = rng.integers(256)
        changed.append(bytes(content))
    num_refused = 0
    for content in [*cut, *changed]:
        (tmp_path / "x").write_bytes(content)
        try:
            assert len(rows_of(tmp_path / "x")) <= 2000  # it has no checksums, so a damaged id may still be one
        except TripletsFileError as error:
            assert str(error).startswith(str(tmp_path / "x"))  # noqa: PT017 - the other outcome is right too
            num_refused += 1
    assert num_refused > 50


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_reads_what_mining_writes(tmp_path: pathlib.Path, suffix: str) -> None:
    ids = np.array([[int(image_id, 16) for image_id in row] for row in ROWS], dtype=np.uint64)
    rows, similarities = np.zeros((2, 3), dtype=np.int64), np.full((2, 2), 0.5, dtype=np.float32)
    mined = MinedTriplets(rows, ids, similarities, 2, 2, {}, {}, {}, "exact")
    write_triplets(mined, epath.Path(tmp_path / f"hard{suffix}"))
    assert rows_of(tmp_path / f"hard{suffix}") == ROWS


# --- The path


def test_a_missing_file_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        read_triplets_file("hard.csv")
    assert f"There is no file hard.csv (looked for in {tmp_path}). triplets_file must name" in str(caught.value)


def test_a_folder_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TripletsFileError, match=r"is a folder.*must name one CSV or Parquet file"):
        read_triplets_file(str(tmp_path))


def test_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hard.csv").write_text(HEADER + LINES)
    assert read_triplets_file("~/hard.csv").num_triplets == 2


@pytest.mark.parametrize("is_parquet", [False, True])
def test_remote_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, is_parquet: bool) -> None:
    write_parquet(tmp_path / "x", ROWS)
    content = (tmp_path / "x").read_bytes() if is_parquet else (HEADER + LINES).encode()

    class OneWay(io.RawIOBase):
        """Reads from the beginning to the end, as a stream from a store does."""

        def __init__(self) -> None:
            self._file = io.BytesIO(content)

        def read(self, size: int = -1) -> bytes:
            return self._file.read(size)

    monkeypatch.setattr(file_access, "open_file", lambda path: OneWay())
    file = read_triplets_file("gs://bucket/hard")
    assert (file.path, file.num_triplets) == ("gs://bucket/hard", 2)


# --- Places and hashes


@pytest.mark.parametrize("keys", [None, ["k", "l"]])
def test_places(tmp_path: pathlib.Path, keys: list[str] | None) -> None:
    frame = pd.DataFrame(ROWS, columns=COLUMNS)
    if keys:
        frame["key"] = keys
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    csv_file, parquet_file = (read_triplets_file(str(tmp_path / name)) for name in ("x.csv", "x.parquet"))
    key_of = dict(enumerate(keys or [None, None]))
    assert csv_file.places([1, 0]) == {0: ("line 2", key_of[0]), 1: ("line 3", key_of[1])}
    assert parquet_file.places([1]) == {1: ("row 2", key_of[1])}
    (tmp_path / "x.csv").write_text(HEADER)  # another file by now
    assert str(csv_file.problem(1, "is wrong.")) == f"{tmp_path / 'x.csv'}, triplet 2: is wrong."


def test_the_hash_is_of_the_ids_in_their_order(tmp_path: pathlib.Path) -> None:
    other_order = HEADER + "".join(LINES.splitlines(True)[::-1])
    contents = [HEADER + LINES, CSVS["CRLF"], CSVS["other order of columns"], other_order]
    hashes = []
    for content in contents:
        (tmp_path / "x").write_text(content, newline="")
        hashes.append(read_triplets_file(str(tmp_path / "x")).content_hash)
    write_parquet(tmp_path / "x", ROWS)
    hashes.append(read_triplets_file(str(tmp_path / "x")).content_hash)
    assert hashes[0] == hashes[1] == hashes[2] == hashes[4] != hashes[3]
    # Another value would make every dataset prepared from a file a mismatch.
    assert hashes[0] == "sha256:ee29708b4ed607ead81b33282f2f93cc48a49793bb06c944791993b305138ecd"


ids = st.integers(0, 2**64 - 1).map(format_image_id)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), rows=st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=20))
def test_what_is_written_is_read_back(
    path: pathlib.Path, data: st.DataObject, rows: list[tuple[str, str, str]]
) -> None:
    columns = data.draw(st.permutations([*COLUMNS, *data.draw(st.sampled_from([[], ["key"], ["x", "y"]]))]))
    values = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    lines = [[of_row.get(column) or data.draw(texts) for column in columns] for of_row in values]
    if data.draw(st.booleans()):
        write_parquet(path, [tuple(line) for line in lines], columns)
    else:
        buffer = io.StringIO(newline="")
        quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
        writer = csv.writer(buffer, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])), quoting=quoting)
        writer.writerows([columns, *lines])
        path.write_bytes(buffer.getvalue().encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))))
    assert rows_of(path) == rows


_PIECES = [*COLUMNS, HEADER, ",", "\n", "\r\n", "\r", '"', "\0", " ", A, f"{A},{B},{C}\n", "é", "PAR1"]


@settings(max_examples=300, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.lists(st.sampled_from(_PIECES), max_size=10).map(lambda pieces: (HEADER + "".join(pieces)).encode()),
        st.binary(max_size=60).map(lambda tail: b"PAR1" + tail),
    )
)
def test_any_bytes_give_triplets_or_an_error_of_ours(path: pathlib.Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        file = triplets_file.read_triplets_file(str(path))
    except TripletsFileError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - the other outcome is right too
        return
    # The slow way, which is strict, reads the same.
    with path.open("rb") as opened:
        assert triplets_formats.read_csv_slowly(opened, str(path)).tolist() == file.ids.tolist()
