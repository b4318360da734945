"""Where thumbnails are kept between being made and being used.

A store maps rows of a table to thumbnails. Threads that make thumbnails `put` them; the one thread that uses them
`get`s them. `SpillStore` here serves one build; `bank.BankFile` lasts.
"""

from __future__ import annotations

import tempfile
import threading
from typing import IO, Protocol

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import UnreadableImageError

Result = bytes | UnreadableImageError

# Size in bytes and modification time in ns of an image file: what tells that it is still the same.
Stamp = tuple[int, int]

# What a store knows of a row from earlier builds: nothing, a thumbnail, or that the image is unreadable.
UNKNOWN, THUMBNAIL, UNREADABLE = 0, 1, 2

# Thumbnails kept in memory as well: the images of a landmark are used by triplets close to each other.
_MAX_RECENT_BYTES = 64 << 20


class ThumbnailStore(Protocol):
    """Keeps thumbnails by row number.

    Attributes:
      is_durable: whether results outlast the build, so that stamps matter.
      known: int8[num_rows], what earlier builds left of each row.
      stamps: int64[num_rows, 2], the stamps of the files it was made from.
    """

    is_durable: bool
    known: npt.NDArray[np.int8]
    stamps: npt.NDArray[np.int64]

    def put(self, row: int, stamp: Stamp, result: Result) -> None:
        """Keeps a result. Called from any thread."""

    def expect(self, rows: list[int]) -> None:
        """Takes a hint: these rows, which were put or are known, will be asked for next."""

    def get(self, row: int) -> bytes | None:
        """Returns the thumbnail of a row that was put or is known; None if it was lost or damaged."""

    def error(self, row: int) -> UnreadableImageError:
        """Returns why the image of a row known as UNREADABLE cannot be read."""

    def is_behind(self) -> bool:
        """Returns whether so much waits to be written that no more should be made for now."""

    def check(self) -> bool:
        """Returns whether the store lost what it held and is empty now; raises if it can keep nothing any more."""

    def close(self) -> None:
        """Writes what still waits to be written, and lets go of files."""


class SpillStore:
    """Keeps thumbnails for one build in an unlinked temporary file: gone when the process ends, however it ends."""

    is_durable = False

    def __init__(self, num_rows: int, folder: str | None):
        self.known = np.zeros(num_rows, dtype=np.int8)
        self.stamps = np.zeros((0, 2), dtype=np.int64)
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by close()
            dir=folder, prefix="thumbnails.", buffering=0
        )
        self._lock = threading.Lock()
        self._recent = RecentThumbnails()
        self._offsets = np.zeros(num_rows, dtype=np.int64)
        self._lengths = np.zeros(num_rows, dtype=np.int32)
        self._end = 0

    def put(self, row: int, stamp: Stamp, result: Result) -> None:
        if isinstance(result, UnreadableImageError):
            return
        with self._lock:
            self._file.seek(self._end)
            view = memoryview(result)
            while view:  # an unbuffered write may be partial, as when the disk fills up
                view = view[self._file.write(view) :]
            self._offsets[row], self._lengths[row] = self._end, len(result)
            self._end += len(result)
        self._recent.add(row, result)

    def expect(self, rows: list[int]) -> None:
        pass  # a look-up in the file costs next to nothing

    def get(self, row: int) -> bytes | None:
        recent = self._recent.get(row)
        if recent is not None:
            return recent
        with self._lock:
            self._file.seek(self._offsets[row])
            return self._file.read(self._lengths[row])

    def error(self, row: int) -> UnreadableImageError:
        raise KeyError(row)

    def is_behind(self) -> bool:
        return False

    def check(self) -> bool:
        return False

    def close(self) -> None:
        self._file.close()


class RecentThumbnails:
    """The thumbnails added last, up to 64 MiB of them. Used by several threads."""

    def __init__(self) -> None:
        self._num_bytes = 0
        self._thumbnails: dict[int, bytes] = {}  # in order of insertion
        self._lock = threading.Lock()

    def get(self, row: int) -> bytes | None:
        return self._thumbnails.get(row)

    def add(self, row: int, thumbnail: bytes) -> None:
        with self._lock:
            self._num_bytes += len(thumbnail) - len(self._thumbnails.pop(row, b""))
            self._thumbnails[row] = thumbnail
            while self._num_bytes > _MAX_RECENT_BYTES:
                self._num_bytes -= len(self._thumbnails.pop(next(iter(self._thumbnails))))
