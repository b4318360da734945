"""What is mined: the rules by which hard triplets are chosen, and their numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

PositiveRule = Literal["random", "hardest"]
NegativeRule = Literal["semi-hard", "hardest"]
SearchKind = Literal["auto", "exact", "approximate"]

# Up to here the exact search, about a minute on two cores, is worth its time.
MAX_IMAGES_EXACT = 200_000

_MAX_NEIGHBOURS = 10_000
_MAX_SEED = 2**64 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiningSpec:
    """Everything, beside the embeddings, that decides which triplets are mined.

    Attributes:
      positive: 'random': uniform among the other images of the landmark; 'hardest': the least similar of them, which
        also is where images with a wrong landmark come up. In both cases only those at or below ``max_similarity``.
      negative: 'semi-hard': less similar than the positive, but by less than the margin; the most similar of those. If
        there is none, the most similar of those that are less similar by more; if all neighbours are at least as
        similar as the positive, the least similar of them. 'hardest': the most similar.
      neighbours: how many of the nearest images of other landmarks the negative is one of.
      max_similarity: images above it are passed over, as positives and as negatives: an image of another landmark that
        is nearly the same picture most likely shows the anchor's landmark under another number, and a positive that is
        teaches nothing. At 0.95 the squared distance is 0.1, half of FaceNet's margin.
      margin: alpha of FaceNet, 0.2 there, in squared distance: half as much in similarity.
      seed: of the random positives, 0 <= seed < 2**64.
      search: 'exact'; 'approximate', by faiss; or 'auto': exact for up to `MAX_IMAGES_EXACT` images.

    Raises:
      ValueError: if a value is out of its range.
    """

    positive: PositiveRule = "random"
    negative: NegativeRule = "semi-hard"
    neighbours: int = 50
    max_similarity: float = 0.95
    margin: float = 0.2
    seed: int = 0
    search: SearchKind = "auto"

    def __post_init__(self) -> None:
        for name, rules in (("positive", PositiveRule), ("negative", NegativeRule), ("search", SearchKind)):
            if getattr(self, name) not in get_args(rules):
                allowed = " or ".join(map(repr, get_args(rules)))
                raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}.")
        if not (isinstance(self.neighbours, int) and 1 <= self.neighbours <= _MAX_NEIGHBOURS):
            raise ValueError(
                f"neighbours must be a whole number between 1 and {_MAX_NEIGHBOURS:,}, got {self.neighbours}."
            )
        if not -1 <= self.max_similarity <= 1:
            raise ValueError(f"max_similarity is a cosine, so between -1 and 1, got {self.max_similarity}.")
        if not (0 < self.margin < math.inf):
            raise ValueError(f"margin must be a number above 0, got {self.margin}.")
        if not (isinstance(self.seed, int) and 0 <= self.seed <= _MAX_SEED):
            raise ValueError(f"seed must be a whole number between 0 and 2**64 - 1, got {self.seed}.")
