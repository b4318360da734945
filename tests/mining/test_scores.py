"""Retrieval measures: cases worked out by hand, and a second implementation straight from the definition."""

from __future__ import annotations

import pathlib

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from landmark_triplets_tfds.mining import neighbours
from landmark_triplets_tfds.mining.scores import (
    average_precisions,
    find_nearest,
    mean_average_precision_at_k,
    recall_at_k,
)


def on_a_line(*places: float) -> np.ndarray:
    return np.array(places, dtype=np.float32)[:, np.newaxis]


# One query of landmark 1 at 0; the index lies at 1, 2, 3, ..., so its landmarks are in the order of the results.
BY_HAND = [
    # landmarks of the results, k, average precision, found at 1
    ([1], 100, 1.0, True),
    ([1, 1, 2], 100, 1.0, True),
    ([2, 1], 100, 1 / 2, False),
    ([1, 2, 1], 100, (1 / 1 + 2 / 3) / 2, True),
    ([2, 1, 2, 1, 1], 100, (1 / 2 + 2 / 4 + 3 / 5) / 3, False),
    ([2, 2, 1], 2, 0.0, False),  # the match is beyond k
    ([1, 2, 1, 1], 2, 1 / 2, True),  # of three matches two could be among the first two, one is
    ([1, 1, 1, 1], 2, 1.0, True),
    ([2, 1, 1, 1], 1, 0.0, False),
]


@pytest.mark.parametrize(("landmarks", "k", "average_precision", "first"), BY_HAND)
def test_by_hand(landmarks: list[int], k: int, average_precision: float, first: bool) -> None:
    index = on_a_line(*range(1, len(landmarks) + 1))
    arguments = (on_a_line(0), np.array([1]), index, np.array(landmarks))
    assert mean_average_precision_at_k(*arguments, k=k) == pytest.approx(average_precision)
    assert recall_at_k(*arguments, k=1) == float(first)
    assert recall_at_k(*arguments, k=len(landmarks)) == 1


def test_mean_over_queries_that_have_a_match() -> None:
    queries, query_landmarks = on_a_line(0, 10, 5), np.array([1, 2, 3])  # nothing shows landmark 3
    index, index_landmarks = on_a_line(1, 9, 11, 2), np.array([1, 1, 2, 2])
    # Query 0: results 1 (match), 2, 9 (match), 11. Query 10: 9 and 11 equally near, the first row first; then 2, 1.
    expected = ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    assert mean_average_precision_at_k(queries, query_landmarks, index, index_landmarks) == pytest.approx(expected)
    assert recall_at_k(queries, query_landmarks, index, index_landmarks) == 1 / 2
    results = find_nearest(queries, index, 100)
    assert len(average_precisions(results, query_landmarks, index_landmarks)) == 2


def test_a_network_that_gives_all_images_one_vector_is_not_rewarded() -> None:
    landmarks = np.repeat(np.arange(50), 4)
    same = np.ones((200, 8))
    assert mean_average_precision_at_k(same, landmarks, same, landmarks, k=100) < 0.1


def naive_map(
    queries: np.ndarray, query_landmarks: np.ndarray, index: np.ndarray, index_landmarks: np.ndarray, k: int
) -> float | None:
    """The definition, sum by sum."""
    precisions = []
    for query, landmark in zip(queries, query_landmarks, strict=True):
        distances = [(float(((query - other) ** 2).sum()), row) for row, other in enumerate(index)]
        ranked = [index_landmarks[row] for _, row in sorted(distances)]
        num_matches = list(index_landmarks).count(landmark)
        if num_matches:
            total = sum(
                ranked[:rank].count(landmark) / rank
                for rank in range(1, min(len(ranked), k) + 1)
                if ranked[rank - 1] == landmark
            )
            precisions.append(total / min(num_matches, k))
    return sum(precisions) / len(precisions) if precisions else None


@st.composite
def retrievals(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Small whole numbers, whose distances are exact, with many ties."""
    dim = draw(st.integers(1, 3))
    arrays = []
    for count in (draw(st.integers(1, 6)), draw(st.integers(1, 12))):
        arrays.append(draw(hnp.arrays(np.int64, (count, dim), elements=st.integers(-3, 3))).astype(np.float32))
        arrays.append(draw(hnp.arrays(np.int64, count, elements=st.integers(0, 3))))
    return arrays[0], arrays[1], arrays[2], arrays[3]


@given(retrieval=retrievals(), k=st.integers(1, 15), num_rows=st.integers(1, 5), num_columns=st.integers(1, 9))
def test_agrees_with_the_definition(
    retrieval: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], k: int, num_rows: int, num_columns: int
) -> None:
    expected = naive_map(*retrieval, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ROWS_PER_BLOCK", num_rows)
        patch.setattr(neighbours, "_COLUMNS_PER_BLOCK", num_columns)
        if expected is None:
            with pytest.raises(ValueError, match="has a match"):
                mean_average_precision_at_k(*retrieval, k=k)
        else:
            assert mean_average_precision_at_k(*retrieval, k=k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("queries", "index", "k", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), 1, r"got \(2, 3\) and \(2, 4\)"),
        (np.ones(3), np.ones((2, 3)), 1, r"got \(3,\)"),
        (np.ones((0, 3)), np.ones((2, 3)), 1, "at least one query"),
        (np.ones((2, 3)), np.ones((0, 3)), 1, "at least one query"),
        (np.ones((2, 3)), np.ones((2, 3)), 0, "k must be"),
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), 1, "query_embeddings must be finite.*row 1"),
        (np.ones((2, 1)), np.array([[np.inf], [1.0]]), 1, "index_embeddings must be finite.*row 0"),
    ],
)
def test_wrong_embeddings(queries: np.ndarray, index: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_nearest(queries, index, k)


@pytest.mark.parametrize("rows", [slice(None), slice(7, 40), slice(None, None, 3)])
def test_a_mapped_index(rows: slice, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "index.npy", index := rng.standard_normal((50, 4)).astype(np.float16))
    mapped, queries = np.load(tmp_path / "index.npy", mmap_mode="r"), rng.standard_normal((3, 4))
    assert find_nearest(queries, mapped[rows], 5).tolist() == find_nearest(queries, index[rows], 5).tolist()


def test_wrong_landmarks() -> None:
    with pytest.raises(ValueError, match="landmark of each of the 1 queries"):
        recall_at_k(on_a_line(0), np.array([1, 2]), on_a_line(1), np.array([1]))
    with pytest.raises(ValueError, match="landmark of each index image"):
        recall_at_k(on_a_line(0), np.array([1]), on_a_line(2, 1), np.array([1]))
