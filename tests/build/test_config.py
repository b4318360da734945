"""What the configs of both datasets share: checks of fields, names, lists of landmarks, what is recorded."""

import copy
import dataclasses
import json
import pathlib
import pickle

import numpy as np
import pytest

from landmark_triplets_tfds import LandmarkImagesConfig, LandmarkTriplets, LandmarkTripletsConfig
from landmark_triplets_tfds.competition.tables import read_landmark_table
from landmark_triplets_tfds.errors import LandmarkTableError
from tests.support.competition import DUMMY_DATA, build_images, custom_config, images_config
from tests.support.helpers import time_limit
from tests.support.special_files import SPECIAL_FILES

ALL_LANDMARKS = "\n".join(map(str, read_landmark_table(DUMMY_DATA / "train.csv").landmark_ids))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resolution": -1}, "resolution must be a whole number between 8 and 2048 px, got -1."),
        ({"resolution": 2049}, "got 2049"),
        ({"resolution": 128.0}, "got 128.0"),
        ({"resolution": True}, "got True"),
        ({"resolution": "128"}, "got '128'"),
        ({"images_per_landmark": 0}, r"images_per_landmark .* \(or None for all\), got 0"),
        ({"jpeg_quality": 101}, "jpeg_quality must be a whole number between 1 and 100, got 101"),
        ({"resize_method": "bilinear"}, "resize_method must be one of 'nearest', 'area', got 'bilinear'"),
        ({"fit": "stretch"}, "fit must be one of 'squash', 'crop', 'pad', got 'stretch'"),
        ({"missing_images": None}, "missing_images must be one of 'error', 'drop', got None"),
        ({"validation_percent": 100}, "validation_percent must be a number between 0 and 99, got 100"),
        ({"validation_percent": True}, "validation_percent must be a number between 0 and 99, got True"),
        ({"exclude_landmarks": 7}, "exclude_landmarks must be the path of a text file, got 7"),
        ({"exclude_landmarks": ""}, "exclude_landmarks must be the path of a text file, got ''"),
        ({"name": "a/b"}, "name must be letters"),
        ({"name": ""}, "name must be letters"),
        ({"name": "a\n"}, "name must be letters"),
        ({"name": None}, "name must be letters"),
        ({"resize_method": ["area"]}, "resize_method must be one of 'nearest', 'area', got ..area.."),
        ({"fit": {}}, "fit must be one of"),
        ({"description": 5}, "description must be a text, got 5"),
        (
            {"resolutoin": 96},
            "no field 'resolutoin'. Did you mean 'resolution'. There are name, .*, resolution, .*, seed",
        ),
        ({"Seed": 1}, "no field 'Seed'. Did you mean 'seed'"),
        ({"kind": "images"}, "no field 'kind'"),
        ({"": 1}, "no field ''"),
        ({"__class__": 1}, "no field '__class__'"),
        ({"unlabeled_splits": True}, "landmark_triplets has no field 'unlabeled_splits'"),
    ],
)
def test_config_checks(fields, message):
    with pytest.raises(ValueError, match=message):
        LandmarkTripletsConfig(**{"name": "x"} | fields)


@pytest.mark.parametrize("make", [LandmarkTripletsConfig, LandmarkImagesConfig])
def test_a_config_needs_a_name(make):
    for fields in ({}, {"resolution": 96}):
        with pytest.raises(ValueError, match='a config needs a name, such as "name": "mine"'):
            make(**fields)
    with pytest.raises(TypeError):
        make("mine")


def test_copies_are_equal():
    config = custom_config(resolution=96, seed=7)
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), dataclasses.replace(config)):
        assert again.dataset_fields() == config.dataset_fields()


def test_config_fields_are_keyword_only():
    with pytest.raises(TypeError):
        LandmarkTripletsConfig("x", None, None, [], None, [], 64)


@pytest.mark.parametrize("make", [custom_config, images_config])
def test_numbers_of_numpys_are_recorded_as_numbers(make):
    fields = {"resolution": np.int64(64), "jpeg_quality": np.uint8(90), "images_per_landmark": np.int32(3)}
    numpys = make(**fields, validation_percent=np.float32(12.5))
    pythons = make(**{name: int(value) for name, value in fields.items()}, validation_percent=12.5)
    assert json.dumps(numpys.dataset_fields()) == json.dumps(pythons.dataset_fields())
    assert numpys.description == pythons.description


def test_named_configs():
    names = {config.name for config in LandmarkTriplets.BUILDER_CONFIGS}
    plain = {f"{r}px{s}" for r in (64, 128, 256, 512) for s in ("", "_1per", "_8per", "_all")}
    area = {f"{r}px_area{s}" for r in (128, 256, 512) for s in ("", "_all")}
    holdout = {f"{r}px{s}_holdout10" for r in (64, 128) for s in ("", "_all")}
    holdout |= {f"{r}px_area{s}_holdout10" for r in (128, 256) for s in ("", "_all")}
    assert names == plain | area | holdout
    assert LandmarkTriplets.DEFAULT_BUILDER_CONFIG_NAME == "128px"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("1\n-2\n", LandmarkTableError, r"excluded\.txt, line 2: expected one landmark_id, .* got '-2'"),
        ("1,2\n", LandmarkTableError, "line 1: expected one landmark_id"),
        ("9223372036854775807\n", LandmarkTableError, "a whole number from 0 up, of at most 18 digits, got '922337"),
        (
            "",
            LandmarkTableError,
            r"excluded\.txt holds no landmark_id\. exclude_landmarks must name .* leave the field out",
        ),
        ("# none\n\n", LandmarkTableError, r"excluded\.txt holds no landmark_id"),
        ("x" * 1000, LandmarkTableError, r"got 'x{70,80}\.\.\."),
        (
            ALL_LANDMARKS,
            LandmarkTableError,
            "excludes all 12 landmarks",
        ),
        (None, FileNotFoundError, r"There is no file .*excluded\.txt\. exclude_landmarks must name a text file"),
    ],
)
def test_wrong_lists_of_landmarks(tmp_path, text, error, message):
    listed = tmp_path / "excluded.txt"
    if text is not None:
        listed.write_text(text)
    with pytest.raises(error, match=message):
        build_images(tmp_path / "data", images_config(exclude_landmarks=str(listed)))


@pytest.mark.parametrize(
    "spoil", [*SPECIAL_FILES.values(), pathlib.Path.mkdir, lambda path: path.write_bytes(b"\xff1")]
)
def test_a_list_of_landmarks_that_cannot_be_read(tmp_path, spoil):
    path = tmp_path / "excluded.txt"
    spoil(path)
    with time_limit(10), pytest.raises(LandmarkTableError, match=rf"{path} cannot be read \(.*exclude_landmarks must"):
        images_config(exclude_landmarks=str(path)).dataset_fields()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_of_landmarks_as_windows_writes_them(tmp_path, encoding):
    bom = "\ufeff" if encoding == "utf-16-le" else ""
    (tmp_path / "x").write_bytes(f"{bom}12\r\n3 # café\r\n".encode(encoding))
    assert images_config(exclude_landmarks=str(tmp_path / "x")).excluded_landmarks().tolist() == [3, 12]


@pytest.mark.parametrize("omit", [True, False])
def test_a_list_that_is_not_there_is_left_out_of_the_fields_or_an_error(tmp_path, omit):
    config = images_config(exclude_landmarks=str(tmp_path / "excluded.txt"))
    if omit:
        assert "exclude_landmarks" not in config.dataset_fields(omit_missing_files=True)
    else:
        with pytest.raises(FileNotFoundError):
            config.dataset_fields()


def test_what_is_recorded_are_the_fields_alone():
    assert set(images_config().dataset_fields()) == {
        "exclude_landmarks",
        "fit",
        "images_per_landmark",
        "jpeg_quality",
        "missing_images",
        "resize_method",
        "resolution",
        "unlabeled_splits",
        "validation_percent",
    }
