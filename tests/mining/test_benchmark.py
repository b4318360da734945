"""Solutions and scores of the benchmark: cases worked out by hand, and the definitions written down once more."""

from __future__ import annotations

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from landmark_triplets_tfds.errors import SolutionError
from landmark_triplets_tfds.mining.benchmark import K, read_solution, score_recognition, score_retrieval

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


@settings(max_examples=1000)
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


@settings(max_examples=1000)
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
