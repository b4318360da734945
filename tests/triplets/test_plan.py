from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets import plan as assembly
from landmark_triplets_tfds.triplets.draws import Purpose
from landmark_triplets_tfds.triplets.plan import (
    Example,
    ExampleCounts,
    Exceptions,
    assemble,
    find_distinct_images,
    find_thumbnails,
    make_example,
    make_plan,
    plan_in_chunks,
)
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec, SamplingSpec, TripletSampler
from tests.support.helpers import landmark_table

PURPOSES = (Purpose.POSITIVE, Purpose.NEGATIVE)


class FakeBank:
    """Gives a thumbnail that names its row; counts what it is asked for."""

    def __init__(self, unreadable: Collection[int] = ()):
        self.unreadable = unreadable
        self.calls: list[int] = []

    def get(self, row: int) -> bytes | None:
        self.calls.append(row)
        return None if row in self.unreadable else b"thumbnail of row %d" % row


def build(
    table: LandmarkTable,
    spec: SamplingSpec | ImageSamplingSpec,
    unreadable: Collection[int] = (),
    num_examples: int | None = None,
) -> tuple[dict[str, Example], ExampleCounts, FakeBank]:
    plan, bank, exceptions = make_plan(table, spec), FakeBank(unreadable), {}
    stop = plan.num_examples if num_examples is None else num_examples
    pairs = list(assemble(plan, bank.get, stop, exceptions))
    assert len(dict(pairs)) == len(pairs), "keys must differ"
    return dict(pairs), ExampleCounts.of(stop, exceptions), bank


TABLE = landmark_table([30, 10, 20, 30, 10, 30, 30, 10, 40, 20])


@pytest.mark.parametrize("num_draws", [1, 3])
@pytest.mark.parametrize("cap", [0, 1, 4, None])
def test_keys_and_fields(num_draws: int, cap: int | None) -> None:
    spec = SamplingSpec(images_per_landmark=None, triplets_per_anchor=num_draws, seed=3)
    plan = TripletSampler(TABLE, spec).plan()[:cap].tolist()
    ids = [format_image_id(image_id) for image_id in TABLE.image_ids]
    landmarks = TABLE.landmark_ids.tolist()
    expected = {}
    for number, (anchor, positive, negative) in enumerate(plan):
        k = number % num_draws
        expected[f"{ids[anchor]}/{k}" if k else ids[anchor]] = {
            "anchor_img": b"thumbnail of row %d" % anchor,
            "positive_img": b"thumbnail of row %d" % positive,
            "negative_img": b"thumbnail of row %d" % negative,
            "anchor_id": ids[anchor],
            "positive_id": ids[positive],
            "negative_id": ids[negative],
            "landmark_id": landmarks[anchor],
            "negative_landmark_id": landmarks[negative],
        }
    examples, counts, _ = build(TABLE, spec, num_examples=cap)
    assert examples == expected
    assert list(examples) == list(expected)
    assert counts == ExampleCounts(num_made=len(plan))


tables = st.lists(st.integers(0, 4), min_size=3, max_size=24).filter(
    lambda landmarks: len(set(landmarks)) > 1 and max(Counter(landmarks).values()) > 1
)
specs = st.builds(
    SamplingSpec,
    images_per_landmark=st.sampled_from([1, 2, None]),
    triplets_per_anchor=st.integers(1, 3),
    positive_may_be_anchor=st.booleans(),
    seed=st.integers(0, 100),
)


def redrawn(sampler: TripletSampler, triplet: int, purpose: Purpose, unreadable: Collection[int]) -> int | None:
    """The first readable candidate over all attempts."""
    rows = [int(sampler.candidates(np.array([triplet]), purpose, 0)[0]), *sampler.redraws(triplet, purpose)]
    return next((row for row in rows if row not in unreadable), None)


@settings(max_examples=200, deadline=None)
@given(landmarks=tables, spec=specs, data=st.data())
def test_unreadable_images_change_their_own_triplets_only(
    landmarks: list[int], spec: SamplingSpec, data: st.DataObject
) -> None:
    table = landmark_table(landmarks)
    unreadable = data.draw(st.sets(st.integers(0, len(landmarks) - 1)))
    sampler = TripletSampler(table, spec)
    untouched, _, _ = build(table, spec)
    examples, counts, _ = build(table, spec, unreadable)
    left_out: Counter[str] = Counter()
    num_redrawn = 0
    expected_keys = []
    for triplet, ((key, before), rows) in enumerate(zip(untouched.items(), sampler.plan().tolist(), strict=True)):
        if rows[0] in unreadable:
            left_out["unreadable anchor"] += 1
            continue
        positive = redrawn(sampler, triplet, Purpose.POSITIVE, unreadable)
        negative = redrawn(sampler, triplet, Purpose.NEGATIVE, unreadable)
        if positive is None or negative is None:
            left_out["no readable positive" if positive is None else "no readable negative"] += 1
            continue
        expected_keys.append(key)
        num_redrawn += rows[1:] != [positive, negative]
        assert examples[key] == before | {
            "positive_img": b"thumbnail of row %d" % positive,
            "negative_img": b"thumbnail of row %d" % negative,
            "positive_id": format_image_id(table.image_ids[positive]),
            "negative_id": format_image_id(table.image_ids[negative]),
            "negative_landmark_id": landmarks[negative],
        }
    assert list(examples) == expected_keys
    assert counts == ExampleCounts(len(expected_keys), num_redrawn, left_out)


@pytest.mark.parametrize(
    ("landmarks", "unreadable", "may_be_anchor", "num_made", "left_out"),
    [
        pytest.param([1, 1, 2, 2], {1}, False, 2, {"unreadable anchor": 1, "no readable positive": 1}, id="a pair"),
        pytest.param([1, 1, 2, 2], {1}, True, 3, {"unreadable anchor": 1}, id="a pair, the anchor stands in"),
        pytest.param([1, 1, 1, 2], {3}, False, 0, {"no readable negative": 2}, id="the only negative"),
        pytest.param([1, 1, 2], {1, 2}, False, 0, {"unreadable anchor": 1, "no readable positive": 1}, id="both"),
        pytest.param([1, 1, 2, 2], range(4), False, 0, {"unreadable anchor": 4}, id="everything"),
    ],
)
def test_left_out(
    landmarks: list[int], unreadable: Collection[int], may_be_anchor: bool, num_made: int, left_out: dict[str, int]
) -> None:
    spec = SamplingSpec(positive_may_be_anchor=may_be_anchor)
    examples, counts, _ = build(landmark_table(landmarks), spec, unreadable)
    assert (len(examples), counts.num_made) == (num_made, num_made)
    assert counts.left_out == left_out


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_redraws_follow_the_attempts_and_then_the_cyclic_order(purpose: Purpose, seed: int) -> None:
    # The anchor of the first triplet is row 0, with 39 positives and 40 negatives to draw from.
    table = landmark_table([1] * 40 + [2] * 40)
    spec = SamplingSpec(images_per_landmark=None, seed=seed)
    sampler = TripletSampler(table, spec)
    plan = sampler.plan(0, 1)[0].tolist()
    block = list(range(1, 40) if purpose is Purpose.POSITIVE else range(40, 80))
    draws = [int(sampler.candidates(np.array([0]), purpose, attempt)[0]) for attempt in range(9)]
    at = block.index(draws[8])
    order = [*draws[1:8], *block[at:], *block[:at]]
    readable = next(row for row in reversed(order) if row not in draws)
    examples, counts, bank = build(table, spec, set(block) - {readable}, num_examples=1)
    assert bank.calls == list(dict.fromkeys([*plan, *order[: order.index(readable) + 1]]))  # of each image, once
    field = "positive_id" if purpose is Purpose.POSITIVE else "negative_id"
    assert [example[field] for example in examples.values()] == [format_image_id(table.image_ids[readable])]
    assert counts.num_redrawn == 1


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("num_unreadable", range(1, 9))
def test_a_redraw_takes_the_first_readable_attempt(purpose: Purpose, num_unreadable: int) -> None:
    table = landmark_table([1] * 2000 + [2] * 2000)
    sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None))
    draws = [int(sampler.candidates(np.array([0]), purpose, attempt)[0]) for attempt in range(9)]
    assert len(set(draws)) == 9
    examples, _, _ = build(table, SamplingSpec(images_per_landmark=None), draws[:num_unreadable], num_examples=1)
    field = "positive_id" if purpose is Purpose.POSITIVE else "negative_id"
    drawn = format_image_id(table.image_ids[draws[num_unreadable]])
    assert [example[field] for example in examples.values()] == [drawn]


def test_nothing_is_read_before_it_is_asked_for() -> None:
    plan, bank = make_plan(TABLE, SamplingSpec()), FakeBank()
    examples = assemble(plan, bank.get, plan.num_examples, {})
    assert bank.calls == []
    next(examples)
    assert bank.calls == plan.rows(0, 1)[0].tolist()


@settings(max_examples=50, deadline=None)
@given(landmarks=tables, spec=specs, data=st.data())
def test_chunks_make_up_the_plan(landmarks: list[int], spec: SamplingSpec, data: st.DataObject) -> None:
    table = landmark_table(landmarks)
    plan = make_plan(table, spec)
    count = data.draw(st.integers(0, plan.num_examples))
    unreadable = data.draw(st.sets(st.integers(0, len(landmarks) - 1), max_size=3))
    whole, whole_counts, _ = build(table, spec, unreadable, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "CHUNK_SIZE", data.draw(st.integers(1, 5)))
        chunks = list(plan_in_chunks(plan, count))
        assert build(table, spec, unreadable, count)[:2] == (whole, whole_counts)
        planned = plan.rows(0, count).tolist()
        assert [row for _, rows in chunks for row in rows.tolist()] == planned
        assert [start for start, _ in chunks] == np.cumsum([0, *(len(rows) for _, rows in chunks)])[:-1].tolist()
        distinct = sorted({row for rows in planned for row in rows})
        assert find_distinct_images(plan, count).tolist() == distinct


@settings(max_examples=50, deadline=None)
@given(landmarks=tables, spec=specs, data=st.data())
def test_any_triplets_are_those_of_the_whole(landmarks: list[int], spec: SamplingSpec, data: st.DataObject) -> None:
    """As on a cluster, where each worker makes some of the plan, in another order."""
    table = landmark_table(landmarks)
    unreadable = data.draw(st.sets(st.integers(0, len(landmarks) - 1), max_size=3))
    whole, whole_counts, _ = build(table, spec, unreadable)
    plan, bank = make_plan(table, spec), FakeBank(unreadable)
    numbers = data.draw(st.permutations(range(plan.num_examples)))
    examples: dict[str, Example] = {}
    exceptions: Exceptions = {}
    for number, rows in zip(numbers, plan.rows_at(np.array(numbers)).tolist(), strict=True):
        found = find_thumbnails(plan, number, rows, bank.get, exceptions)
        if found is not None:
            examples[plan.keys(number, number + 1)[0]] = make_example(plan.kind, table, *found)
    assert examples == whole
    assert ExampleCounts.of(plan.num_examples, exceptions) == whole_counts


# --- Single images


@settings(max_examples=50, deadline=None)
@given(landmarks=tables, limit=st.sampled_from([1, 2, None]), data=st.data())
def test_single_images(landmarks: list[int], limit: int | None, data: st.DataObject) -> None:
    table = landmark_table(landmarks)
    unreadable = data.draw(st.sets(st.integers(0, len(landmarks) - 1)))
    rows = [
        row
        for landmark in sorted(set(landmarks))
        for row in [row for row, each in enumerate(landmarks) if each == landmark][:limit]
    ]
    examples, counts, bank = build(table, ImageSamplingSpec(images_per_landmark=limit), unreadable)
    assert bank.calls == rows
    readable = [row for row in rows if row not in unreadable]
    assert list(examples.items()) == [
        (
            format_image_id(table.image_ids[row]),
            {
                "image": b"thumbnail of row %d" % row,
                "image_id": format_image_id(table.image_ids[row]),
                "landmark_id": landmarks[row],
            },
        )
        for row in readable
    ]
    num_left_out = len(rows) - len(readable)
    assert counts == ExampleCounts(len(readable), 0, Counter({"unreadable image": num_left_out}) - Counter())


def test_an_empty_split_of_images() -> None:
    with pytest.raises(NoExampleError, match=r"'validation' would be empty: validation_percent=0\.01"):
        make_plan(TABLE, ImageSamplingSpec(validation_percent=0.01, split="validation"))
