"""One build, here or on a cluster: from the folder with the competition's files to the finished report.

`hooks` says when TFDS wants what; a build reads the table, plans splits, looks whether the images are there, and stops
when too much would be left out. How thumbnails are made is up to `local` and `beam`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import json
import time
from types import TracebackType
from typing import Any, TypeVar

from etils import epath
import numpy as np

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import REPORT_NAME, BuildReport, UnreadableImage, check_num_unreadable
from landmark_triplets_tfds.build.splits import PlannedSplit, SplitPlanner, select_images_of
from landmark_triplets_tfds.competition.selection import ImageSet
from landmark_triplets_tfds.competition.source import open_copy
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import MissingImagesError, UnreadableImageError
from landmark_triplets_tfds.triplets.plan import ExampleCounts, find_distinct_images
from landmark_triplets_tfds.triplets.sampling import Rows

_AnyBuild = TypeVar("_AnyBuild", bound="Build")

# Images looked up before a build starts: enough to estimate the missing share to about 2 %, done within seconds.
_NUM_LOOKED_UP = 2000
_LOOKED_UP_TOGETHER = 250  # a task of its own for each would cost more than looking in a local folder
_MIN_MISSING = 10


@dataclasses.dataclass
class SplitJob:
    """A split in the making.

    Attributes:
      planned: what it is to hold.
      num_examples: how many of the examples to make.
      rows: int64[num_images], ascending: the distinct images of these, before redraws.
      max_num_unreadable: of these images, how many may be.
      counts: what became of the examples.
      unreadable_rows: rows of the images that turned out unreadable, once all were looked at.
    """

    planned: PlannedSplit
    num_examples: int
    rows: Rows
    max_num_unreadable: int
    counts: ExampleCounts = dataclasses.field(default_factory=ExampleCounts)
    unreadable_rows: set[int] = dataclasses.field(default_factory=set)

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
        """Notes which images are unreadable and returns the same list.

        Raises:
          TooManyUnreadableError: if there are too many.
        """
        self.unreadable_rows.update(errors)
        unreadable = self.list_unreadable(errors)
        check_num_unreadable(unreadable, self.max_num_unreadable, len(self.rows))
        return unreadable


class Build:
    """A build in progress. A context manager: leaving it lets go of all that was opened.

    Attributes:
      options: what it may use.
      planner: of its splits.
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
        self._resources = contextlib.ExitStack()
        started = time.perf_counter()
        num_threads = options.num_readers_of(manual_dir)
        self.source = open_copy(manual_dir, options.bank, num_threads)
        self._selection = select_images_of(config, self.source, options)
        self.table = self._selection.images.table
        self.report = BuildReport(self._selection, config.kind, seconds={"read_table": time.perf_counter() - started})
        self.planner = SplitPlanner(self._selection, config, self.report.stage)

    def __enter__(self: _AnyBuild) -> _AnyBuild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def make_split(self, split: str) -> Any:
        """Plans a split, and looks whether its images are there.

        Returns:
          What TFDS wants of a split: an iterator over (key, example), or a PTransform that makes them.

        Raises:
          NoExampleError: if there is no example.
          TripletsFileError: if the file that names the triplets cannot be used.
          MissingImagesError: if a sample of its images shows that many files are missing.
        """
        planned = self.planner.plan_split(split)
        with self.report.stage("plan"):
            num_examples = planned.plan.num_examples
            if self._max_examples is not None:
                num_examples = min(num_examples, self._max_examples)
            rows = find_distinct_images(planned.plan, num_examples)
        limit = self.options.max_num_unreadable(len(rows))
        job = SplitJob(planned, num_examples, rows, limit, ExampleCounts(left_out=planned.left_out))
        with self.report.stage("look_up_images"):
            self._look_up(planned.images, rows)
        self.jobs.append(job)
        self.report.splits[split] = job.counts
        return self._examples_of(job)

    def _examples_of(self, job: SplitJob) -> Any:
        """Returns what TFDS wants of a split."""
        raise NotImplementedError

    def finish(self) -> None:
        """Completes the report once TFDS has written the shards; raises if too much was unreadable."""
        raise NotImplementedError

    def fingerprints(self) -> dict[str, Any]:
        """Returns what tells whether another build is from the same images."""
        return self._selection.fingerprints()

    def threads_used(self) -> dict[str, int | None]:
        """Returns the numbers of workers and readers; None: not decided here."""
        raise NotImplementedError

    def write_report(self, asked_for: dict[str, Any]) -> None:
        """Writes build_report.json: what was asked for, the options and what came of it."""
        options = dataclasses.asdict(self.options) | self.threads_used()
        content = asked_for | {"build_options": options} | self.report.as_json()
        (self._data_dir / REPORT_NAME).write_text(json.dumps(content, indent=2) + "\n")

    def _look_up(self, images: ImageSet, rows: Rows) -> None:
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
