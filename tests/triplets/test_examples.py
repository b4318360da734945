from __future__ import annotations

import pytest

from landmark_triplets_tfds.triplets.examples import (
    IMAGES,
    KINDS,
    TRIPLETS,
    ExampleKind,
    kind_of_dataset,
    kind_of_features,
)

TRIPLET_FEATURES = {
    "anchor_img",
    "positive_img",
    "negative_img",
    "anchor_id",
    "positive_id",
    "negative_id",
    "landmark_id",
    "negative_landmark_id",
}
IMAGE_FEATURES = {"image", "image_id", "landmark_id"}


@pytest.mark.parametrize(
    ("kind", "num_images", "names"), [(TRIPLETS, 3, TRIPLET_FEATURES), (IMAGES, 1, IMAGE_FEATURES)]
)
def test_features_of_each_image(kind: ExampleKind, num_images: int, names: set[str]) -> None:
    assert kind.num_images == num_images
    assert kind.feature_names == names
    for features in (kind.image_features, kind.id_features, kind.landmark_features):
        assert len(features) == num_images


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (TRIPLET_FEATURES, TRIPLETS),
        (IMAGE_FEATURES, IMAGES),
        ([*TRIPLET_FEATURES, "cosine"], TRIPLETS),
        (["image", "image_id"], None),
        (TRIPLET_FEATURES - {"negative_landmark_id"}, None),
        (["image", "label"], None),
        ([], None),
    ],
)
def test_a_kind_is_known_by_its_features(names: list[str], kind: ExampleKind | None) -> None:
    assert kind_of_features(names) is kind


def test_a_kind_is_known_by_its_dataset() -> None:
    assert kind_of_dataset("landmark_triplets") is TRIPLETS
    assert kind_of_dataset("landmark_images") is IMAGES
    assert kind_of_dataset("mnist") is None


def test_nothing_says_the_same_of_both_kinds() -> None:
    assert KINDS == (TRIPLETS, IMAGES)
    for field in ("dataset", "noun", "count_name", "image_features", "id_features"):
        assert getattr(TRIPLETS, field) != getattr(IMAGES, field)
