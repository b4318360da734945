"""Damaged files beside the shards are errors that name the file and say what to do; `repr` is a line."""

import copy
import json
import pathlib
import pickle
import random
import re
import shutil

import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages, read_image_index
from landmark_triplets_tfds.build.info import FEATURES_NAME, INFO_NAME, METADATA_NAME
from landmark_triplets_tfds.errors import LandmarkTripletsError, PreparedDataError
from tests.support.competition import build, build_images, make_builder
from tests.support.helpers import mutate
from tests.support.prepared_builds import without_bank


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The data_dir of a dataset of triplets and one of images."""
    data_dir = tmp_path_factory.mktemp("whole")
    with without_bank():
        build(data_dir, "64px_1per")
        build_images(data_dir, "64px_all")
    return data_dir


@pytest.fixture
def data_dir(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


def version_folder(data_dir):
    return pathlib.Path(data_dir) / "landmark_triplets" / "64px_1per" / "1.0.0"


def load(data_dir):
    """As `tfds.load` does."""
    builder = make_builder(data_dir, "64px_1per")
    builder.download_and_prepare()
    return len(builder.as_dataset(split="train"))


DAMAGES = {
    "empty": b"",
    "cut": b'{"name": "landmark_tri',
    "zeros": bytes(100),
    "not UTF-8": b'{"name": "\xff"}',
    "HTML": b"<html></html>",
    "a list": b"[]",
    "a list of lists": b"[[1, 2], [3, 4]]",
    "a number": b"5",
    "null": b"null",
    "a text": b'"text"',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
@pytest.mark.parametrize("name", [INFO_NAME, FEATURES_NAME, METADATA_NAME])
def test_a_damaged_file_is_named(data_dir, name, damage):
    path = version_folder(data_dir) / name
    path.write_bytes(damage)
    with pytest.raises(LandmarkTripletsError) as error:
        load(data_dir)
    assert str(path.parent) in str(error.value)
    assert name in str(error.value)
    assert re.search("[Bb]uild (the dataset|it) anew", str(error.value))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (INFO_NAME, {"name": "landmark_images"}, "it is of 'landmark_images'"),
        (INFO_NAME, {"name": ""}, "it is of ''"),
        (INFO_NAME, {"version": "2.0.0"}, "Proto version: 2.0.0"),
        (INFO_NAME, {"splits": []}, "it lists no split"),
        (INFO_NAME, {"splits": [{"name": "train", "shardLengths": ["many"]}]}, "ParseError"),
        (INFO_NAME, {"unknown": 1}, "ParseError"),
        (METADATA_NAME, {"config": 5}, "has no attribute 'items'"),
        (METADATA_NAME, {"config": None}, "has no attribute 'items'"),
        (METADATA_NAME, {"config": []}, "has no attribute 'items'"),
        (FEATURES_NAME, {"featuresDict": {"features": {}}}, "is damaged"),
        (FEATURES_NAME, {"pythonClassName": "os.path"}, "is damaged"),
    ],
)
def test_a_file_that_says_something_else_is_named(data_dir, name, change, message):
    path = version_folder(data_dir) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PreparedDataError, match=message) as error:
        load(data_dir)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", [INFO_NAME, FEATURES_NAME])
def test_a_missing_file_is_named(data_dir, name):
    path = version_folder(data_dir) / name
    path.unlink()
    with pytest.raises(PreparedDataError, match=f"{name} is missing"):
        load(data_dir)


@pytest.mark.parametrize("name", [INFO_NAME, FEATURES_NAME, METADATA_NAME])
def test_what_cannot_be_read_is_not_called_damaged(data_dir, name):
    path = version_folder(data_dir) / name
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match=name):
        load(data_dir)


@pytest.mark.parametrize("name", [INFO_NAME, FEATURES_NAME, METADATA_NAME])
def test_no_other_error_comes_of_damage(data_dir, name):
    """It may also go unnoticed, as in a description."""
    path = version_folder(data_dir) / name
    content = path.read_bytes()
    for seed in range(60):
        path.write_bytes(mutate(content, random.Random(seed)))
        try:
            load(data_dir)
        except LandmarkTripletsError as error:
            assert str(path.parent) in str(error)  # noqa: PT017


def test_the_report_is_not_needed(data_dir):
    (version_folder(data_dir) / "build_report.json").write_bytes(b"\xff{")
    assert load(data_dir) == 10


def test_a_damaged_index_is_named(data_dir):
    folder = pathlib.Path(LandmarkImages(data_dir=data_dir, config="64px_all").data_dir)
    path = folder / "index.npz"
    content = path.read_bytes()
    for seed in range(1000):  # with compressions and passwords that zipfile does not know among them
        path.write_bytes(mutate(content, random.Random(seed)))
        try:
            index = read_image_index(folder)
        except LandmarkTripletsError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "Build the dataset again." in str(error)  # noqa: PT017
        else:
            assert len(index) == 45


def test_damage_can_be_built_over(data_dir, whole):
    folder = version_folder(data_dir)
    for name in (METADATA_NAME, FEATURES_NAME):
        (folder / name).write_text("{")
    build(data_dir, "64px_1per", download_mode=tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS)
    for name in (METADATA_NAME, FEATURES_NAME, INFO_NAME):
        assert (folder / name).read_bytes() == (version_folder(whole) / name).read_bytes()


# --- What is shown


def test_repr_is_a_line_and_str_is_all(whole, capsys, monkeypatch):
    info = make_builder(whole, "64px_1per").info
    folder = version_folder(whole)
    assert repr(info) == f"<landmark_triplets/64px_1per/1.0.0: train 10, {info.dataset_size}, in {folder}>"
    assert len(str(info).splitlines()) > 50
    assert "Weyand" in str(info)
    assert "not built" in repr(make_builder(whole / "elsewhere", "128px").info)


def test_info_is_copied_whole(whole):
    info = make_builder(whole, "64px_1per").info
    for again in (copy.copy(info), pickle.loads(pickle.dumps(info))):
        assert type(again) is type(info)
        assert repr(again) == repr(info)
        assert again.metadata == info.metadata
