from __future__ import annotations

from collections.abc import Callable
import io
import os
import pathlib
from typing import Any
import zipfile

from etils import epath
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds import sources
from landmark_triplets_tfds.errors import SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.sources import FolderSource, find_source

IMAGE_ID = 0x0A1B000000000001
IMAGE_PATH = "train/0/a/1/0a1b000000000001.jpg"


def write_competition(root: pathlib.Path, image: bytes = b"\xff\xd8\xff image") -> pathlib.Path:
    path = root / IMAGE_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(image)
    (root / "train.csv").write_text("id,landmark_id\n0a1b000000000001,1\n")
    return root


# --- Finding the files


@pytest.mark.parametrize("below", [".", "landmark-retrieval-2020"])
@pytest.mark.parametrize("others", [(), ("test.csv", "landmark-retrieval-2020.zip"), ("train.csv.part",)])
def test_finds_the_competition(tmp_path: pathlib.Path, below: str, others: tuple[str, ...]) -> None:
    root = write_competition(tmp_path / below)
    for name in others:
        (tmp_path / name).write_bytes(b"")
    source = find_source(epath.Path(tmp_path))
    assert source.table_path == epath.Path(root / "train.csv")
    assert source.read(IMAGE_ID) == b"\xff\xd8\xff image"
    assert not source.is_remote


def test_prefers_the_folder_named_to_the_one_within(tmp_path: pathlib.Path) -> None:
    write_competition(tmp_path, b"outer")
    write_competition(tmp_path / "landmark-retrieval-2020", b"inner")
    assert find_source(epath.Path(tmp_path)).read(IMAGE_ID) == b"outer"


def test_a_half_layout_outside_does_not_hide_a_whole_one_within(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train.csv").write_text("id,landmark_id\n")
    write_competition(tmp_path / "landmark-retrieval-2020", b"inner")
    assert find_source(epath.Path(tmp_path)).read(IMAGE_ID) == b"inner"


def _zip(folder: pathlib.Path) -> None:
    with zipfile.ZipFile(folder / "landmark-retrieval-2020.zip", "w") as archive:
        archive.writestr("train.csv", "id,landmark_id\n")


WRONG_LAYOUTS: dict[str, tuple[Callable[[pathlib.Path], object], str, str]] = {
    # What is done in an empty folder <tmp>/data, the manual_dir given below <tmp>, what the message says of it.
    "no such folder": (lambda data: None, "data/nowhere", "The folder {manual_dir} does not exist"),
    "a file": (lambda data: (data / "x.zip").write_bytes(b""), "data/x.zip", "{manual_dir} is a file, not a folder"),
    "an empty folder": (lambda data: None, "data", "{manual_dir} does not hold .* nothing"),
    "no images": (
        lambda data: (data / "train.csv").write_text(""),
        "data",
        "{manual_dir} holds train.csv but no .*train/",
    ),
    "images are a file": (
        lambda data: [(data / name).write_text("") for name in ("train.csv", "train")],
        "data",
        "{manual_dir} holds train.csv but no folder train/",
    ),
    "no table": (lambda data: (data / "train").mkdir(), "data", "{manual_dir} holds train/ but no train.csv"),
    "no table within": (
        lambda data: (data / "landmark-retrieval-2020" / "train").mkdir(parents=True),
        "data",
        "{manual_dir}/landmark-retrieval-2020 holds train/ but no train.csv",
    ),
    "no images within": (
        lambda data: [(data / "landmark-retrieval-2020").mkdir(), (data / "landmark-retrieval-2020/train.csv").touch()],
        "data",
        "{manual_dir}/landmark-retrieval-2020 holds train.csv but no folder train/",
    ),
    "the folder of images": (write_competition, "data/train", "{manual_dir} holds no train.csv, but {data} does"),
    "a zip": (_zip, "data", r"{manual_dir} holds an archive \(landmark-retrieval-2020.zip\) .*not extracted"),
    "a tar": (
        lambda data: (data / "images_000.tar").touch(),
        "data",
        r"{manual_dir} holds an archive \(images_000.tar\)",
    ),
    "other files": (
        lambda data: [(data / f"{i}.txt").touch() for i in range(7)],
        "data",
        r"{manual_dir} does not hold .*: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, \.\.\.",
    ),
}


@pytest.mark.parametrize(("prepare", "manual_dir", "message"), WRONG_LAYOUTS.values(), ids=WRONG_LAYOUTS)
def test_a_wrong_layout_is_described(
    tmp_path: pathlib.Path, prepare: Callable[[pathlib.Path], object], manual_dir: str, message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    expected = message.format(manual_dir=tmp_path / manual_dir, data=data)
    with pytest.raises(SourceLayoutError, match=expected) as caught:
        find_source(epath.Path(tmp_path / manual_dir))
    assert isinstance(caught.value, FileNotFoundError)
    text = str(caught.value)
    for help_text in (
        "<manual_dir>/train.csv",
        "<manual_dir>/train/a/b/c/<id>.jpg",
        "kaggle competitions download -c landmark-retrieval-2020",
        "--manual_dir",
    ):
        assert help_text in text


# --- Reading


@given(st.integers(0, 2**64 - 1))
def test_locates_by_the_first_three_digits(image_id: int) -> None:
    name = f"{image_id:016x}"
    expected = f"/data/train/{name[0]}/{name[1]}/{name[2]}/{name}.jpg"
    assert FolderSource(epath.Path("/data")).locate(image_id) == expected


@pytest.mark.parametrize(("root", "is_remote"), [("/data", False), ("data", False), ("gs://bucket/data", True)])
def test_is_remote(root: str, is_remote: bool) -> None:
    source = FolderSource(epath.Path(root))
    assert source.is_remote is is_remote
    assert source.locate(IMAGE_ID) == f"{root}/{IMAGE_PATH}"


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize("content", [b"", b"\r\n\0\x1a\xff", bytes(range(256)) * 5000])
def test_bytes_come_unchanged(tmp_path: pathlib.Path, content: bytes, is_remote: bool) -> None:
    source = FolderSource(epath.Path(write_competition(tmp_path, content)))
    source.is_remote = is_remote  # then epath reads, here as well
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
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None], reason: str, is_remote: bool
) -> None:
    source = FolderSource(epath.Path(write_competition(tmp_path)))
    source.is_remote = is_remote
    spoil(tmp_path / IMAGE_PATH)
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IMAGE_ID)
    assert caught.value.reason == reason
    assert str(tmp_path / IMAGE_PATH) in caught.value.detail


def test_a_file_in_place_of_a_folder_above_is_a_missing_image(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train").touch()
    with pytest.raises(UnreadableImageError) as caught:
        FolderSource(epath.Path(tmp_path)).read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.MISSING


@pytest.mark.parametrize("is_remote", [False, True])
def test_finds_which_images_are_present(tmp_path: pathlib.Path, is_remote: bool) -> None:
    write_competition(tmp_path)
    (tmp_path / "train/f").touch()  # in place of a folder
    (tmp_path / "train/0/a/1/0a1b000000000003.png").touch()
    source = FolderSource(epath.Path(tmp_path))
    source.is_remote = is_remote
    ids = [2**64 - 1, IMAGE_ID + 1, 5, IMAGE_ID, IMAGE_ID + 2]
    calls: list[tuple[int, int]] = []
    found = source.find_present(np.array(ids, dtype=np.uint64), 2, lambda *numbers: calls.append(numbers))
    assert found.tolist() == [False, False, False, True, False]
    assert [source.exists(image_id) for image_id in ids] == found.tolist()
    assert calls == [(1, 3), (2, 3), (3, 3)]  # the folders f/f/f, 0/a/1 and 0/0/0


@pytest.mark.parametrize("is_remote", [False, True])
def test_stamps_tell_a_changed_file(tmp_path: pathlib.Path, is_remote: bool) -> None:
    path = write_competition(tmp_path, b"12345") / IMAGE_PATH
    source = FolderSource(epath.Path(tmp_path))
    source.is_remote = is_remote
    os.utime(path, ns=(0, 1_600_000_000 * 10**9))
    assert source.stamp(IMAGE_ID) == (5, 1_600_000_000 * 10**9)
    assert source.stamp(IMAGE_ID + 1) == (-1, -1)


class FailingOpen:
    """Stands in for `open`: raises the given errors, one per call, then opens an image."""

    def __init__(self, *errors: OSError):
        self.errors = list(errors)
        self.calls: list[str] = []

    def __call__(self, path: str, *args: Any, **kwargs: Any) -> io.BytesIO:
        self.calls.append(path)
        if self.errors:
            raise self.errors.pop(0)
        return io.BytesIO(b"an image")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(sources.time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("num_failures", [1, 2])
def test_a_passing_failure_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], num_failures: int
) -> None:
    fake = FailingOpen(*[OSError(5, "Input/output error")] * num_failures)
    monkeypatch.setattr(sources, "open", fake, raising=False)
    assert FolderSource(epath.Path("/data")).read(IMAGE_ID) == b"an image"
    assert fake.calls == [f"/data/{IMAGE_PATH}"] * (num_failures + 1)
    assert len(pauses) == num_failures
    assert min(pauses) > 0


def test_a_lasting_failure_is_reported(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    fake = FailingOpen(*[OSError(5, "Input/output error", f"/data/{IMAGE_PATH}")] * 20)
    monkeypatch.setattr(sources, "open", fake, raising=False)
    with pytest.raises(UnreadableImageError) as caught:
        FolderSource(epath.Path("/data")).read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.NO_ACCESS
    assert "Input/output error" in caught.value.detail
    assert IMAGE_PATH in caught.value.detail
    assert (len(fake.calls), len(pauses)) == (3, 2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file"), UnreadableImageError.MISSING),
        (PermissionError(13, "Permission denied"), UnreadableImageError.NO_ACCESS),
        (IsADirectoryError(21, "Is a directory"), UnreadableImageError.NO_ACCESS),
    ],
)
def test_what_another_attempt_cannot_change_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, pauses: list[float], error: OSError, reason: str
) -> None:
    fake = FailingOpen(*[error] * 20)
    monkeypatch.setattr(sources, "open", fake, raising=False)
    with pytest.raises(UnreadableImageError) as caught:
        FolderSource(epath.Path("/data")).read(IMAGE_ID)
    assert caught.value.reason == reason
    assert (len(fake.calls), pauses) == (1, [])
