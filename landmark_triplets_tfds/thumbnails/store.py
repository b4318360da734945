"""Thumbnails on disk: files that only grow, each written by one process and read by all.

A store is a folder. Every process that makes thumbnails writes a pair of files of its own: ``<name>.data`` holds what
it made, one after the other, and ``<name>.places`` where in it each one is, of which image, and from which state of the
image's file. Nothing is changed in place and nothing is shared between writers, so there are no locks, no transactions
and no process that others have to go through; and a table of all places is a NumPy array, which processes map.

Places are written after what they point to, in blocks with a checksum: a process that is killed leaves a block less.
Each thumbnail has a checksum too, which is compared whenever it is read. So nothing in a store is trusted because it is
there: what is cut off, damaged or gone counts as not made, and is made again.

The bank is the stores that are kept for later builds, one for each kind of thumbnail. Their folders are named by a hash
of everything that decides the bytes, so a config with other pixels, or another version of a codec, has another one. All
in it can be made again, so it may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil
import struct
import time
from typing import IO, BinaryIO
import uuid

import google_crc32c
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.file_access import OFF, cache_folder, open_file
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.thumbnails.thumbnail import (
    CODEC_DISTRIBUTIONS,
    PIXELS_VERSION,
    ThumbnailSpec,
    expected_bytes,
)

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
        ("file", "<u4"),  # number of the file in a list of them; says nothing on disk
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

# Free space that the bank leaves to others.
_SPARE_BYTES = 256 << 20


def _checksum(image_id: int, stamp: Stamp, content: bytes) -> int:
    """Returns a CRC-32C of content, id and stamp: so no flipped bit gives another image's pixels."""
    checksum: int = google_crc32c.extend(google_crc32c.value(struct.pack("<Qqq", image_id, *stamp)), content)
    return checksum


class StoreWriteError(OSError):
    """A store cannot be written to, as when its disk is full."""


class StoreWriter:
    """Adds to a store, in files of its own that are created with the first thing to write. Used by one thread.

    Attributes:
      files: those that it has written to, as `StoreReader` takes them.
      trouble: what went wrong in the folders that it has turned from; '': nothing.
    """

    def __init__(self, *folders: pathlib.Path):
        """Takes the folder of the store, and perhaps another that takes its place once it cannot be written to."""
        self.files: list[str] = []
        self.trouble = ""
        self._folders = list(folders)
        self._open: tuple[BinaryIO, BinaryIO] | None = None
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
        self._places.append((image_id, *stamp, 0, len(content), _checksum(image_id, stamp, content), kind, 0))
        self._pending.append(content)
        self._num_pending_bytes += len(content)
        if self._num_pending_bytes > _MAX_PENDING_BYTES or time.monotonic() - self._flushed_at > _FLUSH_INTERVAL_S:
            self._flush()

    def take_places(self) -> Places:
        """Writes what is pending and returns PLACE[n] of what was added since the last call, in `files`."""
        self._flush()
        places = np.concatenate([np.zeros(0, dtype=PLACE), *self._written])
        self._written.clear()
        return places

    def _flush(self) -> None:
        while self._places:
            try:
                self._write()
            except OSError as error:
                self.close()
                folder = self._folders.pop(0)
                if not self._folders:
                    raise StoreWriteError(error.errno, error.strerror or str(error), str(folder)) from None
                self.trouble = f"{folder} ({error})"

    def _write(self) -> None:
        if self._open is None:
            self._folders[0].mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
            # Names are in the order of time: of two thumbnails of an image, the later one counts.
            path = str(self._folders[0] / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}")
            self._open = open(path + _DATA, "xb", buffering=0), open(path + _PLACES, "xb", buffering=0)  # noqa: SIM115
            self.files.append(path)
            self._end = 0
        block = np.array(self._places, dtype=PLACE)
        block["offset"] = self._end + np.cumsum(block["length"]) - block["length"]
        block["file"] = len(self.files) - 1
        content = block.tobytes()
        header = _BLOCK_HEADER.pack(_SIGNATURE, len(block), google_crc32c.value(content))
        _write_all(self._open[0], b"".join(self._pending))
        _write_all(self._open[1], header + content)
        self._end += self._num_pending_bytes
        self._num_pending_bytes = 0
        self._pending.clear()
        self._places.clear()
        self._written.append(block)
        self._flushed_at = time.monotonic()

    def close(self) -> None:
        """Lets go of the files. What is pending, which `take_places` writes, is lost."""
        if self._open is not None:
            for file in self._open:
                with contextlib.suppress(OSError):  # what it says too late is noticed when it is read
                    file.close()
            self._open = None


def _write_all(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:  # an unbuffered write may be partial, as when the disk fills up
        view = view[file.write(view) :]


def read_places(folder: pathlib.Path) -> tuple[Places, list[str]]:
    """Reads what a store knows.

    Args:
      folder: of the store; it need not exist.

    Returns:
      PLACE[n], the later ones behind the earlier ones, whose ``file`` is a number in the list of files that follows.
      What is damaged, cut off or cannot be read is left out.

    Raises:
      OSError: if the folder is there and cannot be read.
    """
    try:
        files = sorted(str(path).removesuffix(_PLACES) for path in folder.iterdir() if path.name.endswith(_PLACES))
    except FileNotFoundError:
        files = []
    parts = [np.zeros(0, dtype=PLACE)]
    for number, path in enumerate(files):
        try:
            with open_file(path + _PLACES) as file:
                content = file.read()
        except OSError:  # deleted a moment ago, perhaps, or another user's
            continue
        blocks, is_damaged = _read_blocks(content)
        for block in blocks:
            block["file"] = number
            parts.append(block)
        if is_damaged:
            say(f"{path}{_PLACES} is damaged: what it does not tell any more is made anew.")
    return np.concatenate(parts), files


def _read_blocks(content: bytes) -> tuple[list[Places], bool]:
    """Returns the whole blocks, and whether there is more than one that was cut off behind them."""
    blocks: list[Places] = []
    at = 0
    is_damaged = False
    while at + _BLOCK_HEADER.size <= len(content):
        signature, count, checksum = _BLOCK_HEADER.unpack_from(content, at)
        start = at + _BLOCK_HEADER.size
        at = start + count * PLACE.itemsize
        if signature != _SIGNATURE or at > len(content):
            return blocks, is_damaged or signature != _SIGNATURE
        if google_crc32c.value(content[start:at]) == checksum:
            blocks.append(np.frombuffer(content, dtype=PLACE, count=count, offset=start).copy())
        else:
            is_damaged = True
    return blocks, is_damaged


@dataclasses.dataclass
class StoreIndex:
    """Where in a store the images of a table are.

    Attributes:
      folder: of the store.
      files: of the store, and perhaps others, by their numbers in ``places``.
      places: PLACE[num_rows], by row of the table; all of them have the image_id.
    """

    folder: pathlib.Path
    files: list[str]
    places: Places

    @classmethod
    def read(cls, folder: pathlib.Path, image_ids: npt.NDArray[np.uint64]) -> StoreIndex:
        """Reads what a store knows of images, uint64[num_rows]; raises OSError as `read_places` does."""
        known, files = read_places(folder)
        places = np.zeros(len(image_ids), dtype=PLACE)
        places["image_id"] = image_ids
        order = np.argsort(image_ids)
        sorted_ids = image_ids[order]
        at = np.minimum(np.searchsorted(sorted_ids, known["image_id"]), len(image_ids) - 1)
        is_ours = sorted_ids[at] == known["image_id"]
        places[order[at[is_ours]]] = known[is_ours]  # of several, the last one counts
        return cls(folder, files, places)

    def add(self, rows: npt.NDArray[np.int64], places: Places, files: Sequence[str]) -> None:
        """Takes where the images of rows are, in the files of a writer."""
        self.files += [file for file in files if file not in self.files]
        places["file"] = np.array([self.files.index(file) for file in files])[places["file"]]
        self.places[rows] = places


class StoreReader:
    """Reads from a store what places point to. Used by one thread."""

    def __init__(self, files: Sequence[str]):
        """Takes the files, in the order of the numbers in places."""
        self._files = files
        self._open = functools.lru_cache(maxsize=_MAX_OPEN_FILES)(self._open_file)

    def read(self, place: tuple[int, ...]) -> bytes | None:
        """Returns the content at a place, as ``places.tolist()`` gives it; None if it is gone or damaged."""
        image_id, size, mtime_ns, offset, length, checksum, _, number = place
        try:
            file = self._open(number)
            file.seek(offset)
            content = file.read(length)
        except (OSError, OverflowError):  # the latter of an offset that no file can have
            return None
        return content if _checksum(image_id, (size, mtime_ns), content) == checksum else None

    def _open_file(self, number: int) -> IO[bytes]:
        return open_file(self._files[number] + _DATA, buffering=0)


def num_bytes(folder: pathlib.Path) -> int:
    """Returns the room that a store takes on disk, as far as that can be told."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            total += entry.stat(follow_symlinks=False).st_size
    return total


# --- The bank


def bank_path(spec: ThumbnailSpec, folder: str | None) -> pathlib.Path:
    """Returns the folder of the bank for a kind of thumbnail, within `cache_folder`; raises OSError as that does."""
    key = dataclasses.asdict(spec) | {"pixels_version": PIXELS_VERSION}
    for names in CODEC_DISTRIBUTIONS:
        key[names[0]] = _installed_version(names)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder(folder) / f"{spec.resolution}px-{spec.resize_method}-{spec.fit}-{digest[:12]}"


def open_bank(
    spec: ThumbnailSpec, folder: str | None, image_ids: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]
) -> StoreIndex | None:
    """Returns what the bank knows of images, ready to be added to; None, said in a line, if there can be no bank.

    Args:
      spec: of the thumbnails.
      folder: the build option ``bank``: None, a folder or 'off'.
      image_ids: uint64[num_rows].
      rows: int64[n], those of which thumbnails are needed.
    """
    if folder == OFF:
        return None
    path: object = folder or "the cache folder"
    try:
        path = bank = bank_path(spec, folder)
        bank.mkdir(parents=True, exist_ok=True)
        if not os.access(bank, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("no right to read and write there")
        index = StoreIndex.read(bank, image_ids)
        free = shutil.disk_usage(bank).free
    except OSError as error:
        say(
            f"Building without the bank of thumbnails: {path} cannot be used ({error}). Set LANDMARK_TRIPLETS_BANK to a"
            " folder that can be written, or to off."
        )
        return None
    num_missing = np.count_nonzero(index.places["kind"][rows] == UNKNOWN)
    needed = int(num_missing * expected_bytes(spec)) + _SPARE_BYTES
    if free >= needed or not num_missing:
        return index
    say(
        f"Building without the bank of thumbnails: {num_missing:,} new ones need about {needed / 1e9:,.1f} GB,"
        f" {path} has {free / 1e9:,.1f} GB free. A build that is cut off will begin anew. Free some room or set"
        " LANDMARK_TRIPLETS_BANK to a folder on a larger disk."
    )
    return None


def _installed_version(names: tuple[str, ...]) -> str:
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"
