from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, Purpose, is_held_out
from landmark_triplets_tfds.triplets.sampling import LAST_DRAWN_ATTEMPT, SamplingSpec, TripletSampler
from tests.support.helpers import landmark_table

PURPOSES = (Purpose.POSITIVE, Purpose.NEGATIVE)

MASK = 2**64 - 1

specs = st.builds(
    SamplingSpec,
    images_per_landmark=st.one_of(st.none(), st.integers(1, 4)),
    triplets_per_anchor=st.integers(1, 3),
    positive_may_be_anchor=st.booleans(),
    seed=st.one_of(st.integers(0, 3), st.integers(0, MASK)),
    epoch=st.one_of(st.none(), st.integers(0, MASK)),
)


@st.composite
def tables(draw: st.DrawFn) -> LandmarkTable:
    """Tables of 2 to 7 landmarks, one of them with two images or more, in any order of rows."""
    sizes = [draw(st.integers(2, 6)), *draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))]
    names = draw(st.lists(st.integers(0, 10**18 - 1), min_size=len(sizes), max_size=len(sizes), unique=True))
    landmarks = draw(st.permutations([name for name, size in zip(names, sizes, strict=True) for _ in range(size)]))
    count = len(landmarks)
    return landmark_table(landmarks, draw(st.lists(st.integers(0, MASK), min_size=count, max_size=count, unique=True)))


class Reference:
    """The definitions of the design, word by word and one triplet at a time, in Python's whole numbers."""

    def __init__(self, table: LandmarkTable, spec: SamplingSpec):
        self.spec = spec
        self.ids = table.image_ids.tolist()
        self.landmarks = table.landmark_ids.tolist()
        rows: dict[int, list[int]] = {landmark: [] for landmark in sorted(set(self.landmarks))}
        for row, landmark in enumerate(self.landmarks):
            rows[landmark].append(row)
        self.rows = rows
        self.sample = [row for landmark in rows for row in rows[landmark][: spec.images_per_landmark]]
        self.anchors = [
            row for row in self.sample if spec.positive_may_be_anchor or len(rows[self.landmarks[row]]) >= 2
        ]
        self.triplets = [(row, k) for row in self.anchors for k in range(spec.triplets_per_anchor)]

    def candidates(self, anchor: int, purpose: Purpose) -> list[int]:
        own = self.rows[self.landmarks[anchor]]
        if purpose is Purpose.NEGATIVE:
            return [row for row in self.sample if row not in own]
        return own if self.spec.positive_may_be_anchor else [row for row in own if row != anchor]

    def draw(self, triplet: int, purpose: Purpose, attempt: int) -> int:
        anchor, k = self.triplets[triplet]
        candidates = self.candidates(anchor, purpose)
        state = 0
        epoch = () if self.spec.epoch is None else (self.spec.epoch,)
        for word in (self.spec.seed, purpose, self.ids[anchor], k, min(attempt, 8), *epoch):
            state = (state + word + 0x9E3779B97F4A7C15) & MASK
            state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
            state ^= state >> 31
        first = state * len(candidates) >> 64
        return candidates[(first + max(0, attempt - 8)) % len(candidates)]


@settings(max_examples=120, deadline=None)
@given(table=tables(), spec=specs)
def test_every_draw_is_valid_and_the_one_defined(table: LandmarkTable, spec: SamplingSpec) -> None:
    reference, sampler = Reference(table, spec), TripletSampler(table, spec)
    plan, triplets = sampler.plan(), np.arange(sampler.num_triplets)
    assert plan.dtype == np.int64
    assert plan[:, 0].tolist() == [row for row, _ in reference.triplets]
    assert sampler.draw_numbers(triplets).tolist() == [k for _, k in reference.triplets]
    for anchor, positive, negative in plan.tolist():
        assert reference.landmarks[anchor] == reference.landmarks[positive] != reference.landmarks[negative]
        assert spec.positive_may_be_anchor or positive != anchor
        assert negative in reference.sample
    for purpose in PURPOSES:
        sizes = [len(reference.candidates(anchor, purpose)) for anchor, _ in reference.triplets]
        assert sampler.num_candidates(triplets, purpose).tolist() == sizes
        for attempt in (0, 1, 8, 9, 11):
            expected = [reference.draw(triplet, purpose, attempt) for triplet in triplets.tolist()]
            assert sampler.candidates(triplets, purpose, attempt).tolist() == expected
        assert plan[:, purpose].tolist() == sampler.candidates(triplets, purpose, 0).tolist()


@settings(max_examples=60, deadline=None)
@given(table=tables(), spec=specs, data=st.data())
def test_a_new_sampler_draws_any_part_alike(table: LandmarkTable, spec: SamplingSpec, data: st.DataObject) -> None:
    plan = TripletSampler(table, spec).plan()
    start = data.draw(st.integers(0, len(plan)))
    stop = data.draw(st.integers(start, len(plan)))
    sampler = TripletSampler(table, dataclasses.replace(spec))
    assert sampler.plan(start, stop).tolist() == plan[start:stop].tolist()
    assert sampler.plan(start).tolist() == plan[start:].tolist()
    some = np.array(data.draw(st.lists(st.integers(0, len(plan) - 1), min_size=1, max_size=5)))
    purpose, attempt = data.draw(st.sampled_from(PURPOSES)), data.draw(st.integers(0, 20))
    together = sampler.candidates(np.arange(len(plan)), purpose, attempt)
    assert sampler.candidates(some, purpose, attempt).tolist() == together[some].tolist()


@settings(max_examples=60, deadline=None)
@given(table=tables(), spec=specs, data=st.data())
def test_attempts_reach_every_candidate(table: LandmarkTable, spec: SamplingSpec, data: st.DataObject) -> None:
    reference, sampler = Reference(table, spec), TripletSampler(table, spec)
    triplet, purpose = data.draw(st.integers(0, sampler.num_triplets - 1)), data.draw(st.sampled_from(PURPOSES))
    candidates = reference.candidates(reference.triplets[triplet][0], purpose)
    drawn = [int(sampler.candidates(np.array([triplet]), purpose, 0)[0]), *sampler.redraws(triplet, purpose)]
    assert len(drawn) == LAST_DRAWN_ATTEMPT + len(candidates)
    assert set(drawn) == set(candidates)
    assert sorted(drawn[LAST_DRAWN_ATTEMPT:]) == sorted(candidates)  # each once, in cyclic order
    steps = np.diff([candidates.index(row) for row in drawn[LAST_DRAWN_ATTEMPT:]]) % len(candidates)
    assert set(steps.tolist()) <= {1}


def plan_in_ids(table: LandmarkTable, spec: SamplingSpec) -> dict[tuple[int, int], tuple[int, int]]:
    sampler = TripletSampler(table, spec)
    draw_numbers = sampler.draw_numbers(np.arange(sampler.num_triplets)).tolist()
    plan = table.image_ids[sampler.plan()].tolist()
    return {(anchor, k): (pos, neg) for (anchor, pos, neg), k in zip(plan, draw_numbers, strict=True)}


@settings(max_examples=100, deadline=None)
@given(table=tables(), spec=specs, data=st.data())
def test_what_a_draw_depends_on(table: LandmarkTable, spec: SamplingSpec, data: st.DataObject) -> None:
    plan = plan_in_ids(table, spec)
    # How the landmarks' rows are interleaved in the table changes nothing: only the order within a landmark counts.
    blocks = np.split(table.rows_by_landmark, table.block_starts[1:-1])
    order = data.draw(st.permutations(np.repeat(np.arange(len(blocks)), [len(block) for block in blocks]).tolist()))
    remaining = [iter(block.tolist()) for block in blocks]
    rows = [next(remaining[block]) for block in order]
    assert plan_in_ids(landmark_table(table.landmark_ids[rows], table.image_ids[rows]), spec) == plan
    # A positive depends on its own landmark alone: not on how many others there are nor on how any is numbered.
    kept = [0, 1, *(b for b in range(2, len(blocks)) if data.draw(st.booleans()))]
    numbers = data.draw(st.permutations(range(len(blocks))))
    rows = [row for row in rows if order[rows.index(row)] in kept]
    renumbered = [numbers[np.searchsorted(np.unique(table.landmark_ids), table.landmark_ids[row])] for row in rows]
    if spec.positive_may_be_anchor or max(len(blocks[0]), len(blocks[1])) >= 2:
        fewer = plan_in_ids(landmark_table(renumbered, table.image_ids[rows]), spec)
        assert {key: drawn[0] for key, drawn in fewer.items()} == {key: plan[key][0] for key in fewer}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_input_of_the_hash_gives_other_draws(purpose: Purpose) -> None:
    table = landmark_table([row // 50 for row in range(1000)])
    spec = SamplingSpec(images_per_landmark=None, triplets_per_anchor=2)
    sampler = TripletSampler(table, spec)
    triplets = np.arange(sampler.num_triplets)
    first = sampler.candidates(triplets, purpose, 0)
    others = [
        TripletSampler(table, dataclasses.replace(spec, seed=s)).candidates(triplets, purpose, 0) for s in (1, MASK)
    ]
    epochs = [
        TripletSampler(table, dataclasses.replace(spec, epoch=e)).candidates(triplets, purpose, 0) for e in (0, 1)
    ]
    assert (epochs[0] == epochs[1]).mean() < 0.1
    others += epochs
    others += [sampler.candidates(triplets, purpose, attempt) for attempt in range(1, LAST_DRAWN_ATTEMPT + 1)]
    assert all((first == other).mean() < 0.1 for other in others)
    assert (first[::2] == first[1::2]).mean() < 0.1  # k = 0 and k = 1
    one_id_changed = table.image_ids.copy()
    one_id_changed[0] += np.uint64(1)
    changed = TripletSampler(landmark_table(table.landmark_ids, one_id_changed), spec).candidates(triplets, purpose, 0)
    assert set(np.flatnonzero(changed != first).tolist()) <= {0, 1}


# --- Uniformity. Seeds are fixed, so these pass or fail for good; p > 1e-4 is asked of each.

SKEWED_SIZES = [2, 3, 4, 7, 30, 1, 250, 1200, 3500, 1, 2, 11]
SKEWED = landmark_table(np.random.default_rng(5).permutation(np.repeat(np.arange(len(SKEWED_SIZES)), SKEWED_SIZES)))


def p_uniform(drawn: np.ndarray, candidates: list[int]) -> float:
    """The chi-square test's p that rows were drawn uniformly from the candidates, at most 100 bins of them."""
    positions = {row: position for position, row in enumerate(candidates)}
    indices = np.array([positions[row] for row in drawn.tolist()])
    bins = min(len(candidates), 100)
    edges = np.arange(bins + 1) * len(candidates) // bins
    expected = np.diff(edges) * (len(drawn) / len(candidates))
    assert expected.min() >= 5
    return float(stats.chisquare(np.histogram(indices, edges)[0], expected).pvalue) if bins > 1 else 1.0


@pytest.mark.parametrize("may_be_anchor", [False, True])
@pytest.mark.parametrize("attempt", [0, 1, LAST_DRAWN_ATTEMPT, 12])
@pytest.mark.parametrize("purpose", PURPOSES)
def test_draws_for_one_anchor_are_uniform(purpose: Purpose, attempt: int, may_be_anchor: bool) -> None:
    spec = SamplingSpec(
        images_per_landmark=3, triplets_per_anchor=3000, positive_may_be_anchor=may_be_anchor, seed=attempt
    )
    reference, sampler = (
        Reference(SKEWED, dataclasses.replace(spec, triplets_per_anchor=1)),
        TripletSampler(SKEWED, spec),
    )
    drawn = sampler.candidates(np.arange(sampler.num_triplets), purpose, attempt).reshape(-1, 3000)
    assert len(drawn) == len(reference.anchors)
    p_values = [
        p_uniform(rows, reference.candidates(anchor, purpose))
        for anchor, rows in zip(reference.anchors, drawn, strict=True)
    ]
    assert min(p_values) > 1e-4
    assert 0.3 < np.mean([p for p in p_values if p < 1]) < 0.7  # nor are they more even than chance


@pytest.mark.parametrize("attempt", [0, 3])
@pytest.mark.parametrize("sample", [None, 50])
def test_draws_over_the_anchors_of_a_landmark_are_uniform(sample: int | None, attempt: int) -> None:
    spec = SamplingSpec(images_per_landmark=sample, triplets_per_anchor=1 if sample is None else 60, seed=11)
    reference, sampler = Reference(SKEWED, spec), TripletSampler(SKEWED, spec)
    triplets = np.arange(sampler.num_triplets)
    landmarks = SKEWED.landmark_ids[sampler.anchors(triplets)]
    positives = sampler.candidates(triplets, Purpose.POSITIVE, attempt)
    negatives = sampler.candidates(triplets, Purpose.NEGATIVE, attempt)
    for landmark in (7, 8):
        mine = landmarks == landmark
        rows = reference.rows[landmark]
        # All but the anchor are candidates; over all anchors each position after the anchor, cyclically, is as likely.
        position = {row: i for i, row in enumerate(rows)}
        pairs = zip(sampler.anchors(triplets)[mine].tolist(), positives[mine].tolist(), strict=True)
        steps = np.array([(position[positive] - position[anchor]) % len(rows) for anchor, positive in pairs])
        assert p_uniform(steps, list(range(1, len(rows)))) > 1e-4
        assert p_uniform(negatives[mine], reference.candidates(rows[0], Purpose.NEGATIVE)) > 1e-4


def test_draws_of_one_triplet_are_independent() -> None:
    size, k_count = 7, 2
    table = landmark_table(np.arange(14_000) // size)
    sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None, triplets_per_anchor=k_count, seed=2))
    triplets = np.arange(sampler.num_triplets)

    def place(purpose: Purpose, attempt: int) -> np.ndarray:
        """One of 6 equally likely numbers for each anchor and k, int64[num_anchors, k_count]."""
        rows = sampler.candidates(triplets, purpose, attempt)
        steps = (
            (rows - sampler.anchors(triplets)) % size
            if purpose is Purpose.POSITIVE
            else 1 + rows * 6 // table.num_images
        )
        return steps.reshape(-1, k_count) - 1

    positives = [place(Purpose.POSITIVE, attempt) for attempt in (0, 1, 8)]
    negatives = [place(Purpose.NEGATIVE, attempt) for attempt in (0, 1)]
    pairs = {
        "k = 0 and 1, positives": (positives[0][:, 0], positives[0][:, 1]),
        "k = 0 and 1, negatives": (negatives[0][:, 0], negatives[0][:, 1]),
        "attempts 0 and 1, positives": (positives[0], positives[1]),
        "attempts 1 and 8, positives": (positives[1], positives[2]),
        "attempts 0 and 1, negatives": (negatives[0], negatives[1]),
        "positive and negative": (positives[0], negatives[0]),
        "neighbouring anchors": (positives[0][:-1], positives[0][1:]),
    }
    for name, (one, other) in pairs.items():
        counts = np.zeros((6, 6))
        np.add.at(counts, (one.ravel(), other.ravel()), 1)
        assert stats.chi2_contingency(counts).pvalue > 1e-4, name


# --- Splits


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


# --- The parts


@pytest.mark.parametrize(
    ("landmarks", "spec", "message"),
    [
        ([4, 4, 4], SamplingSpec(), "all 3 images show the same landmark"),
        ([4], SamplingSpec(positive_may_be_anchor=True), "all 1 images show the same landmark"),
        ([1, 2, 3], SamplingSpec(), "each of the 3 landmarks has a single image.*positive_may_be_anchor=True"),
    ],
)
def test_no_triplet(landmarks: list[int], spec: SamplingSpec, message: str) -> None:
    with pytest.raises(NoExampleError, match=f"No triplet can be drawn: {message}"):
        TripletSampler(landmark_table(landmarks), spec)


def test_single_images_are_negatives_and_pair_with_themselves_only_if_allowed() -> None:
    table = landmark_table([1, 2, 2])
    assert TripletSampler(table, SamplingSpec()).plan().tolist() == [[1, 2, 0], [2, 1, 0]]
    itself = TripletSampler(landmark_table([1, 2]), SamplingSpec(positive_may_be_anchor=True))
    assert itself.plan().tolist() == [[0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("spec", "plan"),
    [
        (SamplingSpec(), [[1, 4, 2], [4, 1, 3], [0, 3, 8], [3, 0, 2]]),
        (
            SamplingSpec(images_per_landmark=1, triplets_per_anchor=2, seed=2**63),
            [[1, 4, 8], [1, 4, 8], [0, 6, 8], [0, 5, 8]],
        ),
        (
            SamplingSpec(images_per_landmark=None, positive_may_be_anchor=True, seed=7),
            [[1, 7, 6], [4, 4, 6], [7, 7, 0], [2, 2, 5], [0, 3, 7], [3, 5, 4], [5, 0, 2], [6, 0, 4], [8, 8, 6]],
        ),
    ],
)
def test_plan_is_pinned(spec: SamplingSpec, plan: list[list[int]]) -> None:
    # Other numbers here are other datasets: they need a new VERSION.
    table = landmark_table([30, 10, 20, 30, 10, 30, 30, 10, 40], [0xF0 + row for row in range(9)])
    assert TripletSampler(table, spec).plan().tolist() == plan
