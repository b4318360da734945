"""Random numbers that are a hash of what they are for, not the next ones of a generator.

Any process can compute any of them, in any order, and gets the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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
