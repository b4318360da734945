"""Images in Kaggle's zip, read in place.

Python's zipfile reads the directory of the archive, once: it takes seconds and a gigabyte for 1.6 million members
(docs/sources.md has the figures), and the index keeps what came of it. It does not read the members, since it reads
them one at a time: a member here is one positioned read, whatever other threads do, and is checked against the
directory. Reading the directory makes the indexes of all its folders, ``train/``, ``index/`` and ``test/``.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
import contextlib
import struct
from typing import Any
import zipfile
import zlib

import numpy as np

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.checks import list_some
from landmark_triplets_tfds.common.file_access import read_image
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.competition.archive import LARGEST_SIZE, MEMBER, ArchiveIndex, ArchiveSource, BoundedReads
from landmark_triplets_tfds.competition.layout import (
    FOLDER_NAMES,
    IMAGES_NAME,
    LAYOUT_INSTRUCTIONS,
    TABLE_NAME,
    image_path,
    parse_zip_name,
    parse_zip_table_name,
)
from landmark_triplets_tfds.competition.tables import (
    MAX_TABLE_BYTES,
    LandmarkTable,
    format_image_id,
    parse_landmark_table,
)
from landmark_triplets_tfds.errors import ArchiveError, UnreadableImageError

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED

# The header in front of a member's data (APPNOTE.TXT, 4.3.7): signature, version, flags, method, time, date, CRC, two
# sizes, lengths of name and extra field.
_HEADER = struct.Struct("<4sHHHHHIIIHH")
_SIGNATURE = b"PK\x03\x04"

# What is behind the directory of a zip, before a comment of at most 64 KiB. zipfile.is_zipfile looks for it, and since
# Python 3.14 for a whole directory too.
_END_SIGNATURE = b"PK\x05\x06"
_MAX_END_BYTES = 22 + 0xFFFF
# Name and extra field, whose lengths only the header knows, are seldom longer. What is read too much does not matter.
_USUAL_HEADER_SIZE = _HEADER.size + 160

# Ids look like random numbers, so that a table is not compressed to less than a third or, with addresses, a twentieth.
# One that says otherwise is no table, and may be a gigabyte from a megabyte.
_MAX_RATIO = 50
_MAX_SMALL_TABLE_BYTES = 10 << 20

# That of 4.1 million images has about half of it.
_MAX_DIRECTORY_BYTES = 1 << 30

_NUM_NAMES_SHOWN = 3

# What the archiver of macOS adds to zips, beside what was packed.
_MACOS_ROOT = "__MACOSX/"


class ZipSource(ArchiveSource):
    """An `ImageSource` of the members ``train/a/b/c/<id>.jpg`` of a zip, with the table in its ``train.csv``."""

    def __init__(self, path: str, index_folder: str | None, folder: str = IMAGES_NAME):
        """Takes the path of the zip, where its index is kept, see `ArchiveSource`, and which folder in it is meant."""
        super().__init__(path, index_folder)
        self.table_path = f"{path}/{TABLE_NAME}"
        self._folder = folder
        self._made: dict[str, ArchiveIndex] = {}  # when the directory was read, of all folders

    def of_folder(self, folder: str) -> ZipSource:
        """Returns a source of another folder of the zip."""
        other = ZipSource(self.archive, self._index_folder, folder)
        other._index = self._made.get(folder)
        return other

    def read_table(self) -> LandmarkTable:
        """Reads the table.

        Raises:
          ArchiveError: if it cannot be read.
          LandmarkTableError: if it is not right.
        """
        table = self.index().archives[0]["table"]
        try:
            if table["size"] > min(MAX_TABLE_BYTES, _MAX_SMALL_TABLE_BYTES + _MAX_RATIO * table["stored_size"]):
                detail = f"{table['size'] / 1e6:,.0f} MB, compressed to {table['stored_size'] / 1e6:,.1f} MB"
                raise UnreadableImageError(UnreadableImageError.FILE_TOO_LARGE, detail)
            content = self._read_named_member(table, TABLE_NAME)
        except UnreadableImageError as error:
            raise ArchiveError(
                f"{table['name']} in {self.archive} cannot be read ({error}). Fetch the zip again."
            ) from None
        return parse_landmark_table(content, self.table_path)

    def locate(self, image_id: int) -> str:
        return f"{self.archive}/{self._folder}/{image_path(image_id)}"

    def _read_member(self, member: Any) -> bytes:
        return self._read_named_member(member, f"{format_image_id(member['image_id'])}.jpg")

    def _read_named_member(self, member: Any, name: str) -> bytes:
        """Reads and checks a member; ``name`` is how its name ends. Raises UnreadableImageError."""
        path, offset, method = self.archive, int(member["offset"]), int(member["method"])
        size, stored_size = int(member["size"]), int(member["stored_size"])
        if member["is_encrypted"]:
            raise UnreadableImageError(UnreadableImageError.UNSUPPORTED, f"encrypted in {path}")
        if method not in (_STORED, _DEFLATED):
            raise UnreadableImageError(UnreadableImageError.UNSUPPORTED, f"compressed by method {method} in {path}")
        content = read_image(path, offset, _USUAL_HEADER_SIZE + stored_size)
        if len(content) < _HEADER.size or not content.startswith(_SIGNATURE):
            raise _damaged(path, "there is no member where the directory says")
        *_, name_length, extra_length = _HEADER.unpack_from(content)
        start = _HEADER.size + name_length + extra_length
        if not content[_HEADER.size : _HEADER.size + name_length].endswith(name.encode()):
            raise _damaged(path, "another member is where the directory says")
        if start > _USUAL_HEADER_SIZE:
            content = read_image(path, offset + start, stored_size)
            start = 0
        stored = content[start : start + stored_size]
        if len(stored) < stored_size:
            raise _damaged(path, "the archive ends within it")
        try:
            data = stored if method == _STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
        except zlib.error as error:
            raise _damaged(path, str(error)) from None
        if len(data) != size or zlib.crc32(data) != int(member["crc"]):
            raise _damaged(path, "its checksum (CRC) is another one")
        return data

    def _stamp_member(self, member: Any) -> tuple[int, int]:
        """Returns size and CRC of the image, so that the same image in another copy of the zip is the same."""
        return int(member["size"]), int(member["crc"])

    def _make_index(self, known: ArchiveIndex | None, num_threads: int) -> ArchiveIndex:
        try:
            size, mtime_ns = file_access.stat_file(self.archive)
        except OSError as error:
            raise ArchiveError(f"{self.archive} cannot be opened ({error}).") from None
        if known is None or [known.archives[0][name] for name in ("size", "mtime_ns")] != [size, mtime_ns]:
            self._made = index_zip(self.archive, size, mtime_ns)
            for folder in self._made.keys() - {self._folder}:
                with contextlib.suppress(OSError):  # then that index is made when it is needed
                    self.of_folder(folder)._keep(self._made[folder])
            known = self._made[self._folder]
        ignored = known.archives[0]["ignored"]
        if ignored and self._folder == IMAGES_NAME:
            say(f"{self.archive} holds more than one folder of the competition. Ignored: {', '.join(ignored)}.")
        return known

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_made": {}}

    def _index_name(self) -> str:
        name = super()._index_name()
        return name if self._folder == IMAGES_NAME else f"{self._folder}-{name}"


def index_zip(path: str, size: int, mtime_ns: int) -> dict[str, ArchiveIndex]:
    """Reads the directory of a zip of this size, in bytes, and time; returns the index of each of its folders.

    Raises:
      ArchiveError: if it has no directory, or there is no table or no image in it.
    """
    tables: dict[str, dict[str, Any]] = {}  # by root, a folder or ''
    groups: dict[tuple[str, str], int] = {}  # root and folder of images, and their numbers
    group_of_image = array.array("I")
    others: list[str] = []

    def images() -> Iterator[tuple[int, ...]]:
        for info in _read_directory(path, size):
            name = info.orig_filename  # `filename` ends where the name has a NUL
            is_encrypted = info.flag_bits & 0x1
            if image := parse_zip_name(name):
                group_of_image.append(groups.setdefault(image[:2], len(groups)))
                sizes = (min(info.file_size, LARGEST_SIZE), min(info.compress_size, LARGEST_SIZE))
                yield image[2], info.header_offset, *sizes, info.CRC, 0, min(info.compress_type, 255), is_encrypted
            elif (root := parse_zip_table_name(name)) is not None:
                table = {"name": name, "offset": info.header_offset, "size": info.file_size, "crc": info.CRC}
                table |= {"stored_size": info.compress_size, "method": info.compress_type}
                tables[root] = table | {"is_encrypted": bool(is_encrypted)}
            elif len(others) < _NUM_NAMES_SHOWN and not name.endswith("/"):
                others.append(name)

    of_all = np.fromiter(images(), dtype=MEMBER)
    numbers = np.array(group_of_image)
    counts = {group: int(np.count_nonzero(numbers == number)) for group, number in groups.items()}
    root = _choose_root(path, counts, list(tables), others)
    members_of = {folder: of_all[numbers == groups.get((root, folder), -1)] for folder in FOLDER_NAMES}
    if members_of[IMAGES_NAME]["is_encrypted"].all():
        raise ArchiveError(f"{path} is encrypted; the competition's is not. Fetch it again.")
    ignored = [f"{each}{TABLE_NAME}" for each in tables if each != root]
    ignored += [f"{count:,} images in {each}{folder}/" for (each, folder), count in counts.items() if each != root]
    archives = [{"size": size, "mtime_ns": mtime_ns, "table": tables[root], "ignored": ignored[:_NUM_NAMES_SHOWN]}]
    return {folder: ArchiveIndex.of(members, archives) for folder, members in members_of.items()}


def _choose_root(path: str, counts: dict[tuple[str, str], int], tables: list[str], others: list[str]) -> str:
    """Returns the root, a folder in a zip or '', that has both a table and images, so that both are of one copy.

    It is given the counts of images, by root and folder, the roots with a table, and names of other members; it raises
    ArchiveError if there is none, or more than one.
    """
    with_images = [root for root, folder in counts if folder == IMAGES_NAME]
    whole = [root for root in tables if root in with_images and root != _MACOS_ROOT]
    if len(whole) == 1:
        return whole[0]
    if tables and with_images:
        found = [f"{root}{TABLE_NAME}" for root in whole or tables]
        found += [f"{root}{IMAGES_NAME}/" for root in whole or with_images]
        raise ArchiveError(
            f"{path} must hold one copy, its table and its images in the same folder. It holds"
            f" {list_some(found, 2 * _NUM_NAMES_SHOWN)}. Pack one copy alone."
        )
    others += [f"{count:,} images in {root}{folder}/" for (root, folder), count in counts.items()]
    others = others or [f"{root}{TABLE_NAME}" for root in tables]
    holds = f"It holds {list_some(others, 2 * _NUM_NAMES_SHOWN)}" if others else "It holds nothing else"
    lacks = f"no {TABLE_NAME}" if with_images else "no image train/a/b/c/<id>.jpg"
    raise ArchiveError(f"{path} holds {lacks}. {holds}.\n\n{LAYOUT_INSTRUCTIONS}")


def _read_directory(path: str, size: int) -> list[zipfile.ZipInfo]:
    try:
        with file_access.open_file(path) as file:
            head = file.read(len(_SIGNATURE))
            file.seek(max(0, size - _MAX_END_BYTES))
            is_zip = head in (_SIGNATURE, b"") or _END_SIGNATURE in file.read(_MAX_END_BYTES)
            file.seek(0)
            bounded: Any = BoundedReads(file, _MAX_DIRECTORY_BYTES)
            members = zipfile.ZipFile(bounded).infolist() if is_zip else []
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read ({error}).") from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise ArchiveError(
            f"{path} is cut off or damaged: its directory, which is at its end, cannot be read ({error}). It has"
            f" {size / 1e9:,.1f} GB. Fetch it again."
        ) from None
    if not is_zip:
        raise ArchiveError(f"{path} is no zip; was another file, such as an error page, given this name?")
    for info in members:
        if info.header_offset < 0 or info.header_offset >= 2**63:
            raise ArchiveError(f"{path} is damaged: {info.orig_filename!r} is said to be outside it. Fetch it again.")
    first = min((info.header_offset for info in members), default=0)
    if head == _SIGNATURE and first > 0:
        raise ArchiveError(
            f"{path} begins with {first:,} bytes of members that its directory does not know: were several zips joined?"
            " Pack the files of all of them as one."
        )
    return members


def _damaged(path: str, detail: str) -> UnreadableImageError:
    return UnreadableImageError(UnreadableImageError.DAMAGED, f"in {path}: {detail}")
