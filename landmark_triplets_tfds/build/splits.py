"""Which images a config takes, and the plan of each of its splits: for a build, and for all that look without building.

Of train.csv a config takes all images, but for excluded landmarks and, if wanted, missing files. If wanted, also those
of the folders ``index/`` and ``test/``, which no table lists: they are found by looking.

A forecast, a preview and a check of a prepared dataset must plan what a build plans, so they plan with this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
import dataclasses

from etils import epath
import numpy as np

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.competition.layout import IMAGES_NAME
from landmark_triplets_tfds.competition.selection import ImageSet, Selection, find_folder
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import LandmarkTableError, NoExampleError, SourceLayoutError
from landmark_triplets_tfds.triplets.plan import ExamplePlan, ExampleSpec, make_plan
from landmark_triplets_tfds.triplets.triplets_file import GivenRows, GivenTriplets, TripletsFileSpec, read_triplets_file


def select_images_of(config: LandmarkBuilderConfig, source: ImageSource, options: BuildOptions) -> Selection:
    """Reads the table of a source, takes out what a config does not want, and finds the images without labels.

    Raises:
      LandmarkTableError: if the table is invalid, or nothing is left of it.
      SourceLayoutError: if images without labels are wanted, and there are none.
      ArchiveError: if an archive with them cannot be used.
    """
    num_threads = options.num_readers(source.is_remote)
    whole = source.read_table()
    excluded = np.isin(whole.landmark_ids, config.excluded_landmarks())
    if excluded.all():
        raise LandmarkTableError(
            f"exclude_landmarks excludes all {whole.num_landmarks:,} landmarks of {source.table_path}."
        )
    table = not_excluded = whole.restrict(~excluded) if excluded.any() else whole
    if config.missing_images == "drop":
        table = _drop_missing(not_excluded, source, num_threads)
    unlabeled = {}
    for folder in config.unlabeled_folders():
        images = find_folder(source, folder, options.bank)
        images.prepare(num_threads)
        unlabeled[folder] = ImageSet(LandmarkTable.without_labels(images.list_images(num_threads)), images)
    if unlabeled and not any(images.table.num_images for images in unlabeled.values()):
        root = epath.Path(source.table_path).parent
        folders = " or ".join(str(root / folder) for folder in unlabeled)
        raise SourceLayoutError(
            f"unlabeled_splits=True, but there is no image in {folders}. Such a folder is beside {IMAGES_NAME}/, in the"
            " same folder or the same zip, and holds a/b/c/<id>.jpg or, outside of zips, images_000.tar and so on. Put"
            " one of them there, or use a config without unlabeled_splits."
        )
    return Selection(ImageSet(table, source), whole, not_excluded, unlabeled)


def _drop_missing(table: LandmarkTable, source: ImageSource, num_threads: int) -> LandmarkTable:
    present = source.find_present(table.image_ids, num_threads)
    if not present.any():
        raise LandmarkTableError(
            f"None of the {table.num_images:,} images in {source.table_path} has a file; the first would be"
            f" {source.locate(int(table.image_ids[0]))}."
        )
    return table if present.all() else table.restrict(present)


@dataclasses.dataclass(frozen=True)
class PlannedSplit:
    """A split as it is planned.

    Attributes:
      images: the table that the plan's rows belong to, and where the files are.
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
        """Takes what `select_images_of` selected for a config; ``stage`` is entered, with its name, for each stage."""
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
