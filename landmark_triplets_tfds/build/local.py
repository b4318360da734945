"""A build on this machine: first all thumbnails, then redraws, then shards, by worker processes.

The parent plans, hands out work and adds up what comes back; it does nothing per image or per record, and no pixel
passes through it. What workers have to know lies beside the unfinished dataset, as arrays that they map: a task is a
path and a few numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import itertools
import pathlib
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.build import Build, SplitJob
from landmark_triplets_tfds.build.shards import ShardResult, Target, make_record, write_shard
from landmark_triplets_tfds.common.checked_files import load_object, save_object
from landmark_triplets_tfds.common.file_access import OFF, is_remote
from landmark_triplets_tfds.common.progress import progress_bar, say
from landmark_triplets_tfds.common.worker_pool import WorkerPool
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.maker import ThumbnailMaker
from landmark_triplets_tfds.thumbnails.store import Places, StoreIndex, StoreReader, num_bytes, open_bank
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.examples import ExampleKind
from landmark_triplets_tfds.triplets.plan import plan_in_chunks

# Records whose thumbnails are looked up together.
_RECORDS_TOGETHER = 256

# So many are worth processes of their own; each has 64 MB and more unless a number of shards is asked for.
_MANY_SHARDS = 8

_JOB = "job"

# A folder with what a worker has to know of a split, and the number of a shard.
ShardTask = tuple[str, int]


class LocalBuild(Build):
    """A build on this machine."""

    def _make_splits(self, target: Target) -> None:
        self._bank = self.options.bank  # 'off' once the build goes without
        place = None if is_remote(str(self._data_dir)) else str(self._data_dir)
        with contextlib.ExitStack() as stack:
            # Removed at the end, or with the unfinished dataset, if a build is killed.
            self._folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place, prefix="workers.")))
            pool: WorkerPool[Any, Any] = stack.enter_context(WorkerPool(self.options.num_workers()))
            tasks: list[ShardTask] = []
            for _, together in itertools.groupby(self.jobs, key=lambda job: id(job.images)):
                jobs = list(together)
                maker = stack.enter_context(self._make_thumbnails(jobs, pool))
                for job in jobs:
                    self._tell_workers(job, maker, target)
                    tasks += ((str(self._folder / job.split), number) for number in range(job.num_shards))
            with self.report.stage("write_shards"):
                self._write_shards(tasks, pool)
            if self._bank != OFF:
                bank = maker.index.folder
                self.report.bank, self.report.num_bank_bytes = str(bank), num_bytes(bank)

    def workers_and_readers(self) -> dict[str, int | None]:
        return {"workers": self.options.num_workers(), "readers": self.options.num_readers(self.source.is_remote)}

    # --- Thumbnails

    def _make_thumbnails(self, jobs: Sequence[SplitJob], pool: WorkerPool[Any, Any]) -> ThumbnailMaker:
        """Makes the thumbnails of splits of the same images, and of what they draw in place of unreadable ones.

        Raises:
          TooManyUnreadableError: if too many images of a split turn out unreadable.
        """
        images, rows = jobs[0].images, np.unique(np.concatenate([job.rows for job in jobs]))
        limit = sum(job.max_num_unreadable for job in jobs)
        splits = " and ".join(job.split for job in jobs)
        image_ids, spec, own_store = images.table.image_ids, self._thumbnail_spec, self._folder / "thumbnails"
        bank = open_bank(spec, self._bank, image_ids, rows)
        if bank is None:
            self._bank = OFF
        index = bank or StoreIndex.read(own_store, image_ids)
        spare = own_store if bank else None
        num_readers = -(-self.options.num_readers(images.source.is_remote) // self.options.num_workers())
        folder = self._folder / f"images-{jobs[0].split}"
        folder.mkdir()
        with progress_bar(len(rows), f"Making thumbnails of {splits}", " images") as bar:

            def advance(count: int) -> None:
                bar.update(count)
                if maker.trouble and self._bank != OFF:
                    self._bank = OFF
                    say(
                        f"Going on without the bank of thumbnails: nothing can be written to {maker.trouble}. Free some"
                        " room there, or set LANDMARK_TRIPLETS_BANK to another folder."
                    )
                if len(maker.unreadable) > limit:  # so in one of them there are too many
                    for job in jobs:
                        job.check_unreadable(maker.unreadable)

            maker = ThumbnailMaker(images.source, image_ids, spec, index, spare, folder, pool, num_readers, advance)
            with self.report.stage("make_thumbnails"):
                maker.make(rows)
            for job in jobs:
                with self.report.stage("redraw"):
                    redraw(job, maker)
                self._settle(job, maker.unreadable)
        self.report.num_images_read += int(maker.is_done.sum())
        self.report.num_thumbnails_made += maker.num_made
        return maker

    # --- Shards

    def _tell_workers(self, job: SplitJob, maker: ThumbnailMaker, target: Target) -> None:
        """Writes down what workers have to know of a split."""
        table, template = job.images.table, target.template_of(job.split)
        folder = self._folder / job.split
        folder.mkdir()
        known = _ShardJob(
            kind=job.planned.plan.kind,
            file_format=target.file_format,
            paths=[
                str(template.sharded_filepath(shard_index=i, num_shards=job.num_shards)) for i in range(job.num_shards)
            ],
            bounds=job.bounds,
            source=maker.shared_source,
            spec=self._thumbnail_spec,
            files=maker.index.files,
            table=LandmarkTable(table.image_ids, table.landmark_ids),  # without what it has found out meanwhile
            places=maker.index.places,
            rows=job.record_rows,
        )
        save_object(folder / _JOB, known)

    def _write_shards(
        self, tasks: Sequence[ShardTask], pool: WorkerPool[ShardTask, tuple[ShardTask, ShardResult]]
    ) -> None:
        jobs = {job.split: job for job in self.jobs}
        with progress_bar(len(tasks), "Writing shards", " shards") as bar:
            for (folder, number), result in pool.run(
                _write_one, tasks, len(tasks), are_large=len(tasks) >= _MANY_SHARDS
            ):
                jobs[pathlib.Path(folder).name].shards[number] = result
                bar.update()
        _job_in.cache_clear()  # where this process was the worker


class _NotLookedAtError(Exception):
    """It is not known yet whether the image of a row is readable."""

    def __init__(self, row: int):
        super().__init__(row)
        self.row = row


def redraw(job: SplitJob, maker: ThumbnailMaker) -> None:
    """Finds the exceptions of a job, making what redraws need, round by round: each image once."""

    def is_readable(row: int) -> bool:
        if not maker.is_done[row]:
            raise _NotLookedAtError(row)
        return bool(maker.is_readable[row])

    plan = job.planned.plan
    pending: list[tuple[int, list[int]]] = []
    for first, rows in plan_in_chunks(plan, job.num_examples):
        is_whole = maker.is_readable[rows].all(axis=1)
        pending += [(first + i, rows[i].tolist()) for i in np.flatnonzero(~is_whole).tolist()]
    while pending:
        again, needed = [], set()
        for number, planned in pending:
            try:
                job.exceptions[number] = plan.choose(number, planned, is_readable)
            except _NotLookedAtError as error:
                again.append((number, planned))
                needed.add(error.row)
        maker.make(np.array(sorted(needed), dtype=np.int64))
        job.redrawn.update(needed)
        pending = again


# --- In a worker


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ShardJob:
    """What a worker has to know of a split, and does.

    Attributes:
      paths: of the shards.
      bounds: where each shard begins and ends in the rows.
      source, spec: for thumbnails that the store has lost.
      files, places: where thumbnails are, see `StoreReader`; by row of the table.
      table, rows: which images the records hold: int32[n, k] rows of the table.
    """

    kind: ExampleKind
    file_format: str
    paths: Sequence[str]
    bounds: Sequence[int]
    source: ImageSource
    spec: ThumbnailSpec
    files: Sequence[str]
    table: LandmarkTable
    places: Places
    rows: npt.NDArray[np.int32]

    def write(self, number: int) -> ShardResult:
        """Writes a shard."""
        start, stop = self.bounds[number : number + 2]
        return write_shard(self.paths[number], self.file_format, self._records(start, stop))

    def _records(self, start: int, stop: int) -> Iterator[bytes]:
        for first in range(start, stop, _RECORDS_TOGETHER):
            rows = self.rows[first : min(first + _RECORDS_TOGETHER, stop)]
            places = iter(self.places[rows.ravel()].tolist())
            for rows_of_example in rows.tolist():
                thumbnails = [self._thumbnail(next(places)) for _ in rows_of_example]
                yield make_record(self.kind, self.table, rows_of_example, thumbnails)

    @functools.cached_property
    def _reader(self) -> StoreReader:
        return StoreReader(self.files)

    def _thumbnail(self, place: tuple[int, ...]) -> bytes:
        thumbnail = self._reader.read(place)
        if thumbnail is not None:
            return thumbnail
        image_id = place[0]  # what the store has lost is made again
        try:
            return make_thumbnail(self.source.read(image_id), self.spec)
        except UnreadableImageError as error:
            raise OSError(
                f"{self.source.locate(image_id)} was readable when this build began, and is not any more ({error})."
                " Build again."
            ) from None


@functools.lru_cache(maxsize=1)
def _job_in(folder: str) -> _ShardJob:
    job: _ShardJob = load_object(f"{folder}/{_JOB}")
    return job


def _write_one(task: ShardTask) -> tuple[ShardTask, ShardResult]:
    folder, number = task
    return task, _job_in(folder).write(number)
