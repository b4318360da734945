"""The file triplets.csv, a build option: which images make up which triplet, for looking at without pictures.

Its lines are in the order of the plan, whoever writes them: one thread here, or many workers on a cluster.
"""

from __future__ import annotations

from typing import Any

from landmark_triplets_tfds.example_plan import ExampleSpec
from landmark_triplets_tfds.holdout import TRAIN
from landmark_triplets_tfds.sampling import ImageSamplingSpec

_ID_FIELDS = ("anchor_id", "positive_id", "negative_id", "landmark_id", "negative_landmark_id")

HEADER = ",".join(("key", *_ID_FIELDS)) + "\n"


def applies_to(spec: ExampleSpec) -> bool:
    """Returns whether a split has triplets to list."""
    return not isinstance(spec, ImageSamplingSpec)


def name_for(split: str) -> str:
    """Returns the name of a split's file."""
    return "triplets.csv" if split == TRAIN else f"triplets-{split}.csv"


def format_line(key: str, example: dict[str, Any]) -> str:
    """Returns the line of one triplet. Ids are hex digits and whole numbers, so nothing needs quoting."""
    return ",".join([key, *(str(example[field]) for field in _ID_FIELDS)]) + "\n"
