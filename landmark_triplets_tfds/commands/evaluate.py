"""The command `evaluate`: embeddings, and the solution of a benchmark, to the scores that papers report."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import dataclasses
import os
import time
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.preview import check_out, prepared_examples
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import CommandError, EmbeddingsError, SolutionError
from landmark_triplets_tfds.mining import scores
from landmark_triplets_tfds.mining.embeddings import Embeddings, Places, read_embeddings
from landmark_triplets_tfds.mining.neighbours import Similarities, search
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_indexes
from landmark_triplets_tfds.training.show import draw_results
from landmark_triplets_tfds.triplets.draws import TRAIN

# By task: the split that is searched, and how many results of a query count.
_SEARCHED = {scores.RETRIEVAL: ("index", scores.K), scores.RECOGNITION: (TRAIN, 1)}

_NUM_ROWS, _NUM_RESULTS = 8, 6  # of the picture


@dataclasses.dataclass(frozen=True)
class _Embedded:
    """Records of a split, n of them, with their embeddings from a file."""

    split: str
    path: epath.Path
    rows: Places  # of the file, and of the records
    image_ids: npt.NDArray[np.uint64]
    landmark_ids: npt.NDArray[np.int32]
    embeddings: Embeddings

    def take(self, at: Places) -> _Embedded:
        arrays: Any = {name: value[at] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return dataclasses.replace(self, **arrays)

    def name_row(self, at: int) -> str:
        return f"{self.path}, row {self.rows[at]:,} (image {format_image_id(self.image_ids[at])})"


def run(arguments: argparse.Namespace) -> int:
    """Searches, scores what is found, and says so."""
    out = check_out(arguments.out)
    solution = scores.read_solution(arguments.solution)
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
    if solution.task == scores.RECOGNITION and database.landmark_ids.min() < 0:
        raise CommandError(f"the images of split {database.split!r} have no landmarks to be recognized by.")
    queries = _take_scored(queries, solution)
    start = time.perf_counter()
    with progress_bar(len(database.rows), "Searching", " images") as bar:
        k = min(k, len(database.rows))
        names = queries.name_row, database.name_row
        places, nearness = search(queries.embeddings, database.embeddings, k, arguments.metric, bar.update, *names)
    found = {
        "schema_version": 1,
        "task": solution.task,
        "solution": solution.path,
        "metric": arguments.metric,
        "num_searched": len(database.rows),
        "scores": _score(solution, queries, database, places, nearness),
        "seconds": round(time.perf_counter() - start, 3),
    }
    if out is not None:
        _draw(arguments.index, solution, queries, database, places).save(out)
        found["picture"] = os.fspath(out)
    console.show_found(found, _lines(found), as_json=arguments.json)
    return console.OK


def _read(path: epath.Path, folder: epath.Path, split: str, note: str) -> _Embedded:
    indexes = read_image_indexes(folder)
    if split not in indexes:
        raise CommandError(
            f"{folder} has the splits {', '.join(indexes)}, but no {split!r}. Of a copy with index/ and test/, a config"
            " with unlabeled_splits makes splits; --query_split and --database_split name others."
        )
    index = indexes[split]
    found = f"split {split!r} in {folder / INDEX_NAME} has {len(index):,} records.{note}"
    embeddings = read_embeddings(path, len(index), found)
    return _Embedded(split, path, np.arange(len(index)), index.image_ids, index.landmark_ids, embeddings)


def _take_scored(queries: _Embedded, solution: scores.Solution) -> _Embedded:
    wanted = np.array([query for of_usage in solution.answers.values() for query in of_usage], dtype=np.uint64)
    at = np.flatnonzero(np.isin(queries.image_ids, wanted))
    if not len(at):
        raise SolutionError(
            f"{solution.path} scores {len(wanted):,} queries, none of which is in split {queries.split!r}. Was the"
            " dataset built from other images, or is the solution of another version?"
        )
    return queries.take(at)


def _score(
    solution: scores.Solution, queries: _Embedded, database: _Embedded, places: Places, nearness: Similarities
) -> dict[str, dict[str, Any]]:
    """Returns counts and scores by usage."""
    query_ids = queries.image_ids.tolist()
    by_usage: dict[str, dict[str, Any]] = {}
    for usage, answers in solution.answers.items():
        if not any(answers.values()):
            continue
        num_without = len(answers.keys() - set(query_ids))
        of = by_usage[usage] = {"num_queries": len(answers), "num_queries_without_embedding": num_without}
        if solution.task == scores.RETRIEVAL:
            right = np.array(sorted(frozenset[int]().union(*answers.values())), dtype=np.uint64)
            num_without = int((~np.isin(right, database.image_ids)).sum())
            of |= {"num_right_images": len(right), "num_right_images_without_embedding": num_without}
            results = zip(query_ids, database.image_ids[places].tolist(), strict=True)
            of |= scores.score_retrieval(answers, dict(results))
        else:
            of["num_queries_with_landmark"] = sum(map(bool, answers.values()))
            landmarks = database.landmark_ids[places[:, 0]].tolist()
            predictions = zip(landmarks, nearness[:, 0].tolist(), strict=True)
            of |= scores.score_recognition(answers, dict(zip(query_ids, predictions, strict=True)))
    return by_usage


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield console.styled(
        f"{found['task'].capitalize()}, {found['metric']}: {found['num_searched']:,} images searched in"
        f" {console.format_seconds(found['seconds'])}.",
        "bold",
    )
    rows: list[tuple[str, ...]] = []
    for usage, of in found["scores"].items():
        if found["task"] == scores.RETRIEVAL:
            shown = {"mAP@100": of["map_at_100"]}
            shown |= {f"P@{k}": of["precision_at"][k] for k in ("1", "10", "100")}
            shown |= {f"R@{k}": of["recall_at"][k] for k in ("1", "10", "100")}
        else:
            shown = {"GAP": of["gap"], "accuracy": of["accuracy"]}
        rows = rows or [("", "queries", *shown)]
        rows.append((usage, f"{of['num_queries']:,}", *(f"{value:.4f}" for value in shown.values())))
    yield from console.format_table(rows)
    for usage, of in found["scores"].items():
        for name, what in (("num_queries", "queries"), ("num_right_images", "right images")):
            if missing := of.get(f"{name}_without_embedding"):
                text = f"{usage}: {missing:,} of {of[name]:,} {what} have no embedding, and count as not found."
                yield console.fill(text)
    if "picture" in found:
        yield f"Wrote {found['picture']}."


def _draw(
    folder: epath.Path, solution: scores.Solution, queries: _Embedded, database: _Embedded, places: Places
) -> Any:
    """Returns a picture of some queries that have an answer, spread evenly, with their first results."""
    answers = {query: right for of_usage in solution.answers.values() for query, right in of_usage.items() if right}
    query_ids = queries.image_ids.tolist()
    answered = [at for at, query in enumerate(query_ids) if query in answers]
    if not answered:
        raise CommandError("no query that has an embedding has an answer, so there is nothing to draw.")
    chosen = np.unique(np.linspace(0, len(answered) - 1, _NUM_ROWS).astype(np.int64))
    get_query, get_result = (prepared_examples(folder, each.split).get for each in (queries, database))
    ids = database.image_ids if solution.task == scores.RETRIEVAL else database.landmark_ids
    drawn = []
    for at in (answered[i] for i in chosen.tolist()):
        nearest = places[at, :_NUM_RESULTS].tolist()
        results = [(get_result(place), int(ids[place]) in answers[query_ids[at]]) for place in nearest]
        query = get_query(int(queries.rows[at]))
        if query is not None:
            drawn.append((query, [(result, is_right) for result, is_right in results if result is not None]))
    if not drawn:
        raise CommandError(f"{folder} is damaged. To see what is wrong: landmark-triplets verify {folder}")
    return draw_results(drawn)
