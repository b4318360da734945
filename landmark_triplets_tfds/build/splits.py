"""Which images a config takes, and the plan of each of its splits: for a build, and for all that look without building.

A forecast, a preview and a check of a prepared dataset must plan what a build plans, so they plan with this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
import dataclasses

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.competition.selection import ImageSet, Selection, select_images
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.plan import ExamplePlan, ExampleSpec, make_plan
from landmark_triplets_tfds.triplets.triplets_file import (
    GivenRows,
    GivenTriplets,
    TripletsFileSpec,
    read_triplets_file,
)


def select_images_of(config: LandmarkBuilderConfig, source: ImageSource, options: BuildOptions) -> Selection:
    """Reads the table of a source and selects the images that a config wants, see `select_images`."""
    return select_images(
        source,
        excluded_landmarks=config.excluded_landmarks(),
        missing_images=config.missing_images,
        unlabeled_folders=config.unlabeled_folders(),
        index_folder=options.bank,
        num_threads=options.num_readers(source.is_remote),
    )


@dataclasses.dataclass(frozen=True)
class PlannedSplit:
    """A split as it is planned.

    Attributes:
      split: its name.
      images: the table that the plan's rows belong to, and where the files are.
      spec: what decides the plan.
      plan: the examples.
      left_out: how many triplets of a file are not planned, by reason.
    """

    split: str
    images: ImageSet
    spec: ExampleSpec
    plan: ExamplePlan
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)


class SplitPlanner:
    """Plans the splits of a config. A file of triplets is read once for all of them.

    Attributes:
      file_hashes: hashes of what was read from files that fields of the config name, by field.
    """

    _given: GivenTriplets | None = None

    def __init__(
        self,
        selection: Selection,
        config: LandmarkBuilderConfig,
        stage: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ):
        """Takes what to plan.

        Args:
          selection: the images that were selected for the config, see `select_images_of`.
          config: says which splits there are, and which examples.
          stage: is entered, with its name, for each stage of the work.
        """
        self._selection = selection
        self._config = config
        self._stage = stage
        self.file_hashes: dict[str, str] = {}

    def splits(self) -> list[str]:
        """Returns the names of all splits: those of the images in the table, and of images without labels."""
        unlabeled = [split for split, images in self._selection.unlabeled.items() if images.table.num_images]
        return [*self._config.splits(), *unlabeled]

    def images_of(self, split: str) -> ImageSet:
        """Returns the images that a split is made from."""
        return self._selection.unlabeled.get(split) or self._selection.images

    def plan_split(self, split: str) -> PlannedSplit:
        """Plans a split.

        Raises:
          NoExampleError: if it holds no example.
          TripletsFileError: if the file of triplets cannot be used, or does not fit the table.
          OSError: if that file cannot be read.
        """
        images, asked_for = self.images_of(split), self._config.example_spec(split)
        spec: ExampleSpec
        left_out: Counter[str] = Counter()
        if isinstance(asked_for, TripletsFileSpec):
            with self._stage("read_triplets_file"):
                spec, left_out = self._read_given(asked_for)
        else:
            spec = asked_for
        with self._stage("plan"):
            try:
                return PlannedSplit(split, images, spec, make_plan(images.table, spec), left_out)
            except NoExampleError as error:
                raise NoExampleError(f"{images.source.table_path}: {error}") from None

    def _read_given(self, spec: TripletsFileSpec) -> tuple[GivenRows, Counter[str]]:
        """Returns the triplets that a file has for a split, and how many others it has, by reason."""
        if self._given is None:
            file = read_triplets_file(spec.path)
            self.file_hashes["triplets_file"] = file.content_hash
            self._given = GivenTriplets(file, spec, self._selection)
        return self._given.of_split(spec.split)
