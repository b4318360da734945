"""Single images with their landmarks, each once, as TFDS sees them: what batches and fresh triplets are made from."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.build import Build
from landmark_triplets_tfds.build.config import LandmarkBuilderConfig, named_configs
from landmark_triplets_tfds.build.hooks import LandmarkBuilder
from landmark_triplets_tfds.build.shards import Target
from landmark_triplets_tfds.common.checks import check_bool
from landmark_triplets_tfds.competition.layout import UNLABELED_NAMES
from landmark_triplets_tfds.training.records import (
    INDEX_NAME,
    ImageIndex,
    check_landmark_ids,
    write_image_index,
)
from landmark_triplets_tfds.triplets.examples import IMAGES, ExampleKind
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec


@dataclasses.dataclass(eq=False, kw_only=True)
class LandmarkImagesConfig(LandmarkBuilderConfig):
    """What a dataset of single images is made of.

    Attributes:
      unlabeled_splits: True makes splits `index` and `test` of the images in the competition's folders ``index/`` and
        ``test/``, all of them, with the landmark_id -1; of one of them, where the other is not there. They are in no
        table: what is there when the dataset is built is recorded with it.

    All others are those of `LandmarkBuilderConfig`, and are about the images of the table, but for what images look
    like.

    Raises:
      ValueError: when a field is of another type or out of its range.
    """

    kind: ClassVar[ExampleKind] = IMAGES

    unlabeled_splits: bool = False

    def __post_init__(self) -> None:
        check_bool("unlabeled_splits", self.unlabeled_splits)
        super().__post_init__()

    def describe(self) -> str:
        per_landmark = {None: "all images", 1: "1 image"}.get(
            self.images_per_landmark, f"up to {self.images_per_landmark} images"
        )
        text = f"{self.describe_images()}; {per_landmark} per landmark"
        if self.images_per_landmark is None:
            text += ", 1,580,470 in the whole competition"
        unlabeled = f"; also {' and '.join(UNLABELED_NAMES)}, without labels" if self.unlabeled_splits else ""
        return f"{text}{self.describe_holdout()}{unlabeled}."

    def unlabeled_folders(self) -> tuple[str, ...]:
        return UNLABELED_NAMES if self.unlabeled_splits else ()

    def example_spec(self, split: str) -> ImageSamplingSpec:
        if split in UNLABELED_NAMES:  # without landmarks, there is nothing to sample or hold out by
            return ImageSamplingSpec(split=split)
        return ImageSamplingSpec(
            images_per_landmark=self.images_per_landmark, validation_percent=self.validation_percent, split=split
        )


class LandmarkImages(LandmarkBuilder):
    """Images of the Google Landmark Retrieval 2020 competition, each once, with the landmark it shows."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = named_configs(LandmarkImagesConfig)
    DEFAULT_BUILDER_CONFIG_NAME = "128px_all"

    def _target(self, download_config: tfds.download.DownloadConfig) -> Target:
        check_landmark_ids(self._build.selection.images.table.landmark_ids)  # now, not when all is done
        return super()._target(download_config)

    def _write_more(self, build: Build) -> None:
        """Writes `index.npz`: which image is in which record."""
        splits = {}
        for job in build.jobs:
            table, rows = job.images.table, job.record_rows[:, 0]
            splits[job.split] = ImageIndex(table.image_ids[rows], table.landmark_ids[rows].astype(np.int32))
        write_image_index(self.data_path / INDEX_NAME, splits)
