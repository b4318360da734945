"""Makes the thumbnails of a build: each distinct image once, in the order of the files, by worker processes.

The parent says which rows; workers read, decode, encode and add to the store, and return where things are, as arrays.
What the store knows already is only looked at: if an image's file is as it was when its thumbnail was made, that one
serves. What is the same for all tasks lies in a folder; so a task is a path, some rows, and what the store knows of
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import itertools
import os
import pathlib
import time

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checked_files import load_object, save_object
from landmark_triplets_tfds.common.worker_pool import WorkerPool
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.store import (
    PLACE,
    THUMBNAIL,
    UNKNOWN,
    UNREADABLE,
    Places,
    Stamp,
    StoreIndex,
    StoreReader,
    StoreWriter,
)
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

Rows = npt.NDArray[np.int64]

# Images per task: enough that handing tasks to processes costs little, and in small builds few enough that all workers
# end at about the same time. Of images that the store knows, only the stamps are compared.
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE = 8, 64
_TASKS_PER_BUILD = 64
_KNOWN_BATCH_SIZE = 1024

# Where reading a file takes longer than this on average, threads read ahead of the codec.
_SLOW_READ_S = 0.0005

# How often a process may die over an image before the image is at fault.
_MAX_KILLS = 2

_JOB, _IN_HAND = "job", "in_hand"

# The folder of what workers have to know, int64[n] rows, PLACE[n] of these, and whether to note which one is in hand:
# as that costs a write an image, only once a worker has died over the task.
_Task = tuple[str, Rows, Places, bool]

# Content and stamp of an image file, or why it cannot be read.
_File = tuple[bytes, Stamp] | UnreadableImageError


@dataclasses.dataclass(frozen=True)
class _Job:
    """What workers have to know: see `ThumbnailMaker`."""

    source: ImageSource
    spec: ThumbnailSpec
    stores: Sequence[pathlib.Path]
    files: Sequence[str]
    num_readers: int


@dataclasses.dataclass(frozen=True)
class _Batch:
    """What came of a task.

    Attributes:
      rows: int64[n], all rows of the task.
      made_rows: int64[m], those that were made, as far as the store remembers them.
      places: PLACE[m], where they are.
      files, trouble: see `StoreWriter`.
      errors: of the unreadable ones, by row.
      num_made: images that were decoded and encoded, or could not be.
    """

    rows: Rows
    made_rows: Rows
    places: Places
    files: Sequence[str]
    errors: dict[int, UnreadableImageError]
    num_made: int
    trouble: str = ""


class ThumbnailMaker:
    """Makes thumbnails for a table of images, and knows where they are. A context manager.

    Attributes:
      shared_source: of the image files, as workers have it.
      index: of the store; of rows that were not asked for, what the store knew.
      is_done: bool[num_rows]: which rows were asked for.
      is_readable: bool[num_rows]; of rows that were asked for.
      unreadable: why, by row.
      num_made: images that the store did not have.
      trouble: why the store could not be written to by a worker; '': it could.
    """

    def __init__(
        self,
        source: ImageSource,
        image_ids: npt.NDArray[np.uint64],
        spec: ThumbnailSpec,
        index: StoreIndex,
        spare: pathlib.Path | None,
        folder: pathlib.Path,
        pool: WorkerPool[_Task, _Batch],
        num_readers: int,
        on_done: Callable[[int], object],
    ):
        """Writes down what workers have to know.

        Args:
          source: of the image files.
          image_ids: uint64[num_rows]; images are named by their row in it.
          spec: of the thumbnails.
          index: of the store to add to, as it is.
          spare: folder of a store to add to where that one cannot be written to; None: that ends the build.
          folder: empty, for what workers have to know.
          pool: of workers.
          num_readers: threads that read files, in each worker.
          on_done: called with the number of images just dealt with.
        """
        self.num_made = 0
        self.trouble = ""
        self.unreadable: dict[int, UnreadableImageError] = {}
        self.is_done = np.zeros(len(image_ids), dtype=bool)
        self.is_readable = np.zeros(len(image_ids), dtype=bool)
        self._image_ids = image_ids
        self._folder = folder
        self._pool = pool
        self._on_done = on_done
        self._source = source
        self.shared_source = source.share(epath.Path(folder))
        self.index = index
        self._kills: dict[int, int] = {}
        (folder / _IN_HAND).mkdir()
        stores = [index.folder] if spare is None else [index.folder, spare]
        job = _Job(self.shared_source, spec, stores, index.files.copy(), num_readers)
        save_object(folder / _JOB, job)

    def __enter__(self) -> ThumbnailMaker:
        return self

    def __exit__(self, *error: object) -> None:
        worker = _workers.pop(str(self._folder), None)  # where this process is the worker
        if worker is not None:
            worker.close()

    def make(self, rows: Rows) -> None:
        """Makes the thumbnails of rows, int64[n], each once, and notes where they are or why there is none.

        Raises:
          StoreWriteError: if the store cannot be written to, nor the spare one.
        """
        todo = rows[~self.is_done[rows]]
        todo = todo[self._source.read_order(self._image_ids[todo])]
        is_known = self.index.places["kind"][todo] != UNKNOWN
        size = min(_MAX_BATCH_SIZE, max(_MIN_BATCH_SIZE, len(todo) // _TASKS_PER_BUILD))
        parts = [*_cut(todo[is_known], _KNOWN_BATCH_SIZE), *_cut(todo[~is_known], size)]
        tasks = ((str(self._folder), rows, self.index.places[rows], False) for rows in parts)
        for batch in self._pool.run(_make_batch, tasks, len(parts), self._sort_out):
            self._note(batch)

    def _note(self, batch: _Batch) -> None:
        self.is_done[batch.rows] = True
        self.is_readable[batch.rows] = True
        if len(batch.made_rows):
            self.index.add(batch.made_rows, batch.places, batch.files)
        self.is_readable[list(batch.errors)] = False
        self.unreadable |= batch.errors
        self.num_made += batch.num_made
        self.trouble = self.trouble or batch.trouble
        self._on_done(len(batch.rows))

    def _sort_out(self, tasks: Sequence[_Task]) -> Iterable[_Task]:
        """Returns tasks during which a worker died, without the images that have killed too many.

        They are run again one by one, and then a worker notes which image it has in hand.
        """
        guilty = set()
        for path in (self._folder / _IN_HAND).iterdir():
            content = path.read_text()
            path.unlink()
            if not content:  # it was about to be written
                continue
            row = int(content)
            self._kills[row] = self._kills.get(row, 0) + 1
            if self._kills[row] >= _MAX_KILLS:
                guilty.add(row)
        for row in guilty:
            error = UnreadableImageError(UnreadableImageError.DAMAGED, "the process that decodes it dies")
            none = np.zeros(0, dtype=np.int64)
            self._note(_Batch(np.array([row]), none, np.zeros(0, dtype=PLACE), [], {row: error}, 1))
        for task in tasks:
            folder, rows, places, is_watched = task
            is_left = ~np.isin(rows, list(guilty))
            if is_watched and is_left.all():
                yield task
            elif is_left.any():
                yield folder, rows[is_left], places[is_left], True


def _cut(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


# --- In a worker


def _make_batch(task: _Task) -> _Batch:
    folder, rows, places, is_watched = task
    if folder not in _workers:
        _workers[folder] = _Worker(pathlib.Path(folder))
    return _workers[folder].make(rows, places, is_watched)


class _Worker:
    """What a process keeps from task to task."""

    def __init__(self, folder: pathlib.Path):
        self._job: _Job = load_object(str(folder / _JOB))
        self._writer = StoreWriter(*self._job.stores)
        self._reader = StoreReader(self._job.files)
        self._threads: ThreadPoolExecutor | None = None
        self._read_s = 0.0  # running average
        self._in_hand = folder / _IN_HAND / str(os.getpid())

    def close(self) -> None:
        self._writer.close()

    def make(self, rows: Rows, places: Places, is_watched: bool) -> _Batch:
        errors: dict[int, UnreadableImageError] = {}
        made: list[int] = []
        new: list[tuple[int, int]] = []
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            image_id, kind = place[0], place[6]
            is_known = kind != UNKNOWN and place[1:3] == self._job.source.stamp(image_id)
            why = self._reader.read(place) if is_known and kind == UNREADABLE else None
            if why is not None:
                reason, _, detail = why.decode(errors="surrogatepass").partition("\n")
                errors[row] = UnreadableImageError(reason, detail)
            elif not is_known or kind == UNREADABLE:
                new.append((row, image_id))
        files = self._read_all([image_id for _, image_id in new])
        for row, image_id in new:
            if is_watched:
                self._in_hand.write_text(str(row))
            file = next(files)
            result = self._encode(file)
            if isinstance(result, UnreadableImageError):
                errors[row] = result
            # What could not be read may be fetched again and have the same stamp, as in a zip; memory may come back.
            if isinstance(file, tuple) and not (row in errors and errors[row].reason == UnreadableImageError.NO_MEMORY):
                self._add(image_id, file[1], result)
                made.append(row)
        if is_watched:
            self._in_hand.unlink(missing_ok=True)
        written, writer = self._writer.take_places(), self._writer
        return _Batch(rows, np.array(made, dtype=np.int64), written, writer.files, errors, len(new), writer.trouble)

    def _encode(self, file: _File) -> bytes | UnreadableImageError:
        try:
            return file if isinstance(file, UnreadableImageError) else make_thumbnail(file[0], self._job.spec)
        except UnreadableImageError as error:
            return error.without_traceback()

    def _read_all(self, image_ids: Sequence[int]) -> Iterator[_File]:
        if self._job.num_readers == 1 or self._read_s < _SLOW_READ_S:
            yield from map(self._time_reading, image_ids)
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._job.num_readers, "read")
        waiting = iter(image_ids)
        first = list(itertools.islice(waiting, 1))
        ahead = [self._threads.submit(self._read, i) for i in itertools.islice(waiting, self._job.num_readers)]
        # Here, where nothing else is done meanwhile: reading in threads waits for the codec too.
        yield from map(self._time_reading, first)
        while ahead:
            yield ahead.pop(0).result()
            ahead += [self._threads.submit(self._read, i) for i in itertools.islice(waiting, 1)]

    def _time_reading(self, image_id: int) -> _File:
        started = time.perf_counter()
        content = self._read(image_id)
        self._read_s += (time.perf_counter() - started - self._read_s) / 4
        return content

    def _read(self, image_id: int) -> _File:
        try:
            return self._job.source.read_stamped(image_id)
        except UnreadableImageError as error:
            return error.without_traceback()

    def _add(self, image_id: int, stamp: Stamp, result: bytes | UnreadableImageError) -> None:
        if isinstance(result, bytes):
            self._writer.add(image_id, stamp, THUMBNAIL, result)
        else:
            why = f"{result.reason}\n{result.detail}".encode(errors="surrogatepass")  # a path may be no UTF-8
            self._writer.add(image_id, stamp, UNREADABLE, why)


_workers: dict[str, _Worker] = {}
