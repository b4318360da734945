"""Thumbnails made so far, and the making of missing ones in parallel.

Each distinct image is read, decoded and encoded once per build, however many triplets use it. Readers fetch files
(they wait for disks and networks), workers make thumbnails (they use a core each), and the thread that feeds TFDS's
writer only collects results: it alone touches the bookkeeping, so there are no locks.

Thumbnails wait for their triplets on disk, not in memory: the negatives of a triplet come from anywhere in the sample,
so nearly all thumbnails wait for as long as the build runs (10 GB for the competition at 128 px).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import tempfile
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

Rows = npt.NDArray[np.int64]

# Images per task: enough that handing tasks to threads costs nothing, few enough that files in flight stay small.
_BATCH_SIZE = 8

_UNKNOWN, _IN_FLIGHT, _READY, _UNREADABLE = 0, 1, 2, 3


class SpillFile:
    """Byte strings by row number, in an unlinked temporary file: gone when the process ends, however it ends."""

    def __init__(self, num_rows: int, folder: str | None):
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - closed by close()
            dir=folder, prefix="thumbnails.", buffering=0
        )
        self._offsets = np.zeros(num_rows, dtype=np.int64)
        self._lengths = np.zeros(num_rows, dtype=np.int32)
        self._end = 0

    def put(self, row: int, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:  # an unbuffered write may be partial, as when the disk fills up
            view = view[self._file.write(view) :]
        self._offsets[row], self._lengths[row] = self._end, len(data)
        self._end += len(data)

    def get(self, row: int) -> bytes:
        self._file.seek(self._offsets[row])
        return self._file.read(self._lengths[row])

    def close(self) -> None:
        self._file.close()


class ThumbnailBank:
    """Makes thumbnails ahead of their use and hands them out. A context manager; one thread uses it."""

    def __init__(
        self,
        source: ImageSource,
        image_ids: npt.NDArray[np.uint64],
        spec: ThumbnailSpec,
        *,
        num_workers: int,
        num_readers: int,
        spill_folder: str | None = None,
        on_made: Callable[[int, int], object] = lambda num_new, num_made: None,
    ):
        """Starts the threads.

        Args:
          source: of the image files.
          image_ids: uint64[num_rows]; images are named by their row in it.
          spec: of the thumbnails.
          num_workers: threads that decode and encode.
          num_readers: threads that read files.
          spill_folder: where thumbnails wait; None: the system's folder for temporary files.
          on_made: called with the numbers of images just dealt with and dealt with so far.
        """
        self._source = source
        self._image_ids = image_ids
        self._spec = spec
        self._on_made = on_made
        self._states = np.zeros(len(image_ids), dtype=np.int8)
        self._spill = SpillFile(len(image_ids), spill_folder)
        self._readers = ThreadPoolExecutor(num_readers, thread_name_prefix="read")
        self._workers = ThreadPoolExecutor(num_workers, thread_name_prefix="encode")
        self._max_in_flight = num_readers + 2 * num_workers
        self._in_flight: deque[tuple[Rows, Future[list[bytes | UnreadableImageError]]]] = deque()
        self._to_make: Iterator[Rows] = iter(())
        self.unreadable: dict[int, UnreadableImageError] = {}
        self.num_made = 0

    def __enter__(self) -> ThumbnailBank:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in (self._readers, self._workers):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._readers, self._workers):
            pool.shutdown(wait=True)
        self._spill.close()

    def make_ahead(self, rows: Iterator[Rows]) -> None:
        """Starts making the thumbnails of these rows, in this order, as far ahead of `get` as memory allows.

        Args:
          rows: arrays of rows; rows that occur again are made once.
        """
        self._to_make = self._batches(rows)
        self._top_up()

    def get(self, row: int) -> bytes | None:
        """Returns the thumbnail of a row, or None if its image is unreadable (`unreadable` then says why).

        Waits until the thumbnail is made, or makes it if it was not asked for before.
        """
        while self._states[row] == _IN_FLIGHT:
            self._collect(wait=True)
        self._collect(wait=False)
        if self._states[row] == _UNKNOWN:
            self._record(np.array([row]), [self._encode_one(self._read_one(row))])
        return self._spill.get(row) if self._states[row] == _READY else None

    def _batches(self, rows: Iterator[Rows]) -> Iterator[Rows]:
        """Cuts the rows that are not yet made or in flight into tasks, marking them as in flight."""
        for chunk in rows:
            unknown = chunk[self._states[chunk] == _UNKNOWN]
            _, first_at = np.unique(unknown, return_index=True)
            distinct = unknown[np.sort(first_at)]
            for start in range(0, len(distinct), _BATCH_SIZE):
                # A row can have been made since, for a redraw.
                batch = distinct[start : start + _BATCH_SIZE]
                batch = batch[self._states[batch] == _UNKNOWN]
                if len(batch):
                    self._states[batch] = _IN_FLIGHT
                    yield batch

    def _top_up(self) -> None:
        while len(self._in_flight) < self._max_in_flight:
            batch = next(self._to_make, None)
            if batch is None:
                return
            files = self._readers.submit(self._read, batch)
            self._in_flight.append((batch, self._workers.submit(self._encode, files)))

    def _collect(self, *, wait: bool) -> None:
        """Takes over finished tasks, at least one if ``wait``, and starts as many new ones."""
        collected = 0
        while self._in_flight and (wait or self._in_flight[0][1].done()):
            rows, future = self._in_flight.popleft()
            self._record(rows, future.result())
            collected += 1
            wait = False
        if collected:
            self._top_up()

    def _record(self, rows: Rows, results: list[bytes | UnreadableImageError]) -> None:
        for row, result in zip(rows.tolist(), results, strict=True):
            if isinstance(result, bytes):
                self._spill.put(row, result)
                self._states[row] = _READY
            else:
                self.unreadable[row] = result
                self._states[row] = _UNREADABLE
        self.num_made += len(rows)
        self._on_made(len(rows), self.num_made)

    def _read(self, rows: Rows) -> list[bytes | UnreadableImageError]:
        return [self._read_one(row) for row in rows.tolist()]

    def _read_one(self, row: int) -> bytes | UnreadableImageError:
        try:
            return self._source.read(int(self._image_ids[row]))
        except UnreadableImageError as error:
            return error.without_traceback()

    def _encode(self, files: Future[list[bytes | UnreadableImageError]]) -> list[bytes | UnreadableImageError]:
        return [self._encode_one(file) for file in files.result()]

    def _encode_one(self, file: bytes | UnreadableImageError) -> bytes | UnreadableImageError:
        if isinstance(file, UnreadableImageError):
            return file
        try:
            return make_thumbnail(file, self._spec)
        except UnreadableImageError as error:
            return error.without_traceback()
