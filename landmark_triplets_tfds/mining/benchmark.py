"""The public benchmark of the Google Landmarks Dataset v2: its solution files, and the scores of what was found.

Weyand et al., "Google Landmarks Dataset v2", CVPR 2020. Scores are those of ``metrics.py``, and solutions are read as
in ``dataset_file_io.py``, in ``delf/python/datasets/google_landmarks_dataset`` of TensorFlow's model garden: a query
without a result counts as one that found nothing.
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

from landmark_triplets_tfds.common.file_access import read_file
from landmark_triplets_tfds.competition.columns import CsvColumns, TextKind
from landmark_triplets_tfds.competition.tables import IMAGE_ID, find_repeated, format_image_id
from landmark_triplets_tfds.errors import SolutionError

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
    """The right answers.

    Attributes:
      path: of the file.
      task: 'retrieval' or 'recognition'.
      answers: by usage, 'Public' and 'Private', for each query's id: the ids of the index images that show what it
        shows, or of its landmarks. Queries that are ignored are not in it.
    """

    path: str
    task: str
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
      'map_at_100', see `scores.mean_average_precision_at_k`, where all queries count; 'precision_at' and 'recall_at',
      by number of results k as a text: the mean share of right images among the first k results, and the share of the
      queries with at least one; 'mean_position' and 'median_position' of the first right one, 101 where none is among
      100 results.
    """
    found = np.zeros((len(answers), K), dtype=bool)
    sizes = np.array([min(max(len(right), 1), K) for right in answers.values()])
    for row, (query, right) in enumerate(answers.items()):
        found[row, : min(len(results.get(query, ())), K)] = [each in right for each in results.get(query, ())[:K]]
    precisions = np.cumsum(found, axis=1) / np.arange(1, K + 1)
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
    precisions = np.cumsum(right) / np.arange(1, len(right) + 1)
    return {
        "gap": float((precisions * right).sum() / num_with_landmark),
        "accuracy": float(right.sum() / num_with_landmark),
    }
