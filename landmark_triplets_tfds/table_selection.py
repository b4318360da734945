"""Which images of train.csv a dataset is made from: all, but for excluded landmarks and, if wanted, missing files."""

from __future__ import annotations

import dataclasses

import numpy as np

from landmark_triplets_tfds.build_options import BuildOptions
from landmark_triplets_tfds.builder_config import LandmarkBuilderConfig
from landmark_triplets_tfds.errors import LandmarkTableError
from landmark_triplets_tfds.landmarks import LandmarkTable
from landmark_triplets_tfds.progress import listing_bar
from landmark_triplets_tfds.sources import ImageSource


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images: which landmarks they show, and where their files are."""

    table: LandmarkTable
    source: ImageSource


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
      images: to draw from.
      whole: the table as it was read.
      not_excluded: the table without the excluded landmarks.
    """

    images: ImageSet
    whole: LandmarkTable
    not_excluded: LandmarkTable


def select_images(source: ImageSource, config: LandmarkBuilderConfig, options: BuildOptions) -> Selection:
    """Reads the table of a source and takes out what the config says.

    Args:
      source: of the files.
      config: its ``exclude_landmarks`` and ``missing_images`` count.
      options: say how many threads list folders.

    Raises:
      LandmarkTableError: if the table or the list of excluded landmarks is invalid, or nothing is left.
    """
    whole = source.read_table()
    table = not_excluded = _exclude(whole, config)
    if config.missing_images == "drop":
        table = _drop_missing(not_excluded, source, options)
    return Selection(ImageSet(table, source), whole, not_excluded)


def _exclude(table: LandmarkTable, config: LandmarkBuilderConfig) -> LandmarkTable:
    excluded = np.isin(table.landmark_ids, config.excluded_landmarks())
    if not excluded.any():
        return table
    if excluded.all():
        raise LandmarkTableError(f"{config.exclude_landmarks} excludes all {table.num_landmarks:,} landmarks.")
    return table.restrict(~excluded)


def _drop_missing(table: LandmarkTable, source: ImageSource, options: BuildOptions) -> LandmarkTable:
    with listing_bar("Listing images", " folders") as advance:
        present = source.find_present(table.image_ids, options.num_readers(source.is_remote), advance)
    if not present.any():
        raise LandmarkTableError(
            f"None of the {table.num_images:,} images in {source.table_path} has a file; the first would be"
            f" {source.locate(int(table.image_ids[0]))}."
        )
    return table if present.all() else table.restrict(present)
