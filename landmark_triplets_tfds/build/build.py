"""One build, here or on a cluster: from the folder with the competition's files to the finished report.

`hooks` says when TFDS wants what; a build reads the table, plans splits, looks whether the images are there, and stops
when too much would be left out. How thumbnails and shards are made is up to `local` and `beam_pipeline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import functools
import json
import time
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import (
    REPORT_NAME,
    BuildReport,
    UnreadableImage,
    check_num_unreadable,
    describe_unreadable,
)
from landmark_triplets_tfds.build.shards import ShardResult, Target, choose_num_shards, record_order, shard_bounds
from landmark_triplets_tfds.build.splits import PlannedSplit, SplitPlanner, select_images_of
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.competition.selection import ImageSet, open_copy
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import (
    MissingImagesError,
    TooManyUnreadableError,
    UnreadableImageError,
    advise_on_unreadable,
)
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from landmark_triplets_tfds.triplets import triplets_file
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.plan import (
    Example,
    ExampleCounts,
    Exceptions,
    assemble,
    find_distinct_images,
    make_example,
    plan_in_chunks,
)

# Images looked up before a build starts: enough to estimate the missing share to about 2 %, done within seconds.
_NUM_LOOKED_UP = 2000
_LOOKED_UP_TOGETHER = 250  # a task of its own for each would cost more than looking in a local folder
_MIN_MISSING = 10

# Thumbnails that `Build.examples_of` keeps: images of a landmark are used close to each other.
_NUM_REMEMBERED = 4096


@dataclasses.dataclass
class SplitJob:
    """A split in the making.

    Attributes:
      planned: what it is to hold.
      num_examples: how many of the examples to make.
      rows: int32[num_images], ascending: the distinct images of these, before redraws.
      max_num_unreadable: of these images, how many may be.
      order: int32[num_examples], the numbers of the examples in the order of their records.
      num_shards: that they are cut into.
      exceptions: the examples that are not made as planned.
      redrawn: rows of the images that were looked at for redraws, readable or not.
      record_rows: int32[n, k], the rows of the images in each record, in their order.
      bounds: where shards begin and end among the records, num_shards + 1 numbers.
      shards: what came of each, by its number.
    """

    planned: PlannedSplit
    num_examples: int
    rows: npt.NDArray[np.int32]
    max_num_unreadable: int
    order: npt.NDArray[np.int32]
    num_shards: int
    exceptions: Exceptions = dataclasses.field(default_factory=dict)
    redrawn: set[int] = dataclasses.field(default_factory=set)
    record_rows: npt.NDArray[np.int32] = dataclasses.field(init=False)
    bounds: list[int] = dataclasses.field(init=False)
    shards: dict[int, ShardResult] = dataclasses.field(default_factory=dict)

    @property
    def split(self) -> str:
        return self.planned.split

    @property
    def images(self) -> ImageSet:
        return self.planned.images

    def list_unreadable(self, errors: Mapping[int, UnreadableImageError]) -> list[UnreadableImage]:
        """Returns the unreadable images, given by row, in order of their ids."""
        images = []
        for row, error in errors.items():
            image_id = int(self.images.table.image_ids[row])
            location = self.images.source.locate(image_id)
            images.append(UnreadableImage(image_id, error.reason, error.detail, location))
        return sorted(images)

    def check_unreadable(self, errors: Mapping[int, UnreadableImageError]) -> list[UnreadableImage]:
        """Returns the unreadable images of this split, of those given and perhaps of others, in order of their ids.

        Raises:
          TooManyUnreadableError: if there are too many.
        """
        planned = set(np.intersect1d(np.fromiter(errors, dtype=np.int32, count=len(errors)), self.rows).tolist())
        own = {row: error for row, error in errors.items() if row in planned or row in self.redrawn}
        unreadable = self.list_unreadable(own)
        check_num_unreadable(unreadable, self.max_num_unreadable, len(self.rows))
        return unreadable

    def set_records(self) -> None:
        """Finds out, once the exceptions are known, what the records hold."""
        rows = np.empty((self.num_examples, self.planned.plan.kind.num_images), dtype=np.int32)
        for first, planned in plan_in_chunks(self.planned.plan, self.num_examples):
            rows[first : first + len(planned)] = planned
        is_made = np.ones(self.num_examples, dtype=bool)
        for number, chosen in self.exceptions.items():
            if isinstance(chosen, str):
                is_made[number] = False
            else:
                rows[number] = chosen
        is_record = is_made[self.order]
        self.record_rows = rows[self.order[is_record]]
        num_records = np.concatenate([[0], np.cumsum(is_record)])
        self.bounds = num_records[shard_bounds(self.num_examples, self.num_shards)].tolist()

    def split_info(self, template: Any) -> tfds.core.SplitInfo:
        """Returns what TFDS wants to know of a split that is written."""
        results = [self.shards[number] for number in range(self.num_shards)]
        return tfds.core.SplitInfo(
            name=self.split,
            shard_lengths=[result.num_examples for result in results],
            num_bytes=sum(result.num_bytes for result in results),
            filename_template=template,
        )


class Build:
    """A build in progress.

    Attributes:
      selection: of the images.
      planner: of the splits.
      jobs: the splits so far.
      report: what came of it so far.
    """

    def __init__(
        self,
        manual_dir: epath.Path,
        data_dir: epath.Path,
        config: LandmarkBuilderConfig,
        max_examples: int | None,
        options: BuildOptions,
    ):
        """Finds the files and reads the table.

        Args:
          manual_dir: the folder with the competition's files.
          data_dir: where the dataset is being written.
          config: of the dataset.
          max_examples: per split; None: all.
          options: what the build may use.
        """
        self.options = options
        self.jobs: list[SplitJob] = []
        self._data_dir = data_dir
        self._thumbnail_spec = config.thumbnail_spec()
        self._max_examples = max_examples
        started = time.perf_counter()
        self.source = open_copy(manual_dir, options.bank, options.num_readers_of(manual_dir))
        self.selection = select_images_of(config, self.source, options)
        for images in (self.selection.images, *self.selection.unlabeled.values()):
            for remark in images.source.remarks():
                say(remark)
        self.report = BuildReport(self.selection, config.kind, seconds={"read_table": time.perf_counter() - started})
        self.planner = SplitPlanner(self.selection, config, self.report.stage)

    def make_splits(self, target: Target) -> list[tfds.core.SplitInfo]:
        """Makes all splits: writes their shards, and completes the report.

        Raises:
          NoExampleError: if there is no example in a split.
          TripletsFileError: if the file that names the triplets cannot be used.
          MissingImagesError: if a sample of its images shows that many files are missing.
          TooManyUnreadableError: if too many images of a split turn out unreadable, or no example is left.
        """
        self.jobs = [self._plan(split, target) for split in self.planner.splits()]
        self._make_splits(target)
        for job in self.jobs:
            self._write_triplets_csv(job)
        return [job.split_info(target.template_of(job.split)) for job in self.jobs]

    def _plan(self, split: str, target: Target) -> SplitJob:
        planned = self.planner.plan_split(split)
        with self.report.stage("plan"):
            plan, images = planned.plan, planned.images
            num_examples = plan.num_examples
            if self._max_examples is not None:
                num_examples = min(num_examples, self._max_examples)
            rows = find_distinct_images(plan, num_examples).astype(np.int32)
            job = SplitJob(
                planned=planned,
                num_examples=num_examples,
                rows=rows,
                max_num_unreadable=self.options.max_num_unreadable(len(rows)),
                order=record_order(plan, num_examples, split),
                num_shards=choose_num_shards(num_examples, plan.kind, self._thumbnail_spec, target.shard_config),
            )
        with self.report.stage("look_up_images"):
            self._look_up(images, rows)
        return job

    def _make_splits(self, target: Target) -> None:
        """Makes thumbnails and shards, and notes in the jobs and in the report what came of them."""
        raise NotImplementedError

    def _settle(self, job: SplitJob, errors: Mapping[int, UnreadableImageError]) -> None:
        """Takes a job whose exceptions are known into the report; errors say by row why images are unreadable.

        Raises:
          TooManyUnreadableError: if too many are, or no example is left.
        """
        self.report.unreadable += job.check_unreadable(errors)
        counts = ExampleCounts.of(job.num_examples, job.exceptions)
        counts.left_out += job.planned.left_out
        self.report.splits[job.split] = counts
        if not counts.num_made:
            images = job.list_unreadable(errors)
            raise TooManyUnreadableError(
                f"Stopped, and nothing was published: no example of split {job.split!r} could be made. Unreadable"
                f" images: {describe_unreadable(images)}\n{advise_on_unreadable({image.reason for image in images})}"
            )
        job.set_records()

    def examples_of(self, split: str) -> Iterator[tuple[str, Example]]:
        """Yields the keyed examples of a split in the order of the plan, one after the other, by this thread alone.

        They are those that `make_splits` writes, for who wants them from a generator.
        """
        planned = self.planner.plan_split(split)
        source, image_ids = planned.images.source, planned.images.table.image_ids

        @functools.lru_cache(maxsize=_NUM_REMEMBERED)
        def get_thumbnail(row: int) -> bytes | None:
            try:
                return make_thumbnail(source.read(int(image_ids[row])), self._thumbnail_spec)
            except UnreadableImageError:
                return None

        yield from assemble(planned.plan, get_thumbnail, planned.plan.num_examples, {})

    def workers_and_readers(self) -> dict[str, int | None]:
        """Returns the numbers of workers and readers; None: not decided here."""
        raise NotImplementedError

    def _write_triplets_csv(self, job: SplitJob) -> None:
        """Writes, as a build option, the ids of the triplets of a split in the order of the plan."""
        plan = job.planned.plan
        if not self.options.triplets_csv or plan.kind is not TRIPLETS:
            return
        with (self._data_dir / triplets_file.csv_name(job.split)).open("w") as file:
            file.write(triplets_file.CSV_HEADER)
            for first, rows in plan_in_chunks(plan, job.num_examples):
                keys = plan.keys(first, first + len(rows))
                for number, (key, planned) in enumerate(zip(keys, rows.tolist(), strict=True), first):
                    chosen = job.exceptions.get(number, planned)
                    if not isinstance(chosen, str):
                        example = make_example(plan.kind, plan.table, chosen, [None] * len(chosen))
                        file.write(triplets_file.format_csv_line(key, example))

    def write_report(self, asked_for: dict[str, Any]) -> None:
        """Writes build_report.json: what was asked for, the options and what came of it."""
        options = dataclasses.asdict(self.options) | self.workers_and_readers()
        content = asked_for | {"build_options": options} | self.report.as_json()
        (self._data_dir / REPORT_NAME).write_text(json.dumps(content, indent=2) + "\n")

    def _look_up(self, images: ImageSet, rows: npt.NDArray[np.int32]) -> None:
        """Raises MissingImagesError if more of a sample of the images is missing than may be unreadable."""
        source = images.source
        sample = rows[np.linspace(0, len(rows) - 1, min(_NUM_LOOKED_UP, len(rows))).astype(np.int64)]
        ids: list[int] = images.table.image_ids[sample].tolist()

        def find_missing(start: int) -> list[int]:
            return [i for i in ids[start : start + _LOOKED_UP_TOGETHER] if not source.exists(i)]

        with ThreadPoolExecutor(self.options.num_readers(source.is_remote)) as pool:
            groups = pool.map(find_missing, range(0, len(ids), _LOOKED_UP_TOGETHER))
            missing = [image_id for group in groups for image_id in group]
        if len(missing) < _MIN_MISSING or len(missing) <= self.options.max_unreadable * len(sample):
            return
        share = len(missing) / len(sample)
        if len(sample) == len(rows):
            found = f"{len(missing):,} of the {len(rows):,} images of this dataset have no file ({share:.0%})."
        else:
            found = (
                f"{len(missing):,} of {len(sample):,} images looked up have no file, so about {share:.0%} of the"
                f" {len(rows):,} images of this dataset are missing."
            )
        raise MissingImagesError(
            f"{found} For example {source.locate(missing[0])} and {format_image_id(missing[1])}. Fetch the rest; or,"
            " to build from the images that are there, use a config with missing_images='drop', such as --config"
            """ '{"name": "128px_partial", "missing_images": "drop"}'."""
            f" (LANDMARK_TRIPLETS_MAX_UNREADABLE={min(1, share + 0.01):.0%} would also let this build start, and go on"
            " without the missing ones.)"
        )
