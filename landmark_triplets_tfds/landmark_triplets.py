"""The triplets as TFDS sees them: configs, features, splits, versions."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import re
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from landmark_triplets_tfds import assembly
from landmark_triplets_tfds.beam_build import BeamBuild
from landmark_triplets_tfds.builder_base import LandmarkBuilder, LandmarkBuilderConfig
from landmark_triplets_tfds.local_build import LocalBuild
from landmark_triplets_tfds.resizing import FITS
from landmark_triplets_tfds.sampling import Rows, SamplingSpec, TripletSampler
from landmark_triplets_tfds.thumbnails import RESIZE_METHODS, ThumbnailSpec

_NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")  # it becomes the name of a folder


@dataclasses.dataclass(eq=False, kw_only=True)
class LandmarkTripletsConfig(LandmarkBuilderConfig):
    """What a dataset of triplets is made of. Each field decides its bytes.

    Attributes:
      resolution: side of the square stored images, px, 8..2048.
      images_per_landmark: anchors per landmark, its first n images in train.csv order; None: all.
      triplets_per_anchor: triplets drawn for each anchor, each with its own positive and negative.
      jpeg_quality: 1..100.
      resize_method: 'nearest' takes one source pixel per stored pixel, as the notebook did, and aliases; 'area'
        averages all source pixels that a stored pixel covers.
      fit: how a photograph becomes square: 'squash' ignores the aspect ratio, as the notebook did; 'crop' takes the
        centred square; 'pad' adds black bars.
      missing_images: 'error' stops the build when many images of the table have no file; 'drop' leaves them out of the
        table before sampling.
      positive_may_be_anchor: True gives the distribution of the notebook this package replaces, in which a positive
        may be the anchor itself.
      seed: of all draws, 0..2**63 - 1.

    Raises:
      ValueError: when a field is of another type or out of its range.
    """

    resolution: int = 128
    images_per_landmark: int | None = 2
    triplets_per_anchor: int = 1
    jpeg_quality: int = 94
    resize_method: str = "nearest"
    fit: str = "squash"
    missing_images: str = "error"
    positive_may_be_anchor: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME_PATTERN.fullmatch(self.name):
            raise ValueError(f"name must be letters, digits, '_', '.' and '-', got {self.name!r}.")
        _check_int("resolution", self.resolution, 8, 2048, "px")
        if self.images_per_landmark is not None:
            _check_int("images_per_landmark", self.images_per_landmark, 1, 2**31 - 1, "(or None for all)")
        _check_int("triplets_per_anchor", self.triplets_per_anchor, 1, 10_000)
        _check_int("jpeg_quality", self.jpeg_quality, 1, 100)
        _check_choice("resize_method", self.resize_method, RESIZE_METHODS)
        _check_choice("fit", self.fit, FITS)
        _check_choice("missing_images", self.missing_images, ("error", "drop"))
        if not isinstance(self.positive_may_be_anchor, bool):
            raise ValueError(f"positive_may_be_anchor must be True or False, got {self.positive_may_be_anchor!r}.")
        _check_int("seed", self.seed, 0, 2**63 - 1)
        if self.description is None:
            self.description = self._describe()

    def _describe(self) -> str:
        per_landmark = {None: "all images", 1: "1 image"}.get(
            self.images_per_landmark, f"{self.images_per_landmark} images"
        )
        pixels = "antialiased, " if self.resize_method == "area" else ""
        text = f"{pixels}{self.resolution} x {self.resolution} px; anchors: {per_landmark} per landmark"
        num_triplets = _NUM_TRIPLETS.get(self.images_per_landmark)
        if num_triplets is not None:
            text += f"; {num_triplets * self.triplets_per_anchor:,} triplets from the whole competition"
        return text[0].upper() + text[1:] + "."

    def dataset_fields(self) -> dict[str, Any]:
        own = {field.name for field in dataclasses.fields(self)}
        inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        return {name: getattr(self, name) for name in sorted(own - inherited)}

    def thumbnail_spec(self) -> ThumbnailSpec:
        return ThumbnailSpec(
            resolution=self.resolution,
            jpeg_quality=self.jpeg_quality,
            resize_method=self.resize_method,
            fit=self.fit,
        )

    def sampling_spec(self) -> SamplingSpec:
        return SamplingSpec(
            images_per_landmark=self.images_per_landmark,
            triplets_per_anchor=self.triplets_per_anchor,
            positive_may_be_anchor=self.positive_may_be_anchor,
            seed=self.seed,
        )


# Triplets that the competition's 81,313 landmarks give, by images_per_landmark; each landmark has at least two images.
_NUM_TRIPLETS = {1: 81_313, 2: 2 * 81_313, None: 1_580_470}


def _check_int(name: str, value: object, lowest: int, highest: int, unit: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        unit = f" {unit}" if unit else ""
        raise ValueError(f"{name} must be a whole number between {lowest} and {highest}{unit}, got {value!r}.")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def _named_configs() -> list[LandmarkTripletsConfig]:
    samples = {"": 2, "_1per": 1, "_8per": 8, "_all": None}
    configs = [
        LandmarkTripletsConfig(name=f"{resolution}px{suffix}", resolution=resolution, images_per_landmark=sample)
        for resolution in (64, 128, 256, 512)
        for suffix, sample in samples.items()
    ]
    configs += [
        LandmarkTripletsConfig(
            name=f"{resolution}px_area{suffix}",
            resolution=resolution,
            images_per_landmark=samples[suffix],
            resize_method="area",
        )
        for resolution in (128, 256, 512)
        for suffix in ("", "_all")
    ]
    return configs


class LandmarkTriplets(LandmarkBuilder):
    """Triplets (anchor, positive, negative) of the Google Landmark Retrieval 2020 competition."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = _named_configs()
    DEFAULT_BUILDER_CONFIG_NAME = "128px"

    def _info(self) -> tfds.core.DatasetInfo:
        resolution = self.builder_config.resolution
        image = tfds.features.Image(shape=(resolution, resolution, 3), encoding_format="jpeg")
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "anchor_img": image,
                    "positive_img": image,
                    "negative_img": image,
                    "anchor_id": tfds.features.Text(),
                    "positive_id": tfds.features.Text(),
                    "negative_id": tfds.features.Text(),
                    "landmark_id": tfds.features.Scalar(np.int64),
                    "negative_landmark_id": tfds.features.Scalar(np.int64),
                }
            ),
            supervised_keys=(("anchor_img", "positive_img", "negative_img"), "landmark_id"),
            homepage="https://www.kaggle.com/c/landmark-retrieval-2020",
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples(self._build)}

    def _generate_examples(self, build: BeamBuild | LocalBuild) -> Any:
        """Returns an iterator of keyed examples or, on a cluster, a PTransform that makes them."""
        spec = self.builder_config.sampling_spec()
        with build.report.stage("plan"):
            table, sampler = build.table, TripletSampler(build.table, spec)
            num_triplets = sampler.num_triplets
            if self._max_examples is not None:
                num_triplets = min(num_triplets, self._max_examples)
            rows = assembly.find_distinct_images(sampler, num_triplets, table.num_images)
        if isinstance(build, BeamBuild):
            return build.make_examples(spec, num_triplets, rows)

        def in_order_of_use() -> Iterator[Rows]:
            return (rows.ravel() for _, rows in assembly.plan_in_chunks(sampler, num_triplets))

        bank = build.open_bank(rows, in_order_of_use)
        examples = assembly.assemble(
            table, sampler, bank.get, num_triplets, build.report.triplets, announce=bank.expect
        )
        return build.follow(examples)
