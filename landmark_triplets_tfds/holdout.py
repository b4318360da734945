"""Landmarks never seen in training: which ones are held out, and which of their images ask for which.

The rules hash ids and nothing else. So a landmark is on the same side in every dataset, whatever its sample size,
resolution, seed or builder, and what 5 % hold out is part of what 10 % do.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.counter_hash import below, hash_words

TRAIN, VALIDATION = "train", "validation"

# First words of the hashes, which keep these draws apart from those of `sampling`. Changing them changes datasets.
_OF_LANDMARKS, _OF_QUERIES = 0x686F6C64, 0x71756572

_PARTS = 10_000  # shares are told apart to a hundredth of a percent


def is_held_out(landmark_ids: npt.NDArray[np.int64], percent: float) -> npt.NDArray[np.bool_]:
    """Returns bool[n]: which landmarks belong to the validation split.

    Args:
      landmark_ids: int64[n].
      percent: about this share of all landmarks; two decimals count.
    """
    bits = hash_words(_OF_LANDMARKS, landmark_ids)
    parts = np.full(len(landmark_ids), _PARTS, dtype=np.int64)
    return below(bits, parts) < round(percent * _PARTS / 100)


def select_landmarks(landmark_ids: npt.NDArray[np.int64], percent: float, split: str) -> npt.NDArray[np.bool_]:
    """Returns bool[n]: which landmarks belong to a split, `TRAIN` or `VALIDATION`."""
    held_out = is_held_out(landmark_ids, percent)
    return held_out if split == VALIDATION else ~held_out


def choose_queries(
    image_ids: npt.NDArray[np.uint64], landmark_ids: npt.NDArray[np.int64 | np.int32]
) -> npt.NDArray[np.bool_]:
    """Divides images for an evaluation of retrieval into queries and the index they search.

    Of every landmark with two images or more, one image is a query: the one whose id has the smallest hash. All others
    are the index. So every query has at least one match in the index, and images of landmarks with a single image are
    in the index too, as what should not be found.

    Args:
      image_ids: uint64[n], each once.
      landmark_ids: of these images; -1, no landmark, is never a query.

    Returns:
      bool[n]: True for queries. Deterministic in the set of (image, landmark) pairs, whatever their order.
    """
    order = np.lexsort((image_ids, hash_words(_OF_QUERIES, image_ids), landmark_ids))
    landmarks = np.asarray(landmark_ids)[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = landmarks[1:] != landmarks[:-1]
    has_another = np.zeros(len(order), dtype=bool)
    has_another[:-1] = landmarks[1:] == landmarks[:-1]
    queries = np.zeros(len(order), dtype=bool)
    queries[order] = is_first & has_another & (landmarks >= 0)
    return queries
