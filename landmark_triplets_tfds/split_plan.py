"""The plan of a split as a build makes it, for those who only look: drawn, listed in a file, or of single images."""

from __future__ import annotations

from landmark_triplets_tfds.builder_config import LandmarkBuilderConfig
from landmark_triplets_tfds.chosen_splits import ChosenSplits
from landmark_triplets_tfds.chosen_triplets import TripletsFileSpec
from landmark_triplets_tfds.example_plan import ExamplePlan, make_plan
from landmark_triplets_tfds.table_selection import ImageSet, Selection
from landmark_triplets_tfds.triplets_file import read_triplets_file


def images_of_split(selection: Selection, split: str) -> ImageSet:
    """Returns the images that a split is made from."""
    return selection.unlabeled.get(split) or selection.images


def plan_split(selection: Selection, config: LandmarkBuilderConfig, split: str) -> ExamplePlan:
    """Returns the plan of a split; its rows are those of ``images_of_split(selection, split)``.

    Raises:
      NoTripletError, EmptySplitError: if it holds no example.
      TripletsFileError: if the file of triplets does not fit the table.
      OSError: if that file cannot be read.
    """
    spec, table = config.example_spec(split), images_of_split(selection, split).table
    if not isinstance(spec, TripletsFileSpec):
        return make_plan(table, spec)
    splits = ChosenSplits(read_triplets_file(spec.path), spec, selection.whole, selection.not_excluded, table)
    return make_plan(table, splits.of_split(split)[0])
