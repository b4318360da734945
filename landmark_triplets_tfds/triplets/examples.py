"""The two kinds of example, a triplet and a single image: what they are called, and what their features are.

Everything that has to tell them apart asks here: the datasets for their features, builds and reports for their words,
readers and checks for the names in a record.
"""

from __future__ import annotations

from collections.abc import Collection
import dataclasses


@dataclasses.dataclass(frozen=True)
class ExampleKind:
    """What an example is.

    The k images of an example are always spoken of in the same order: one; or anchor, positive and negative.

    Attributes:
      dataset: the name of the dataset that holds them, as TFDS knows it.
      noun: what several of them are called.
      count_name: stands behind ``num_`` in metadata and reports ("num_images" counts those of the table).
      image_features: str[k], the features that hold the images.
      id_features: str[k], the features that hold the images' ids.
      landmark_features: str[k], the features that say which landmark each image shows; one may say it of several.
    """

    dataset: str
    noun: str
    count_name: str
    image_features: tuple[str, ...]
    id_features: tuple[str, ...]
    landmark_features: tuple[str, ...]

    @property
    def num_images(self) -> int:
        """Images in an example, k."""
        return len(self.image_features)

    @property
    def feature_names(self) -> frozenset[str]:
        """The names of all features of a record."""
        return frozenset({*self.image_features, *self.id_features, *self.landmark_features})


TRIPLETS = ExampleKind(
    dataset="landmark_triplets",
    noun="triplets",
    count_name="triplets",
    image_features=("anchor_img", "positive_img", "negative_img"),
    id_features=("anchor_id", "positive_id", "negative_id"),
    landmark_features=("landmark_id", "landmark_id", "negative_landmark_id"),
)
IMAGES = ExampleKind(
    dataset="landmark_images",
    noun="images",
    count_name="examples",
    image_features=("image",),
    id_features=("image_id",),
    landmark_features=("landmark_id",),
)
KINDS = (TRIPLETS, IMAGES)


def kind_of_features(names: Collection[str]) -> ExampleKind | None:
    """Returns the kind of example that has these features, and perhaps more; None if none has."""
    return next((kind for kind in KINDS if kind.feature_names <= set(names)), None)


def kind_of_dataset(name: str) -> ExampleKind | None:
    """Returns the kind of example in the dataset of this name; None if it is not one of ours."""
    return next((kind for kind in KINDS if kind.dataset == name), None)
