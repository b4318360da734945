"""How good embeddings are at retrieval: the measures of the competition, in NumPy, whatever framework made them.

A query is an image that asks, the index is what it searches. An index image is a match if it shows the landmark of the
query. Distances are Euclidean, which for vectors of length 1 ranks as the cosine does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import MAX_WORD, check_int
from landmark_triplets_tfds.mining.neighbours import Embeddings, search

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
    https://www.kaggle.com/c/landmark-retrieval-2020/overview/evaluation; the same as ``MeanAveragePrecision`` in
    ``delf/python/datasets/google_landmarks_dataset/metrics.py`` of TensorFlow's model garden.

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
    precisions = np.cumsum(matches, axis=1) / np.arange(1, matches.shape[1] + 1)
    averages: npt.NDArray[np.float64] = (precisions * matches).sum(axis=1) / np.minimum(num_matches[counted], k)
    return averages
