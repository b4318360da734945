from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.triplets.draws import (
    below,
    choose_queries,
    choose_rows,
    hash_words,
    is_held_out,
)

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


# --- Held-out landmarks

landmark_ids = st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=50, unique=True)
percents = st.integers(0, 9900).map(lambda parts: parts / 100)


@given(ids=landmark_ids, percent=percents)
def test_a_landmark_is_held_out_or_not_whatever_else_is_there(ids: list[int], percent: float) -> None:
    one_by_one = [bool(is_held_out(np.array([landmark]), percent)[0]) for landmark in ids]
    assert is_held_out(np.array(ids), percent).tolist() == one_by_one


@given(ids=landmark_ids, percents=st.tuples(percents, percents))
def test_a_smaller_share_is_part_of_a_larger_one(ids: list[int], percents: tuple[float, float]) -> None:
    fewer, more = (is_held_out(np.array(ids), percent) for percent in sorted(percents))
    assert (more | ~fewer).all()


def test_shares_come_out() -> None:
    ids = np.arange(100_000)
    assert not is_held_out(ids, 0).any()
    for percent in (0.5, 10, 33.3, 99):
        expected = len(ids) * percent / 100
        assert abs(is_held_out(ids, percent).sum() - expected) < 5 * expected**0.5


def test_the_rule_stays_as_it_is() -> None:
    assert np.flatnonzero(is_held_out(np.arange(60), 10)).tolist() == [4, 5, 11, 23, 35, 50, 58, 59]


# --- Images


@given(sizes=st.lists(st.integers(1, 6), max_size=12), seed=st.integers(0, 99))
def test_every_query_has_a_match(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    landmarks = rng.permutation(np.repeat(np.arange(len(sizes)) - 1, sizes))  # -1: no landmark
    ids = rng.integers(0, 2**64, len(landmarks), dtype=np.uint64)
    queries = choose_queries(ids, landmarks)
    for landmark in range(-1, len(sizes) - 1):
        of_landmark = landmarks == landmark
        wanted = 1 if landmark >= 0 and of_landmark.sum() > 1 else 0
        assert queries[of_landmark].sum() == wanted
    order = rng.permutation(len(ids))
    assert choose_queries(ids[order], landmarks[order]).tolist() == queries[order].tolist()


@given(
    st.sets(st.integers(0, 2**64 - 1), max_size=60), st.integers(0, 70), st.integers(0, 70), st.integers(0, 2**64 - 1)
)
def test_samples_are_nested_and_do_not_depend_on_order(ids: set[int], few: int, more: int, seed: int) -> None:
    few, more = sorted((few, more))
    image_ids = np.array(sorted(ids), dtype=np.uint64)
    rows = choose_rows(image_ids, more, seed)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == min(more, len(ids))
    chosen = set(image_ids[rows].tolist())
    assert set(image_ids[choose_rows(image_ids, few, seed)].tolist()) <= chosen
    backwards = image_ids[::-1].copy()
    assert set(backwards[choose_rows(backwards, more, seed)].tolist()) == chosen


def test_each_image_has_the_same_chance() -> None:
    image_ids = np.arange(1000, dtype=np.uint64)
    counts = np.zeros(1000)
    for seed in range(400):
        counts[choose_rows(image_ids, 100, seed)] += 1
    assert counts.mean() == 40
    assert counts.std() == pytest.approx(6, abs=0.7)  # binomial: sqrt(400 * 0.1 * 0.9)
