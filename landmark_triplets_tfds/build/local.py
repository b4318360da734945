"""A build on this machine: one split after the other, each from thumbnails that are made in parallel.

TFDS asks for one example after the other in one thread and writes it. So what can be done beside that, reading,
decoding and encoding images, is done ahead by a `ThumbnailMaker`, in the order in which the examples need them.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import time
from typing import Any

from etils import epath

from landmark_triplets_tfds.build.build import Build, SplitJob
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import IMPORT_STAGE, BuildReport, describe_unreadable
from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow
from landmark_triplets_tfds.errors import BankError, TooManyUnreadableError
from landmark_triplets_tfds.thumbnails.bank import BankFile, open_store
from landmark_triplets_tfds.thumbnails.maker import ThumbnailMaker
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.plan import assemble, plan_in_chunks
from landmark_triplets_tfds.triplets.sampling import Rows
from landmark_triplets_tfds.triplets.triplets_file import CSV_HEADER, csv_name, format_csv_line

KeyedExamples = Iterator[tuple[str, dict[str, Any]]]


class LocalBuild(Build):
    """A build on this machine. Leaving its context stops the threads and removes what waited on disk."""

    _running: LocalSplit | None = None

    def _examples_of(self, job: SplitJob) -> KeyedExamples:
        """Starts to make a split when its first example is asked for: TFDS asks for one split after the other."""
        self._end_split()
        # TFDS's writer needs it in any case. In the middle of the build, the import would hold up everything, the
        # bank's commits too, for a second and more.
        with self.report.stage(IMPORT_STAGE):
            import_tensorflow()
        self._running = LocalSplit(job, self._thumbnail_spec, self.options, self._data_dir)
        self._resources.callback(self._running.close)
        yield from self._running.examples()
        if not job.counts.num_made:
            self._end_split()
            raise TooManyUnreadableError(
                f"Stopped, and nothing was published: no example of split {job.split!r} could be made. Unreadable"
                f" images: {describe_unreadable(self.report.unreadable)}\nFetch these files again."
            )

    def finish(self) -> None:
        self._end_split()

    def threads_used(self) -> dict[str, int | None]:
        return {
            "workers": self.options.num_workers(),
            "readers": self.options.num_readers(self.source.is_remote),
        }

    def _end_split(self) -> None:
        # TFDS does not exhaust the iterator of a capped split, so only the next one, or the end, shows that it is over.
        if self._running is not None:
            self._running.finish(self.report)
            self._running = None


class LocalSplit:
    """The making of one split."""

    def __init__(self, job: SplitJob, spec: ThumbnailSpec, options: BuildOptions, data_dir: epath.Path):
        """Opens the store of thumbnails and starts the threads.

        Args:
          job: the split.
          spec: of its thumbnails.
          options: of the build.
          data_dir: where the dataset is being written.
        """
        self._job = job
        self._options = options
        self._data_dir = data_dir
        self._resources = contextlib.ExitStack()
        spill_folder = None if is_remote(str(data_dir)) else str(data_dir)
        source, image_ids = job.images.source, job.images.table.image_ids
        self._store = open_store(options.bank, spec, image_ids, job.rows, spill_folder)
        self._bar = self._resources.enter_context(
            progress_bar(len(job.rows), f"Making thumbnails of {job.split}", " images")
        )
        self._maker = self._resources.enter_context(
            ThumbnailMaker(
                source,
                image_ids,
                spec,
                self._store,
                num_workers=options.num_workers(),
                num_readers=options.num_readers(source.is_remote),
                on_done=self._advance,
            )
        )
        self._started = self._ended = time.perf_counter()

    def close(self) -> None:
        """Stops the threads and lets go of files."""
        self._resources.close()

    def examples(self) -> KeyedExamples:
        """Makes the examples, taking the time and, as a build option, writing down their ids."""
        job, maker = self._job, self._maker
        maker.make_ahead(self._in_order_of_use)
        with contextlib.ExitStack() as stack:
            write_line = None
            if self._options.triplets_csv and job.planned.plan.kind is TRIPLETS:
                file = stack.enter_context((self._data_dir / csv_name(job.split)).open("w"))
                self._resources.callback(file.close)  # a capped split is not iterated to its end
                write_line = file.write
                write_line(CSV_HEADER)
            for key, example in assemble(
                job.planned.plan, maker.get, job.num_examples, job.counts, announce=maker.expect
            ):
                if write_line:
                    write_line(format_csv_line(key, example))
                yield key, example
                self._ended = time.perf_counter()

    def finish(self, report: BuildReport) -> None:
        """Adds to the report what came of the split.

        Raises:
          TooManyUnreadableError: if too many of its images turned out unreadable.
        """
        self._maker.wait_for_all()
        report.add_seconds("make_examples", self._ended - self._started)
        report.add_seconds("write_shards", time.perf_counter() - self._ended)
        report.num_images_read += self._maker.num_images()
        report.num_thumbnails_made += self._maker.num_made
        report.unreadable += self._job.check_unreadable(self._maker.unreadable)
        self.close()
        try:
            self._store.check()
        except BankError as error:  # at the very end: the dataset lacks nothing
            print(error)
        if isinstance(self._store, BankFile):
            report.bank, report.num_bank_bytes = str(self._store.path), self._store.num_bytes()

    def _in_order_of_use(self) -> Iterator[Rows]:
        return (rows.ravel() for _, rows in plan_in_chunks(self._job.planned.plan, self._job.num_examples))

    def _advance(self, num_new: int, num_done: int) -> None:
        self._bar.total = max(len(self._job.rows), num_done)  # redraws read images beyond the plan
        self._bar.update(num_new)
        if len(self._maker.unreadable) > self._job.max_num_unreadable:
            self._job.check_unreadable(self._maker.unreadable)
