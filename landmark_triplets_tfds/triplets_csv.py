"""The file triplets.csv, a build option: which images make up which triplet, for looking at without pictures.

Its lines are in the order of the plan, whoever writes them: one thread here, or many workers on a cluster.
"""

from __future__ import annotations

from typing import Any

TRIPLETS_NAME = "triplets.csv"

_ID_FIELDS = ("anchor_id", "positive_id", "negative_id", "landmark_id", "negative_landmark_id")

HEADER = ",".join(("key", *_ID_FIELDS)) + "\n"


def format_line(key: str, example: dict[str, Any]) -> str:
    """Returns the line of one triplet. Ids are hex digits and whole numbers, so nothing needs quoting."""
    return ",".join([key, *(str(example[field]) for field in _ID_FIELDS)]) + "\n"
