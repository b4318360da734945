from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, choose_queries, is_held_out, select_landmarks
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler
from tests.support.helpers import landmark_table

landmark_ids = st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=50, unique=True)
percents = st.integers(0, 9900).map(lambda parts: parts / 100)


@given(ids=landmark_ids, percent=percents)
def test_every_landmark_is_in_one_split_whatever_else_is_there(ids: list[int], percent: float) -> None:
    landmarks = np.array(ids)
    train, validation = (select_landmarks(landmarks, percent, split) for split in (TRAIN, VALIDATION))
    assert (train ^ validation).all()
    one_by_one = [bool(is_held_out(np.array([landmark]), percent)[0]) for landmark in ids]
    assert validation.tolist() == one_by_one


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


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=8, max_size=30),
    percent=st.sampled_from([20, 35.5, 50]),
    images_per_landmark=st.one_of(st.none(), st.integers(1, 3)),
    positive_may_be_anchor=st.booleans(),
    seed=st.integers(0, 9),
)
def test_splits_share_no_landmark_and_no_image(
    sizes: list[int], percent: float, images_per_landmark: int | None, positive_may_be_anchor: bool, seed: int
) -> None:
    landmarks = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    table = landmark_table(landmarks.tolist())
    held_out = is_held_out(table.landmark_ids, percent)
    for split, own in ((TRAIN, ~held_out), (VALIDATION, held_out)):
        spec = SamplingSpec(
            images_per_landmark=images_per_landmark,
            positive_may_be_anchor=positive_may_be_anchor,
            seed=seed,
            validation_percent=percent,
            split=split,
        )
        try:
            plan = TripletSampler(table, spec).plan()
        except NoExampleError:
            continue
        assert own[plan].all()
        # Alone in the table, the split's images give the same triplets.
        rows = np.flatnonzero(own)
        alone = landmark_table(table.landmark_ids[rows].tolist(), table.image_ids[rows].tolist())
        same = SamplingSpec(
            images_per_landmark=images_per_landmark, positive_may_be_anchor=positive_may_be_anchor, seed=seed
        )
        assert rows[TripletSampler(alone, same).plan()].tolist() == plan.tolist()


def test_too_few_landmarks_for_a_split() -> None:
    table = landmark_table([0, 0, 1, 1, 2, 2])
    with pytest.raises(NoExampleError, match=r"split 'validation': validation_percent=0.01 leaves it 0 of the 3"):
        TripletSampler(table, SamplingSpec(validation_percent=0.01, split=VALIDATION))


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
