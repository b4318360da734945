"""docs/hard_triplets.md names what there is; tests/test_pages.py runs its commands."""

import dataclasses

import pytest

from landmark_triplets_tfds.mining.hard_triplets import (
    MAX_IMAGES_EXACT,
    NO_NEGATIVE,
    NO_POSITIVE,
    SINGLE_IMAGE,
    MiningSpec,
)
from tests.support.competition import REPOSITORY

TEXT = " ".join((REPOSITORY / "docs" / "hard_triplets.md").read_text().split())


@pytest.mark.parametrize("reason", [SINGLE_IMAGE, NO_POSITIVE, NO_NEGATIVE])
def test_reasons(reason):
    assert f"`{reason}`" in TEXT


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MiningSpec)])
def test_arguments(field):
    assert f"--{field}" in TEXT


def test_limits_and_defaults():
    spec = MiningSpec()
    assert f"up to {MAX_IMAGES_EXACT:,} images" in TEXT
    assert f"`--max_similarity` ({spec.max_similarity:g})" in TEXT
    assert f"`--neighbours` ({spec.neighbours})" in TEXT
    assert f"`--margin` ({spec.margin:g})" in TEXT
