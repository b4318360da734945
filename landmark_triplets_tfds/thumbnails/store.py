"""Thumbnails on disk: files that only grow, each written by one process and read by all.

A store is a folder. Every process that makes thumbnails writes a pair of files of its own: ``<name>.data`` holds what
it made, one after the other, and ``<name>.places`` where in it each one is, of which image, and from which state of the
image's file. Nothing is changed in place and nothing is shared between writers, so there are no locks, no transactions
and no process that others have to go through; and a table of all places is a NumPy array, which processes map.

Places are written after what they point to, in blocks with a checksum: a process that is killed leaves a block less.
Each thumbnail has a checksum too, which is compared whenever it is read. So nothing in a store is trusted because it is
there: what is cut off, damaged or gone counts as not made, and is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import os
import pathlib
import struct
import time
from typing import BinaryIO
import uuid

import google_crc32c
import numpy as np
import numpy.typing as npt

# Size in bytes and modification time in ns of an image file: what tells that it is still the same.
Stamp = tuple[int, int]

# What is known of an image: nothing, a thumbnail, or that it is unreadable, and why.
UNKNOWN, THUMBNAIL, UNREADABLE = range(3)

# 48 bytes an image.
PLACE = np.dtype(
    [
        ("image_id", "<u8"),
        ("size", "<i8"),  # this and the next are the stamp of the image file
        ("mtime_ns", "<i8"),
        ("offset", "<u8"),  # of the content in the data file
        ("length", "<u4"),
        ("checksum", "<u4"),  # see `_checksum`
        ("kind", "<u4"),
        ("file", "<u4"),  # number of the data file; says nothing on disk
    ]
)
Places = npt.NDArray[np.void]

_DATA, _PLACES = ".data", ".places"
_BLOCK_HEADER = struct.Struct("<4sII")  # signature, number of places, checksum of their bytes
_SIGNATURE = b"LTP1"

# What a killed process loses at most, beside the image in hand.
_FLUSH_INTERVAL_S = 0.25
_MAX_PENDING_BYTES = 8 << 20

_MAX_OPEN_FILES = 64


def _checksum(image_id: int, stamp: Stamp, content: bytes) -> int:
    """Returns a CRC-32C of content, id and stamp: so no flipped bit gives another image's pixels."""
    checksum: int = google_crc32c.extend(google_crc32c.value(struct.pack("<Qqq", image_id, *stamp)), content)
    return checksum


class StoreWriteError(OSError):
    """A store cannot be written to, as when its disk is full."""


class StoreWriter:
    """Adds to a store, in files of its own that are created with the first thing to write. Used by one thread."""

    def __init__(self, folder: pathlib.Path):
        """Takes the folder, which exists."""
        # Names are in the order of time: of two thumbnails of an image, the later one counts.
        self.name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._pending: list[bytes] = []
        self._places: list[tuple[int, ...]] = []
        self._num_pending_bytes = 0
        self._end = 0
        self._flushed_at = time.monotonic()
        self._written: list[Places] = []

    def add(self, image_id: int, stamp: Stamp, kind: int, content: bytes) -> None:
        """Takes a thumbnail, or the reason why an image has none.

        Raises:
          StoreWriteError: if it cannot be written.
        """
        offset = self._end + self._num_pending_bytes
        checksum = _checksum(image_id, stamp, content)
        self._places.append((image_id, *stamp, offset, len(content), checksum, kind, 0))
        self._pending.append(content)
        self._num_pending_bytes += len(content)
        if self._num_pending_bytes > _MAX_PENDING_BYTES or time.monotonic() - self._flushed_at > _FLUSH_INTERVAL_S:
            self._flush()

    def take_places(self) -> Places:
        """Writes what is pending and returns PLACE[n] of what was added since the last call."""
        self._flush()
        places = np.concatenate([np.zeros(0, dtype=PLACE), *self._written])
        self._written.clear()
        return places

    def _flush(self) -> None:
        try:
            self._write()
        except OSError as error:
            raise StoreWriteError(error.errno, f"{error.strerror or error}") from None

    def _write(self) -> None:
        if not self._places:
            return
        if self._files is None:
            self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
            data, places = (self._folder / (self.name + suffix) for suffix in (_DATA, _PLACES))
            self._files = data.open("xb", buffering=0), places.open("xb", buffering=0)
        block = np.array(self._places, dtype=PLACE)
        content = block.tobytes()
        header = _BLOCK_HEADER.pack(_SIGNATURE, len(block), google_crc32c.value(content))
        _write_all(self._files[0], b"".join(self._pending))
        _write_all(self._files[1], header + content)
        self._end += self._num_pending_bytes
        self._num_pending_bytes = 0
        self._pending.clear()
        self._places.clear()
        self._written.append(block)
        self._flushed_at = time.monotonic()

    def close(self) -> None:
        """Lets go of the files. What is pending, which `take_places` writes, is lost."""
        if self._files is not None:
            for file in self._files:
                file.close()
            self._files = None


def _write_all(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:  # an unbuffered write may be partial, as when the disk fills up
        view = view[file.write(view) :]


def read_places(folder: pathlib.Path) -> tuple[Places, list[str]]:
    """Reads what a store knows.

    Args:
      folder: of the store; it need not exist.

    Returns:
      PLACE[n], the later ones behind the earlier ones, whose ``file`` is a number in the list of names that follows.
      What is damaged or cut off is left out.

    Raises:
      OSError: if the folder is there and cannot be read.
    """
    if not folder.is_dir():
        return np.zeros(0, dtype=PLACE), []
    names = sorted(path.name.removesuffix(_PLACES) for path in folder.iterdir() if path.name.endswith(_PLACES))
    parts = [np.zeros(0, dtype=PLACE)]
    for number, name in enumerate(names):
        try:
            content = (folder / (name + _PLACES)).read_bytes()
        except FileNotFoundError:  # deleted a moment ago
            continue
        for block in _read_blocks(content):
            block["file"] = number
            parts.append(block)
    return np.concatenate(parts), names


def _read_blocks(content: bytes) -> list[Places]:
    blocks = []
    at = 0
    while at + _BLOCK_HEADER.size <= len(content):
        signature, count, checksum = _BLOCK_HEADER.unpack_from(content, at)
        start = at + _BLOCK_HEADER.size
        at = start + count * PLACE.itemsize
        if signature != _SIGNATURE or at > len(content):
            break
        if google_crc32c.value(content[start:at]) == checksum:
            blocks.append(np.frombuffer(content, dtype=PLACE, count=count, offset=start).copy())
    return blocks


@dataclasses.dataclass
class StoreIndex:
    """Where in a store the images of a table are.

    Attributes:
      folder: of the store.
      names: of its files, by their numbers in ``places``.
      places: PLACE[num_rows], by row of the table; all of them have the image_id.
    """

    folder: pathlib.Path
    names: list[str]
    places: Places

    @classmethod
    def read(cls, folder: pathlib.Path, image_ids: npt.NDArray[np.uint64]) -> StoreIndex:
        """Reads what a store knows of images, uint64[num_rows]."""
        known, names = read_places(folder)
        places = np.zeros(len(image_ids), dtype=PLACE)
        places["image_id"] = image_ids
        order = np.argsort(image_ids)
        sorted_ids = image_ids[order]
        at = np.minimum(np.searchsorted(sorted_ids, known["image_id"]), len(image_ids) - 1)
        is_ours = sorted_ids[at] == known["image_id"]
        places[order[at[is_ours]]] = known[is_ours]  # of several, the last one counts
        return cls(folder, names, places)

    def count_unknown(self, rows: npt.NDArray[np.int64]) -> int:
        """Returns of how many of these rows the store knows nothing."""
        return int(np.count_nonzero(self.places["kind"][rows] == UNKNOWN))

    def add(self, rows: npt.NDArray[np.int64], places: Places, name: str) -> None:
        """Takes where the images of rows are, in the file of a writer with this name."""
        if name not in self.names:
            self.names.append(name)
        places["file"] = self.names.index(name)
        self.places[rows] = places


class StoreReader:
    """Reads from a store what places point to. Used by one thread."""

    def __init__(self, folder: pathlib.Path, names: Sequence[str]):
        """Takes the folder and the names of its files, in the order of the numbers in places."""
        self._folder = folder
        self._names = names
        self._open = functools.lru_cache(maxsize=_MAX_OPEN_FILES)(self._open_file)

    def read(self, place: tuple[int, ...]) -> bytes | None:
        """Returns the content at a place, as ``places.tolist()`` gives it; None if it is gone or damaged."""
        image_id, size, mtime_ns, offset, length, checksum, _, number = place
        try:
            file = self._open(number)
            file.seek(offset)
            content = file.read(length)
        except OSError:
            return None
        return content if _checksum(image_id, (size, mtime_ns), content) == checksum else None

    def _open_file(self, number: int) -> BinaryIO:
        return open(os.path.join(self._folder, self._names[number] + _DATA), "rb", buffering=0)  # noqa: PTH118


def num_bytes(folder: pathlib.Path) -> int:
    """Returns the room that a store takes on disk."""
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0
