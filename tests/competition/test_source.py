from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
import pickle
import tempfile

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.common import file_access, progress
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.errors import UnreadableImageError
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

IMAGE_ID = 0x0A1B000000000001
IMAGE_PATH = "train/0/a/1/0a1b000000000001.jpg"


def folder_source(root: pathlib.Path | str) -> FolderSource:
    return FolderSource(epath.Path(root), "train.csv")


def write_image(root: pathlib.Path, image: bytes = b"\xff\xd8\xff image") -> pathlib.Path:
    path = root / IMAGE_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(image)
    return root


@pytest.mark.parametrize("spoil", [*SPECIAL_FILES.values(), pathlib.Path.mkdir])
def test_what_is_no_file_is_an_unreadable_image(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]) -> None:
    root = write_image(tmp_path)
    (root / IMAGE_PATH).unlink()
    spoil(root / IMAGE_PATH)
    source = folder_source(root)
    with time_limit(10):
        assert source.find_present(np.array([IMAGE_ID], dtype=np.uint64), 1).tolist() == [True]
        assert source.stamp(IMAGE_ID) == (-1, -1)
        with pytest.raises(UnreadableImageError, match=IMAGE_PATH) as caught:
            source.read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.NO_ACCESS


Pretend = Callable[[bool], None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Makes epath read local files as well."""
    return lambda is_remote: monkeypatch.setattr(file_access, "is_remote", lambda path: is_remote)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that were listed."""
    folders: list[str] = []
    list_folder = FolderSource._list

    def record(source: FolderSource, folder: str) -> set[str]:
        folders.append(folder)
        return list_folder(source, folder)

    monkeypatch.setattr(FolderSource, "_list", record)
    return folders


@given(st.integers(0, 2**64 - 1))
def test_locates_by_the_first_three_digits(image_id: int) -> None:
    name = f"{image_id:016x}"
    expected = f"/data/train/{name[0]}/{name[1]}/{name[2]}/{name}.jpg"
    assert folder_source("/data").locate(image_id) == expected


@pytest.mark.parametrize(("root", "is_remote"), [("/data", False), ("data", False), ("gs://bucket/data", True)])
def test_is_remote(root: str, is_remote: bool) -> None:
    source = folder_source(root)
    assert source.is_remote is is_remote
    assert source.locate(IMAGE_ID) == f"{root}/{IMAGE_PATH}"


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize("content", [b"", b"\r\n\0\x1a\xff", bytes(range(256)) * 5000])
def test_bytes_come_unchanged(tmp_path: pathlib.Path, content: bytes, is_remote: bool, pretend: Pretend) -> None:
    pretend(is_remote)
    source = folder_source(write_image(tmp_path, content))
    assert source.read(IMAGE_ID) == content


def _replace_by_a_folder(path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (pathlib.Path.unlink, UnreadableImageError.MISSING),
        (_replace_by_a_folder, UnreadableImageError.NO_ACCESS),
    ],
    ids=["missing", "a folder"],
)
def test_what_is_no_file(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None], reason: str, is_remote: bool, pretend: Pretend
) -> None:
    pretend(is_remote)
    source = folder_source(write_image(tmp_path))
    spoil(tmp_path / IMAGE_PATH)
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IMAGE_ID)
    assert caught.value.reason == reason
    assert str(tmp_path / IMAGE_PATH) in caught.value.detail


def test_a_file_in_place_of_a_folder_above_is_a_missing_image(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train").touch()
    with pytest.raises(UnreadableImageError) as caught:
        folder_source(tmp_path).read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.MISSING


@pytest.mark.parametrize("is_remote", [False, True])
def test_finds_which_images_are_present(
    tmp_path: pathlib.Path, is_remote: bool, pretend: Pretend, listed: list[str]
) -> None:
    pretend(is_remote)
    write_image(tmp_path)
    (tmp_path / "train/f").touch()  # in place of a folder
    (tmp_path / "train/0/a/1/0a1b000000000003.png").touch()
    source = folder_source(tmp_path)
    ids = [2**64 - 1, IMAGE_ID + 1, 5, IMAGE_ID, IMAGE_ID + 2]
    found = source.find_present(np.array(ids, dtype=np.uint64), 2)
    assert found.tolist() == [False, False, False, True, False]
    assert [source.exists(image_id) for image_id in ids] == found.tolist()
    assert sorted(listed) == ["0/0/0", "0/a/1", "f/f/f"]


@pytest.mark.parametrize("is_remote", [False, True])
def test_lists_all_images(tmp_path: pathlib.Path, is_remote: bool, pretend: Pretend, listed: list[str]) -> None:
    pretend(is_remote)
    ids = [5, 0x0A10000000000000, IMAGE_ID, IMAGE_ID + 1, 0xFFF0000000000000, 2**64 - 1]
    source = FolderSource(epath.Path(tmp_path), "train.csv", "index")
    assert source.list_images(2).tolist() == []  # there is no such folder
    for image_id in reversed(ids):
        path = pathlib.Path(source.locate(image_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for other in (
        "0/a/1/0a2b000000000001.jpg",
        "0/a/1/0A1B000000000009.jpg",
        "0/a/1/x.jpg",
        "0/a/1/0a1b00000000000a.png",
    ):
        (tmp_path / "index" / other).touch()
    for other in ("0/a/0a1b000000000005.jpg", "x", "b", "0/a1b0000000000001.jpg"):
        (tmp_path / "index" / other).touch()
    listed.clear()
    found = source.list_images(2)
    assert (found.tolist(), found.dtype) == (ids, np.uint64)
    assert len(listed) == 1 + 3 * 256  # the folder itself, and those below 0, f, and b, which is a file


@pytest.mark.parametrize(("folder", "what"), [("train", "images"), ("index", "index")])
def test_progress_is_shown(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    what: str,
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    FolderSource(epath.Path(tmp_path), "train.csv", folder).find_present(np.array([5], dtype=np.uint64), 1)
    assert f"Listing {what}: 100%" in capsys.readouterr().err


@given(st.sets(st.integers(0, 2**64 - 1), max_size=8))
@settings(max_examples=20)
def test_what_is_listed_is_what_is_present(ids: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = folder_source(folder)
        for image_id in ids:
            path = pathlib.Path(source.locate(image_id))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        listed = source.list_images(1)
        assert listed.tolist() == sorted(ids)
        assert source.find_present(listed, 1).all()


@pytest.mark.parametrize("is_remote", [False, True])
def test_stamps_tell_a_changed_file(tmp_path: pathlib.Path, is_remote: bool, pretend: Pretend) -> None:
    pretend(is_remote)
    path = write_image(tmp_path, b"12345") / IMAGE_PATH
    source = folder_source(tmp_path)
    os.utime(path, ns=(0, 1_600_000_000 * 10**9))
    assert source.stamp(IMAGE_ID) == (5, 1_600_000_000 * 10**9)
    assert source.stamp(IMAGE_ID + 1) == (-1, -1)


def test_stamps_tell_folders_apart(tmp_path: pathlib.Path) -> None:
    """Two files with one id, size and time may hold different pixels."""
    sources = [FolderSource(epath.Path(tmp_path), "train.csv", folder) for folder in ("train", "index", "test")]
    stamps = set()
    for source in sources:
        path = pathlib.Path(source.locate(IMAGE_ID))
        path.parent.mkdir(parents=True)
        path.write_bytes(b"12345")
        os.utime(path, ns=(0, 1_600_000_000 * 10**9))
        stamps.add(source.stamp(IMAGE_ID))
    assert len(stamps) == 3
    assert all(size == 5 and 0 <= changed < 2**63 for size, changed in stamps)


def test_is_sent_as_paths(tmp_path: pathlib.Path) -> None:
    source = folder_source(write_image(tmp_path))
    assert len(pickle.dumps(source)) < 500
    assert pickle.loads(pickle.dumps(source)).read(IMAGE_ID) == source.read(IMAGE_ID)
