"""Random numbers that are a hash of what they are for, not the next ones of a generator; and what they alone decide.

Any process can compute any of them, in any order, and gets the same. What depends on ids and nothing else is the same
in every dataset: a landmark is held out, or not, whatever the sample size, resolution, seed or builder, and what 5 %
hold out is part of what 10 % do.
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt


class Purpose(enum.IntEnum):
    """What a draw is for: one of the words of its hash, which keeps it apart from all other draws.

    Changing a number changes datasets.
    """

    POSITIVE = 1  # of a triplet
    NEGATIVE = 2
    HOLD_OUT = 0x686F6C64  # which landmarks are held out
    QUERY = 0x71756572  # which image of a landmark asks for the others
    SAMPLE = 0x53414D504C45  # which images are looked at
    ORDER = 0x6F726465  # of the triplets of an epoch
    BATCH_LANDMARK = 0x706B6C6D  # the order of landmarks in P x K batches
    BATCH_IMAGE = 0x706B696D  # which images of a landmark are in its batch
    MINED_POSITIVE = 0x6D696E65  # of a hard triplet


def hash_words(*words: int | npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    """Hashes a sequence of 64-bit words, elementwise over arrays, to uint64.

    Each word is added to the state, which then takes one step of SplitMix64: constants and shifts are those of
    Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014 (as in Java's
    SplittableRandom and Vigna's splitmix64.c).
    """
    state = np.zeros(1, dtype=np.uint64)
    for word in words:
        state = state + np.asarray(word).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def below(bits: npt.NDArray[np.uint64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Maps 64 random bits to 0 <= index < counts, for counts < 2**32: the high half of the product bits * counts.

    The bias is at most counts / 2**64. The 128-bit product is put together from 32-bit halves (schoolbook
    multiplication), none of whose terms overflows 64 bits.
    """
    n = counts.astype(np.uint64)
    high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
    product_high = (high * n + ((low * n) >> np.uint64(32))) >> np.uint64(32)
    return product_high.astype(np.int64)


# --- Which landmarks are held out of training

TRAIN, VALIDATION = "train", "validation"

_PARTS = 10_000  # shares are told apart to a hundredth of a percent


def is_held_out(landmark_ids: npt.NDArray[np.int64], percent: float) -> npt.NDArray[np.bool_]:
    """Returns bool[n]: which landmarks belong to the validation split.

    Args:
      landmark_ids: int64[n].
      percent: about this share of all landmarks; two decimals count.
    """
    bits = hash_words(Purpose.HOLD_OUT, landmark_ids)
    parts = np.full(len(landmark_ids), _PARTS, dtype=np.int64)
    return below(bits, parts) < round(percent * _PARTS / 100)


# --- Which images are taken


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
    order = np.lexsort((image_ids, hash_words(Purpose.QUERY, image_ids), landmark_ids))
    landmarks = np.asarray(landmark_ids)[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = landmarks[1:] != landmarks[:-1]
    has_another = np.zeros(len(order), dtype=bool)
    has_another[:-1] = landmarks[1:] == landmarks[:-1]
    queries = np.zeros(len(order), dtype=bool)
    queries[order] = is_first & has_another & (landmarks >= 0)
    return queries


def choose_rows(image_ids: npt.NDArray[np.uint64], num_rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Chooses images at random, each with the same chance.

    Args:
      image_ids: uint64[n].
      num_rows: how many to choose; all, if there are fewer.
      seed: of the choice.

    Returns:
      int64[min(n, num_rows)]: their rows, ascending. Deterministic in the ids and the seed: an image has the same luck
      in any table, and a larger sample holds the smaller one.
    """
    luck = hash_words(seed, Purpose.SAMPLE, image_ids)
    if num_rows >= len(luck):
        return np.arange(len(luck))
    return np.sort(np.argpartition(luck, num_rows)[:num_rows])
