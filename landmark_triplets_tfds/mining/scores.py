"""How good embeddings are at retrieval: the measures of the competition and of the public benchmark, in NumPy.

A query is an image that asks, the index is what it searches. An index image is a match if it shows the landmark of the
query. Distances are Euclidean, which for vectors of length 1 ranks as the cosine does.

The benchmark is that of the Google Landmarks Dataset v2 (Weyand et al., CVPR 2020). Its scores are those of
``metrics.py``, and its solution files are read as in ``dataset_file_io.py``, in
``delf/python/datasets/google_landmarks_dataset`` of TensorFlow's model garden: a query without a result counts as one
that found nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
import dataclasses
import os
import re
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import MAX_WORD, check_int
from landmark_triplets_tfds.common.file_access import read_file
from landmark_triplets_tfds.competition.columns import CsvColumns, TextKind
from landmark_triplets_tfds.competition.tables import IMAGE_ID, find_repeated, format_image_id
from landmark_triplets_tfds.errors import SolutionError
from landmark_triplets_tfds.mining.embeddings import Embeddings
from landmark_triplets_tfds.mining.neighbours import search

Landmarks = npt.NDArray[np.integer[Any]]


def mean_average_precision_at_k(
    query_embeddings: Embeddings,
    query_landmarks: Landmarks,
    index_embeddings: Embeddings,
    index_landmarks: Landmarks,
    k: int = 100,
) -> float:
    """Returns mAP@k, with k = 100 the measure of the competition.

    mAP@100 = 1/Q * sum over the queries q of: 1/min(m_q, 100) * sum over the ranks r = 1..min(n_q, 100) of P_q(r) *
    rel_q(r), where m_q is the number of matches of q in the index, n_q the number of results (here the whole index, or
    k), P_q(r) the share of matches among the first r results, and rel_q(r) 1 if result r is a match and 0 otherwise.
    Queries without a match do not count. Source: the page "Evaluation" of the competition,
    https://www.kaggle.com/c/landmark-retrieval-2020/overview/evaluation; the same as ``MeanAveragePrecision`` of the
    benchmark.

    Args:
      query_embeddings: float[num_queries, dim].
      query_landmarks: int[num_queries].
      index_embeddings: float[num_index, dim].
      index_landmarks: int[num_index].
      k: results that count, at least 1.

    Raises:
      ValueError: if shapes do not fit, a value is not finite, or no query has a match.
    """
    results = find_nearest(query_embeddings, index_embeddings, k)
    return float(average_precisions(results, query_landmarks, index_landmarks, k).mean())


def recall_at_k(
    query_embeddings: Embeddings,
    query_landmarks: Landmarks,
    index_embeddings: Embeddings,
    index_landmarks: Landmarks,
    k: int = 1,
) -> float:
    """Returns the share of queries with at least one match among their first k results.

    This is recall@k of the metric learning literature (Jegou et al., "Product quantization for nearest neighbor
    search", PAMI 2011; Song et al., "Deep metric learning via lifted structured feature embedding", CVPR 2016). Queries
    without a match in the index do not count. Arguments and errors are those of `mean_average_precision_at_k`.
    """
    results = find_nearest(query_embeddings, index_embeddings, k)
    return float((average_precisions(results, query_landmarks, index_landmarks, k) > 0).mean())


def find_nearest(query_embeddings: Embeddings, index_embeddings: Embeddings, k: int) -> npt.NDArray[np.int64]:
    """Returns the k nearest index images of every query, nearest first; exact, by blocked matrix products.

    Args:
      query_embeddings: float[num_queries, dim].
      index_embeddings: float[num_index, dim].
      k: at least 1.

    Returns:
      int64[num_queries, min(k, num_index)]: rows of the index. Of equally near ones the first row comes first, so that
      a network that gives all images the same vector is not credited with their best order.

    Raises:
      ValueError: if shapes do not fit, a value is not finite, or there is no query or no index.
    """
    queries, index = np.asanyarray(query_embeddings), np.asanyarray(index_embeddings)
    if queries.ndim != 2 or index.ndim != 2 or queries.shape[1] != index.shape[1]:
        raise ValueError(
            f"expected embeddings [num_queries, dim] and [num_index, dim], got {queries.shape} and {index.shape}."
        )
    if not len(queries) or not len(index):
        raise ValueError(f"expected at least one query and one index image, got {len(queries)} and {len(index)}.")
    return search(queries, index, min(check_int("k", k, 1, MAX_WORD), len(index)))[0]


def average_precisions(
    results: npt.NDArray[np.int64], query_landmarks: Landmarks, index_landmarks: Landmarks, k: int = 100
) -> npt.NDArray[np.float64]:
    """Returns the average precision at k of each query that has a match, in their order.

    Args:
      results: int64[num_queries, at least min(k, num_index)], from `find_nearest`.
      query_landmarks: int[num_queries].
      index_landmarks: int[num_index].
      k: results that count.

    Raises:
      ValueError: if shapes do not fit or no query has a match.
    """
    queries, index, results = np.asarray(query_landmarks), np.asarray(index_landmarks), results[:, :k]
    if queries.shape != (len(results),):
        raise ValueError(f"expected a landmark of each of the {len(results)} queries, got shape {queries.shape}.")
    if index.ndim != 1 or results.max() >= len(index):
        raise ValueError(
            f"expected a landmark of each index image, at least {results.max() + 1}, got shape {index.shape}."
        )
    landmarks, counts = np.unique(index, return_counts=True)
    places = np.minimum(np.searchsorted(landmarks, queries), len(landmarks) - 1)
    num_matches = np.where(landmarks[places] == queries, counts[places], 0)
    counted = num_matches > 0
    if not counted.any():
        raise ValueError(f"none of the {len(queries)} queries has a match in the index of {len(index)} images.")
    matches = index[results[counted]] == queries[counted, np.newaxis]
    averages: npt.NDArray[np.float64] = (_precisions(matches) * matches).sum(axis=1) / np.minimum(
        num_matches[counted], k
    )
    return averages


def _precisions(is_match: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Returns float64, of the same shape: the share of matches among the results up to each one."""
    precisions: npt.NDArray[np.float64] = np.cumsum(is_match, axis=-1) / np.arange(1, is_match.shape[-1] + 1)
    return precisions


# --- The public benchmark

RETRIEVAL, RECOGNITION = "retrieval", "recognition"

# Results that count.
K = 100

_MAX_BYTES = 1 << 30  # the published ones have 3 and 5 MB


def _texts(pattern: str, rule: str) -> TextKind:
    compiled = re.compile(pattern)

    def convert(texts: Any) -> npt.NDArray[np.object_]:
        values: npt.NDArray[np.object_] = texts.to_numpy(zero_copy_only=False)
        if not all(map(compiled.fullmatch, values)):
            raise ValueError(f"a text is not {rule}")
        return values

    return TextKind(compiled, rule, convert)


_USAGES = ("Public", "Private")  # the others are 'Ignored'
_USAGE = _texts("Public|Private|Ignored", "Public, Private or Ignored")
# By task: the column of the answers, what it holds, and the base in which ids are written.
_ANSWERS = {
    RETRIEVAL: ("images", _texts("|None|[0-9a-f]{16}( [0-9a-f]{16})* ?", "ids of images, or None"), 16),
    RECOGNITION: ("landmarks", _texts("|None|[0-9]{1,18}( [0-9]{1,18})* ?", "ids of landmarks, or empty"), 10),
}

_RANKS = (1, 5, 10, 50, 100)


@dataclasses.dataclass(frozen=True)
class Solution:
    """The right answers."""

    path: str
    task: str  # RETRIEVAL or RECOGNITION
    # By usage, 'Public' and 'Private', for each query's id that is not ignored: the ids of the index images that show
    # what it shows, or of its landmarks.
    answers: dict[str, dict[int, frozenset[int]]]


def read_solution(path: epath.Path) -> Solution:
    """Reads ``retrieval_solution_v2.1.csv``, id,images,Usage, or ``recognition_solution_v2.1.csv``, id,landmarks,Usage.

    Raises:
      SolutionError: with line and value, if it is neither.
      OSError: if it cannot be read.
    """
    name, content = os.fspath(path), read_file(os.fspath(path), _MAX_BYTES)

    def columns_of(task: str) -> CsvColumns:
        column, kind, _ = _ANSWERS[task]
        return CsvColumns(lambda: content, name, {"id": IMAGE_ID, column: kind, "Usage": _USAGE}, SolutionError)

    task = RECOGNITION if _ANSWERS[RECOGNITION][0] in columns_of(RETRIEVAL).header() else RETRIEVAL
    columns = columns_of(task)
    ids, texts, usages = columns.read()
    repeated = find_repeated(ids)
    if repeated:
        before, again = repeated
        raise columns.problem(again, f"id {format_image_id(ids[again])} is there already, on {columns.where(before)}.")
    answers: dict[str, dict[int, frozenset[int]]] = {usage: {} for usage in _USAGES}
    for query, text, usage in zip(ids.tolist(), texts, usages, strict=True):
        if usage in answers:
            base = _ANSWERS[task][2]
            answers[usage][query] = frozenset(int(each, base) for each in text.split() if each != "None")
    if not any(any(of_usage.values()) for of_usage in answers.values()):
        raise SolutionError(
            f"{name} answers no Public or Private query. Expected is the solution that was published after the"
            f" competitions, {task}_solution_v2.1.csv."
        )
    return Solution(name, task, answers)


def score_retrieval(answers: Mapping[int, Collection[int]], results: Mapping[int, Sequence[int]]) -> dict[str, Any]:
    """Scores what was found.

    Args:
      answers: by query, the ids of the index images that are right.
      results: by query, the ids of the index images found, best first, each once. Queries may be missing.

    Returns:
      'map_at_100', see `mean_average_precision_at_k`, where all queries count; 'precision_at' and 'recall_at',
      by number of results k as a text: the mean share of right images among the first k results, and the share of the
      queries with at least one; 'mean_position' and 'median_position' of the first right one, 101 where none is among
      100 results.
    """
    found = np.zeros((len(answers), K), dtype=bool)
    sizes = np.array([min(max(len(right), 1), K) for right in answers.values()])
    for row, (query, right) in enumerate(answers.items()):
        found[row, : min(len(results.get(query, ())), K)] = [each in right for each in results.get(query, ())[:K]]
    precisions = _precisions(found)
    positions = np.where(found.any(axis=1), found.argmax(axis=1) + 1, K + 1)
    return {
        "map_at_100": float(((precisions * found).sum(axis=1) / sizes).mean()),
        "precision_at": {str(k): float(precisions[:, k - 1].mean()) for k in _RANKS},
        "recall_at": {str(k): float((positions <= k).mean()) for k in _RANKS},
        "mean_position": float(positions.mean()),
        "median_position": float(np.median(positions)),
    }


def score_recognition(
    answers: Mapping[int, Collection[int]], predictions: Mapping[int, tuple[int, float]]
) -> dict[str, Any]:
    """Scores predicted landmarks.

    Args:
      answers: by query, the landmarks that are right; none for an image of no landmark.
      predictions: by query, the landmark and how sure it is. Queries may be missing.

    Returns:
      'gap', the global average precision: with all predictions in the order of their scores (then of the queries' ids),
      the sum over the right ones of the share of right ones up to there, divided by the number of queries that show a
      landmark. 'accuracy': the share of these whose prediction is right.
    """
    ranked = sorted((-score, query, landmark) for query, (landmark, score) in predictions.items() if query in answers)
    right = np.array([landmark in answers[query] for _, query, landmark in ranked], dtype=bool)
    num_with_landmark = sum(bool(landmarks) for landmarks in answers.values())
    return {
        "gap": float((_precisions(right) * right).sum() / num_with_landmark),
        "accuracy": float(right.sum() / num_with_landmark),
    }
