"""A random sample of images, looked at by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.counter_hash import hash_words

Rows = npt.NDArray[np.int64]
_Result = TypeVar("_Result")

# Other than the roles of `sampling`, so that a sample has nothing to do with the triplets drawn by the same seed.
_SAMPLE = 0x53414D504C45


def choose_rows(image_ids: npt.NDArray[np.uint64], num_rows: int, seed: int) -> Rows:
    """Chooses images at random, each with the same chance.

    Args:
      image_ids: uint64[n].
      num_rows: how many to choose; all, if there are fewer.
      seed: of the choice.

    Returns:
      int64[min(n, num_rows)]: their rows, ascending. Deterministic in the ids and the seed: an image has the same luck
      in any table, and a larger sample holds the smaller one.
    """
    luck = hash_words(seed, _SAMPLE, image_ids)
    if num_rows >= len(luck):
        return np.arange(len(luck))
    return np.sort(np.argpartition(luck, num_rows)[:num_rows])


def look_at(
    items: Iterable[int], look: Callable[[int], _Result], num_threads: int, on_done: Callable[[], object]
) -> Iterator[_Result]:
    """Yields ``look(item)`` of each item in order; ``on_done`` is called with each. Threads end with the iterator."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        for result in pool.map(look, items):
            on_done()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
