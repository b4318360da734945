"""Builds of triplets that a file names: the test harness, records, what is left out and what is recorded, and Beam."""

import dataclasses
import json
import pathlib

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkTriplets
from landmark_triplets_tfds.build import hooks
from landmark_triplets_tfds.build import splits as splits_module
from landmark_triplets_tfds.competition.tables import format_image_id, read_landmark_table
from landmark_triplets_tfds.errors import MissingImagesError, PreparedDataMismatchError, TripletsFileError
from landmark_triplets_tfds.triplets.draws import is_held_out
from tests.support.beam_builds import NeverRun, build_with_beam
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    build_images,
    custom_config,
    images_config,
    read_examples,
    shard_hashes,
)

COLUMNS = ["anchor_id", "positive_id", "negative_id"]
TABLE = read_landmark_table(DUMMY_DATA / "train.csv")

# Six triplets of dummy_data, two of one anchor.
CHOSEN = REPOSITORY / "tests" / "chosen.csv"


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [custom_config("chosen", resolution=16, triplets_file=str(CHOSEN))]
    SPLITS = {"train": 6}


def valid_triplets(seed: int = 0, percent: float = 0, num: int = 40) -> pd.DataFrame:
    """Returns some of the valid triplets of dummy_data, in a random order."""
    rng = np.random.default_rng(seed)
    ids, landmarks = [format_image_id(i) for i in TABLE.image_ids], TABLE.landmark_ids
    held_out = is_held_out(landmarks, percent)
    rows = np.stack(np.meshgrid(*[np.arange(len(ids))] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    a, p, n = rows.T
    of_one_split = held_out[n] == held_out[a]
    rows = rows[(landmarks[a] == landmarks[p]) & (a != p) & (landmarks[n] != landmarks[a]) & of_one_split]
    return pd.DataFrame([[ids[row] for row in triplet] for triplet in rng.permutation(rows)[:num]], columns=COLUMNS)


def ids_of(builder, split="train") -> list[tuple[str, ...]]:
    return sorted(tuple(e[name].decode() for name in COLUMNS) for e in read_examples(builder, split))


def as_tuples(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    return sorted(frame[COLUMNS].itertuples(index=False, name=None))


def counts_of(builder) -> dict:
    return builder.info.metadata["counts"]


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
    path = tmp_path / "hard.csv"
    valid_triplets().to_csv(path, index=False)
    return path


def chosen_config(file, **fields):
    return custom_config(triplets_file=str(file), **({"resolution": 16} | fields))


# --- Records


def test_records_are_the_rows_of_the_file(tmp_path, file):
    builder = build(tmp_path / "data", chosen_config(file))
    assert ids_of(builder) == as_tuples(pd.read_csv(file))
    of_landmark = dict(zip(map(format_image_id, TABLE.image_ids), TABLE.landmark_ids.tolist(), strict=True))
    images = {}
    for example in read_examples(builder):
        for role in ("anchor", "positive", "negative"):
            images.setdefault(example[f"{role}_id"], set()).add(example[f"{role}_img"])
        assert example["landmark_id"] == of_landmark[example["positive_id"].decode()]
        assert example["negative_landmark_id"] == of_landmark[example["negative_id"].decode()]
    drawn = read_examples(build(tmp_path / "drawn", custom_config(resolution=16, images_per_landmark=None)))
    stored = {e["anchor_id"]: e["anchor_img"] for e in drawn}
    assert all(images[i] == {stored[i]} for i in images if i in stored)


def test_parquet_and_csv_give_the_same_bytes(tmp_path, file):
    pd.read_csv(file).assign(cosine=0.5).to_parquet(tmp_path / "hard.parquet")
    one = build(tmp_path / "one", chosen_config(file))
    two = build(tmp_path / "two", chosen_config(tmp_path / "hard.parquet"))
    assert shard_hashes(one) == shard_hashes(two)
    assert one.info.metadata["config"] == two.info.metadata["config"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"triplets_per_anchor": 8, "seed": 3},  # some draws are the same
        {"positive_may_be_anchor": True, "images_per_landmark": 1},
        {"validation_percent": 50, "images_per_landmark": None},
    ],
)
def test_triplets_csv_gives_the_same_dataset_again(tmp_path, monkeypatch, fields):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    drawn = build(tmp_path / "drawn", custom_config(resolution=16, **fields))
    files = [drawn.data_path / name for name in ("triplets.csv", "triplets-validation.csv")]
    lists = [pd.read_csv(path) for path in files if path.exists()]
    if fields.get("triplets_per_anchor"):
        assert lists[0].duplicated(COLUMNS).any()
    pd.concat(lists).to_csv(tmp_path / "again.csv", index=False)
    kept = {name: fields[name] for name in ("positive_may_be_anchor", "validation_percent") if name in fields}
    again = build(tmp_path / "again", chosen_config(tmp_path / "again.csv" if len(lists) > 1 else files[0], **kept))
    assert shard_hashes(again) == shard_hashes(drawn)
    for path in files[: len(lists)]:
        assert (again.data_path / path.name).read_text() == path.read_text()


def test_a_rebuild_after_mining_costs_only_the_writing(tmp_path, file):
    build_images(tmp_path / "images", images_config(resolution=16, images_per_landmark=None))
    for seed in (1, 2):
        frame = valid_triplets(seed)
        frame.to_csv(file, index=False)
        builder = build(tmp_path / "data", chosen_config(file, name=f"mined{seed}"))
        report = json.loads((builder.data_path / "build_report.json").read_text())
        assert report["num_thumbnails_made"] == 0
        assert report["counts"]["num_images_read"] == len(set(frame.to_numpy().ravel()))
        assert "read_triplets_file" in report["seconds"]


def test_max_examples(tmp_path, file):
    builder = build(tmp_path / "data", chosen_config(file), max_examples_per_split=7)
    assert ids_of(builder) == as_tuples(pd.read_csv(file)[:7])


# --- What is left out


def test_unreadable_images_leave_their_triplets_out(tmp_path, file):
    competition = Competition(tmp_path / "competition")
    frame = pd.read_csv(file)
    broken = frame["anchor_id"][0], frame["positive_id"][1], frame["negative_id"][2]
    for image_id in broken:
        competition.path(image_id).write_bytes(b"")
    builder = build(tmp_path / "data", chosen_config(file), competition.folder)
    is_broken = frame.isin(broken)
    assert ids_of(builder) == as_tuples(frame[~is_broken.any(axis=1)])
    anchors = is_broken["anchor_id"]
    positives = is_broken["positive_id"] & ~anchors
    negatives = is_broken["negative_id"] & ~anchors & ~positives
    expected = {
        "unreadable anchor": anchors.sum(),
        "no readable positive": positives.sum(),
        "no readable negative": negatives.sum(),
    }
    counts = counts_of(builder)
    assert counts["num_triplets_left_out_by_reason"] == {name: count for name, count in expected.items() if count}
    assert counts["num_triplets_redrawn"] == 0
    assert counts["num_images_unreadable"] == len(set(broken))


def leave_things_out(tmp_path, file, **fields):
    """Returns a competition and a config that leave something out in every way."""
    competition = Competition(tmp_path / "competition")
    ids = competition.ids()
    for image_id in ids[::11]:
        competition.path(image_id).unlink()
    for image_id in ids[3::13]:
        competition.path(image_id).write_bytes(b"")
    (tmp_path / "excluded.txt").write_text(f"{TABLE.landmark_ids[7]}\n")
    valid_triplets(percent=50, num=300).to_csv(file, index=False)
    excluded = str(tmp_path / "excluded.txt")
    return competition, chosen_config(
        file, exclude_landmarks=excluded, missing_images="drop", validation_percent=50, **fields
    )


def test_excluded_and_dropped_are_counted(tmp_path, file, capsys):
    competition, config = leave_things_out(tmp_path, file)
    builder = build(tmp_path / "data", config, competition.folder)
    counts = counts_of(builder)
    reasons = counts["num_triplets_left_out_by_reason"]
    assert {"excluded landmark", "dropped image", "unreadable anchor"} < set(reasons)
    assert counts["num_triplets"] + counts["num_triplets_left_out"] == 300
    assert sum(split["num_triplets"] for split in counts["splits"].values()) == counts["num_triplets"]
    assert len(ids_of(builder)) + len(ids_of(builder, "validation")) == counts["num_triplets"]
    assert f"{reasons['excluded landmark']:,} excluded landmark" in capsys.readouterr().out


def test_a_partial_copy_says_so(tmp_path, file):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.ids()[:20]:
        competition.path(image_id).unlink()
    with pytest.raises(MissingImagesError, match='"missing_images": "drop"'):
        build(tmp_path / "data", chosen_config(file), competition.folder)


# --- What is recorded and compared


def test_another_content_is_noticed_but_not_another_path(tmp_path, file):
    build(tmp_path / "data", chosen_config(file))
    moved = file.rename(tmp_path / "moved.csv")
    build(tmp_path / "data", chosen_config(moved))
    build(tmp_path / "data", chosen_config(file))  # as where one only trains: the file is not there
    valid_triplets(seed=1).to_csv(file, index=False)
    with pytest.raises(PreparedDataMismatchError, match=r"triplets_file is 'sha256:\w+' there, 'sha256:\w+' asked for"):
        build(tmp_path / "data", chosen_config(file))
    with pytest.raises(PreparedDataMismatchError, match=r"triplets_file is 'sha256:\w+' there, None asked for"):
        build(tmp_path / "data", custom_config(resolution=16))


def test_what_was_read_is_recorded(tmp_path, monkeypatch, file):
    """The file is replaced while a build runs."""
    config = chosen_config(file)
    before, wanted = as_tuples(pd.read_csv(file)), config.dataset_fields()
    read = splits_module.read_triplets_file

    def read_and_replace(path):
        result = read(path)
        valid_triplets(seed=1).to_csv(file, index=False)
        return result

    monkeypatch.setattr(splits_module, "read_triplets_file", read_and_replace)
    builder = build(tmp_path / "data", config)
    assert ids_of(builder) == before
    assert builder.info.metadata["config"] == wanted != config.dataset_fields()


def test_a_file_that_is_replaced_as_the_build_begins(tmp_path, monkeypatch, file):
    config = chosen_config(file)

    class ReplacingBuild(hooks.LocalBuild):
        def __init__(self, *args):
            valid_triplets(seed=1).to_csv(file, index=False)
            super().__init__(*args)

    monkeypatch.setattr(hooks, "LocalBuild", ReplacingBuild)
    builder = build(tmp_path / "data", config)
    assert ids_of(builder) == as_tuples(valid_triplets(seed=1))
    assert builder.info.metadata["config"] == config.dataset_fields()


@pytest.mark.parametrize("error", ["missing", "wrong"])
def test_nothing_is_left_of_a_failed_build(tmp_path, file, error):
    if error == "missing":
        file.unlink()
    else:
        file.write_text(",".join(COLUMNS) + "\na,b,c\n")
    with pytest.raises((FileNotFoundError, TripletsFileError), match=r"hard\.csv"):
        build(tmp_path / "data", chosen_config(file))
    folder = tmp_path / "data" / "landmark_triplets" / "custom"
    assert not folder.exists() or not list(folder.iterdir())


# --- Beam


def test_beam_makes_the_same_records(tmp_path, monkeypatch, file):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    competition, config = leave_things_out(tmp_path, file)
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(config, triplets_file="hard.csv")  # workers do not read it
    local = build(tmp_path / "local", config, competition.folder)
    beam = build_with_beam(tmp_path / "beam", config, competition.folder)
    for split in ("train", "validation"):
        assert read_examples(beam, split) == read_examples(local, split)
    assert dict(beam.info.metadata) == dict(local.info.metadata)
    names = {path.name for path in local.data_path.iterdir() if "-of-" not in path.name}
    assert {path.name for path in beam.data_path.iterdir() if "-of-" not in path.name} == names
    for name in ("triplets.csv", "triplets-validation.csv"):
        assert (beam.data_path / name).read_text() == (local.data_path / name).read_text()


def test_the_job_does_not_grow_with_the_file(tmp_path, file):
    sizes = []
    for num in (10, 5000):
        frame = valid_triplets(num=num)
        assert len(frame) == num
        frame.to_csv(file, index=False)
        runner = NeverRun()
        with pytest.raises(NeverRun.TakenError):
            build_with_beam(tmp_path / str(num), chosen_config(file), beam_runner=runner, max_examples_per_split=10)
        sizes.append(len(runner.description))
    assert abs(sizes[1] - sizes[0]) < 1000
