from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import numpy as np

from landmark_triplets_tfds.triplets.draws import below, hash_words

MASK = 2**64 - 1


def test_hash_takes_the_steps_of_splitmix64() -> None:
    # The first outputs of Vigna's splitmix64.c from state 0, which it advances by the constant before each.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]
    states = np.arange(5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert hash_words(states).tolist() == published
    assert hash_words(0).tolist() == published[:1]
    # A second word is added to the first one's output.
    assert hash_words(3, states).tolist() == hash_words(int(hash_words(3)[0]) + states).tolist()


@given(bits=st.integers(0, MASK), count=st.integers(1, 2**32 - 1))
def test_below_is_exact(bits: int, count: int) -> None:
    index = below(np.array([bits, 0, MASK], dtype=np.uint64), np.array([count] * 3))
    assert index.dtype == np.int64
    assert index.tolist() == [bits * count >> 64, 0, count - 1]
