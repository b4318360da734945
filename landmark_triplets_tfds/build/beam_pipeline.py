"""Assembly on a cluster, as a Beam PTransform.

Each distinct image is read and encoded once, as in a local build, and its thumbnail is sent to the ranges of triplets
that need it. The other way, in which every range reads its own images, needs no shuffle of thumbnails but decodes most
images two to four times (docs/clusters.md has figures of both).

    plan images      range of triplets -> (chunk of images, (image, range)): numbers only, computed by the sampler
    make thumbnails  chunk -> (range, (image, thumbnail)): reads, decodes, resizes and encodes
    assemble         range -> examples, with the redraws of `triplets.plan`; what they need beyond the plan is made here

Functions carry a `ClusterPlan`, which is plain fields, never a builder. They work in the same way however often an
engine tries them again: an example's key and bytes follow from the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared
from etils import epath

from landmark_triplets_tfds.build.cluster import ClusterPlan, ClusterWorker, Outcome, spread
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.triplets.plan import ExampleCounts, assemble
from landmark_triplets_tfds.triplets.triplets_file import format_csv_line

_OUTCOMES = "outcomes"
_CSV_LINES = "csv_lines"
_EXAMPLES = "examples"
_THUMBNAILS = "thumbnails"

# Elements that the job's description lists. Each is a group of ranges, so it does not grow with the dataset.
_MAX_NUM_GROUPS = 1024

# Ranges of triplets whose lines of triplets.csv make up one file, on their way.
_RANGES_PER_CSV_PART = 64

_METRICS = "landmark_triplets"


class MakeExamples(beam.PTransform):
    """Makes the examples of a dataset: keyed by texts, as TFDS wants them. Applied to a pipeline."""

    def __init__(self, plan: ClusterPlan, outcome_path: str, csv_parts_path: str | None):
        """Takes the plan, and where to write the `Outcome` and the parts of triplets.csv (None: nowhere)."""
        super().__init__()
        self._plan = plan
        self._outcome_path = outcome_path
        self._csv_parts_path = csv_parts_path

    def expand(self, pipeline: Any) -> Any:
        shared = Shared()  # one handle for all functions, so that a process reads the table once
        thumbnails = (
            pipeline
            | "RangesOfTriplets" >> beam.Create(list(spread(self._plan.num_ranges, _MAX_NUM_GROUPS)))
            | "SpreadRanges" >> beam.Reshuffle()
            | "PlanImages" >> beam.ParDo(_PlanImages(self._plan, shared))
            | "GroupByChunkOfImages" >> beam.GroupByKey()
            | "MakeThumbnails" >> beam.ParDo(_MakeThumbnails(self._plan, shared)).with_outputs(main=_THUMBNAILS)
        )
        assembled = (
            thumbnails[_THUMBNAILS]
            | "GroupByRangeOfTriplets" >> beam.GroupByKey()
            | "Assemble"
            >> beam.ParDo(_Assemble(self._plan, shared, self._csv_parts_path is not None)).with_outputs(main=_EXAMPLES)
        )
        _ = (
            (thumbnails[_OUTCOMES], assembled[_OUTCOMES])
            | "AllOutcomes" >> beam.Flatten()
            | "AddUpOutcomes" >> beam.CombineGlobally(_AddUp())
            | "WriteOutcome" >> beam.Map(_write_outcome, self._outcome_path)
        )
        if self._csv_parts_path is not None:
            _ = (
                assembled[_CSV_LINES]
                | "GroupCsvLines" >> beam.GroupByKey()
                | "WriteCsvParts" >> beam.Map(_write_csv_part, self._csv_parts_path)
            )
        return assembled[_EXAMPLES]


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
    """Says which range of triplets needs which image: (start, stop) of ranges -> (chunk, (row, range))."""

    def process(self, group: tuple[int, int]) -> Iterator[tuple[int, tuple[int, int]]]:
        for number in range(*group):
            for row in self._worker.images_of_range(number).tolist():
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
    """Makes the thumbnails of a chunk of images: (chunk, (row, range)) -> (range, (row, thumbnail)).

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
        ranges_of_row: dict[int, list[int]] = {}
        for row, number in element[1]:
            ranges_of_row.setdefault(row, []).append(number)
        outcome = Outcome()
        rows = sorted(ranges_of_row)
        files = self._readers.map(self._worker.read, rows) if self._readers else map(self._worker.read, rows)
        for row, file in zip(rows, files, strict=True):
            thumbnail = self._make(row, file, outcome)
            for number in ranges_of_row[row]:
                yield number, (row, thumbnail)
        if outcome.unreadable:
            yield beam.pvalue.TaggedOutput(_OUTCOMES, outcome)


class _Assemble(_ImageFn):
    """Makes the examples of a range: (range, (row, thumbnail)) -> (key, example), outcomes, lines of triplets.csv."""

    def __init__(self, plan: ClusterPlan, shared: Shared, with_csv: bool):
        super().__init__(plan, shared)
        self._with_csv = with_csv
        self._num_redrawn = Metrics.counter(_METRICS, "triplets_redrawn")

    def process(self, element: tuple[int, Iterable[tuple[int, bytes | None]]]) -> Iterator[Any]:
        number, thumbnails = element[0], dict(element[1])
        worker, outcome = self._worker, Outcome(ExampleCounts())

        def get_thumbnail(row: int) -> bytes | None:
            if row not in thumbnails:  # of a redraw
                outcome.redrawn.add(row)
                thumbnails[row] = self._make(row, worker.read(row), outcome)
            return thumbnails[row]

        lines = []
        start, stop = self._plan.range_of(number)
        for key, example in assemble(worker.examples, get_thumbnail, stop, outcome.counts, start=start):
            if self._with_csv:
                lines.append(format_csv_line(key, example))
            yield key, example
        self._num_redrawn.inc(outcome.counts.num_redrawn)
        yield beam.pvalue.TaggedOutput(_OUTCOMES, outcome)
        if lines:
            part = number // _RANGES_PER_CSV_PART
            yield beam.pvalue.TaggedOutput(_CSV_LINES, (part, (number, "".join(lines))))


class _AddUp(beam.CombineFn):
    """Adds up outcomes."""

    def create_accumulator(self) -> Outcome:
        return Outcome()

    def add_input(self, accumulator: Outcome, element: Outcome) -> Outcome:
        accumulator.add(element)
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Outcome]) -> Outcome:
        total = Outcome()
        for outcome in accumulators:
            total.add(outcome)
        return total

    def extract_output(self, accumulator: Outcome) -> Outcome:
        return accumulator


def _write_outcome(outcome: Outcome, path: str) -> None:
    outcome.write(epath.Path(path))


def _write_csv_part(part: tuple[int, Iterable[tuple[int, str]]], folder: str) -> None:
    number, lines = part
    path = epath.Path(folder) / f"{number:06d}.csv"
    path.write_text("".join(text for _, text in sorted(lines)))
