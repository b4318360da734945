"""Triplets given one by one, by their rows: what a plan needs of them, and how workers of a cluster get them."""

from __future__ import annotations

import dataclasses

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import file_access
from landmark_triplets_tfds.holdout import TRAIN
from landmark_triplets_tfds.sampling import Role, Rows

_ANCHOR, _NUMBER = 0, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class TripletsFileSpec:
    """What a config says about the triplets of a split that a file names.

    Attributes:
      path: of the file.
      positive_may_be_anchor: True lets a positive be the anchor itself.
      validation_percent: share of the landmarks that is held out, see `holdout`.
      split: 'train' or 'validation'.
    """

    path: str
    positive_may_be_anchor: bool = False
    validation_percent: float = 0
    split: str = TRAIN


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenTriplets:
    """Triplets given one by one, for a `TripletPlan`, which needs a sampler or this.

    Attributes:
      numbers: int32[num_triplets, 4]: the rows of anchor, positive and negative; and which one of its anchor's triplets
        in the file each is, from 0.
    """

    numbers: npt.NDArray[np.int32]

    @property
    def num_triplets(self) -> int:
        return len(self.numbers)

    def anchors(self, triplets: Rows) -> Rows:
        """Returns int64[n]: the anchor's row of each triplet."""
        return self._column(_ANCHOR, triplets)

    def draw_numbers(self, triplets: Rows) -> Rows:
        """Returns int64[n]: which one of its anchor's triplets each one is, from 0."""
        return self._column(_NUMBER, triplets)

    def plan(self, start: int = 0, stop: int | None = None) -> Rows:
        """Returns int64[stop - start, 3]: rows of anchor, positive and negative."""
        return self.numbers[start:stop, :_NUMBER].astype(np.int64)

    def num_attempts(self, triplet: int, role: Role) -> int:
        """Returns 1: these images were chosen, so no other one is drawn in their place."""
        return 1

    def candidates(self, triplets: Rows, role: Role, attempt: int) -> Rows:
        """Returns int64[n]: the positive or negative of each triplet; there is no attempt but 0."""
        return self._column(int(role), triplets)

    def _column(self, column: int, triplets: Rows) -> Rows:
        numbers: Rows = self.numbers[triplets, column].astype(np.int64)
        return numbers

    def store(self, path: epath.Path) -> StoredTriplets:
        """Writes them to a file that other processes can read."""
        with path.open("wb") as file:
            np.save(file, self.numbers)
        return StoredTriplets(str(path))


@dataclasses.dataclass(frozen=True)
class StoredTriplets:
    """Chosen triplets in a file, as the functions on the workers of a cluster carry them.

    Attributes:
      path: of the file.
    """

    path: str

    def load(self) -> ChosenTriplets:
        """Returns the triplets; from a local file they are mapped, so that processes share the memory."""
        if not file_access.is_remote(self.path):
            return ChosenTriplets(np.load(self.path, mmap_mode="r"))
        with epath.Path(self.path).open("rb") as file:
            return ChosenTriplets(np.load(file))
