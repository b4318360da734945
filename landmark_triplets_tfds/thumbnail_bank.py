"""Makes missing thumbnails in parallel and hands thumbnails out.

Each distinct image is read, decoded and encoded at most once per build, however many triplets use it, and not at all if
the store still has its thumbnail. Workers make thumbnails (they use a core each) and put them into the store; readers
fetch the files for them where that is slow (they wait for disks and networks). The thread that feeds TFDS's writer only
notes what is there: it alone touches the bookkeeping, so there are no locks.

Thumbnails wait for their triplets on disk, not in memory: the negatives of a triplet come from anywhere in the sample,
so nearly all thumbnails wait for as long as the build runs (10 GB for the competition at 128 px).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
import time
from types import TracebackType

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.thumbnail_store import UNKNOWN, UNREADABLE, Result, Stamp, ThumbnailStore
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

Rows = npt.NDArray[np.int64]

# Images per task: enough that handing tasks to threads costs nothing, few enough that files in flight stay small. Of
# images that the store knows, only the stamps are looked at.
_BATCH_SIZE = 8
_KNOWN_BATCH_SIZE = 64

# Where reading a file takes longer than this on average, readers read ahead for the workers; where it is faster, the
# workers read for themselves, since handing a file from thread to thread costs as much.
_SLOW_READ_S = 0.0005

_NO_STAMP = (0, 0)


# States of a row in this build.
_UNKNOWN, _IN_FLIGHT, _READY, _UNREADABLE = range(4)

# What a reader found: the file's stamp and its bytes, or None where the store knows the image already.
_Found = tuple[Stamp, Result | None]
# What a worker made of it: a row's new state, and the reason if it is unreadable.
_Made = UnreadableImageError | None


class ThumbnailBank:
    """Makes thumbnails ahead of their use and hands them out. A context manager; one thread uses it.

    Attributes:
      unreadable: why, by row, for every unreadable image met so far.
      num_done: images dealt with so far; one that the store lost and that was made again counts again.
      num_made: of these, the ones that were not in the store: calls of `make_thumbnail`, and missing files.
    """

    def __init__(
        self,
        source: ImageSource,
        image_ids: npt.NDArray[np.uint64],
        spec: ThumbnailSpec,
        store: ThumbnailStore,
        *,
        num_workers: int,
        num_readers: int,
        on_done: Callable[[int, int], object] = lambda num_new, num_done: None,
    ):
        """Starts the threads.

        Args:
          source: of the image files.
          image_ids: uint64[num_rows]; images are named by their row in it.
          spec: of the thumbnails.
          store: keeps them; the bank closes it.
          num_workers: threads that decode and encode.
          num_readers: threads that read files.
          on_done: called with the numbers of images just dealt with and dealt with so far.
        """
        self._source = source
        self._image_ids = image_ids
        self._spec = spec
        self._store = store
        self._on_done = on_done
        self._state_of_row = bytearray(len(image_ids))  # indexing it costs a third of indexing an array ...
        self._states = np.frombuffer(self._state_of_row, dtype=np.int8)  # ... and this is the same memory
        self._readers = ThreadPoolExecutor(num_readers, thread_name_prefix="read")
        self._workers = ThreadPoolExecutor(num_workers, thread_name_prefix="encode")
        self._read_s = 1.0  # a running average; slow until known better
        self._max_in_flight = num_readers + 2 * num_workers
        self._in_flight: deque[tuple[Rows, Future[list[tuple[bool, _Made]]]]] = deque()
        self._order: Callable[[], Iterator[Rows]] = lambda: iter(())
        self._to_make: Iterator[Rows] = iter(())
        self.unreadable: dict[int, UnreadableImageError] = {}
        self.num_done = 0
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
        self._store.close()

    def make_ahead(self, order: Callable[[], Iterator[Rows]]) -> None:
        """Starts making thumbnails, as far ahead of `get` as memory allows.

        Args:
          order: returns an iterator over arrays of rows in the order in which they will be asked for. Rows that occur
            again are made once.
        """
        self._order = order
        self._to_make = self._batches(order())
        self._top_up()

    def get(self, row: int) -> bytes | None:
        """Returns the thumbnail of a row, or None if its image is unreadable (`unreadable` then says why).

        Waits until the thumbnail is made, or makes it if it was not asked for before.
        """
        self._collect(wait=False)  # before looking: it may start making this very row
        while self._state_of_row[row] == _IN_FLIGHT:
            self._collect(wait=True)
        if self._state_of_row[row] == _UNKNOWN:
            self._note(np.array([row]), self._encode_all(np.array([row]), [self._read(row)]))
        if self._state_of_row[row] == _UNREADABLE:
            return None
        thumbnail = self._store.get(row)
        if thumbnail is None:  # lost or damaged
            self._check_store()
            thumbnail = self._make_now(row)
        return thumbnail

    def wait_for_all(self) -> None:
        """Waits until all that `make_ahead` was told of is made, also what nobody asked for.

        The images of a triplet that was left out are not asked for. Whether they are readable must not depend on
        whether they happened to be looked at before the end.
        """
        while self._in_flight:
            self._collect(wait=True)

    def num_images(self) -> int:
        """Returns how many different images were dealt with."""
        return int((self._states >= _READY).sum())

    # --- The thread that uses the bank

    def _batches(self, rows: Iterator[Rows]) -> Iterator[Rows]:
        """Cuts the rows that are not yet made or in flight into tasks, marking them as in flight."""
        for chunk in rows:
            unknown = chunk[self._states[chunk] == _UNKNOWN]
            _, first_at = np.unique(unknown, return_index=True)
            distinct = unknown[np.sort(first_at)]
            is_known = self._store.known[distinct] != UNKNOWN
            for group, size in ((distinct[is_known], _KNOWN_BATCH_SIZE), (distinct[~is_known], _BATCH_SIZE)):
                for start in range(0, len(group), size):
                    batch = group[start : start + size]
                    batch = batch[self._states[batch] == _UNKNOWN]  # some can have been made since, for a redraw
                    if len(batch):
                        self._states[batch] = _IN_FLIGHT
                        yield batch

    def _top_up(self) -> None:
        while len(self._in_flight) < self._max_in_flight and not self._store.is_behind():
            batch = next(self._to_make, None)
            if batch is None:
                return
            if self._read_s > _SLOW_READ_S:
                files = self._readers.submit(self._read_all, batch)
                made = self._workers.submit(self._encode_when_read, batch, files)
            else:
                made = self._workers.submit(self._read_and_encode, batch)
            self._in_flight.append((batch, made))

    def _collect(self, *, wait: bool) -> None:
        """Notes finished tasks, at least one if ``wait``, and starts as many new ones."""
        collected = 0
        while self._in_flight and (wait or self._in_flight[0][1].done()):
            rows, future = self._in_flight.popleft()
            try:
                made = future.result()
            except BaseException:
                self._states[rows] = _UNKNOWN
                raise
            self._note(rows, made)
            collected += 1
            wait = False
        if collected or not self._in_flight:
            self._check_store()
            self._top_up()

    def _note(self, rows: Rows, made: list[tuple[bool, _Made]]) -> None:
        for row, (is_new, error) in zip(rows.tolist(), made, strict=True):
            self.num_made += is_new
            if error is None:
                self._states[row] = _READY
            else:
                self._states[row] = _UNREADABLE
                self.unreadable[row] = error
        self.num_done += len(rows)
        self._on_done(len(rows), self.num_done)

    def _check_store(self) -> None:
        """Begins again with what is needed if the store has lost what it held."""
        if self._store.check():
            self._states[self._states == _READY] = _UNKNOWN
            self._to_make = self._batches(self._order())

    def _make_now(self, row: int) -> bytes | None:
        """Makes a thumbnail that the store has lost, in this thread; it is counted as made but not as done again."""
        self._store.known[row] = UNKNOWN
        ((_, error),) = self._encode_all(np.array([row]), [self._read(row)])
        self.num_made += 1
        if error is not None:  # the file has gone or changed during the build
            self._states[row] = _UNREADABLE
            self.unreadable[row] = error
            return None
        self._states[row] = _READY
        return self._store.get(row)

    # --- Readers and workers

    def _read_all(self, rows: Rows) -> list[_Found]:
        started = time.perf_counter()
        files = [self._read(row) for row in rows.tolist()]
        # Threads may overwrite each other's average; any of them is good enough.
        self._read_s += ((time.perf_counter() - started) / len(rows) - self._read_s) / 4
        return files

    def _read_and_encode(self, rows: Rows) -> list[tuple[bool, _Made]]:
        return self._encode_all(rows, self._read_all(rows))

    def _read(self, row: int) -> _Found:
        image_id = int(self._image_ids[row])
        stamp = self._source.stamp(image_id) if self._store.is_durable else _NO_STAMP
        if self._store.known[row] != UNKNOWN and (self._store.stamps[row] == stamp).all():
            return stamp, None
        try:
            return stamp, self._source.read(image_id)
        except UnreadableImageError as error:
            return stamp, error.without_traceback()

    def _encode_when_read(self, rows: Rows, files: Future[list[_Found]]) -> list[tuple[bool, _Made]]:
        return self._encode_all(rows, files.result())

    def _encode_all(self, rows: Rows, files: list[_Found]) -> list[tuple[bool, _Made]]:
        """Makes thumbnails and puts them into the store; returns for each row whether it was new, and what is wrong."""
        made: list[tuple[bool, _Made]] = []
        for row, (stamp, file) in zip(rows.tolist(), files, strict=True):
            if file is None:
                made.append((False, self._store.error(row) if self._store.known[row] == UNREADABLE else None))
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
