"""The command `evaluate`: from embeddings and a solution to scores and a picture, and its exit statuses."""

import json
import re

import numpy as np
from PIL import Image
import pytest

from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.training.records import read_image_index
from tests.support.competition import build_images, images_config
from tests.support.prepared_builds import without_bank

SPLITS = ("train", "index", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A prepared dataset with images without labels, and beside it embeddings of its splits."""
    place = tmp_path_factory.mktemp("evaluate")
    with without_bank():
        config = images_config(resolution=16, images_per_landmark=None, unlabeled_splits=True)
        data = build_images(place, config).data_path
    rng = np.random.default_rng(0)
    for split in SPLITS:
        np.save(data / f"{split}.npy", rng.normal(size=(len(read_image_index(data, split)), 8)).astype(np.float32))
    return data


def ids_of(folder, split):
    return [format_image_id(image_id) for image_id in read_image_index(folder, split).image_ids.tolist()]


def evaluate(folder, solution, *arguments, queries="test.npy", database="index.npy"):
    path = folder / "solution.csv"
    path.write_text(solution)
    words = ["--queries", folder / queries, "--database", folder / database, "--index", folder, "--solution", path]
    return cli.main(["evaluate", *map(str, (*words, *arguments))])


def retrieval_solution(folder, metric):
    """The nearest and the third nearest image are right for the first query, the second nearest for the last one."""
    queries, database = (np.load(folder / f"{split}.npy").astype(np.float64) for split in ("test", "index"))
    if metric == "cosine":
        queries, database = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, database))
    order = np.linalg.norm(queries[:, np.newaxis] - database, axis=2).argsort(axis=1)
    asking, found = ids_of(folder, "test"), np.array(ids_of(folder, "index"))
    return (
        "id,images,Usage\n"
        f"{asking[0]},{found[order[0, 0]]} {found[order[0, 2]]},Private\n"
        f"{asking[1]},None,Ignored\n"
        f"{asking[2]},{found[order[2, 1]]} 00000000000000ff,Public\n"
        f"00000000000000aa,{found[0]},Private\n"
    )


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_retrieval(folder, metric, tmp_path, capsys):
    solution, picture = retrieval_solution(folder, metric), tmp_path / "results.png"
    assert evaluate(folder, solution, "--metric", metric, "--out", picture, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema_version"], found["task"], found["metric"]) == (1, "retrieval", metric)
    private, public = found["scores"]["Private"], found["scores"]["Public"]
    assert private["map_at_100"] == pytest.approx((1 + 2 / 3) / 2 / 2)  # the other query has no embedding
    assert public["map_at_100"] == pytest.approx(1 / 2 / 2)  # of two right images one is not in the index
    assert (private["num_queries"], private["num_queries_without_embedding"]) == (2, 1)
    assert (public["num_right_images"], public["num_right_images_without_embedding"]) == (2, 1)
    with Image.open(picture) as image:
        assert image.width > image.height > 200
    assert evaluate(folder, solution, "--metric", metric) == 0
    text = capsys.readouterr().out
    assert "mAP@100" in text
    assert "Private: 1 of 2 queries have no embedding, and count as not found." in text
    assert "Public: 1 of 2 right images have no embedding, and count as not found." in text


def test_recognition(folder, capsys):
    queries, database = (np.load(folder / f"{split}.npy").astype(np.float64) for split in ("test", "train"))
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        database / np.linalg.norm(database, axis=1)[:, None]
    ).T
    landmarks = read_image_index(folder).landmark_ids[cosines.argmax(axis=1)]
    surest_last = np.argsort(cosines.max(axis=1))
    asking = ids_of(folder, "test")
    right, wrong, other = surest_last[::-1].tolist()
    solution = (
        f"id,landmarks,Usage\n{asking[right]},{landmarks[right]},Public\n{asking[wrong]},,Public\n"
        f"{asking[other]},{landmarks[other]} 5,Public\n"
    )
    assert evaluate(folder, solution, "--json", database="train.npy") == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert list(scores) == ["Public"]
    assert scores["Public"]["gap"] == pytest.approx((1 + 2 / 3) / 2)
    assert (scores["Public"]["accuracy"], scores["Public"]["num_queries_with_landmark"]) == (1, 2)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("other queries", "scores 1 queries, none of which is in split 'test'"),
        ("fewer rows", "d.npy has .* rows, but split 'index' in .* is of retrieval, and split 'index' is searched"),
        ("no such split", r"has the splits train, index, test, but no 'query'.*unlabeled_splits"),
        ("other width", "Both must come from the same model"),
        ("nan", r"d.npy, row 2 \(image [0-9a-f]{16}\) holds NaN or infinity.*Compute it again"),
        ("zeros", r"q.npy, row 2 \(image [0-9a-f]{16}\) is all zeros"),
        ("unlabeled", "have no landmarks to be recognized by"),
    ],
)
def test_what_does_not_fit(folder, what, message, capsys):
    solution = retrieval_solution(folder, "cosine")
    queries, database = np.load(folder / "test.npy"), np.load(folder / "index.npy")
    arguments = []
    if what == "other queries":
        solution = "id,images,Usage\n00000000000000aa,00000000000000bb,Public\n"
    elif what == "fewer rows":
        database = database[:-1]
    elif what == "other width":
        database = database[:, :4]
    elif what == "nan":
        database[2, 1] = np.nan
    elif what == "zeros":
        queries[2] = 0
    elif what == "no such split":
        arguments = ["--query_split", "query"]
    else:
        solution = f"id,landmarks,Usage\n{ids_of(folder, 'test')[0]},5,Public\n"
        arguments = ["--database_split", "index"]
    np.save(folder / "q.npy", queries)
    np.save(folder / "d.npy", database)
    assert evaluate(folder, solution, *arguments, queries="q.npy", database="d.npy") == 2
    assert re.search(message, capsys.readouterr().err)
