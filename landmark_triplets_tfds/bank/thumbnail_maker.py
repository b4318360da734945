"""From image files to thumbnails in a store: what the bank's threads do.

Called from many threads at once. How long files take is measured on the way, since fast and slow ones are best read by
different threads.
"""

from __future__ import annotations

from concurrent.futures import Future
import time

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.bank.thumbnail_store import UNKNOWN, UNREADABLE, Result, Stamp, ThumbnailStore
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

Rows = npt.NDArray[np.int64]

# Where reading a file takes longer than this on average, readers read ahead for the workers; where it is faster, the
# workers read for themselves, since handing a file from thread to thread costs as much.
_SLOW_READ_S = 0.0005

# Where looking at a file's stamp takes longer than this on average, readers do that too; where it is faster, the thread
# that uses the bank does, since threads that look would keep it waiting for Python's global lock.
_SLOW_STAMP_S = 0.0001

_NO_STAMP = (0, 0)

# A file as found: its stamp, and its bytes or what is wrong with it; None where the store knows the image already.
Found = tuple[Stamp, Result | None]
# What came of a row: whether it was new to the store, and why its image is unreadable, if it is.
Made = tuple[bool, UnreadableImageError | None]


class ThumbnailMaker:
    """Reads images, makes their thumbnails and puts them into the store."""

    def __init__(
        self, source: ImageSource, image_ids: npt.NDArray[np.uint64], spec: ThumbnailSpec, store: ThumbnailStore
    ):
        """Takes the source of files, uint64[num_rows] image ids, the spec of the thumbnails, and where to put them."""
        self._source = source
        self._image_ids = image_ids
        self._spec = spec
        self._store = store
        # Running averages. Threads may overwrite each other's; any of them is good enough.
        self._read_s = 1.0  # slow until known better
        self._stamp_s = 1.0 if source.is_remote else 0.0

    def reads_are_slow(self) -> bool:
        """Returns whether files are better read ahead by threads of their own."""
        return self._read_s > _SLOW_READ_S

    def stamps_are_slow(self) -> bool:
        """Returns whether even looking at a file's stamp is."""
        return self._stamp_s > _SLOW_STAMP_S

    def find_unchanged(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Returns bool[num_rows]: whether the files of some rows known to the store have the stamps it knows."""
        started = time.perf_counter()
        stamps = [self._source.stamp(image_id) for image_id in self._image_ids[rows].tolist()]
        self._stamp_s += ((time.perf_counter() - started) / len(rows) - self._stamp_s) / 4
        is_same: npt.NDArray[np.bool_] = self._store.stamps[rows] == np.array(stamps)
        return is_same[:, 0] & is_same[:, 1]

    def known_result(self, row: int) -> Made:
        """Returns what a row's image came to in an earlier build."""
        return False, self._store.error(row) if self._store.known[row] == UNREADABLE else None

    def make(self, rows: Rows) -> list[Made]:
        """Makes thumbnails of rows that the store does not know or whose files have changed."""
        return self._encode(rows, self.read(rows))

    def make_when_read(self, rows: Rows, files: Future[list[Found]]) -> list[Made]:
        """Does the same with files that another thread reads."""
        return self._encode(rows, files.result())

    def read(self, rows: Rows) -> list[Found]:
        """Reads the files of rows, but for those that the store knows and whose stamps have not changed."""
        started = time.perf_counter()
        files = [self._read_one(row) for row in rows.tolist()]
        self._read_s += ((time.perf_counter() - started) / len(rows) - self._read_s) / 4
        return files

    def _read_one(self, row: int) -> Found:
        image_id = int(self._image_ids[row])
        stamp = self._source.stamp(image_id) if self._store.is_durable else _NO_STAMP
        if self._store.known[row] != UNKNOWN and self._store.stamps[row].tolist() == [*stamp]:
            return stamp, None
        try:
            return stamp, self._source.read(image_id)
        except UnreadableImageError as error:
            return stamp, error.without_traceback()

    def _encode(self, rows: Rows, files: list[Found]) -> list[Made]:
        made: list[Made] = []
        for row, (stamp, file) in zip(rows.tolist(), files, strict=True):
            if file is None:
                made.append(self.known_result(row))
                continue
            result = file
            if isinstance(file, bytes):
                try:
                    result = make_thumbnail(file, self._spec)
                except UnreadableImageError as error:
                    result = error.without_traceback()
            self._store.put(row, stamp, result)
            made.append((True, result if isinstance(result, UnreadableImageError) else None))
        return made
