"""The command `mine`: from files to a file, what it says, and its exit statuses."""

import json
import os
import sys

from etils import epath
import numpy as np
import pandas as pd
import pytest

from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.competition.tables import format_image_id, read_landmark_table
from landmark_triplets_tfds.mining.hard_triplets import MiningSpec, mine_triplets
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index, write_image_index
from tests.support.competition import DUMMY_DATA
from tests.support.fake_source import image_index

COLUMNS = ["anchor_id", "positive_id", "negative_id", "positive_similarity", "negative_similarity"]


def random_embeddings(landmark_ids, seed=0):
    rng = np.random.default_rng(seed)
    _, numbers = np.unique(landmark_ids, return_inverse=True)
    centres = rng.normal(size=(numbers.max() + 1, 8))
    return (centres[numbers] + 0.5 * rng.normal(size=(len(numbers), 8))).astype(np.float32)


@pytest.fixture
def prepared(tmp_path):
    """A folder with an index of two splits and the embeddings of both."""
    splits = {
        "train": image_index(np.repeat(np.arange(30), 4).tolist(), list(range(1000, 1120))),
        "validation": image_index([1, 1, 2, 2, 2, 3], list(range(6))),
    }
    write_image_index(epath.Path(tmp_path / INDEX_NAME), splits)
    for split, index in splits.items():
        np.save(tmp_path / f"{split}.npy", random_embeddings(index.landmark_ids))
    return tmp_path


def mine(*arguments):
    return cli.main(["mine", *map(str, arguments)])


def mine_prepared(folder, *arguments, embeddings="train.npy", out="hard.csv"):
    return mine("--embeddings", folder / embeddings, "--index", folder, "--out", folder / out, *arguments)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_file_holds_what_was_mined(prepared, suffix, capsys):
    out = prepared / f"hard.{suffix}"
    assert mine_prepared(prepared, out=out.name) == 0
    index = read_image_index(prepared)
    mined = mine_triplets(np.load(prepared / "train.npy"), index.image_ids, index.landmark_ids)
    frame = pd.read_csv(out, dtype=dict.fromkeys(COLUMNS[:3], str)) if suffix == "csv" else pd.read_parquet(out)
    assert list(frame.columns) == COLUMNS
    assert len(frame) == len(mined) > 100
    ids = [[format_image_id(image_id) for image_id in triplet] for triplet in mined.image_ids]
    assert frame[COLUMNS[:3]].to_numpy().tolist() == ids
    assert np.allclose(frame[COLUMNS[3:]], mined.similarities, atol=1e-6)
    output = capsys.readouterr()
    assert output.err == ""
    assert f"Mined {len(mined):,} triplets from 120 images of 30 landmarks in" in output.out
    assert '--config \'{"name": "hard", "triplets_file": "' + str(out) in output.out
    assert sorted(os.listdir(prepared)) == sorted(["index.npz", "train.npy", "validation.npy", out.name])


def test_csv_is_plain(prepared):
    assert mine_prepared(prepared) == 0
    content = (prepared / "hard.csv").read_bytes()
    assert b"\r" not in content
    assert b'"' not in content
    first = content.splitlines()[1].split(b",")
    assert [len(text) for text in first[:3]] == [16, 16, 16]
    assert all(-1 <= float(text) <= 1 for text in first[3:])


def test_the_same_command_writes_the_same_bytes(prepared):
    for out in ("a.csv", "b.csv"):
        assert mine_prepared(prepared, "--seed", 7, out=out) == 0
    assert (prepared / "a.csv").read_bytes() == (prepared / "b.csv").read_bytes()
    assert mine_prepared(prepared, "--seed", 8, out="b.csv") == 0  # which replaces the file
    assert (prepared / "a.csv").read_bytes() != (prepared / "b.csv").read_bytes()


def test_arguments_reach_the_search_and_json_counts(prepared, capsys):
    arguments = ("--positive", "hardest", "--negative", "hardest", "--neighbours", 3, "--max_similarity", 0.9)
    assert mine_prepared(prepared, *arguments, "--margin", 0.1, "--seed", 2, "--search", "exact", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    spec = MiningSpec(
        positive="hardest", negative="hardest", neighbours=3, max_similarity=0.9, margin=0.1, seed=2, search="exact"
    )
    index = read_image_index(prepared)
    mined = mine_triplets(np.load(prepared / "train.npy"), index.image_ids, index.landmark_ids, spec)
    assert result["spec"] == vars(spec)
    assert result["search"] == "exact"
    assert result["counts"] == {
        "num_images": 120,
        "num_landmarks": 30,
        "num_images_without_embedding": 0,
        "num_triplets": len(mined),
        "num_left_out": 120 - len(mined),
        "num_left_out_by_reason": mined.num_left_out,
        "num_negatives_by_kind": mined.num_negatives,
        "num_passed_over": mined.num_passed_over,
    }
    assert result["similarity_quantiles"]["negative"]["1"] == pytest.approx(mined.similarities[:, 1].max(), abs=1e-5)
    assert result["similarity_quantiles"]["positive"]["0.5"] == pytest.approx(
        np.median(mined.similarities[:, 0]), abs=1e-5
    )


def test_another_split(prepared, capsys):
    assert mine_prepared(prepared, "--split", "validation", embeddings="validation.npy") == 0
    assert "from 6 images of 3 landmarks" in capsys.readouterr().out
    assert len(pd.read_csv(prepared / "hard.csv")) == 5


@pytest.mark.parametrize("suffix", ["txt", "npy"])
def test_ids_with_the_table_of_a_competition(tmp_path, suffix, capsys):
    table = read_landmark_table(epath.Path(DUMMY_DATA) / "train.csv")
    keep = np.arange(table.num_images) % 5 != 0
    image_ids, landmark_ids = table.image_ids[keep][::-1], table.landmark_ids[keep][::-1]
    np.save(tmp_path / "e.npy", random_embeddings(landmark_ids).astype(np.float16))
    ids = tmp_path / f"ids.{suffix}"
    np.save(ids, image_ids) if suffix == "npy" else ids.write_text("\n".join(map(format_image_id, image_ids)))
    arguments = ("--embeddings", tmp_path / "e.npy", "--ids", ids, "--out", tmp_path / "hard.csv")
    assert mine(*arguments, "--manual_dir", DUMMY_DATA, "--max_similarity", 1) == 0
    landmark_of = dict(zip(map(format_image_id, table.image_ids), table.landmark_ids.tolist(), strict=True))
    frame = pd.read_csv(tmp_path / "hard.csv", dtype=str)
    assert len(frame)
    anchors, positives, negatives = ([landmark_of[i] for i in frame[name]] for name in COLUMNS[:3])
    assert anchors == positives
    assert all(a != n for a, n in zip(anchors, negatives, strict=True))
    assert f"Images of the table without an embedding: {(~keep).sum()}." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max_similarity", "2"], "--max_similarity must be a number between -1 and 1, got 2.0."),
        (["--neighbours", "0"], "--neighbours must be a whole number between 1 and 10000, got 0."),
        (["--split", "test"], "has the splits train, validation, but no 'test'."),
        (["--split", "validation"], "train.npy has 120 rows, but split 'validation' in"),
        (["--ids", "ids.txt"], "either with --index DIR (a prepared landmark_images), or with --ids FILE and"),
        (["--manual_dir", "."], "say which images the embeddings are of"),
        (["--embeddings", "nowhere.npy"], "There is no nowhere.npy."),
        (["--index", "nowhere"], "There is no nowhere/index.npz."),
        (["--out", "hard.txt"], "hard.txt must end with .csv or .parquet"),
        (["--out", "nowhere/hard.csv"], "The folder nowhere does not exist."),
        (["--max_similarity", "-1"], "No triplet can be mined. 120: no positive at or below max_similarity."),
    ],
)
def test_errors_end_with_status_2(prepared, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(prepared)
    assert mine_prepared(prepared, *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("landmark-triplets: ")
    assert message in output.err
    assert not (prepared / "hard.csv").exists()


def test_without_faiss_the_argument_is_named(prepared, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert mine_prepared(prepared, "--search", "approximate") == 2
    assert "--search exact" in capsys.readouterr().err


def test_ids_that_do_not_fit(prepared, capsys):
    (prepared / "ids.txt").write_text("0000000000000001\n")
    arguments = ("--embeddings", prepared / "train.npy", "--ids", prepared / "ids.txt", "--manual_dir", DUMMY_DATA)
    assert mine(*arguments, "--out", prepared / "hard.csv") == 2
    assert "train.npy has 120 rows, but" in capsys.readouterr().err
    np.save(prepared / "one.npy", np.ones((1, 3), np.float32))
    assert mine(*arguments, "--embeddings", prepared / "one.npy", "--out", prepared / "hard.csv") == 2
    assert "1 of the 1 images are not in" in capsys.readouterr().err


def test_a_broken_row_is_named(prepared, capsys):
    embeddings = np.load(prepared / "train.npy")
    embeddings[5, 3] = np.nan
    np.save(prepared / "train.npy", embeddings)
    assert mine_prepared(prepared) == 2
    image_id = format_image_id(read_image_index(prepared).image_ids[5])
    assert f"train.npy, row 5 (image {image_id}) holds NaN or infinity" in capsys.readouterr().err


def test_notes_say_what_does_not_suit_the_embeddings(prepared, capsys):
    rng = np.random.default_rng(0)
    alike = (np.ones((120, 8)) + 0.05 * rng.normal(size=(120, 8))).astype(np.float32)
    np.save(prepared / "train.npy", alike)
    assert mine_prepared(prepared) == 2  # every image is above 0.95
    assert "Note: 100% of the anchors have only images above --max_similarity 0.95" in capsys.readouterr().err
    assert mine_prepared(prepared, "--max_similarity", 1, "--neighbours", 2) == 0
    output = " ".join(capsys.readouterr().out.split())  # without line breaks
    assert "of the anchors have no semi-hard negative among their 2 nearest images" in output
    assert "--neighbours 20." in output
