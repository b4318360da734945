"""Stores: what was written is read, whatever is cut off or damaged; which folder is the bank."""

from __future__ import annotations

from collections.abc import Callable
import errno
import itertools
import os
from pathlib import Path
import pkgutil
import shutil
from typing import BinaryIO

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import platformdirs
import pytest

from landmark_triplets_tfds.thumbnails import store
from landmark_triplets_tfds.thumbnails import store as store_module
from landmark_triplets_tfds.thumbnails.store import (
    PLACE,
    THUMBNAIL,
    UNREADABLE,
    StoreReader,
    StoreWriteError,
    StoreWriter,
    bank_path,
    num_bytes,
    open_bank,
    read_places,
)
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec

CONTENTS = {1: b"one", 2**64 - 1: b"two" * 1000, 7: b"", 9: bytes(100)}


def fill(folder: Path, contents: dict[int, bytes], size: int = 5) -> str:
    """Returns what the names of the files begin with."""
    writer = StoreWriter(folder)
    for image_id, content in contents.items():
        writer.add(image_id, (size, 2**62), UNREADABLE if image_id == 9 else THUMBNAIL, content)
    writer.take_places()
    writer.close()
    return writer.files[0] if writer.files else ""


def read_all(folder: Path) -> dict[int, bytes | None]:
    places, files = read_places(folder)
    reader = StoreReader(files)
    return {int(place["image_id"]): reader.read(place.item()) for place in places}


def test_gives_what_was_written(tmp_path: Path) -> None:
    fill(tmp_path, CONTENTS)
    assert read_all(tmp_path) == CONTENTS
    places, files = read_places(tmp_path)
    assert places["kind"].tolist() == [THUMBNAIL, THUMBNAIL, THUMBNAIL, UNREADABLE]
    assert places[["size", "mtime_ns"]].tolist() == [(5, 2**62)] * 4
    assert len(files) == 1


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    places, files = read_places(tmp_path / "nowhere")
    assert (len(places), places.dtype, files) == (0, PLACE, [])


def test_places_are_given_when_they_hold(tmp_path: Path) -> None:
    """What `take_places` has given can be read by others, before anything is closed."""
    writer = StoreWriter(tmp_path)
    writer.add(1, (5, 6), THUMBNAIL, b"one")
    first = writer.take_places()
    writer.add(2, (7, 8), THUMBNAIL, b"two")
    second = writer.take_places()
    reader = StoreReader(writer.files)
    assert [reader.read(place) for part in (first, second) for place in part.tolist()] == [b"one", b"two"]
    assert len(writer.take_places()) == 0


def test_the_later_one_is_behind_the_earlier_ones(tmp_path: Path) -> None:
    fill(tmp_path, {1: b"old"})
    fill(tmp_path, {1: b"new"})
    places, files = read_places(tmp_path)
    assert [StoreReader(files).read(place) for place in places.tolist()] == [b"old", b"new"]


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
    path = Path(name + suffix)
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
    places, files = read_places(tmp_path)
    places["offset"] = places["offset"][::-1]
    assert [StoreReader(files).read(place) for place in places.tolist()] == [None, None]


def test_a_long_build_is_written_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FLUSH_INTERVAL_S", 0.0)
    writer = StoreWriter(tmp_path)
    for image_id in range(5):
        writer.add(image_id, (0, 0), THUMBNAIL, b"x")
    assert len(read_all(tmp_path)) == 5
    assert np.array_equal(writer.take_places()["offset"], np.arange(5))


# --- Files that are not as they should be


@pytest.mark.parametrize("suffix", [".data", ".places"])
@pytest.mark.parametrize("what", ["pipe", "folder", "device", "dangling link", "old bank", "other version", "text"])
def test_what_is_no_file_of_a_store_counts_as_not_there(tmp_path: Path, suffix: str, what: str) -> None:
    """A bank of another schema, whatever it is, ends nothing, and nothing is waited for."""
    other = Path(fill(tmp_path, {1: b"one"}) + suffix)
    content = other.read_bytes()
    other.unlink()
    if what == "pipe":
        os.mkfifo(other)
    elif what == "folder":
        other.mkdir()
    elif what == "device":
        other.symlink_to("/dev/zero")
    elif what == "dangling link":
        other.symlink_to("nowhere")
    elif what == "old bank":
        other.write_bytes(b"SQLite format 3\0" + content)
        (tmp_path / "thumbnails.sqlite").write_bytes(b"SQLite format 3\0")
    elif what == "other version":
        other.write_bytes(b"LTP2" + content[4:])
    else:
        other.write_text("x" * 10_000)
    fill(tmp_path, {2: b"two"})
    found = read_all(tmp_path)
    assert found.pop(2) == b"two"
    assert found in ({}, {1: None})


def test_a_place_that_no_file_can_have(tmp_path: Path) -> None:
    fill(tmp_path, {1: b"one"})
    places, files = read_places(tmp_path)
    for offset in (2**63 - 1, 2**63, 2**64 - 1):
        places["offset"] = offset
        assert StoreReader(files).read(places[0].item()) is None


def test_the_size_of_a_store_that_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "store", {1: bytes(1000)})
    (tmp_path / "store" / "link").symlink_to("nowhere")
    assert 1048 < num_bytes(tmp_path / "store") < 1200
    assert num_bytes(tmp_path / "nowhere") == num_bytes(Path("/dev/null")) == 0


# --- Stores that cannot be written to any more


def full_disk(number: int) -> Callable[[BinaryIO, bytes], None]:
    """Returns a function that writes as it should for some calls, and then half of what it is given."""
    calls = itertools.count()
    write_all = store._write_all

    def write(file: BinaryIO, content: bytes) -> None:
        if next(calls) == number:
            write_all(file, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(file, content)

    return write


@pytest.mark.parametrize("number", range(6))
def test_another_store_takes_the_place_of_a_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Whichever of its writes fails: all is there to be read, and what was written before is not written again."""
    writer = StoreWriter(tmp_path / "bank", tmp_path / "spare")
    monkeypatch.setattr(store, "_write_all", full_disk(number))
    monkeypatch.setattr(store, "_FLUSH_INTERVAL_S", 0.0)
    contents = {image_id: bytes([image_id]) * image_id for image_id in range(1, 6)}
    for image_id, content in contents.items():
        writer.add(image_id, (0, 0), THUMBNAIL, content)
    places = writer.take_places()
    reader = StoreReader(writer.files)
    assert {place[0]: reader.read(place) for place in places.tolist()} == contents
    assert writer.trouble == f"{tmp_path / 'bank'} ([Errno 28] No space left on device)"
    writer.close()
    in_bank, in_spare = read_all(tmp_path / "bank"), read_all(tmp_path / "spare")
    assert (len(in_bank), len(in_spare)) == (number // 2, 5 - number // 2)
    assert in_bank | in_spare == contents


def test_a_store_without_another_is_an_error_that_names_it(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path / "file" / "bank", tmp_path / "file" / "spare")
    (tmp_path / "file").touch()
    writer.add(1, (0, 0), THUMBNAIL, b"one")
    with pytest.raises(StoreWriteError, match="Not a directory") as caught:
        writer.take_places()
    assert caught.value.filename == str(tmp_path / "file" / "spare")


# --- The bank


def test_path_depends_on_everything_that_decides_bytes(tmp_path, monkeypatch):
    specs = [
        ThumbnailSpec(),
        ThumbnailSpec(resolution=64),
        ThumbnailSpec(jpeg_quality=50),
        ThumbnailSpec(resize_method="area"),
        ThumbnailSpec(fit="crop"),
    ]
    paths = [bank_path(spec, str(tmp_path)) for spec in specs]
    monkeypatch.setattr(store_module, "PIXELS_VERSION", 2)
    paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    installed = {names: store_module._installed_version(names) for names in store_module.CODEC_DISTRIBUTIONS}
    for names in installed:
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "_installed_version", (installed | {names: "0"}).get)
            paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {tmp_path}


def test_default_folder_is_the_users_cache():
    assert bank_path(ThumbnailSpec(), None).parent == platformdirs.user_cache_path("landmark_triplets_tfds")


def open_small_bank(folder, num_rows=5):
    ids = np.arange(num_rows, dtype=np.uint64)
    return open_bank(ThumbnailSpec(), None if folder is None else str(folder), ids, np.arange(num_rows))


def test_bank_in_a_folder_that_does_not_exist_yet(tmp_path, capsys):
    index = open_small_bank(tmp_path / "a" / "b")
    assert index.folder == bank_path(ThumbnailSpec(), str(tmp_path / "a" / "b"))
    assert index.folder.is_dir()
    assert capsys.readouterr().out == ""


def test_off(capsys):
    assert open_small_bank("off") is None
    assert capsys.readouterr().out == ""


def test_room(tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert open_small_bank(tmp_path, 0) is not None
    assert capsys.readouterr().out == ""
    assert open_small_bank(tmp_path, 5) is None
    printed = capsys.readouterr().out
    assert "5 new ones need about 0.3 GB" in printed
    assert "has 0.1 GB free" in printed
    assert "LANDMARK_TRIPLETS_BANK" in printed


# --- Banks that cannot be used: a line that says what to set, and the build goes on without


def says_what_to_set(capsys, *expected):
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Building without the bank of thumbnails: ")
    assert line.endswith("Set LANDMARK_TRIPLETS_BANK to a folder that can be written, or to off.")
    for text in expected:
        assert str(text) in line


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/bank", "/sys/bank", "/dev/zero", "x" * 300])
def test_folder_that_cannot_be_used(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, f"{folder}/")


def test_a_file_where_the_folder_should_be(tmp_path, capsys):
    for place in (bank_path(ThumbnailSpec(), str(tmp_path / "bank")), tmp_path / "bank"):
        shutil.rmtree(tmp_path / "bank", ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert open_small_bank(tmp_path / "bank") is None
        says_what_to_set(capsys, tmp_path / "bank")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711])
def test_folder_of_another_user(tmp_path, other_user, capsys, monkeypatch, mode):
    folder = tmp_path / "128px-nearest"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setattr(store_module, "bank_path", lambda spec, folder_of_all: folder)
    other_user()
    assert open_small_bank(tmp_path) is None
    says_what_to_set(capsys, folder, "no right to read and write there")


@pytest.mark.parametrize("where", ["landmark_triplets_tfds.thumbnails.store.StoreIndex.read", "shutil.disk_usage"])
def test_a_bank_that_is_deleted_between_opening_and_looking(tmp_path, monkeypatch, capsys, where):
    name, _, attribute = where.rpartition(".")
    owner = pkgutil.resolve_name(name)
    original = getattr(owner, attribute)

    def delete_first(*arguments):
        shutil.rmtree(bank_path(ThumbnailSpec(), str(tmp_path)))
        return original(*arguments)

    monkeypatch.setattr(owner, attribute, delete_first)
    assert open_small_bank(tmp_path) is None
    says_what_to_set(capsys, tmp_path)


@pytest.mark.parametrize("folder", [None, "~", "~/bank", "~nobody-has-this-name/bank"])
def test_no_home(folder, capsys, no_home):
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, "home")


def test_a_home_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    """As of a user of a container."""
    (tmp_path / "home").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_small_bank(None) is None
    says_what_to_set(capsys, tmp_path / "home")


@pytest.mark.parametrize("folder", ["gs://bucket/bank", "s3://bucket/bank"])
def test_a_folder_elsewhere(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, folder, "it has to be a folder of this machine")
    assert not list(tmp_path.iterdir())
