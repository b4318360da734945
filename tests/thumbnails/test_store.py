from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.thumbnails import store
from landmark_triplets_tfds.thumbnails.store import PLACE, THUMBNAIL, UNREADABLE, StoreReader, StoreWriter, read_places

CONTENTS = {1: b"one", 2**64 - 1: b"two" * 1000, 7: b"", 9: bytes(100)}


def fill(folder: Path, contents: dict[int, bytes], size: int = 5) -> str:
    writer = StoreWriter(folder)
    for image_id, content in contents.items():
        writer.add(image_id, (size, 2**62), UNREADABLE if image_id == 9 else THUMBNAIL, content)
    writer.take_places()
    writer.close()
    return writer.name


def read_all(folder: Path) -> dict[int, bytes | None]:
    places, names = read_places(folder)
    reader = StoreReader(folder, names)
    return {int(place["image_id"]): reader.read(place.item()) for place in places}


def test_gives_what_was_written(tmp_path: Path) -> None:
    fill(tmp_path, CONTENTS)
    assert read_all(tmp_path) == CONTENTS
    places, names = read_places(tmp_path)
    assert places["kind"].tolist() == [THUMBNAIL, THUMBNAIL, THUMBNAIL, UNREADABLE]
    assert places[["size", "mtime_ns"]].tolist() == [(5, 2**62)] * 4
    assert len(names) == 1


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    places, names = read_places(tmp_path / "nowhere")
    assert (len(places), places.dtype, names) == (0, PLACE, [])


def test_places_are_given_when_they_hold(tmp_path: Path) -> None:
    """What `take_places` has given can be read by others, before anything is closed."""
    writer = StoreWriter(tmp_path)
    writer.add(1, (5, 6), THUMBNAIL, b"one")
    first = writer.take_places()
    writer.add(2, (7, 8), THUMBNAIL, b"two")
    second = writer.take_places()
    reader = StoreReader(tmp_path, [writer.name])
    assert [reader.read(place) for part in (first, second) for place in part.tolist()] == [b"one", b"two"]
    assert len(writer.take_places()) == 0


def test_the_later_one_is_behind_the_earlier_ones(tmp_path: Path) -> None:
    fill(tmp_path, {1: b"old"})
    fill(tmp_path, {1: b"new"})
    places, names = read_places(tmp_path)
    assert [StoreReader(tmp_path, names).read(place) for place in places.tolist()] == [b"old", b"new"]


def test_nothing_is_created_for_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([".data", ".places"]), st.data())
def test_damage_is_noticed(tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject) -> None:
    """Flipped bits, bytes that are missing or too many: something is not found, and nothing else comes out."""
    folder = tmp_path_factory.mktemp("store")
    name = fill(folder, CONTENTS)
    fill(folder, {11: b"another"})
    path = folder / (name + suffix)
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "insert", "delete", "append", "remove"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del content[at:]
    elif how == "insert":
        content[at:at] = b"x"
    elif how == "delete":
        del content[at]
    elif how == "append":
        content += data.draw(st.binary(min_size=1, max_size=100))
    path.write_bytes(content)
    if how == "remove":
        path.unlink()
    found = read_all(folder)
    assert found[11] == b"another"
    for image_id, stored in found.items():
        assert stored is None or stored == (CONTENTS | {11: b"another"})[image_id]


def test_two_places_exchanged_are_noticed(tmp_path: Path) -> None:
    """As only a program could: with checksums of the table that hold."""
    fill(tmp_path, {1: b"one", 2: b"two"})
    places, names = read_places(tmp_path)
    places["offset"] = places["offset"][::-1]
    assert [StoreReader(tmp_path, names).read(place) for place in places.tolist()] == [None, None]


def test_a_long_build_is_written_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FLUSH_INTERVAL_S", 0.0)
    writer = StoreWriter(tmp_path)
    for image_id in range(5):
        writer.add(image_id, (0, 0), THUMBNAIL, b"x")
    assert len(read_all(tmp_path)) == 5
    assert np.array_equal(writer.take_places()["offset"], np.arange(5))
