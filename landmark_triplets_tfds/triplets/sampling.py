"""What a valid triplet is, and which ones are drawn.

Sampling is stateless: every draw is a hash of (seed, purpose, anchor's image_id, k, attempt), not the next number of a
generator. So any worker can compute any triplets on its own, the whole plan is a few array operations, and drawing one
image again changes that triplet and no other. Triplets drawn while training have the epoch as one more input.

Definitions:

* The *sample* is the first ``images_per_landmark`` images of every landmark of the split, in train.csv order (None:
  all of them).
* Every sampled image whose landmark has another image is an *anchor* (with ``positive_may_be_anchor``: every one).
* A *positive* is uniform among the other images of the anchor's landmark in the whole table, not only in the sample
  (with ``positive_may_be_anchor``: among all of them, the anchor included).
* A *negative* is uniform among the sampled images of all other landmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, Purpose, below, hash_words, is_held_out

Rows = npt.NDArray[np.int64]

# Attempts 0 to 8 are independent draws; from then on the candidates are taken in cyclic order, which ends for sure.
LAST_DRAWN_ATTEMPT = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSpec:
    """Everything, beside the table, that decides which triplets are drawn.

    Attributes:
      images_per_landmark: anchors per landmark, its first n images in train.csv order; None: all.
      triplets_per_anchor: triplets drawn for each anchor, each with its own positive and negative.
      positive_may_be_anchor: True lets a positive be the anchor itself.
      seed: of all draws, 0 <= seed < 2**64.
      validation_percent: share of the landmarks that is held out, see `is_held_out`.
      split: 'train' or 'validation'.
      epoch: one more input of the draws, 0 <= epoch < 2**64; None: the triplets of a stored dataset, which are those of
        no epoch.
    """

    images_per_landmark: int | None = 2
    triplets_per_anchor: int = 1
    positive_may_be_anchor: bool = False
    seed: int = 0
    validation_percent: float = 0
    split: str = TRAIN
    epoch: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSamplingSpec:
    """Everything, beside the table, that decides which single images are in a split; fields as in `SamplingSpec`."""

    images_per_landmark: int | None = None
    validation_percent: float = 0
    split: str = TRAIN


def sample_images(table: LandmarkTable, spec: SamplingSpec | ImageSamplingSpec) -> Rows:
    """Returns int64[n]: the rows of the sample, landmark by landmark (ascending id), in train.csv order within each."""
    return table.rows_by_landmark[_find_sample(table, spec)[0]].astype(np.int64)


def _find_sample(table: LandmarkTable, spec: SamplingSpec | ImageSamplingSpec) -> tuple[Rows, Rows]:
    """Returns int64[n] twice: the sample as places in ``rows_by_landmark``, ascending; and the block of each."""
    landmarks = table.landmark_ids[table.rows_by_landmark[table.block_starts[:-1]]]
    in_split = is_held_out(landmarks, spec.validation_percent) == (spec.split == VALIDATION)
    blocks = np.repeat(np.arange(table.num_landmarks), np.diff(table.block_starts))
    is_sampled = in_split[blocks]
    if spec.images_per_landmark is not None:
        is_sampled &= np.arange(table.num_images) - table.block_starts[blocks] < spec.images_per_landmark
    return np.flatnonzero(is_sampled), blocks[is_sampled]


class TripletSampler:
    """Draws the triplets of a table.

    Triplets are numbered 0 to ``num_triplets - 1``, landmark by landmark (ascending landmark_id), the
    ``triplets_per_anchor`` triplets of one anchor beside each other. Arguments named ``triplets`` are int64 arrays of
    such numbers; a ``purpose`` is `Purpose.POSITIVE` or `Purpose.NEGATIVE`, the image that is drawn.
    """

    def __init__(self, table: LandmarkTable, spec: SamplingSpec):
        """Prepares the sample.

        Raises:
          NoExampleError: when no triplet can exist.
        """
        self._table = table
        self._spec = spec
        places, blocks = _find_sample(table, spec)
        # The sample keeps the order of rows_by_landmark, so a landmark's sampled images are one run of it.
        self._sample = table.rows_by_landmark[places]  # int32, as all that is there for as long as a build
        self._sample_starts: Rows = np.searchsorted(blocks, np.arange(table.num_landmarks + 1))
        is_anchor = spec.positive_may_be_anchor | (np.diff(table.block_starts)[blocks] >= 2)
        self._anchor_rows = self._sample[is_anchor]
        self._anchor_blocks = blocks[is_anchor].astype(np.int32)
        self._anchor_ranks = (places[is_anchor] - table.block_starts[self._anchor_blocks]).astype(np.int32)
        self._check_possible(int((np.diff(self._sample_starts) > 0).sum()))

    def _check_possible(self, num_landmarks: int) -> None:
        """Raises NoExampleError if too few landmarks are sampled, or there is no anchor."""
        split, percent = self._spec.split, self._spec.validation_percent
        if num_landmarks < 2 and percent:
            raise NoExampleError(
                f"No triplet can be drawn in split {split!r}: validation_percent={percent} leaves it {num_landmarks} of"
                f" the {self._table.num_landmarks} landmarks, and two are needed."
            )
        if num_landmarks < 2:
            raise NoExampleError(
                f"No triplet can be drawn: all {self._table.num_images} images show the same landmark, so there is no"
                " negative. The table needs at least two landmarks."
            )
        if not len(self._anchor_rows):
            of_split = f" of split {split!r}" if percent else ""
            raise NoExampleError(
                f"No triplet can be drawn: each of the {num_landmarks} landmarks{of_split} has a single image, so no"
                " anchor has a positive. A landmark with two images is needed (or set positive_may_be_anchor=True,"
                " which pairs an image with itself)."
            )

    @property
    def num_triplets(self) -> int:
        return len(self._anchor_rows) * self._spec.triplets_per_anchor

    def anchors(self, triplets: Rows) -> Rows:
        """Returns int64[n]: the anchor's row of each triplet."""
        return self._anchor_rows[triplets // self._spec.triplets_per_anchor].astype(np.int64)

    def draw_numbers(self, triplets: Rows) -> Rows:
        """Returns int64[n]: which one of its anchor's triplets each one is, from 0."""
        return triplets % self._spec.triplets_per_anchor

    def plan(self, start: int = 0, stop: int | None = None) -> Rows:
        """Draws the triplets ``start`` to ``stop`` (exclusive; None: all) at attempt 0.

        Returns:
          int64[stop - start, 3]: rows of anchor, positive and negative.
        """
        return self.draw(np.arange(start, self.num_triplets if stop is None else stop))

    def draw(self, triplets: Rows) -> Rows:
        """Draws these triplets at attempt 0; returns int64[n, 3]: rows of anchor, positive and negative."""
        return np.stack(
            [
                self.anchors(triplets),
                self.candidates(triplets, Purpose.POSITIVE, 0),
                self.candidates(triplets, Purpose.NEGATIVE, 0),
            ],
            axis=1,
        )

    def num_candidates(self, triplets: Rows, purpose: Purpose) -> Rows:
        """Returns int64[n]: among how many images each triplet's positive or negative is drawn."""
        blocks = self._anchor_blocks[triplets // self._spec.triplets_per_anchor]
        if purpose is Purpose.POSITIVE:
            sizes = self._table.block_starts[blocks + 1] - self._table.block_starts[blocks]
            return sizes if self._spec.positive_may_be_anchor else sizes - 1
        return len(self._sample) - (self._sample_starts[blocks + 1] - self._sample_starts[blocks])

    def candidates(self, triplets: Rows, purpose: Purpose, attempt: int) -> Rows:
        """Draws a positive or negative for each triplet.

        Attempts 0 to 8 are independent draws; each later one is the next candidate after the one before, in cyclic
        order.

        Returns:
          int64[n] rows. Deterministic in the table, the spec, the triplet's number, purpose and attempt.
        """
        anchors = triplets // self._spec.triplets_per_anchor
        blocks = self._anchor_blocks[anchors]
        counts = self.num_candidates(triplets, purpose)
        bits = hash_words(
            self._spec.seed,
            purpose,
            self._table.image_ids[self._anchor_rows[anchors]],
            self.draw_numbers(triplets),
            min(attempt, LAST_DRAWN_ATTEMPT),
            *(() if self._spec.epoch is None else (self._spec.epoch,)),
        )
        index = below(bits, counts)
        if attempt > LAST_DRAWN_ATTEMPT:
            index = (index + (attempt - LAST_DRAWN_ATTEMPT)) % counts
        if purpose is Purpose.POSITIVE:
            if not self._spec.positive_may_be_anchor:
                index += index >= self._anchor_ranks[anchors]  # steps over the anchor itself
            rows: npt.NDArray[np.int32] = self._table.rows_by_landmark[self._table.block_starts[blocks] + index]
        else:
            own_start, own_stop = self._sample_starts[blocks], self._sample_starts[blocks + 1]
            # Steps over the own landmark.
            rows = self._sample[np.where(index >= own_start, index + (own_stop - own_start), index)]
        return rows.astype(np.int64)

    def redraws(self, triplet: int, purpose: Purpose) -> Iterator[int]:
        """Yields the rows of the attempts after attempt 0, until every candidate has been drawn."""
        triplets = np.array([triplet])
        num_attempts = LAST_DRAWN_ATTEMPT + int(self.num_candidates(triplets, purpose)[0])
        for attempt in range(1, num_attempts):
            yield int(self.candidates(triplets, purpose, attempt)[0])
