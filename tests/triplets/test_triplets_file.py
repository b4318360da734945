from __future__ import annotations

from collections import Counter
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
from landmark_triplets_tfds.competition.selection import ImageSet, Selection
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError, TripletsFileError
from landmark_triplets_tfds.mining.hard_triplets import MinedTriplets, write_triplets
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.triplets.plan import assemble, make_plan
from landmark_triplets_tfds.triplets.triplets_file import (
    CSV_HEADER,
    GivenRows,
    GivenTriplets,
    TripletsFileSpec,
    csv_name,
    format_csv_line,
    read_triplets_file,
)
from tests.support.helpers import landmark_table, time_limit
from tests.support.special_files import SPECIAL_FILES

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
        pytest.param(f"{A},{B},{C}\n", 1, ["the header must have"], id="no header"),
        pytest.param(
            HEADER.replace(",", ";") + LINES.replace(",", ";"), 1, ["'anchor_id;positive_id"], id="semicolons"
        ),
        pytest.param(f"{HEADER.strip()},anchor_id\n{A},{B},{C},{A}\n", 1, ["each once"], id="a column twice"),
        pytest.param(f"{HEADER}{A},{B},{C}\n{HEADER}{LINES}", 3, ["got 'anchor_id'"], id="two files joined"),
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


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([(A, B)], COLUMNS[:2], r"must have the columns anchor_id, positive_id and negative_id, each once, got"),
        ([(A, B, C, A)], [*COLUMNS, "anchor_id"], "each once"),
        (
            [(1, 2, 3)],
            COLUMNS,
            r"the column anchor_id must hold texts of 16 hex digits \(0-9, a-f\), got int64. Write the ids as texts",
        ),
        (
            [(A, B, C.encode())],
            COLUMNS,
            r"the column negative_id must hold texts of 16 hex digits \(0-9, a-f\), got binary",
        ),
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


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_what_is_no_file_is_refused(tmp_path: pathlib.Path, kind: str) -> None:
    SPECIAL_FILES[kind](tmp_path / "x")
    with (
        time_limit(10),
        pytest.raises(TripletsFileError, match=r"x cannot be read .* a pipe, .*triplets_file must"),
    ):
        read_triplets_file(str(tmp_path / "x"))


def test_home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hard.csv").write_text(HEADER + LINES)
    assert len(read_triplets_file("~/hard.csv").ids) == 2


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
    assert (file.path, len(file.ids)) == ("gs://bucket/hard", 2)


# --- Hashes


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
        assert len(rows_of(path))
    except TripletsFileError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 - the other outcome is right too


# --- Beside the table: what is wrong, which split a triplet is in, and what takes it out

# Rows 0 to 6; with validation_percent=10, landmarks 4 and 5 are held out.
TABLE = landmark_table([3, 3, 3, 4, 4, 5, 6])
IDS = [format_image_id(image_id) for image_id in TABLE.image_ids]


def write(path: pathlib.Path, triplets: list[tuple[int, int, int]], table: LandmarkTable = TABLE, **more) -> None:
    """Writes triplets, given by rows of a table."""
    ids = [[format_image_id(table.image_ids[row]) for row in triplet] for triplet in triplets]
    pd.DataFrame(ids, columns=COLUMNS).assign(**more).to_csv(path, index=False)


def choose(
    path: pathlib.Path, excluded: tuple[int, ...] = (), dropped: tuple[int, ...] = (), **fields
) -> tuple[GivenTriplets, LandmarkTable]:
    """Returns the splits of the file, and the table that their rows belong to."""
    not_excluded = TABLE if not excluded else TABLE.restrict(~np.isin(TABLE.landmark_ids, excluded))
    kept = not_excluded
    if dropped:
        kept = not_excluded.restrict(~np.isin(not_excluded.image_ids, TABLE.image_ids[list(dropped)]))
    spec = TripletsFileSpec(path=str(path), **fields)
    selection = Selection(ImageSet(kept, None), TABLE, not_excluded)
    return GivenTriplets(read_triplets_file(str(path)), spec, selection), kept


def keyed(chosen: GivenRows, table: LandmarkTable) -> list[tuple[str, str, str, str]]:
    """Returns key and ids of the examples of a plan."""
    plan, exceptions = make_plan(table, chosen), {}
    examples = assemble(plan, lambda row: b"thumbnail", plan.num_examples, exceptions)
    return [(key, *(example[name] for name in COLUMNS)) for key, example in examples]


@pytest.mark.parametrize(
    ("triplet", "fields", "message"),
    [
        ((0, 3, 5), {}, f"positive_id {IDS[3]} shows landmark 4, but anchor_id {IDS[0]} shows landmark 3"),
        ((0, 0, 5), {}, f"positive_id {IDS[0]} is the anchor itself. Where that is wanted, set positive_may_be_anchor"),
        ((0, 1, 2), {}, f"negative_id {IDS[2]} shows landmark 3, as anchor_id {IDS[0]} does"),
        ((0, 1, 0), {}, f"negative_id {IDS[0]} shows landmark 3, as anchor_id {IDS[0]} does"),
        ((0, 3, 0), {}, f"positive_id {IDS[3]} shows landmark 4"),
        (
            (0, 1, 5),
            {"validation_percent": 10},
            f"negative_id {IDS[5]} is in split 'validation' (landmark 5), but anchor_id {IDS[0]} is in 'train'"
            " (landmark 3), by validation_percent=10. Choose negatives within the anchor's split",
        ),
        ((3, 4, 6), {"validation_percent": 10}, f"negative_id {IDS[6]} is in split 'train' (landmark 6), but"),
    ],
)
def test_triplets_that_are_none(
    path: pathlib.Path, triplet: tuple[int, int, int], fields: dict[str, float], message: str
) -> None:
    write(path, [(1, 0, 6), (1, 2, 6), triplet, (0, 1, 6), (6, 0, 6)])
    with pytest.raises(TripletsFileError) as caught:
        choose(path, **fields)
    assert f"{path}, line 4: {message}" in str(caught.value)


@pytest.mark.parametrize("column", range(3))
def test_unknown_ids(path: pathlib.Path, column: int) -> None:
    write(path, [(1, 0, 6), (0, 1, 6), (0, 0, 0)])
    lines = path.read_text().splitlines()
    fields = lines[2].split(",")
    fields[column] = "00000000000000aa"
    path.write_text("\n".join([lines[0], "", lines[1], ",".join(fields), *lines[3:]]))
    with pytest.raises(TripletsFileError, match=rf"line 4: {COLUMNS[column]} 00000000000000aa is not in the table"):
        choose(path)


def test_parquet_rows_are_named(path: pathlib.Path) -> None:
    write(path, [(1, 0, 6), (0, 3, 6)])
    pd.read_csv(path).to_parquet(path.with_name("hard.parquet"))
    with pytest.raises(TripletsFileError, match=r"hard\.parquet, row 2: positive_id .* shows landmark 4"):
        choose(path.with_name("hard.parquet"))


@pytest.mark.parametrize("between", [0, 3])
def test_a_triplet_twice(path: pathlib.Path, between: int) -> None:
    others = [(0, 1, 3), (0, 1, 5), (1, 2, 6)][:between]
    write(path, [(1, 0, 6), (0, 1, 6), *others, (0, 1, 6), (1, 0, 6)])
    listed = ", ".join([IDS[0], IDS[1], IDS[6]])
    with pytest.raises(TripletsFileError) as caught:
        choose(path)
    assert f"{path}, line {4 + between}: the triplet {listed} is there already, on line 3" in str(caught.value)


def test_keys_tell_triplets_apart(path: pathlib.Path) -> None:
    triplets = [(1, 0, 6), (0, 1, 6), (0, 1, 6)]
    write(path, triplets, key=["x", "y", "y/1"])
    chosen, _ = choose(path)[0].of_split(TRAIN)
    assert [key for key, *_ in keyed(chosen, TABLE)] == [IDS[1], IDS[0], f"{IDS[0]}/1"]
    write(path, triplets, key=["x", "y", "y"])
    with pytest.raises(TripletsFileError, match=r"line 4: the triplet .* is there already, on line 3"):
        choose(path)


def test_colliding_hashes_are_no_repetition(path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "landmark_triplets_tfds.triplets.triplets_file.hash_words",
        lambda *words: np.zeros(len(words[0]), dtype=np.uint64),
    )
    write(path, [(1, 0, 6), (0, 1, 6), (0, 1, 5)])
    assert choose(path)[0].of_split(TRAIN)[0].shape == (3, 4)
    write(path, [(1, 0, 6), (0, 1, 6), (0, 1, 5), (0, 1, 6)])
    with pytest.raises(TripletsFileError, match=r"line 5: .* on line 3"):
        choose(path)


# --- Splits


def test_splits(path: pathlib.Path) -> None:
    write(path, [(3, 4, 5), (0, 1, 6), (4, 3, 5), (0, 2, 6)])
    splits, _ = choose(path, validation_percent=10)
    assert splits.of_split(TRAIN)[0][:, :3].tolist() == [[0, 1, 6], [0, 2, 6]]
    assert splits.of_split(VALIDATION)[0][:, :3].tolist() == [[3, 4, 5], [4, 3, 5]]
    everything, _ = choose(path)[0].of_split(TRAIN)
    assert len(everything) == 4


def test_an_empty_split(path: pathlib.Path) -> None:
    write(path, [(0, 1, 6)])
    splits, _ = choose(path, validation_percent=10)
    with pytest.raises(NoExampleError, match=r"'validation' would be empty: of the 1 triplets .* is held out by"):
        splits.of_split(VALIDATION)


def test_excluded_and_dropped(path: pathlib.Path) -> None:
    triplets = [(0, 1, 3), (0, 1, 5), (0, 2, 6), (0, 1, 6), (3, 4, 0), (5, 5, 0)]
    write(path, triplets)
    splits, kept = choose(path, excluded=(4,), dropped=(2, 5, 3), positive_may_be_anchor=True)
    chosen, left_out = splits.of_split(TRAIN)
    assert left_out == {"excluded landmark": 2, "dropped image": 3}
    # It is the fourth of its anchor in the file, and keeps that number.
    assert keyed(chosen, kept) == [(f"{IDS[0]}/3", IDS[0], IDS[1], IDS[6])]


def test_everything_is_left_out(path: pathlib.Path) -> None:
    write(path, [(0, 1, 6), (3, 4, 0)])
    splits, _ = choose(path, dropped=(0,))
    with pytest.raises(NoExampleError, match=r"All 2 triplets .* has for split 'train' are left out \(2 dropped image"):
        splits.of_split(TRAIN)


# --- Any valid rows


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_valid_rows_come_back_as_exactly_these_examples(path: pathlib.Path, data: st.DataObject) -> None:
    landmarks = data.draw(st.lists(st.integers(0, 5), min_size=3, max_size=20))
    percent = data.draw(st.sampled_from([0, 50]))
    may_be_anchor = data.draw(st.booleans())
    table = landmark_table(landmarks)
    held_out = is_held_out(table.landmark_ids, percent).tolist()
    rows = range(len(landmarks))
    valid = [
        (a, p, n)
        for a in rows
        for p in rows
        for n in rows
        if landmarks[a] == landmarks[p] != landmarks[n] and held_out[a] == held_out[n] and (may_be_anchor or a != p)
    ]
    if not valid:
        return
    triplets = data.draw(st.lists(st.sampled_from(valid), min_size=1, unique=True))
    excluded = data.draw(st.sets(st.integers(0, 5), max_size=2))
    dropped = data.draw(st.sets(st.sampled_from(rows), max_size=3))
    write(path, triplets, table)
    not_excluded = table.restrict(~np.isin(landmarks, list(excluded)))
    kept = not_excluded.restrict(~np.isin(not_excluded.image_ids, table.image_ids[list(dropped)]))
    spec = TripletsFileSpec(path=str(path), positive_may_be_anchor=may_be_anchor, validation_percent=percent)
    splits = GivenTriplets(read_triplets_file(str(path)), spec, Selection(ImageSet(kept, None), table, not_excluded))

    seen: Counter[int] = Counter()
    expected: dict[str, list[tuple[str, ...]]] = {TRAIN: [], VALIDATION: []}
    left_out = {TRAIN: Counter(), VALIDATION: Counter()}
    for triplet in triplets:
        split, k = VALIDATION if held_out[triplet[0]] else TRAIN, seen[triplet[0]]
        seen[triplet[0]] += 1
        ids = [format_image_id(table.image_ids[row]) for row in triplet]
        if any(landmarks[row] in excluded for row in triplet):
            left_out[split]["excluded landmark"] += 1
        elif any(row in dropped for row in triplet):
            left_out[split]["dropped image"] += 1
        else:
            expected[split].append((f"{ids[0]}/{k}" if k else ids[0], *ids))
    for split in (TRAIN, VALIDATION):
        try:
            chosen, counts = splits.of_split(split)
        except NoExampleError:
            assert expected[split] == []
            continue
        assert keyed(chosen, kept) == expected[split]
        assert counts == left_out[split]


# --- triplets.csv


def test_a_list_of_triplets_is_such_a_file(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "hard.csv", [(0, 1, 6), (0, 2, 6), (3, 4, 0)])
    chosen, _ = choose(tmp_path / "hard.csv")[0].of_split(TRAIN)
    plan = make_plan(TABLE, chosen)
    examples = assemble(plan, lambda row: b"thumbnail", plan.num_examples, {})
    lines = [format_csv_line(key, example) for key, example in examples]
    assert CSV_HEADER == "key,anchor_id,positive_id,negative_id,landmark_id,negative_landmark_id\n"
    assert lines[1] == f"{IDS[0]}/1,{IDS[0]},{IDS[2]},{IDS[6]},3,6\n"
    (tmp_path / "triplets.csv").write_text(CSV_HEADER + "".join(lines))
    again, _ = choose(tmp_path / "triplets.csv")[0].of_split(TRAIN)
    assert again.tolist() == chosen.tolist()


@pytest.mark.parametrize(("split", "name"), [(TRAIN, "triplets.csv"), (VALIDATION, "triplets-validation.csv")])
def test_names_of_lists(split: str, name: str) -> None:
    assert csv_name(split) == name
