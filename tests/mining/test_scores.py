"""Retrieval measures and the public benchmark: cases worked out by hand, and the definitions written down once more."""

from __future__ import annotations

import pathlib

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from landmark_triplets_tfds.errors import SolutionError
from landmark_triplets_tfds.mining import neighbours
from landmark_triplets_tfds.mining.scores import (
    K,
    average_precisions,
    find_nearest,
    mean_average_precision_at_k,
    read_solution,
    recall_at_k,
    score_recognition,
    score_retrieval,
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


@settings(deadline=None)
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
        (np.array([[1.0], [np.nan]]), np.ones((2, 1)), 1, "query_embeddings, row 1, holds NaN or infinity"),
        (np.ones((2, 1)), np.array([[np.inf], [1.0]]), 1, "index_embeddings, row 0, holds NaN or infinity"),
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


# --- The public benchmark

A, B, C = "000000000000000a", "000000000000000b", "000000000000000c"
RETRIEVAL = f"id,images,Usage\n{A},{B} {C},Public\n{B},None,Ignored\n{C},{A},Private\n"
RECOGNITION = f"id,landmarks,Usage\n{A},7 9,Public\n{B},,Public\n{C},8,Private\n"


def read(tmp_path, text):
    path = epath.Path(tmp_path / "solution.csv")
    path.write_text(text)
    return read_solution(path)


def test_solutions(tmp_path):
    found = read(tmp_path, RETRIEVAL)
    assert (found.task, found.answers) == ("retrieval", {"Public": {10: {11, 12}}, "Private": {12: {10}}})
    found = read(tmp_path, RECOGNITION)
    assert (found.task, found.answers) == ("recognition", {"Public": {10: {7, 9}, 11: set()}, "Private": {12: {8}}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,landmark_id\n", "line 1: the header must have the columns id, images and Usage"),
        (RETRIEVAL.replace("Private", "private"), "line 4: Usage must be Public, Private or Ignored, got 'private'"),
        (RETRIEVAL.replace(f"{B} {C}", f"{B};{C}"), "line 2: images must be ids of images, or None, got"),
        (RECOGNITION.replace("7 9", "7 x"), "line 2: landmarks must be ids of landmarks, or empty, got '7 x'"),
        (RETRIEVAL.replace(f"{C},{A}", f"{A},{A}"), "line 4: id 000000000000000a is there already, on line 2"),
        (RETRIEVAL.replace("Public", "Ignored").replace("Private", "Ignored"), "answers no Public or Private query"),
        (RECOGNITION.replace("7 9", "").replace("8", ""), "answers no Public or Private query"),
    ],
)
def test_what_is_no_solution(tmp_path, text, message):
    with pytest.raises(SolutionError, match=message):
        read(tmp_path, text)


def test_retrieval_by_hand():
    answers = {1: {10, 11}, 2: {12}, 3: {13}, 4: set()}
    scores = score_retrieval(answers, {1: [10, 99, 11], 2: [98, 97, 12, 96], 9: [10]})
    # Query 1: (1/1 + 2/3) / 2; query 2: 1/3; query 3 has no result, query 4 no answer.
    assert scores["map_at_100"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 4)
    assert scores["precision_at"] == pytest.approx(
        {"1": 1 / 4, "5": (2 / 5 + 1 / 5) / 4, "10": 3 / 40, "50": 3 / 200, "100": 3 / 400}
    )
    assert scores["recall_at"] == {"1": 1 / 4, "5": 1 / 2, "10": 1 / 2, "50": 1 / 2, "100": 1 / 2}
    assert (scores["mean_position"], scores["median_position"]) == ((1 + 3 + 101 + 101) / 4, (3 + 101) / 2)


def test_only_100_results_count():
    right = set(range(300))
    assert score_retrieval({1: right}, {1: list(range(300))})["map_at_100"] == 1
    assert score_retrieval({1: {200}}, {1: list(range(300))})["map_at_100"] == 0


def test_recognition_by_hand():
    answers = {1: {7}, 2: {8, 9}, 3: set(), 4: {7}}
    # In order of scores: 3 (wrong), 1 (right), 2 (right); 4 is not predicted; 9 is no query.
    scores = score_recognition(answers, {1: (7, 0.8), 2: (9, 0.5), 3: (7, 0.9), 9: (7, 1.0)})
    assert scores == pytest.approx({"gap": (1 / 2 + 2 / 3) / 3, "accuracy": 2 / 3})
    # Equally sure ones are in the order of the queries.
    assert score_recognition({1: set(), 2: {5}}, {2: (5, 0.5), 1: (5, 0.5)})["gap"] == 1 / 2
    assert score_recognition({1: {5}, 2: set()}, {2: (5, 0.5), 1: (5, 0.5)})["gap"] == 1


ids = st.integers(0, 12)


@settings(max_examples=300, deadline=None)
@given(
    answers=st.dictionaries(ids, st.frozensets(st.integers(0, 150), min_size=1), min_size=1, max_size=6),
    results=st.dictionaries(ids, st.lists(st.integers(0, 150), unique=True, max_size=130), max_size=8),
)
def test_retrieval_agrees_with_the_definition(answers, results):
    averages, precisions = [], {1: [], 5: [], 10: [], 50: [], 100: []}
    for query, right in answers.items():
        ranked = results.get(query, [])[:K]
        hits = [rank for rank, each in enumerate(ranked, 1) if each in right]
        averages.append(sum(number / rank for number, rank in enumerate(hits, 1)) / min(len(right), K))
        for k, of_k in precisions.items():
            of_k.append(sum(rank <= k for rank in hits) / k)
    scores = score_retrieval(answers, results)
    assert scores["map_at_100"] == pytest.approx(sum(averages) / len(answers))
    assert scores["precision_at"] == pytest.approx({str(k): sum(of_k) / len(answers) for k, of_k in precisions.items()})


@settings(max_examples=300, deadline=None)
@given(
    answers=st.dictionaries(ids, st.frozensets(st.integers(0, 3)), max_size=8).filter(lambda a: any(a.values())),
    predictions=st.dictionaries(ids, st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.5, 0.9])), max_size=13),
)
def test_recognition_agrees_with_the_definition(answers, predictions):
    ranked = sorted((q for q in predictions if q in answers), key=lambda q: (-predictions[q][1], q))
    is_right = [predictions[query][0] in answers[query] for query in ranked]
    total = sum(sum(is_right[: i + 1]) / (i + 1) for i in range(len(ranked)) if is_right[i])
    num_with_landmark = sum(1 for landmarks in answers.values() if landmarks)
    assert score_recognition(answers, predictions) == pytest.approx(
        {"gap": total / num_with_landmark, "accuracy": sum(is_right) / num_with_landmark}
    )
