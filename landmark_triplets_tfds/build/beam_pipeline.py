"""A build on a cluster, as a Beam pipeline.

Each distinct image is read and encoded once, as in a local build, and its thumbnail is sent to the shards that need it,
each of which is then written whole by one worker, with the function that writes it in a local build. The other way, in
which every shard reads its own images, needs no shuffle of thumbnails but decodes most images two to four times.

    plan images      shard -> (chunk of images, (image, shard)): numbers only, computed by the sampler
    make thumbnails  chunk -> (shard, (image, thumbnail)): reads, decodes, resizes and encodes
    write shards     shard -> a file, with redraws; what they need beyond the plan is made here

Functions carry a `ClusterPlan`, which is plain fields, never a builder. They work in the same way however often an
engine tries them again: a shard's bytes follow from the plan, and its file is renamed when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions, TypeOptions
from apache_beam.utils.shared import Shared
from etils import epath

from landmark_triplets_tfds.build.cluster import ClusterPlan, ClusterWorker, Outcome, spread
from landmark_triplets_tfds.common.checked_files import save_object
from landmark_triplets_tfds.errors import UnreadableImageError

_OUTCOMES = "outcomes"
_THUMBNAILS = "thumbnails"

# Elements that the job's description lists. Each is a group of shards, so it does not grow with the dataset.
_MAX_NUM_GROUPS = 1024

_METRICS = "landmark_triplets"


def run_pipeline(plans: Mapping[str, tuple[ClusterPlan, str]], runner: Any, options: Any) -> None:
    """Builds splits and waits for the end.

    Args:
      plans: of the splits, each with the path to which its `Outcome` is written.
      runner: Beam's, by its name or itself; None: the one in the options.
      options: Beam's; None: the defaults.
    """
    options = options or PipelineOptions()
    options.view_as(TypeOptions).pipeline_type_check = False  # outputs of one function are of several types
    with beam.Pipeline(runner=runner, options=options) as pipeline:
        for split, (plan, outcome_path) in plans.items():
            _ = pipeline | f"Build_{split}" >> BuildSplit(plan, outcome_path)


class BuildSplit(beam.PTransform):
    """Builds a split. Applied to a pipeline."""

    def __init__(self, plan: ClusterPlan, outcome_path: str):
        """Takes the plan, and where to write the `Outcome`."""
        super().__init__()
        self._plan = plan
        self._outcome_path = outcome_path

    def expand(self, pipeline: Any) -> Any:
        shared = Shared()  # one handle for all functions, so that a process reads the table once
        thumbnails = (
            pipeline
            | "Shards" >> beam.Create(list(spread(self._plan.num_shards, _MAX_NUM_GROUPS)))
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


class _WorkerFn(beam.DoFn):
    """Base of the functions that need the table."""

    def __init__(self, plan: ClusterPlan, shared: Shared):
        self._plan = plan
        self._shared = shared

    def setup(self) -> None:
        self._worker: ClusterWorker = self._shared.acquire(lambda: ClusterWorker(self._plan))


@beam.typehints.with_input_types(tuple[int, int])
@beam.typehints.with_output_types(tuple[int, tuple[int, int]])
class _PlanImages(_WorkerFn):
    """Says which shard needs which image: (start, stop) of shards -> (chunk, (row, shard))."""

    def process(self, group: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
        for number in range(*group):
            for row in self._worker.images_of_shard(number).tolist():
                yield row // self._plan.images_per_chunk, (row, number)


class _ImageFn(_WorkerFn):
    """Base of the functions that make thumbnails."""

    def __init__(self, plan: ClusterPlan, shared: Shared):
        super().__init__(plan, shared)
        self._num_read = Metrics.counter(_METRICS, "images_read")
        self._num_unreadable = Metrics.counter(_METRICS, "images_unreadable")
        self._bytes_in = Metrics.counter(_METRICS, "bytes_in")
        self._bytes_out = Metrics.counter(_METRICS, "bytes_out")

    def _make(self, row: int, file: bytes | UnreadableImageError, outcome: Outcome) -> bytes | None:
        """Returns a thumbnail and counts it; of an unreadable image the reason is noted instead."""
        result = self._worker.encode(file)
        self._num_read.inc()
        self._bytes_in.inc(len(file) if isinstance(file, bytes) else 0)
        if isinstance(result, UnreadableImageError):
            self._num_unreadable.inc()
            outcome.note(row, result)
            return None
        self._bytes_out.inc(len(result))
        return result


class _MakeThumbnails(_ImageFn):
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


class _WriteShards(_ImageFn):
    """Writes a shard: (shard, (row, thumbnail)) -> outcome."""

    def __init__(self, plan: ClusterPlan, shared: Shared):
        super().__init__(plan, shared)
        self._num_redrawn = Metrics.counter(_METRICS, "triplets_redrawn")

    def process(self, element: tuple[int, Iterable[tuple[int, bytes | None]]]) -> Iterator[Outcome]:
        number, thumbnails = element[0], dict(element[1])
        outcome = Outcome()

        def get_thumbnail(row: int) -> bytes | None:
            if row not in thumbnails:  # of a redraw
                outcome.redrawn.add(row)
                thumbnails[row] = self._make(row, self._worker.read(row), outcome)
            return thumbnails[row]

        outcome.shards[number] = self._worker.write_shard(number, get_thumbnail, outcome.counts)
        self._num_redrawn.inc(outcome.counts.num_redrawn)
        yield outcome


def _write_outcome(outcome: Outcome, path: str) -> None:
    save_object(epath.Path(path), outcome)
