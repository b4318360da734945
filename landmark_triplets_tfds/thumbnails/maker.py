"""Makes missing thumbnails in parallel and hands thumbnails out.

Each distinct image is read, decoded and encoded at most once per build, however many triplets use it, and not at all if
the store still has its thumbnail. Workers make thumbnails (they use a core each) and put them into the store; readers
fetch the files for them where that is slow (they wait for disks and networks; how long files take is measured on the
way). The thread that feeds TFDS's writer only notes what is there: it alone touches the bookkeeping, so there are no
locks.

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

from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.store import UNKNOWN, UNREADABLE, Result, Stamp, ThumbnailStore
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

Rows = npt.NDArray[np.int64]

# Images per task: enough that handing tasks to threads costs nothing, few enough that files in flight stay small. Of
# images that the store knows, only the stamps are compared.
_BATCH_SIZE = 8
_KNOWN_BATCH_SIZE = 64

# States of a row in this build.
_UNKNOWN, _IN_FLIGHT, _READY, _UNREADABLE = range(4)

# Where reading a file takes longer than this on average, readers read ahead for the workers; where it is faster, the
# workers read for themselves, since handing a file from thread to thread costs as much.
_SLOW_READ_S = 0.0005

# Where looking at a file's stamp takes longer than this on average, readers do that too; where it is faster, the thread
# that uses the maker does, since threads that look would keep it waiting for Python's global lock.
_SLOW_STAMP_S = 0.0001

_NO_STAMP = (0, 0)

# A file as found: its stamp, and its bytes or what is wrong with it; None where the store knows the image already.
_Found = tuple[Stamp, Result | None]
# What came of a row: whether it was new to the store, and why its image is unreadable, if it is.
_Made = tuple[bool, UnreadableImageError | None]


class ThumbnailMaker:
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
          store: keeps them; the maker closes it.
          num_workers: threads that decode and encode.
          num_readers: threads that read files.
          on_done: called with the numbers of images just dealt with and dealt with so far.
        """
        self._tasks = _Tasks(source, image_ids, spec, store)
        self._store = store
        self._on_done = on_done
        self._state_of_row = bytearray(len(image_ids))  # indexing it costs a third of indexing an array ...
        self._states = np.frombuffer(self._state_of_row, dtype=np.int8)  # ... and this is the same memory
        self._readers = ThreadPoolExecutor(num_readers, thread_name_prefix="read")
        self._workers = ThreadPoolExecutor(num_workers, thread_name_prefix="encode")
        self._max_in_flight = num_readers + 2 * num_workers
        self._in_flight: deque[tuple[Rows, Future[list[_Made]]]] = deque()
        self._order: Callable[[], Iterator[Rows]] = lambda: iter(())
        self._to_make: Iterator[tuple[Rows, bool]] = iter(())
        self.unreadable: dict[int, UnreadableImageError] = {}
        self.num_done = 0
        self.num_made = 0

    def __enter__(self) -> ThumbnailMaker:
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
            rows = np.array([row])
            self._note(rows, self._tasks.make(rows))
        if self._state_of_row[row] == _UNREADABLE:
            return None
        thumbnail = self._store.get(row)
        if thumbnail is None:  # lost or damaged
            self._check_store()
            thumbnail = self._make_now(row)
        return thumbnail

    def expect(self, rows: Rows) -> None:
        """Says which rows, in an array of any shape, `get` will be asked for next: they can be looked up together."""
        self._store.expect(rows[self._states[rows] == _READY].tolist())

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

    def _batches(self, rows: Iterator[Rows]) -> Iterator[tuple[Rows, bool]]:
        """Cuts the rows that are not yet made or in flight into tasks, marking them as in flight.

        Yields:
          Rows, and whether the store knows them.
        """
        for chunk in rows:
            unknown = chunk[self._states[chunk] == _UNKNOWN]
            _, first_at = np.unique(unknown, return_index=True)
            distinct = unknown[np.sort(first_at)]
            is_known = self._store.known[distinct] != UNKNOWN
            for known, size in ((True, _KNOWN_BATCH_SIZE), (False, _BATCH_SIZE)):
                group = distinct[is_known == known]
                for start in range(0, len(group), size):
                    batch = group[start : start + size]
                    batch = batch[self._states[batch] == _UNKNOWN]  # some can have been made since, for a redraw
                    if len(batch):
                        self._states[batch] = _IN_FLIGHT
                        yield batch, known

    def _top_up(self) -> None:
        while len(self._in_flight) < self._max_in_flight and not self._store.is_behind():
            batch, is_known = next(self._to_make, (None, False))
            if batch is None:
                return
            if is_known and not self._tasks.stamps_are_slow():
                batch = self._note_unchanged(batch)
                if not len(batch):
                    continue
            if self._tasks.reads_are_slow():
                files = self._readers.submit(self._tasks.read, batch)
                made = self._workers.submit(self._tasks.make_when_read, batch, files)
            else:
                made = self._workers.submit(self._tasks.make, batch)
            self._in_flight.append((batch, made))

    def _note_unchanged(self, rows: Rows) -> Rows:
        """Notes what the store knows of files that have not changed; returns the rows of the others."""
        self._states[rows] = _UNKNOWN  # in case looking fails
        is_unchanged = self._tasks.find_unchanged(rows)
        unchanged, changed = rows[is_unchanged], rows[~is_unchanged]
        self._states[changed] = _IN_FLIGHT
        self._note(unchanged, [self._tasks.known_result(row) for row in unchanged.tolist()])
        return changed

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

    def _note(self, rows: Rows, made: list[_Made]) -> None:
        for row, (is_new, error) in zip(rows.tolist(), made, strict=True):
            self.num_made += is_new
            if error is None:
                self._state_of_row[row] = _READY
            else:
                self._state_of_row[row] = _UNREADABLE
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
        ((_, error),) = self._tasks.make(np.array([row]))
        self.num_made += 1
        if error is not None:  # the file has gone or changed during the build
            self._states[row] = _UNREADABLE
            self.unreadable[row] = error
            return None
        self._states[row] = _READY
        return self._store.get(row)


class _Tasks:
    """What the threads do: read images, make their thumbnails and put them into the store. Called from many at once."""

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

    def known_result(self, row: int) -> _Made:
        """Returns what a row's image came to in an earlier build."""
        return False, self._store.error(row) if self._store.known[row] == UNREADABLE else None

    def make(self, rows: Rows) -> list[_Made]:
        """Makes thumbnails of rows that the store does not know or whose files have changed."""
        return self._encode(rows, self.read(rows))

    def make_when_read(self, rows: Rows, files: Future[list[_Found]]) -> list[_Made]:
        """Does the same with files that another thread reads."""
        return self._encode(rows, files.result())

    def read(self, rows: Rows) -> list[_Found]:
        """Reads the files of rows, but for those that the store knows and whose stamps have not changed."""
        started = time.perf_counter()
        files = [self._read_one(row) for row in rows.tolist()]
        self._read_s += ((time.perf_counter() - started) / len(rows) - self._read_s) / 4
        return files

    def _read_one(self, row: int) -> _Found:
        image_id = int(self._image_ids[row])
        stamp = self._source.stamp(image_id) if self._store.is_durable else _NO_STAMP
        if self._store.known[row] != UNKNOWN and self._store.stamps[row].tolist() == [*stamp]:
            return stamp, None
        try:
            return stamp, self._source.read(image_id)
        except UnreadableImageError as error:
            return stamp, error.without_traceback()

    def _encode(self, rows: Rows, files: list[_Found]) -> list[_Made]:
        made: list[_Made] = []
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
