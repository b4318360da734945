from __future__ import annotations

import io
import pathlib
import struct
from typing import Any
import zipfile

from etils import epath
import pytest

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition import zip_archive
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.zip_archive import ZipSource
from landmark_triplets_tfds.errors import ArchiveError, LandmarkTableError, SourceLayoutError, UnreadableImageError
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

IMAGE_ID = 0x0A1B000000000001
NAME = "train/0/a/1/0a1b000000000001.jpg"
OTHER_ID, OTHER_NAME = 0xFFF0000000000002, "train/f/f/f/fff0000000000002.jpg"
IMAGE = b"\xff\xd8\xff an image " + bytes(range(256)) * 4
TABLE = "id,landmark_id\n0a1b000000000001,1\nfff0000000000002,1\n"


def write_zip(
    folder: pathlib.Path, *members: tuple[str | zipfile.ZipInfo, bytes | str], compression: int = zipfile.ZIP_DEFLATED
) -> pathlib.Path:
    path = folder / "landmark-retrieval-2020.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members or (("train.csv", TABLE), (NAME, IMAGE), (OTHER_NAME, IMAGE)):
            archive.writestr(name, content)
    return path


def source_of(path: pathlib.Path) -> ZipSource:
    source = find_source(epath.Path(path.parent), str(path.parent / "bank"))
    assert isinstance(source, ZipSource)
    return source


def read_error(path: pathlib.Path, image_id: int = IMAGE_ID) -> UnreadableImageError:
    with pytest.raises(UnreadableImageError) as caught:
        source_of(path).read(image_id)
    return caught.value


def header_of(path: pathlib.Path, name: str) -> zipfile.ZipInfo:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(name)


def change(path: pathlib.Path, at: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def data_start(path: pathlib.Path, name: str = NAME) -> int:
    return header_of(path, name).header_offset + 30 + len(name)


# --- What is read


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("content", [b"", b"x", IMAGE, bytes(1_000_000)])
def test_members(tmp_path: pathlib.Path, compression: int, content: bytes) -> None:
    path = write_zip(tmp_path, ("train.csv", TABLE), (NAME, content), (OTHER_NAME, IMAGE), compression=compression)
    source = source_of(path)
    assert source.read(IMAGE_ID) == content
    assert source.read(OTHER_ID) == IMAGE
    assert source.stamp(IMAGE_ID) == (len(content), header_of(path, NAME).CRC)


def test_zip64_beyond_4_gib(tmp_path: pathlib.Path) -> None:
    """As in an archive of 105 GB: offsets that 32 bits do not hold. The file has a hole in front."""
    path = tmp_path / "landmark-retrieval-2020.zip"
    with open(path, "wb") as file:
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (("train.csv", TABLE), (NAME, IMAGE), (OTHER_NAME, IMAGE)):
                archive.writestr(name, content)
    assert header_of(path, NAME).header_offset > 2**32
    source = source_of(path)
    assert source.read_table().num_images == 2
    assert source.read(OTHER_ID) == IMAGE


def test_members_written_as_a_stream(tmp_path: pathlib.Path) -> None:
    """Sizes and CRC follow the data, zip64 headers are in front of it: only the directory knows them before."""

    class Unseekable(io.RawIOBase):
        def __init__(self, file: Any):
            self.file = file

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return int(self.file.write(data))

    path = tmp_path / "landmark-retrieval-2020.zip"
    with open(path, "wb") as file, zipfile.ZipFile(Unseekable(file), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", TABLE)
        with archive.open(NAME, "w", force_zip64=True) as member:
            member.write(IMAGE)
    assert source_of(path).read(IMAGE_ID) == IMAGE


def test_long_extra_fields(tmp_path: pathlib.Path) -> None:
    info = zipfile.ZipInfo(NAME)
    info.extra = struct.pack("<HH", 0x7777, 500) + bytes(500)
    assert source_of(write_zip(tmp_path, ("train.csv", TABLE), (info, IMAGE))).read(IMAGE_ID) == IMAGE


def test_a_zip_behind_something_else(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path)
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    assert source_of(path).read(IMAGE_ID) == IMAGE


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_members_with_a_name_the_last_counts(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, ("train.csv", TABLE), (NAME, b"first"), (OTHER_NAME, IMAGE), (NAME, b"last"))
    assert source_of(path).read(IMAGE_ID) == b"last"


@pytest.mark.parametrize(
    "name",
    [
        "../train/0/a/1/0a1b000000000001.jpg",
        "./../train/0/a/1/0a1b000000000001.jpg",
        "a/b/train/0/a/1/0a1b000000000001.jpg",
        "index/0/a/1/0a1b000000000001.jpg",
        "train/0/a/2/0a1b000000000001.jpg",
        "train/0/a/1/0A1B000000000001.jpg",
        "train/0/a/1/0a1b000000000001.jpg.txt",
        "train/0/a/1/../../0a1b000000000001.jpg",
        "train\\0\\a\\1\\0a1b000000000001.jpg",
        "train/0/a/1/0a1b000000000001.jpg\0.txt",
        "0a1b000000000001.jpg",
    ],
)
def test_members_outside_the_layout_are_no_images(tmp_path: pathlib.Path, name: str) -> None:
    info = zipfile.ZipInfo("placeholder")
    info.filename = info.orig_filename = name
    source = source_of(write_zip(tmp_path, ("train.csv", TABLE), (info, IMAGE), (OTHER_NAME, IMAGE)))
    assert not source.exists(IMAGE_ID)
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.MISSING
    assert source.read(OTHER_ID) == IMAGE


# --- Roots


@pytest.mark.parametrize("lead", ["", "./", "/", ".//"])
@pytest.mark.parametrize("root", ["", "landmark-retrieval-2020/", "C:/", "Donn\xe9es/"])
def test_names_as_programs_write_them(tmp_path: pathlib.Path, lead: str, root: str) -> None:
    path = write_zip(tmp_path, *((f"{lead}{root}{name}", content) for name, content in WHOLE))
    source = source_of(path)
    assert source.read_table().num_images == 2
    assert (source.read(IMAGE_ID), source.read(OTHER_ID)) == (IMAGE, IMAGE)


WHOLE = [("train.csv", TABLE), (NAME, IMAGE), (OTHER_NAME, IMAGE)]
OTHERS = {
    "an older copy of an image": [(f"old/{NAME}", b"other")],
    "on a drive": [(f"C:/{NAME}", b"other")],
    "another copy of the table": [("old/train.csv", TABLE.replace(",1", ",2"))],
    "of macOS": [("__MACOSX/train.csv", b"x"), (f"__MACOSX/{NAME}", b"other")],
    "images without labels": [(f"old/{NAME}".replace("train", "test"), b"other")],
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_what_is_beside_a_copy_is_ignored_with_a_line(
    tmp_path: pathlib.Path, others: Any, before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Now and whenever the zip is used."""
    members = [*others, *WHOLE] if before else [*WHOLE, *others]
    path = write_zip(tmp_path, *members)
    for _ in range(2):
        source = source_of(path)
        assert source.read_table().landmark_ids.tolist() == [1, 1]
        assert (source.read(IMAGE_ID), source.read(OTHER_ID)) == (IMAGE, IMAGE)
        assert f"{path} holds more than one folder of the competition. Ignored: " in capsys.readouterr().out


@pytest.mark.parametrize("root", ["old/", "C:/"])
@pytest.mark.parametrize("names", [("train.csv", NAME), ("train.csv", OTHER_NAME)])
def test_two_copies_in_a_zip_are_an_error_that_names_both(
    tmp_path: pathlib.Path, root: str, names: tuple[str, ...]
) -> None:
    path = write_zip(tmp_path, *WHOLE, *((root + name, TABLE) for name in names))
    message = rf"{path} must hold one copy, .* It holds train\.csv, {root}train\.csv, train/, {root}train/\. Pack"
    with pytest.raises(ArchiveError, match=message):
        source_of(path).prepare(1)


def test_a_table_and_images_of_two_copies_are_an_error(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, ("new/train.csv", TABLE), (f"old/{NAME}", IMAGE))
    with pytest.raises(ArchiveError, match=rf"{path} must hold one copy, .* It holds new/train\.csv, old/train/\."):
        source_of(path).prepare(1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_two_spellings_of_a_name_the_last_counts(tmp_path: pathlib.Path) -> None:
    """As when they are extracted one after the other."""
    path = write_zip(tmp_path, *WHOLE, (f"./{NAME}", b"last"))
    assert source_of(path).read(IMAGE_ID) == b"last"


# --- Archives that cannot be used


def _cut(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _cut_in_half(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


WRONG_ZIPS: dict[str, tuple[Any, str]] = {
    "cut": (_cut, "{path} is cut off or damaged: its directory, which is at its end, cannot be read"),
    "half of it": (_cut_in_half, "{path} is cut off or damaged.* Fetch it again"),
    "empty": (lambda path: path.write_bytes(b""), "{path} is cut off or damaged"),
    "an HTML page": (lambda path: path.write_text("<!DOCTYPE html>"), "{path} is no zip"),
    "a folder": (lambda path: [path.unlink(), path.mkdir()], "{path} cannot be opened .*directory"),
    "no table": (
        lambda path: write_zip(path.parent, (NAME, IMAGE), ("a.txt", b"")),
        r"{path} holds no train.csv\. It holds a.txt, 1 images in train/\.",
    ),
    "no images": (
        lambda path: write_zip(path.parent, ("train.csv", TABLE), ("x/y.jpg", b""), ("x/", b""), ("z", b"")),
        r"{path} holds no image train/a/b/c/<id>\.jpg\. It holds x/y\.jpg, z\.",
    ),
    "no images to learn from": (
        lambda path: write_zip(path.parent, ("train.csv", TABLE), (NAME.replace("train", "test"), IMAGE), ("z", b"")),
        r"{path} holds no image train/a/b/c/<id>\.jpg\. It holds z, 1 images in test/\.",
    ),
    "nothing": (
        lambda path: write_zip(path.parent, ("folder/", b"")),
        r"{path} holds no image train/a/b/c/<id>\.jpg\. It holds nothing else\.",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), WRONG_ZIPS.values(), ids=WRONG_ZIPS)
def test_a_zip_that_cannot_be_used(tmp_path: pathlib.Path, spoil: Any, message: str) -> None:
    path = write_zip(tmp_path)
    spoil(path)
    with pytest.raises(ArchiveError, match=message.format(path=path)):
        source_of(path).prepare(1)
    assert issubclass(ArchiveError, SourceLayoutError)  # prepared data can be used beside it


@pytest.mark.parametrize("make", SPECIAL_FILES.values(), ids=SPECIAL_FILES)
def test_what_is_no_file_is_no_zip(tmp_path: pathlib.Path, make: Any) -> None:
    """Neither when it is indexed nor when it takes the zip's place meanwhile."""
    path = write_zip(tmp_path)
    source = source_of(path)
    source.prepare(1)
    path.unlink()
    make(path)
    with time_limit(10), pytest.raises(UnreadableImageError, match=f"{path} is a pipe, a device or a socket"):
        source.read(IMAGE_ID)
    with time_limit(10), pytest.raises(ArchiveError, match=f"{path} is a pipe, a device or a socket"):
        source_of(path).prepare(1)


@pytest.mark.parametrize("other", [[("x", b"")], [("train.csv", TABLE), (NAME, b"other")], [(NAME, b"other")]])
def test_two_zips_in_one_file_are_an_error(tmp_path: pathlib.Path, other: Any) -> None:
    """Of which the directory of the second one does not know the first."""
    first = write_zip(tmp_path, *other).read_bytes()
    path = write_zip(tmp_path)
    path.write_bytes(first + path.read_bytes())
    with pytest.raises(ArchiveError, match=f"{path} begins with {len(first):,} bytes of members that its directory"):
        source_of(path).prepare(1)


def test_a_directory_is_not_read_if_it_is_said_to_be_huge(tmp_path: pathlib.Path) -> None:
    """In a file with a hole, so that it might be there."""
    path = write_zip(tmp_path)
    content = path.read_bytes()
    with path.open("wb") as file:
        file.seek(3 << 30)
        file.write(content[:-10] + struct.pack("<I", 2 << 30) + content[-6:])
    with time_limit(10), pytest.raises(ArchiveError, match=r"cannot be read \(a header of 2,147,483,648 bytes\)"):
        source_of(path).prepare(1)


TABLE_BOMBS = {
    "zeros": bytes(1 << 20),
    "one line": b"a" * (1 << 20),
    "empty lines": b"\n" * (1 << 20),
    "quotes": b'"' * (1 << 20),
    "a line again and again": b"0a1b000000000001,1\n" * 55_000,
}


@pytest.mark.parametrize("piece", TABLE_BOMBS.values(), ids=TABLE_BOMBS)
def test_a_table_that_is_a_bomb(tmp_path: pathlib.Path, piece: bytes) -> None:
    """A hundred megabytes from a few hundred kilobytes: nothing is unpacked."""
    path = tmp_path / "landmark-retrieval-2020.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, IMAGE)
        with archive.open("train.csv", "w") as file:
            for _ in range(100):
                file.write(piece)
    assert path.stat().st_size < 1_000_000
    source = source_of(path)
    message = rf"train.csv in {path} cannot be read \(file too large: 10\d MB, compressed to 0\.\d MB"
    with time_limit(2), pytest.raises(ArchiveError, match=message):
        source.read_table()


def set_flags(path: pathlib.Path, *names: str, flags: int, method: int = 0) -> pathlib.Path:
    """Sets flags and method of members in the directory and in the headers in front of the data."""
    data = bytearray(path.read_bytes())
    for name in names:
        for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            size = 30 if at == 6 else 46
            start = data.index(name.encode(), data.index(signature)) - size
            while not data.startswith(signature, start):
                start = data.index(name.encode(), start + size + 1) - size
            struct.pack_into("<HH", data, start + at, flags, method)
    path.write_bytes(data)
    return path


def test_an_encrypted_zip(tmp_path: pathlib.Path) -> None:
    path = set_flags(write_zip(tmp_path), "train.csv", NAME, OTHER_NAME, flags=1)
    with pytest.raises(ArchiveError, match=f"{path} is encrypted"):
        source_of(path).read_table()


def test_an_encrypted_table(tmp_path: pathlib.Path) -> None:
    path = set_flags(write_zip(tmp_path), "train.csv", flags=1)
    with pytest.raises(ArchiveError, match=rf"train.csv in {path} cannot be read \(.*encrypted"):
        source_of(path).read_table()


def test_a_damaged_table(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, compression=zipfile.ZIP_STORED)
    change(path, data_start(path, "train.csv") + 3, b"X")
    with pytest.raises(ArchiveError, match=rf"train.csv in {path} cannot be read \(damaged.*CRC"):
        source_of(path).read_table()


def test_a_wrong_table_is_named_with_its_archive(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, ("train.csv", "id,landmark_id\nx,1\n"), (NAME, IMAGE))
    with pytest.raises(LandmarkTableError, match=f"{path}/train.csv, line 2: id must be 16 hex digits"):
        source_of(path).read_table()


# --- Members that cannot be read


def test_an_encrypted_member(tmp_path: pathlib.Path) -> None:
    path = set_flags(write_zip(tmp_path), NAME, flags=1)
    error = read_error(path)
    assert error.reason == UnreadableImageError.UNSUPPORTED
    assert f"encrypted in {path}" in error.detail
    assert source_of(path).read(OTHER_ID) == IMAGE


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression(tmp_path: pathlib.Path, compression: int) -> None:
    info = zipfile.ZipInfo(NAME)
    info.compress_type = compression
    error = read_error(write_zip(tmp_path, ("train.csv", TABLE), (info, IMAGE)))
    assert (error.reason, str(compression) in error.detail) == (UnreadableImageError.UNSUPPORTED, True)


DAMAGES = {
    # Position relative to the data, what is written there, words of the message.
    "data": (5, b"XXXX", ""),
    "the header's signature": (-30 - len(NAME), b"XXXX", "no member where the directory says"),
    "the header's name": (-10, b"0" * 6 + b".jpg", "another member is where the directory says"),
    "the header's lengths": (-4 - len(NAME), b"\xff\xff\xff\xff", ""),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("at", "content", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_member_is_one_unreadable_image(
    tmp_path: pathlib.Path, compression: int, at: int, content: bytes, words: str
) -> None:
    path = write_zip(tmp_path, compression=compression)
    change(path, data_start(path) + at, content)
    error = read_error(path)
    assert error.reason == UnreadableImageError.DAMAGED
    assert str(path) in error.detail
    assert words in error.detail
    assert source_of(path).read(OTHER_ID) == IMAGE


def test_a_size_that_is_not_the_content_s(tmp_path: pathlib.Path) -> None:
    """A bomb says that it is small: no more is inflated than it says."""
    path = write_zip(tmp_path, ("train.csv", TABLE), (NAME, bytes(50_000_000)))
    data = path.read_bytes()
    entry = data.index(NAME.encode(), data.index(b"PK\x01\x02")) - 46
    change(path, entry + 24, struct.pack("<I", 1000))
    assert read_error(path).reason == UnreadableImageError.DAMAGED


def test_a_member_too_large_to_be_an_image(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_access, "MAX_FILE_BYTES", len(IMAGE) - 1)
    assert read_error(write_zip(tmp_path)).reason == UnreadableImageError.FILE_TOO_LARGE


def test_a_table_too_large_to_be_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "MAX_TABLE_BYTES", 10)
    with pytest.raises(ArchiveError, match="file too large"):
        source_of(write_zip(tmp_path)).read_table()


def test_a_zip_that_is_cut_while_it_is_read(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path, compression=zipfile.ZIP_STORED)
    source = source_of(path)
    source.prepare(1)
    path.write_bytes(path.read_bytes()[: data_start(path) + 10])
    for image_id, words in ((IMAGE_ID, "the archive ends within it"), (OTHER_ID, "no member where")):
        with pytest.raises(UnreadableImageError) as caught:
            source.read(image_id)
        assert caught.value.reason == UnreadableImageError.DAMAGED
        assert words in caught.value.detail
    path.unlink()
    with pytest.raises(UnreadableImageError) as caught:
        source.read(IMAGE_ID)
    assert caught.value.reason == UnreadableImageError.MISSING
