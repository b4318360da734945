from __future__ import annotations

from collections.abc import Callable
import hashlib
import pathlib

from etils import epath
import pytest

from landmark_triplets_tfds.competition.md5_lists import md5_of, read_md5_lists
from landmark_triplets_tfds.errors import ArchiveError
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

MD5 = "0123456789abcdef" * 2
OTHER = "f" * 32


def read(root: pathlib.Path, folder: str = "train") -> tuple[dict[str, str], list[str]]:
    return read_md5_lists(epath.Path(root), folder)


def read_text(root: pathlib.Path, text: str | bytes, name: str = "md5.txt") -> tuple[dict[str, str], list[str]]:
    (root / "train").mkdir(exist_ok=True)
    (root / "train" / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read(root)


@pytest.mark.parametrize("where", ["train", ".", "md5sum/train"])
@pytest.mark.parametrize(
    "name",
    [
        "md5.images_000.txt",
        "images.md5",
        "MD5SUMS",
        "md5sum.txt",
        "MD5SUMS.txt",
        "images_000.tar.md5",
        "train_md5.txt",
        "a.md5sum",
        "A.MD5",
    ],
)
def test_lists_are_found(tmp_path: pathlib.Path, where: str, name: str) -> None:
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / where / name).write_text(f"{MD5.upper()} *images_000.tar\n")
    assert read(tmp_path) == ({"images_000.tar": MD5}, [])


@pytest.mark.parametrize(
    "line",
    [
        f"{MD5}  images_000.tar",
        f"{MD5} *images_000.tar",
        f"{MD5} images_000.tar",  # `md5 -r`, on macOS and BSD
        f"{MD5}\timages_000.tar",
        f"  {MD5.upper()}  images_000.tar  ",
        f"{MD5}  ./images_000.tar",
        f"{MD5}  /data/my copy/train/images_000.tar",
        f"{MD5} *C:\\data\\train\\images_000.tar",
        f"\\{MD5}  /a\\nb\\\\c/train/images_000.tar",
        f"MD5 (images_000.tar) = {MD5}",
        f"MD5 (train/images_000.tar) = {MD5.upper()}",
        f"MD5 (copy (2)/images_000.tar) = {MD5}",
        f"\\MD5 (a\\nb/images_000.tar) = {MD5}",
        f"MD5(images_000.tar)= {MD5}",
        f"md5(./images_000.tar)={MD5}",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lines_as_tools_write_them(tmp_path: pathlib.Path, line: str, end: str, encoding: str) -> None:
    assert read_text(tmp_path, (line + end).encode(encoding)) == ({"images_000.tar": MD5}, [])


@pytest.mark.parametrize(
    ("where", "line", "folder"),
    [
        ("index", "images_000.tar", "index"),
        ("md5sum/index", "images_000.tar", "index"),
        ("md5sum/index", "train/images_000.tar", None),  # a list that is looked at for index/ only
        (".", "images_000.tar", "train"),
        (".", "index/images_000.tar", "index"),
        ("train", "/data/test/images_000.tar", None),
    ],
)
def test_lists_of_several_folders(tmp_path: pathlib.Path, where: str, line: str, folder: str | None) -> None:
    """Tars in all folders have the same names."""
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    (tmp_path / where / "MD5SUMS").write_text(f"MD5 ({line}) = {MD5}\n")
    for each in ("train", "index", "test"):
        assert read(tmp_path, each) == ({"images_000.tar": MD5} if each == folder else {}, [])


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("<html>404</html>", "md5.txt has 1 lines that are not understood, such as '<html>404</html>'. Expected"),
        (MD5, f"has 1 lines that are not understood, such as '{MD5}'"),
        (f"{MD5[:-1]}  images_000.tar", "not understood"),
        (f"{MD5}0  images_000.tar", "not understood"),
        (f"{MD5}  ", "not understood"),
        (f"SHA256 (images_000.tar) = {MD5 * 2}", "not understood"),
        (f"MD5 hash of images_000.tar:\r\n{MD5}\r\nCertUtil: done.\r\n", "has 3 lines that are not understood"),
        (f"{MD5}  images_000.tar".encode("utf-16-le"), "not understood"),
        (b"\xff\0\1", "not understood"),
        ("", "names no tar images_<number>.tar, so it verifies nothing"),
        ("# a comment\n; another\n\n", "names no tar"),
        (f"{MD5}  train.csv\nMD5 (images_000.tar.gz) = {MD5}\n", "names no tar"),
        ("\n" * 2_000_000, "is too large for an MD5 list of tars"),
    ],
)
def test_a_list_that_verifies_nothing_is_named(tmp_path: pathlib.Path, text: str | bytes, remark: str) -> None:
    md5_of_name, remarks = read_text(tmp_path, text)
    assert md5_of_name == {}
    assert len(remarks) == 1
    assert remarks[0].startswith(f"{tmp_path}/train/md5.txt ")
    assert remark in remarks[0]


def test_one_line_that_is_not_understood_is_shown(tmp_path: pathlib.Path) -> None:
    found, remarks = read_text(tmp_path, f"{MD5}  images_000.tar\n{'x' * 500_000} y\n{MD5}  images_001.tar\n")
    assert found == {"images_000.tar": MD5, "images_001.tar": MD5}
    assert len(remarks) == 1
    assert "has 1 lines that are not understood, such as 'xxx" in remarks[0]
    assert len(remarks[0]) < 500


def test_lists_that_contradict_each_other(tmp_path: pathlib.Path) -> None:
    read_text(tmp_path, f"{MD5}  images_000.tar\n", "a.md5")
    found, remarks = read_text(tmp_path, f"{OTHER}  images_000.tar\n", "b.md5")
    assert found == {"images_000.tar": MD5}
    assert remarks == [f"{tmp_path}/train/b.md5 has another MD5 of images_000.tar than a list before it, which counts."]


@pytest.mark.parametrize("spoil", [*SPECIAL_FILES.values(), lambda path: path.symlink_to("nowhere")])
def test_a_list_that_cannot_be_read(tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]) -> None:
    spoil(tmp_path / "md5.txt")
    with time_limit(10), pytest.raises(ArchiveError, match=f"The MD5 list {tmp_path}/md5.txt cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("text", [f"{MD5}  a{' ' * 900_000}b", "MD5 (" + ")" * 900_000, "MD5 (" + ") " * 450_000])
def test_odd_lines_take_no_time(tmp_path: pathlib.Path, text: str) -> None:
    with time_limit(10):
        assert read_text(tmp_path, text)[0] == {}


def test_folders_and_other_files_are_no_lists(tmp_path: pathlib.Path) -> None:
    (tmp_path / "md5.txt").mkdir()
    assert read_text(tmp_path, f"{MD5}  images_000.tar", "notes.txt") == ({}, [])


def test_md5_of(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 3_000_000)
    assert md5_of(str(tmp_path / "x")) == hashlib.md5(b"x" * 3_000_000).hexdigest()
