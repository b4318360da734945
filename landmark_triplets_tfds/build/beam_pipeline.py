"""A build on a cluster: a Beam pipeline, and the program that starts it. The only module that imports Beam.

Each distinct image is read and encoded once, as in a local build, and its thumbnail is sent to the shards that need it,
each of which is then written whole by one worker, with the function that writes it in a local build. The other way, in
which every shard reads its own images, needs no shuffle of thumbnails but decodes most images two to four times.

    plan images      shard -> (chunk of images, (image, shard)): numbers only, computed by the sampler
    make thumbnails  chunk -> (shard, (image, thumbnail)): reads, decodes, resizes and encodes
    write shards     shard -> a file, with redraws; what they need beyond the plan is made here

Functions carry a `ClusterPlan`, which is plain fields, never a builder. They work in the same way however often an
engine tries them again: a shard's bytes follow from the plan, and its file is renamed when it is whole. What workers
have to know and what comes back from them are files in the folder of the unfinished dataset, which are removed before
TFDS publishes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
import functools
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
from apache_beam.utils.shared import Shared
from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.build import Build, SplitJob
from landmark_triplets_tfds.build.cluster import ClusterPlan, ClusterWorker, Outcome, choose_images_per_chunk
from landmark_triplets_tfds.build.shards import Target
from landmark_triplets_tfds.common.checked_files import load_object, save_object
from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.errors import UnreadableImageError

# Reading ahead within a chunk of images pays where files are slow to open. On a local disk it costs more than it saves.
_NUM_REMOTE_READERS = 16

_PREFIX = "beam_"  # of files that are not published

_OUTCOMES = "outcomes"
_THUMBNAILS = "thumbnails"


class BeamBuild(Build):
    """A build on a cluster, as the program that starts it sees it."""

    def __init__(self, manual_dir: epath.Path, data_dir: epath.Path, *others: Any):
        """See `Build`.

        Raises:
          ValueError: if a path would mean another folder on a worker.
        """
        for option, path in (("--manual_dir", manual_dir), ("--data_dir", data_dir)):
            if not is_remote(str(path)) and not path.is_absolute():
                raise ValueError(
                    f"With Beam, {option} must be an absolute path or a URL such as gs://..., since workers may have"
                    f" another working folder, got {path}."
                )
        super().__init__(manual_dir, data_dir, *others)

    def _make_splits(self, target: Target) -> None:
        builds = [BuildSplit(self._plan_for_workers(job, target), self._outcome_path(job)) for job in self.jobs]
        options = target.beam_options or PipelineOptions()
        options.view_as(TypeOptions).pipeline_type_check = False  # outputs of one function are of several types
        with self.report.stage("run_pipeline"), beam.Pipeline(target.beam_runner, options) as pipeline:
            for job, build in zip(self.jobs, builds, strict=True):
                _ = pipeline | f"Build_{job.split}" >> build
        for job in self.jobs:
            outcome: Outcome = load_object(self._outcome_path(job))
            job.shards, job.exceptions, job.redrawn = outcome.shards, outcome.exceptions, outcome.redrawn
            num_images = len(job.rows) + len(outcome.redrawn.difference(job.rows.tolist()))
            self.report.num_images_read += num_images
            self.report.num_thumbnails_made += num_images
            self._settle(job, outcome.unreadable)
        # What workers had to know, and shards left half written by dead ones. Not by `glob`, to which a folder such as
        # run[1] is a pattern.
        for path in list(self._data_dir.iterdir()):
            if path.suffix == ".index" or path.name.startswith((_PREFIX, "incomplete.")):
                path.unlink(missing_ok=True)

    def _plan_for_workers(self, job: SplitJob, target: Target) -> ClusterPlan:
        table, whole, spec = job.images.table, self.selection.whole, job.planned.spec
        kept_rows_path = image_ids_path = None
        if job.split in self.selection.unlabeled:  # listed once, here, and not by every worker
            image_ids_path = self._save(f"image_ids-{job.split}", table.image_ids)
        elif table is not whole:
            kept_rows_path = self._save("kept_rows", np.isin(whole.image_ids, table.image_ids))
        return ClusterPlan(
            source=job.images.source.share(self._data_dir, elsewhere=True),
            table_sha256=table.fingerprint,
            kept_rows_path=kept_rows_path,
            image_ids_path=image_ids_path,
            spec=self._save(f"triplets-{job.split}", spec) if isinstance(spec, np.ndarray) else spec,
            thumbnail_spec=self._thumbnail_spec,
            order_path=self._save(f"order-{job.split}", job.order),
            num_examples=job.num_examples,
            num_shards=job.num_shards,
            template=target.template_of(job.split),
            file_format=target.file_format,
            images_per_chunk=choose_images_per_chunk(table.num_images),
            num_readers=self._num_readers(),
        )

    def workers_and_readers(self) -> dict[str, int | None]:
        return {"workers": None, "readers": self._num_readers()}

    def _num_readers(self) -> int:
        return self.options.readers or (_NUM_REMOTE_READERS if self.source.is_remote else 1)

    def _outcome_path(self, job: SplitJob) -> str:
        return str(self._data_dir / f"{_PREFIX}outcome-{job.split}")

    def _save(self, name: str, array: npt.NDArray[np.generic]) -> str:
        """Writes an array for the workers, once, and returns where it is."""
        path = self._data_dir / f"{_PREFIX}{name}"
        if not path.exists():
            save_object(path, array)
        return str(path)


class BuildSplit(beam.PTransform):
    """Builds a split and writes its `Outcome`. Applied to a pipeline."""

    def __init__(self, plan: ClusterPlan, outcome_path: str):
        super().__init__()
        self._plan = plan
        self._outcome_path = outcome_path

    def expand(self, pipeline: Any) -> Any:
        shared = Shared()  # one handle for all functions, so that a process reads the table once
        thumbnails = (
            pipeline
            | "Shards" >> beam.Create(range(self._plan.num_shards))
            | "SpreadShards" >> beam.Reshuffle()
            | "PlanImages" >> beam.ParDo(_PlanImages(self._plan, shared))
            | "GroupByChunkOfImages" >> beam.GroupByKey()
            | "MakeThumbnails" >> beam.ParDo(_MakeThumbnails(self._plan, shared)).with_outputs(main=_THUMBNAILS)
        )
        written = (
            thumbnails[_THUMBNAILS]
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShards" >> beam.ParDo(_WriteShards(self._plan, shared))
        )
        return (
            (thumbnails[_OUTCOMES], written)
            | "AllOutcomes" >> beam.Flatten()
            | "AddUpOutcomes" >> beam.CombineGlobally(Outcome.add_up)
            | "WriteOutcome" >> beam.Map(_write_outcome, self._outcome_path)
        )


@functools.cache
def _counter(name: str) -> Any:
    """Returns a counter that engines show while a job runs."""
    return Metrics.counter("landmark_triplets", name)


class _WorkerFn(beam.DoFn):
    """Base of the functions: they need the table, and some make thumbnails."""

    def __init__(self, plan: ClusterPlan, shared: Shared):
        self._plan = plan
        self._shared = shared

    def setup(self) -> None:
        self._worker: ClusterWorker = self._shared.acquire(lambda: ClusterWorker(self._plan))

    def _make(self, row: int, file: bytes | UnreadableImageError, outcome: Outcome) -> bytes | None:
        """Returns a thumbnail and counts it; of an unreadable image the reason is noted instead."""
        result = self._worker.encode(file)
        _counter("images_read").inc()
        _counter("bytes_in").inc(len(file) if isinstance(file, bytes) else 0)
        if isinstance(result, UnreadableImageError):
            _counter("images_unreadable").inc()
            outcome.unreadable[row] = result
            return None
        _counter("bytes_out").inc(len(result))
        return result


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(tuple[int, tuple[int, int]])
class _PlanImages(_WorkerFn):
    """Says which image a shard needs: shard -> (chunk, (row, shard))."""

    def process(self, number: int) -> Iterator[tuple[int, tuple[int, int]]]:
        for row in self._worker.images_of_shard(number).tolist():
            yield row // self._plan.images_per_chunk, (row, number)


class _MakeThumbnails(_WorkerFn):
    """Makes the thumbnails of a chunk of images: (chunk, (row, shard)) -> (shard, (row, thumbnail)).

    A thumbnail is None where the image is unreadable; the reason goes to the outcomes.
    """

    def setup(self) -> None:
        super().setup()
        num_readers = self._plan.num_readers
        self._readers = ThreadPoolExecutor(num_readers, "read") if num_readers > 1 else None

    def teardown(self) -> None:
        if self._readers:
            self._readers.shutdown()

    def process(self, element: tuple[int, Iterable[tuple[int, int]]]) -> Iterator[Any]:
        shards_of_row: dict[int, list[int]] = {}
        for row, number in element[1]:
            shards_of_row.setdefault(row, []).append(number)
        outcome = Outcome()
        rows = sorted(shards_of_row)
        files = self._readers.map(self._worker.read, rows) if self._readers else map(self._worker.read, rows)
        for row, file in zip(rows, files, strict=True):
            thumbnail = self._make(row, file, outcome)
            for number in shards_of_row[row]:
                yield number, (row, thumbnail)
        if outcome.unreadable:
            yield beam.pvalue.TaggedOutput(_OUTCOMES, outcome)


class _WriteShards(_WorkerFn):
    """Writes a shard: (shard, (row, thumbnail)) -> outcome."""

    def process(self, element: tuple[int, Iterable[tuple[int, bytes | None]]]) -> Iterator[Outcome]:
        number, thumbnails = element[0], dict(element[1])
        outcome = Outcome()

        def get_thumbnail(row: int) -> bytes | None:
            if row not in thumbnails:  # of a redraw
                outcome.redrawn.add(row)
                thumbnails[row] = self._make(row, self._worker.read(row), outcome)
            return thumbnails[row]

        outcome.shards[number] = self._worker.write_shard(number, get_thumbnail, outcome.exceptions)
        _counter("triplets_redrawn").inc(sum(not isinstance(chosen, str) for chosen in outcome.exceptions.values()))
        yield outcome


def _write_outcome(outcome: Outcome, path: str) -> None:
    save_object(path, outcome)
