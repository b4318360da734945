"""The triplets as TFDS sees them: configs, features, splits, versions."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import ClassVar

import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig, named_configs
from landmark_triplets_tfds.build.hooks import LandmarkBuilder
from landmark_triplets_tfds.common.checks import check_bool, check_int
from landmark_triplets_tfds.triplets.examples import TRIPLETS, ExampleKind
from landmark_triplets_tfds.triplets.sampling import SamplingSpec
from landmark_triplets_tfds.triplets.triplets_file import TripletsFileSpec, read_triplets_file


@dataclasses.dataclass(eq=False, kw_only=True)
class LandmarkTripletsConfig(LandmarkBuilderConfig):
    """What a dataset of triplets is made of. Each field decides its bytes.

    Attributes:
      images_per_landmark: anchors per landmark, its first n images in train.csv order; None: all.
      triplets_per_anchor: triplets drawn for each anchor, each with its own positive and negative.
      positive_may_be_anchor: True gives the distribution of the notebook this package replaces, in which a positive
        may be the anchor itself.
      seed: of all draws, 0..2**63 - 1.
      triplets_file: path of a CSV or Parquet file with the columns anchor_id, positive_id and negative_id, whose
        triplets take the place of drawn ones. What is recorded with the dataset is a hash of the ids, not the path.

    All others are those of `LandmarkBuilderConfig`.

    Raises:
      ValueError: when a field is of another type or out of its range, or says how to draw beside `triplets_file`.
    """

    kind: ClassVar[ExampleKind] = TRIPLETS

    triplets_per_anchor: int = 1
    positive_may_be_anchor: bool = False
    seed: int = 0
    triplets_file: str | None = None

    def __post_init__(self) -> None:
        self.triplets_per_anchor = check_int("triplets_per_anchor", self.triplets_per_anchor, 1, 10_000)
        check_bool("positive_may_be_anchor", self.positive_may_be_anchor)
        self.seed = check_int("seed", self.seed, 0, 2**63 - 1)
        if self.triplets_file is not None:
            self._check_triplets_file()
        super().__post_init__()

    def _check_triplets_file(self) -> None:
        if not isinstance(self.triplets_file, str) or not self.triplets_file:
            raise ValueError(f"triplets_file must be the path of a CSV or Parquet file, got {self.triplets_file!r}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in _OF_DRAWS and value != field.default:
                raise ValueError(
                    f"{field.name} must be left out beside triplets_file, which decides the triplets alone, got"
                    f" {value!r}."
                )

    def file_fields(self) -> dict[str, Callable[[], str]]:
        return super().file_fields() | {"triplets_file": self._hash_triplets}

    def _hash_triplets(self) -> str:
        return read_triplets_file(self.triplets_file or "").content_hash

    def describe(self) -> str:
        if self.triplets_file is not None:
            return f"{self.describe_images()}; triplets from a file{self.describe_holdout()}."
        per_landmark = {None: "all images", 1: "1 image"}.get(
            self.images_per_landmark, f"{self.images_per_landmark} images"
        )
        text = f"{self.describe_images()}; anchors: {per_landmark} per landmark"
        num_triplets = _NUM_TRIPLETS.get(self.images_per_landmark)
        if num_triplets is not None:
            text += f"; {num_triplets * self.triplets_per_anchor:,} triplets from the whole competition"
        text += f"{self.describe_holdout()}."
        if self.images_per_landmark is None and self.resolution >= _LARGE_PX:
            text += " Large: each image is stored about three times; landmark_images stores it once."
        return text

    def example_spec(self, split: str) -> SamplingSpec | TripletsFileSpec:
        if self.triplets_file is not None:
            return TripletsFileSpec(
                path=self.triplets_file,
                positive_may_be_anchor=self.positive_may_be_anchor,
                validation_percent=self.validation_percent,
                split=split,
            )
        return SamplingSpec(
            images_per_landmark=self.images_per_landmark,
            triplets_per_anchor=self.triplets_per_anchor,
            positive_may_be_anchor=self.positive_may_be_anchor,
            seed=self.seed,
            validation_percent=self.validation_percent,
            split=split,
        )


# What says how triplets are drawn, and nothing where they are given.
_OF_DRAWS = ("images_per_landmark", "triplets_per_anchor", "seed")

# Triplets of all images at this resolution and above are hundreds of gigabytes.
_LARGE_PX = 256

# Triplets that the competition's 81,313 landmarks give, by images_per_landmark; each landmark has at least two images.
_NUM_TRIPLETS = {1: 81_313, 2: 2 * 81_313, None: 1_580_470}


class LandmarkTriplets(LandmarkBuilder):
    """Triplets (anchor, positive, negative) of the Google Landmark Retrieval 2020 competition."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = named_configs(LandmarkTripletsConfig)
    DEFAULT_BUILDER_CONFIG_NAME = "128px"
