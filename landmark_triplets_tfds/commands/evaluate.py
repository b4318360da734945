"""The command `evaluate`: embeddings, and the solution of a benchmark, to the scores that papers report."""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import Any

from etils import epath
import numpy as np

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.preview import check_out, prepared_examples
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import CommandError, EmbeddingsError, SolutionError
from landmark_triplets_tfds.mining.benchmark import (
    RECOGNITION,
    RETRIEVAL,
    K,
    Solution,
    read_solution,
    score_recognition,
    score_retrieval,
)
from landmark_triplets_tfds.mining.embeddings import read_embeddings
from landmark_triplets_tfds.mining.neighbours import Embeddings, UnusableVectorError, search
from landmark_triplets_tfds.training.records import INDEX_NAME, ImageIndex, read_image_indexes
from landmark_triplets_tfds.training.show import draw_results
from landmark_triplets_tfds.triplets.draws import TRAIN

# By task: the split that is searched, and how many results of a query count.
_SEARCHED = {RETRIEVAL: ("index", K), RECOGNITION: (TRAIN, 1)}

_NUM_ROWS, _NUM_RESULTS = 8, 6  # of the picture


@dataclasses.dataclass(frozen=True)
class _Embedded:
    """A split with its embeddings, float[n, dim], in the order of its records."""

    split: str
    index: ImageIndex
    embeddings: Embeddings


def run(arguments: argparse.Namespace) -> int:
    """Searches, scores what is found, and says so."""
    out = check_out(arguments.out)
    solution = read_solution(arguments.solution)
    split, k = _SEARCHED[solution.task]
    split = arguments.database_split or split
    queries = _read(arguments.queries, arguments.index, arguments.query_split, "")
    note = f" {solution.path} is of {solution.task}, and split {split!r} is searched for it."
    database = _read(arguments.database, arguments.index, split, note)
    if queries.embeddings.shape[1] != database.embeddings.shape[1]:
        raise EmbeddingsError(
            f"{arguments.queries} has {queries.embeddings.shape[1]} numbers an image, and {arguments.database}"
            f" {database.embeddings.shape[1]}. Both must come from the same model."
        )
    if solution.task == RECOGNITION and database.index.landmark_ids.min() < 0:
        raise CommandError(f"the images of split {database.split!r} have no landmarks to be recognized by.")
    rows = _rows_of_queries(solution, queries)
    start = time.perf_counter()
    with progress_bar(len(database.embeddings), "Searching", " images") as bar:
        k = min(k, len(database.embeddings))
        try:
            places, nearness = search(queries.embeddings[rows], database.embeddings, k, arguments.metric, bar.update)
        except UnusableVectorError as error:
            is_query = error.name == "query_embeddings"
            path, of = (arguments.queries, queries) if is_query else (arguments.database, database)
            row = int(rows[error.row]) if is_query else error.row
            image = format_image_id(of.index.image_ids[row])
            raise EmbeddingsError(f"{path}, row {row:,} (image {image}) {error.what}. Compute it again.") from None
    query_ids = queries.index.image_ids[rows].tolist()
    found = {
        "schema_version": 1,
        "task": solution.task,
        "solution": solution.path,
        "metric": arguments.metric,
        "num_searched": len(database.index),
        "scores": _score(solution, query_ids, places, nearness, database),
        "seconds": round(time.perf_counter() - start, 3),
    }
    if out is not None:
        _draw(arguments.index, solution, queries, database, rows, places).save(out)
        found["picture"] = os.fspath(out)
    if arguments.json:
        console.print_json(found)
    else:
        console.show("\n".join(_lines(found)))
    return console.OK


def _read(path: epath.Path, folder: epath.Path, split: str, note: str) -> _Embedded:
    embeddings, indexes = read_embeddings(path), read_image_indexes(folder)
    if split not in indexes:
        raise CommandError(
            f"{folder} has the splits {', '.join(indexes)}, but no {split!r}. Of a copy with index/ and test/, a config"
            " with unlabeled_splits makes splits; --query_split and --database_split name others."
        )
    index = indexes[split]
    if len(embeddings) != len(index):
        raise EmbeddingsError(
            f"{path} has {len(embeddings):,} rows, but split {split!r} in {folder / INDEX_NAME} has {len(index):,}"
            " records. Row i must be the embedding of record i: compute embeddings for all of them, in their order."
            + note
        )
    return _Embedded(split, index, embeddings)


def _rows_of_queries(solution: Solution, queries: _Embedded) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the rows of the embeddings of queries that are scored."""
    wanted = np.array([query for of_usage in solution.answers.values() for query in of_usage], dtype=np.uint64)
    rows = np.flatnonzero(np.isin(queries.index.image_ids, wanted))
    if not len(rows):
        raise SolutionError(
            f"{solution.path} scores {len(wanted):,} queries, none of which is in split {queries.split!r}. Was the"
            " dataset built from other images, or is the solution of another version?"
        )
    return rows


def _score(
    solution: Solution,
    query_ids: list[int],
    places: np.ndarray[Any, Any],
    nearness: np.ndarray[Any, Any],
    database: _Embedded,
) -> dict[str, dict[str, Any]]:
    scores: dict[str, dict[str, Any]] = {}
    for usage, answers in solution.answers.items():
        if not any(answers.values()):
            continue
        counts: dict[str, Any] = {
            "num_queries": len(answers),
            "num_queries_without_embedding": len(answers.keys() - set(query_ids)),
        }
        if solution.task == RETRIEVAL:
            results = dict(zip(query_ids, database.index.image_ids[places].tolist(), strict=True))
            right = np.array(sorted(frozenset[int]().union(*answers.values())), dtype=np.uint64)
            counts["num_right_images"] = len(right)
            counts["num_right_images_without_embedding"] = int((~np.isin(right, database.index.image_ids)).sum())
            scores[usage] = counts | score_retrieval(answers, results)
        else:
            landmarks = database.index.landmark_ids[places[:, 0]].tolist()
            predictions = zip(landmarks, nearness[:, 0].tolist(), strict=True)
            counts["num_queries_with_landmark"] = sum(map(bool, answers.values()))
            scores[usage] = counts | score_recognition(answers, dict(zip(query_ids, predictions, strict=True)))
    return scores


def _lines(found: dict[str, Any]) -> list[str]:
    scores: dict[str, dict[str, Any]] = found["scores"]
    lines = [
        console.styled(
            f"{found['task'].capitalize()}, {found['metric']}: {found['num_searched']:,} images searched in"
            f" {console.format_seconds(found['seconds'])}.",
            "bold",
        )
    ]
    if found["task"] == RETRIEVAL:
        shown = {"mAP@100": ("map_at_100", "")}
        shown |= {f"P@{k}": ("precision_at", k) for k in ("1", "10", "100")}
        shown |= {f"R@{k}": ("recall_at", k) for k in ("1", "10", "100")}
    else:
        shown = {"GAP": ("gap", ""), "accuracy": ("accuracy", "")}
    rows = [("", "queries", *shown)]
    for usage, of in scores.items():
        values = (of[name][k] if k else of[name] for name, k in shown.values())
        rows.append((usage, f"{of['num_queries']:,}", *(f"{value:.4f}" for value in values)))
    lines += console.format_table(rows)
    for usage, of in scores.items():
        for name, what in (("num_queries", "queries"), ("num_right_images", "right images")):
            missing = of.get(f"{name}_without_embedding", 0)
            if missing:
                text = f"{usage}: {missing:,} of {of[name]:,} {what} have no embedding, and count as not found."
                lines.append(console.fill(text))
    return lines + ([f"Wrote {found['picture']}."] if "picture" in found else [])


def _draw(
    folder: epath.Path,
    solution: Solution,
    queries: _Embedded,
    database: _Embedded,
    rows: np.ndarray[Any, Any],
    places: np.ndarray[Any, Any],
) -> Any:
    """Returns a picture of some queries that have an answer, spread evenly, with their first results."""
    answers = {query: right for of_usage in solution.answers.values() for query, right in of_usage.items() if right}
    query_ids = queries.index.image_ids[rows].tolist()
    answered = [number for number, query in enumerate(query_ids) if query in answers]
    if not answered:
        raise CommandError("no query that has an embedding has an answer, so there is nothing to draw.")
    chosen = np.unique(np.linspace(0, len(answered) - 1, _NUM_ROWS).astype(np.int64))
    get_query, get_result = (prepared_examples(folder, each.split).get for each in (queries, database))
    ids = database.index.image_ids if solution.task == RETRIEVAL else database.index.landmark_ids
    drawn = []
    for number in (answered[at] for at in chosen.tolist()):
        query, shown = get_query(int(rows[number])), []
        for place in places[number, :_NUM_RESULTS].tolist():
            result = get_result(place)
            if result is not None:
                shown.append((result, int(ids[place]) in answers[query_ids[number]]))
        if query is not None:
            drawn.append((query, shown))
    if not drawn:
        raise CommandError(f"{folder} is damaged. To see what is wrong: landmark-triplets verify {folder}")
    return draw_results(drawn)
