from __future__ import annotations

from collections.abc import Callable
import os
import pathlib
from types import SimpleNamespace
from typing import IO, Any

from etils import epath
import platformdirs
import pytest

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.file_access import (
    HTML_PAGE,
    LFS_POINTER,
    cache_folder,
    map_file,
    open_file,
    read_file,
    read_image,
    replace_file,
    stand_in,
    stat_file,
)
from landmark_triplets_tfds.errors import InputFileError, UnreadableImageError
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES


def write(path: pathlib.Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


class FailingOpen:
    """Stands in for `open`: raises the given errors, one per call, then opens."""

    def __init__(self, *errors: OSError):
        self.errors = list(errors)
        self.calls: list[str] = []

    def __call__(self, path: str, *args: Any, **kwargs: Any) -> IO[bytes]:
        self.calls.append(path)
        if self.errors:
            raise self.errors.pop(0)
        return open(path, *args, **kwargs)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(file_access.time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("num_failures", [1, 2])
def test_a_passing_failure_is_tried_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], num_failures: int
) -> None:
    fake = FailingOpen(*[OSError(5, "Input/output error")] * num_failures)
    monkeypatch.setattr(file_access, "open", fake, raising=False)
    assert read_image(write(tmp_path / "x", b"an image")) == b"an image"
    assert fake.calls == [str(tmp_path / "x")] * (num_failures + 1)
    assert len(pauses) == num_failures
    assert min(pauses) > 0


def test_a_lasting_failure_is_reported(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    fake = FailingOpen(*[OSError(5, "Input/output error", "/data/x")] * 20)
    monkeypatch.setattr(file_access, "open", fake, raising=False)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(write(tmp_path / "x", b""))
    assert caught.value.reason == UnreadableImageError.NO_ACCESS
    assert "Input/output error" in caught.value.detail
    assert "/data/x" in caught.value.detail
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
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], error: OSError, reason: str
) -> None:
    fake = FailingOpen(*[error] * 20)
    monkeypatch.setattr(file_access, "open", fake, raising=False)
    with pytest.raises(UnreadableImageError) as caught:
        read_image(write(tmp_path / "x", b""))
    assert caught.value.reason == reason
    assert (len(fake.calls), pauses) == (1, [])


@pytest.mark.parametrize("is_remote", [False, True])
def test_what_is_too_large_to_be_an_image_is_not_read(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, is_remote: bool
) -> None:
    monkeypatch.setattr(file_access, "is_remote", lambda path: is_remote)  # epath reads local files as well
    monkeypatch.setattr(file_access, "MAX_FILE_BYTES", 1000)
    assert len(read_image(write(tmp_path / "a", bytes(1000)))) == 1000
    with pytest.raises(UnreadableImageError) as caught:
        read_image(write(tmp_path / "b", bytes(1001)))
    assert caught.value.reason == UnreadableImageError.FILE_TOO_LARGE


@pytest.mark.parametrize("is_remote", [False, True])
@pytest.mark.parametrize(
    ("offset", "length", "expected"), [(0, 3, b"012"), (3, 4, b"3456"), (8, 5, b"89"), (20, 1, b""), (0, 0, b"")]
)
def test_parts(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    offset: int,
    length: int,
    expected: bytes,
    is_remote: bool,
) -> None:
    monkeypatch.setattr(file_access, "is_remote", lambda path: is_remote)
    assert read_image(write(tmp_path / "x", b"0123456789"), offset, length) == expected


@pytest.fixture(params=SPECIAL_FILES)
def special(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> str:
    SPECIAL_FILES[request.param](tmp_path / "x")
    return str(tmp_path / "x")


@pytest.mark.parametrize("function", [open_file, stat_file, map_file, lambda path: read_file(path, 1000)])
def test_what_is_no_file_is_refused(special: str, function: Callable[[str], object]) -> None:
    with time_limit(10), pytest.raises(InputFileError, match=f"{special} is a pipe, a device or a socket"):
        function(special)


@pytest.mark.parametrize("part", [(), (0, 100), (5, 1 << 40)])
def test_what_is_no_file_is_no_image(special: str, pauses: list[float], part: tuple[int, int]) -> None:
    with time_limit(10), pytest.raises(UnreadableImageError, match=f"{special} is a pipe") as caught:
        read_image(special, *part)
    assert (caught.value.reason, pauses) == (UnreadableImageError.NO_ACCESS, [])


@pytest.mark.parametrize("function", [open_file, stat_file, map_file, lambda path: read_file(path, 1000)])
def test_a_folder_is_no_file(tmp_path: pathlib.Path, function: Callable[[str], object]) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        function(str(tmp_path))


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_file_is_read_up_to_a_limit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, is_remote: bool) -> None:
    monkeypatch.setattr(file_access, "is_remote", lambda path: is_remote)
    path = write(tmp_path / "x", b"0123456789")
    assert read_file(path, 10) == read_file(path, 1 << 30) == b"0123456789"
    with pytest.raises(InputFileError, match=f"{path} is larger than 0 MB"):
        read_file(path, 9)
    os.truncate(path, 1 << 40)  # bytes that no disk has to hold
    with pytest.raises(InputFileError, match="larger than 10 MB"):
        read_file(path, 10_000_000)


@pytest.mark.parametrize("said", [0, 1, 9, 10])
def test_the_size_that_a_file_is_said_to_have_is_a_hint(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    """A file grows while it is read, and those of some file systems have no size."""

    fake = SimpleNamespace(stat=os.stat, fstat=lambda descriptor: SimpleNamespace(st_size=said))
    monkeypatch.setattr(file_access, "os", fake)
    monkeypatch.setattr(file_access, "MAX_FILE_BYTES", 10)
    assert read_image(write(tmp_path / "x", b"0123456789")) == b"0123456789"
    with pytest.raises(UnreadableImageError) as caught:
        read_image(write(tmp_path / "y", b"01234567890"))
    assert caught.value.reason == UnreadableImageError.FILE_TOO_LARGE


def test_cache_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("~/x") == tmp_path / "x"
    assert cache_folder(None) == platformdirs.user_cache_path("landmark_triplets_tfds")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"<html>", HTML_PAGE),
        (b"\r\n  <!DOCTYPE html>", HTML_PAGE),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", LFS_POINTER),
        (b"id,landmark_id\n<", None),
        (b"\xff\xd8\xff<", None),
        (b"", None),
    ],
)
def test_stand_in(content: bytes, expected: str | None) -> None:
    assert stand_in(content) == expected


@pytest.mark.parametrize("content", [b"", b"0123456789"])
def test_files_are_mapped(tmp_path: pathlib.Path, content: bytes) -> None:
    assert map_file(write(tmp_path / "x", content))[:] == content


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path: pathlib.Path) -> None:
    path = epath.Path(write(tmp_path / "x", b"old"))
    with pytest.raises(TypeError), replace_file(path) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    with replace_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
