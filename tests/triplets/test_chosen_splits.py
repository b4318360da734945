"""What is wrong with triplets beside a table, which split they are in, and what takes them out."""

from __future__ import annotations

from collections import Counter
import pathlib

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pandas as pd
import pytest

from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError, TripletsFileError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.triplets.plan import ExampleCounts, assemble, make_plan
from landmark_triplets_tfds.triplets.triplets_file import (
    ID_COLUMNS,
    GivenRows,
    GivenTriplets,
    TripletsFileSpec,
    read_triplets_file,
)
from tests.support.helpers import landmark_table

# Rows 0 to 6; with validation_percent=10, landmarks 4 and 5 are held out.
TABLE = landmark_table([3, 3, 3, 4, 4, 5, 6])
IDS = [format_image_id(image_id) for image_id in TABLE.image_ids]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("triplets") / "hard.csv"


def write(path: pathlib.Path, triplets: list[tuple[int, int, int]], table: LandmarkTable = TABLE, **more) -> None:
    """Writes triplets, given by rows of a table."""
    ids = [[format_image_id(table.image_ids[row]) for row in triplet] for triplet in triplets]
    pd.DataFrame(ids, columns=list(ID_COLUMNS)).assign(**more).to_csv(path, index=False)


def choose(
    path: pathlib.Path, excluded: tuple[int, ...] = (), dropped: tuple[int, ...] = (), **fields
) -> tuple[GivenTriplets, LandmarkTable]:
    """Returns the splits of the file, and the table that their rows belong to."""
    not_excluded = TABLE if not excluded else TABLE.restrict(~np.isin(TABLE.landmark_ids, excluded))
    kept = not_excluded
    if dropped:
        kept = not_excluded.restrict(~np.isin(not_excluded.image_ids, TABLE.image_ids[list(dropped)]))
    spec = TripletsFileSpec(path=str(path), **fields)
    return GivenTriplets(read_triplets_file(str(path)), spec, TABLE, not_excluded, kept), kept


def keyed(given: GivenRows, table: LandmarkTable) -> list[tuple[str, str, str, str]]:
    """Returns key and ids of the examples of a plan."""
    plan, counts = make_plan(table, given), ExampleCounts()
    examples = assemble(plan, lambda row: b"thumbnail", plan.num_examples, counts)
    return [(key, *(example[name] for name in ID_COLUMNS)) for key, example in examples]


# --- Errors


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
    with pytest.raises(TripletsFileError, match=rf"line 4: {ID_COLUMNS[column]} 00000000000000aa is not in the table"):
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


# --- Splits, and what is left out


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
    splits = GivenTriplets(read_triplets_file(str(path)), spec, table, not_excluded, kept)

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
