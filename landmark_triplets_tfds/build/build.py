"""One build, here or on a cluster: from the folder with the competition's files to the finished report.

`builder_base` says when TFDS wants what; a build reads the table, plans splits, looks whether the images are there, and
stops when too much would be left out. How thumbnails are made is up to `local_build` and `beam_build`.

The plan of a split as a build makes it, for those who only look: drawn, listed in a file, or of single images.
"""

from __future__ import annotations

from collections import Counter
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
from landmark_triplets_tfds.triplets import plan as assembly
from landmark_triplets_tfds.build import report as build_report
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import BuildReport, UnreadableImage
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.triplets.triplets_file import ChosenSplits
from landmark_triplets_tfds.triplets.triplets_file import ChosenTriplets, TripletsFileSpec
from landmark_triplets_tfds.errors import MissingImagesError, UnreadableImageError
from landmark_triplets_tfds.triplets.plan import ExampleCounts, ExamplePlan, ExampleSpec, SplitSpec, make_plan
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.common.progress import listing_bar
from landmark_triplets_tfds.triplets.sampling import Rows
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.competition.selection import ImageSet, select_images
from landmark_triplets_tfds.triplets.triplets_file import read_triplets_file
from landmark_triplets_tfds.triplets.triplets_file import TripletsFileSpec
from landmark_triplets_tfds.triplets.plan import ExamplePlan, make_plan
from landmark_triplets_tfds.competition.selection import ImageSet, Selection


_AnyBuild = TypeVar("_AnyBuild", bound="Build")

# Images looked up before a build starts: enough to estimate the missing share to about 2 %, done within seconds.
_NUM_LOOKED_UP = 2000
_LOOKED_UP_TOGETHER = 250  # a task of its own for each would cost more than looking in a local folder
_MIN_MISSING = 10


@dataclasses.dataclass(frozen=True)
class SplitJob:
    """A split to make.

    Attributes:
      split: its name.
      images: the table that ``rows`` belong to, and where the files are.
      spec: what decides the plan.
      plan: the examples.
      num_examples: how many of them to make.
      rows: int64[num_images], ascending: the distinct images of these, before redraws.
      max_num_unreadable: of these images, how many may be.
      counts: what became of the examples.
      unreadable_rows: rows of the images that turned out unreadable, once all were looked at.
    """

    split: str
    images: ImageSet
    spec: ExampleSpec
    plan: ExamplePlan
    num_examples: int
    rows: Rows
    max_num_unreadable: int
    counts: ExampleCounts = dataclasses.field(default_factory=ExampleCounts)
    unreadable_rows: set[int] = dataclasses.field(default_factory=set)

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
        build_report.check_num_unreadable(unreadable, self.max_num_unreadable, len(self.rows))
        return unreadable


class Build:
    """A build in progress. A context manager: leaving it lets go of all that was opened.

    Attributes:
      jobs: the splits so far.
      file_hashes: of what was read from files that fields of the config name, by field.
    """

    _chosen: ChosenSplits | None = None

    def __init__(
        self, manual_dir: epath.Path, data_dir: epath.Path, config: LandmarkBuilderConfig, max_examples: int | None
    ):
        """Finds the files and reads the table.

        Args:
          manual_dir: the folder with the competition's files.
          data_dir: where the dataset is being written.
          config: of the dataset.
          max_examples: per split; None: all.
        """
        self.options = BuildOptions.from_environment()
        self.jobs: list[SplitJob] = []
        self.file_hashes: dict[str, str] = {}
        self._data_dir = data_dir
        self._thumbnail_spec = config.thumbnail_spec()
        self._max_examples = max_examples
        self._resources = contextlib.ExitStack()
        started = time.perf_counter()
        self.source = find_source(manual_dir, self.options.bank)
        with listing_bar("Indexing archives", " archives") as advance:
            self.source.prepare(self.options.num_readers(self.source.is_remote), advance)
        self._selection = select_images(self.source, config, self.options)
        self.table = self._selection.images.table
        self.unlabeled = self._selection.unlabeled
        self.report = BuildReport(
            self._selection, config.example_noun, seconds={"read_table": time.perf_counter() - started}
        )

    def __enter__(self: _AnyBuild) -> _AnyBuild:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def make_split(self, split: str, spec: ExampleSpec | SplitSpec, images: ImageSet | None = None) -> Any:
        """Plans a split.

        Args:
          split: its name.
          spec: says which examples.
          images: to draw from; None: those of the table.

        Returns:
          What TFDS wants of a split: an iterator over (key, example), or a PTransform that makes them.

        Raises:
          NoExampleError: if there is no example.
          TripletsFileError: if the file that names the triplets cannot be used.
          MissingImagesError: if a sample of its images shows that many files are missing.
        """
        images = images or self._selection.images
        left_out: Counter[str] = Counter()
        if isinstance(spec, TripletsFileSpec):
            with self.report.stage("read_triplets_file"):
                spec, left_out = self._choose(spec)
        with self.report.stage("plan"):
            plan = make_plan(images.table, spec)
            num_examples = plan.num_examples
            if self._max_examples is not None:
                num_examples = min(num_examples, self._max_examples)
            rows = assembly.find_distinct_images(plan, num_examples, images.table.num_images)
        limit = self.options.max_num_unreadable(len(rows))
        job = SplitJob(split, images, spec, plan, num_examples, rows, limit, ExampleCounts(left_out=left_out))
        with self.report.stage("look_up_images"):
            self._look_up(images, rows)
        self.jobs.append(job)
        self.report.splits[split] = job.counts
        return self._examples_of(job)

    def _choose(self, spec: TripletsFileSpec) -> tuple[ChosenTriplets, Counter[str]]:
        """Returns the triplets that a file has for a split, and why others are left out. The file is read once."""
        if self._chosen is None:
            file = read_triplets_file(spec.path)
            self.file_hashes["triplets_file"] = file.content_hash
            selection = self._selection
            self._chosen = ChosenSplits(file, spec, selection.whole, selection.not_excluded, selection.images.table)
        return self._chosen.of_split(spec.split)

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
        (self._data_dir / build_report.REPORT_NAME).write_text(json.dumps(content, indent=2) + "\n")

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


def images_of_split(selection: Selection, split: str) -> ImageSet:
    """Returns the images that a split is made from."""
    return selection.unlabeled.get(split) or selection.images


def plan_split(selection: Selection, config: LandmarkBuilderConfig, split: str) -> ExamplePlan:
    """Returns the plan of a split; its rows are those of ``images_of_split(selection, split)``.

    Raises:
      NoExampleError: if it holds no example.
      TripletsFileError: if the file of triplets does not fit the table.
      OSError: if that file cannot be read.
    """
    spec, table = config.example_spec(split), images_of_split(selection, split).table
    if not isinstance(spec, TripletsFileSpec):
        return make_plan(table, spec)
    splits = ChosenSplits(read_triplets_file(spec.path), spec, selection.whole, selection.not_excluded, table)
    return make_plan(table, splits.of_split(split)[0])
