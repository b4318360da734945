"""The two ways to feed a cluster's writer, measured: read each triplet's images, or encode each image once and join.

*Join* is what the package does (`build/beam_pipeline`): every distinct image is read and encoded once
and its thumbnail is sent to the ranges of triplets that need it. *Read* is the other way: every range reads the images
it needs, each once per range, and nothing is sent. Both end with the same examples, whose bytes are added up in place
of TFDS's writer. Triplets per image: 1 with an anchor for every image, 3 with three triplets for each of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
import os
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared
from etils import epath

from benchmarks import builds, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Case, Measurement, Stopwatch, add_common_arguments, alternate
from landmark_triplets_tfds.build import beam_pipeline
from landmark_triplets_tfds.build.cluster import (
    ClusterPlan,
    ClusterWorker,
    choose_images_per_chunk,
    spread,
)
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec
from landmark_triplets_tfds.triplets.plan import ExampleCounts, assemble, find_distinct_images, make_plan
from landmark_triplets_tfds.triplets.sampling import SamplingSpec

_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_FEW_TRIPLETS = 2


class ReadPerRange(beam.PTransform):
    """Makes the examples of a dataset; every range of triplets reads its own images."""

    def __init__(self, plan: ClusterPlan):
        super().__init__()
        self._plan = plan

    def expand(self, pipeline: Any) -> Any:
        return (
            pipeline
            | beam.Create(list(spread(self._plan.num_ranges, self._plan.num_ranges)))
            | beam.Reshuffle()
            | beam.ParDo(_ReadAndAssemble(self._plan, Shared()))
        )


class _ReadAndAssemble(beam.DoFn):
    def __init__(self, plan: ClusterPlan, shared: Shared):
        self._plan = plan
        self._shared = shared
        self._num_read = Metrics.counter("landmark_triplets", "images_read")

    def setup(self) -> None:
        self._worker: ClusterWorker = self._shared.acquire(lambda: ClusterWorker(self._plan))

    def process(self, group: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        worker = self._worker
        for number in range(*group):
            thumbnails: dict[int, bytes | None] = {}

            def get_thumbnail(row: int, thumbnails: dict[int, bytes | None] = thumbnails) -> bytes | None:
                if row not in thumbnails:
                    self._num_read.inc()
                    result = worker.encode(worker.read(row))
                    thumbnails[row] = result if isinstance(result, bytes) else None
                return thumbnails[row]

            start, stop = self._plan.range_of(number)
            yield from assemble(worker.examples, get_thumbnail, stop, ExampleCounts(), start=start)


@beam.typehints.with_input_types(Any)
class _CountAndSize(beam.CombineFn):
    """Counts examples and adds up the bytes of their images."""

    def create_accumulator(self) -> tuple[int, int]:
        return 0, 0

    def add_input(self, accumulator: tuple[int, int], element: tuple[str, dict[str, Any]]) -> tuple[int, int]:
        images = (element[1][name] for name in ("anchor_img", "positive_img", "negative_img"))
        return accumulator[0] + 1, accumulator[1] + sum(map(len, images))

    def merge_accumulators(self, accumulators: Iterable[tuple[int, int]]) -> tuple[int, int]:
        counts, sizes = zip(*accumulators, strict=True)
        return sum(counts), sum(sizes)

    def extract_output(self, accumulator: tuple[int, int]) -> tuple[int, int]:
        return accumulator


def _write(result: tuple[int, int], path: str) -> None:
    Path(path).write_text(f"{result[0]} {result[1]}")


def run(design: str, plan: ClusterPlan, num_workers: int, folder: Path) -> tuple[Measurement, int, int]:
    """Runs one design.

    Returns:
      The measurement, whose count is that of triplets; the bytes of their images; the number of images read.
    """
    outcome, sums = folder / "outcome.json", folder / "sums"
    make: beam.PTransform = (
        beam_pipeline.MakeExamples(plan, os.fspath(outcome), None) if design == "join" else ReadPerRange(plan)
    )
    options = PipelineOptions(
        [f"--runner={_RUNNER}", "--direct_running_mode=multi_processing", f"--direct_num_workers={num_workers}"],
        pipeline_type_check=False,
    )
    with Stopwatch() as watch:
        pipeline = beam.Pipeline(options=options)
        (
            pipeline
            | "Make" >> make
            | beam.CombineGlobally(_CountAndSize()).without_defaults()
            | beam.Map(_write, os.fspath(sums))
        )
        result = pipeline.run()
        result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_name("images_read"))["counters"]
    num_triplets, num_bytes = map(int, sums.read_text().split())
    return watch.measurement(num_triplets), num_bytes, sum(counter.committed for counter in counters)


def measure(corpus: Path, work: Path, args: argparse.Namespace, triplets_per_image: int) -> tuple[list[Any], Any]:
    """Measures both designs at so many triplets per image; returns rows of the table and all figures."""
    spec = SamplingSpec(images_per_landmark=None, triplets_per_anchor=triplets_per_image)
    table, _ = builds.plan("128px_all", corpus)
    examples = make_plan(table, spec)
    num_images = len(find_distinct_images(examples, examples.num_examples, table.num_images))

    def plan_of(num_triplets: int) -> ClusterPlan:
        return ClusterPlan(
            source=find_source(epath.Path(corpus.resolve())),
            table_sha256=table.fingerprint,
            kept_rows_path=None,
            spec=spec,
            thumbnail_spec=ThumbnailSpec(resolution=args.resolution),
            num_examples=num_triplets,
            examples_per_range=args.triplets_per_range,
            images_per_chunk=choose_images_per_chunk(table.num_images),
            num_readers=1,
        )

    seen: dict[str, tuple[int, int]] = {}

    def case(design: str) -> Case:
        def one_round() -> Measurement:
            start_up, _, _ = run(design, plan_of(_FEW_TRIPLETS), args.workers, work)
            whole, num_bytes, num_read = run(design, plan_of(examples.num_examples), args.workers, work)
            seen[design] = num_bytes, num_read
            return whole.plus(start_up, -1.0)

        return one_round

    results = alternate({design: case(design) for design in ("read", "join")}, args.runs, warm_up=False)
    rows = [
        (
            f"{design}, {triplets_per_image}",
            f"{measurement.count:,}",
            f"{seen[design][1] / num_images:.2f}",
            f"{seen[design][0] / measurement.count / 1e3:.1f}",
            f"{measurement.wall_s:.1f}",
            f"{measurement.per_second:,.0f}",
            f"{measurement.cpu_s / measurement.count * 1e3:.2f}",
        )
        for design, measurements in results.measurements.items()
        for measurement in measurements
    ]
    return rows, {"num_images": num_images, "runs": results.measurements, "bytes_and_images_read": seen}


def main() -> None:
    """Prints both designs side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, runs=3)
    add_corpus_arguments(parser)
    parser.add_argument("--resolution", type=int, default=128, help="px (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument(
        "--triplets-per-range",
        type=int,
        default=64,
        help="small, so that few negatives of a range are the same, as in a large dataset (default: %(default)s)",
    )
    args = parser.parse_args()
    machine = report.describe_machine()
    report.print_machine(machine)
    with open_corpus(args) as corpus, builds.temporary_folder(args.work) as work:
        builds.read_all(corpus)
        measured = {f"{n} per image": measure(corpus, work, args, n) for n in (1, 3)}
    header = (
        "design, triplets per image",
        "triplets",
        "reads per image",
        "kB each",
        "wall s",
        "a second",
        "CPU ms each",
    )
    report.print_table(header, [row for rows, _ in measured.values() for row in rows])
    figures = {name: figure for name, (_, figure) in measured.items()}
    report.write_json(args.json, "beam_designs", machine=machine, figures=figures)


if __name__ == "__main__":
    main()
