"""TFDS's hooks: prepared data of another kind or damaged, the lock, bad input, deterministic records."""

import copy
import inspect
import json
import os
import pathlib
import pickle
import pkgutil
import random
import re
import shutil

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import landmark_triplets_tfds
from landmark_triplets_tfds import LandmarkImages, read_image_index
from landmark_triplets_tfds.build import hooks
from landmark_triplets_tfds.build.hooks import FEATURES_NAME, INFO_NAME, METADATA_NAME, DeterministicExampleWriter
from landmark_triplets_tfds.errors import (
    LandmarkTripletsError,
    PreparedDataError,
    PreparedDataMismatchError,
    SourceLayoutError,
)
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    build_images,
    custom_config,
    make_builder,
    read_examples,
)
from tests.support.helpers import mutate
from tests.support.prepared_builds import without_bank

# --- What is checked when a builder is made, for `tfds build --overwrite` deletes what is prepared right after that


def made_by_tfds(data_dir, config):
    return tfds.builder(f"landmark_triplets/{config}", data_dir=data_dir)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        *((make_builder, config) for config in ("128pix", "128pix:1.0.0", "128", "64PX", "", "landmark_images/128px")),
        *((made_by_tfds, config) for config in ("128pix", "128pix:1.0.0", "64PX")),
    ],
)
def test_a_config_that_is_not_there(tmp_path, make, config):
    with pytest.raises(ValueError, match=r"has no config '.*'; it has 64px, 64px_1per, .*256px") as error:
        make(tmp_path, config)
    assert ("Did you mean '128px'?" in str(error.value)) == config.startswith("128")


def test_a_version_may_be_named(tmp_path):
    assert make_builder(tmp_path, "64px:1.0.0").builder_config.name == "64px"
    assert make_builder(tmp_path, None).builder_config.name == "128px"


@pytest.mark.parametrize(("variable", "value"), [("WROKERS", "2"), ("WORKERS", "many"), ("MAX_UNREADABLE", "2")])
def test_build_options_are_checked(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(f"LANDMARK_TRIPLETS_{variable}", value)
    with pytest.raises(ValueError, match=f"LANDMARK_TRIPLETS_{variable}"):
        make_builder(tmp_path, "128px")


@pytest.mark.parametrize("field", ["exclude_landmarks", "triplets_file"])
def test_files_of_a_config_are_checked_where_data_is_prepared(tmp_path, field):
    file = tmp_path / "file.csv"
    builder = build(tmp_path / "data", custom_config(resolution=8))
    file.write_text("nonsense")
    config = custom_config(resolution=8, **{field: str(file)})
    with pytest.raises(LandmarkTripletsError, match=re.escape(str(file))):
        make_builder(tmp_path / "data", config)
    file.unlink()  # as on a machine that trains
    assert len(make_builder(tmp_path / "data", config).as_dataset(split="train")) == 20
    assert builder.data_path.exists()


# --- Data prepared earlier (contract: other fields, another table or another cap are an error)


def test_prepared_data_is_reused(tmp_path):
    first = build(tmp_path, "64px_1per")
    before = os.stat(first.data_path / "build_report.json").st_mtime_ns
    again = build(tmp_path, "64px_1per")
    assert os.stat(again.data_path / "build_report.json").st_mtime_ns == before


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("resolution", 16, "resolution is 8 there, 16 asked for"),
        ("images_per_landmark", None, "images_per_landmark is 2 there, None asked for"),
        ("triplets_per_anchor", 2, "triplets_per_anchor is 1 there, 2 asked for"),
        ("jpeg_quality", 50, "jpeg_quality is 94 there, 50 asked for"),
        ("positive_may_be_anchor", True, "positive_may_be_anchor is False there, True asked for"),
        ("seed", 1, "seed is 0 there, 1 asked for"),
        ("resize_method", "area", "resize_method is 'nearest' there, 'area' asked for"),
        ("fit", "pad", "fit is 'squash' there, 'pad' asked for"),
        ("missing_images", "drop", "missing_images is 'error' there, 'drop' asked for"),
    ],
)
def test_same_name_with_other_fields(tmp_path, field, value, message):
    build(tmp_path, custom_config(resolution=8))
    with pytest.raises(PreparedDataMismatchError, match=message) as error:
        build(tmp_path, custom_config(**({"resolution": 8} | {field: value})))
    assert "--overwrite" in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_other_fields_are_noticed_without_the_source(tmp_path):
    """On a training machine there are no source files: the fields are compared all the same."""
    build(tmp_path, custom_config(resolution=8))
    with pytest.raises(PreparedDataMismatchError, match="resolution is 8 there, 16 asked for"):
        make_builder(tmp_path, custom_config(resolution=16)).download_and_prepare()


def test_other_table(tmp_path):
    build(tmp_path / "data", "64px_1per")
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(PreparedDataMismatchError, match="another table"):
        build(tmp_path / "data", "64px_1per", competition.folder)


@pytest.mark.parametrize(("built", "asked"), [(5, None), (None, 5), (5, 6)])
def test_other_cap(tmp_path, built, asked):
    build(tmp_path, "64px_1per", max_examples_per_split=built)
    with pytest.raises(PreparedDataMismatchError, match=f"max_examples_per_split was {built}, {asked} asked for"):
        build(tmp_path, "64px_1per", max_examples_per_split=asked)


def test_capped_data_loads_where_the_source_is_not(tmp_path):
    build(tmp_path, "64px_1per", max_examples_per_split=5)
    assert len(tfds.load("landmark_triplets/64px_1per", split="train", data_dir=tmp_path)) == 5


def test_data_without_a_record(tmp_path):
    builder = build(tmp_path, "64px_1per")
    (builder.data_path / "metadata.json").unlink()
    with pytest.raises(PreparedDataMismatchError, match="no record of how it was made"):
        build(tmp_path, "64px_1per")


def test_metadata_survives_reloading(tmp_path):
    counts = build(tmp_path, "64px_1per").info.metadata["counts"]
    assert make_builder(tmp_path, "64px_1per").info.metadata["counts"] == counts
    assert counts["num_triplets"] == 10


# --- Bad input, end to end


def test_no_files(tmp_path):
    with pytest.raises(SourceLayoutError, match="does not exist or is empty") as error:
        build(tmp_path / "data", manual_dir=tmp_path / "nowhere")
    for expected in (str(tmp_path / "nowhere"), "train.csv", "kaggle competitions download", "--manual_dir"):
        assert expected in str(error.value)


def test_nothing_is_left_of_a_failed_build(tmp_path):
    competition = Competition(tmp_path / "competition")
    (competition.folder / "train.csv").write_text("id,landmark_id\nnonsense,1\n")
    with pytest.raises(ValueError, match=r"train.csv, line 2: id must be 16 hex digits .* got 'nonsense'"):
        build(tmp_path / "data", manual_dir=competition.folder)
    config_dir = tmp_path / "data" / "landmark_triplets" / "128px"
    assert not config_dir.exists() or not list(config_dir.iterdir())


def test_unreadable_images_are_replaced_or_left_out(tmp_path, capsys):
    competition = Competition(tmp_path / "competition")
    pair = competition.ids_of_landmark(18)  # the second landmark has two images
    anchor, partner = pair
    competition.path(partner).write_bytes(b"<html>not found</html>")
    examples = read_examples(build(tmp_path / "broken", "64px_all", competition.folder))
    intact = read_examples(build(tmp_path / "intact", "64px_all"))
    assert {anchor.encode(), partner.encode()}.isdisjoint(e["anchor_id"] for e in examples)
    of_intact = {e["anchor_id"]: e for e in intact}
    for example in examples:
        before = of_intact[example["anchor_id"]]
        if before["negative_id"] != partner.encode():
            assert example == before  # a redraw changes no other triplet
        else:
            assert example["negative_landmark_id"] != example["landmark_id"]
            assert example["positive_id"] == before["positive_id"]
    printed = capsys.readouterr().out
    assert "Unreadable images: 1 (1 not a JPEG, PNG or GIF file)." in printed
    assert str(competition.path(partner)) in printed
    assert "Triplets left out: 2 (1 no readable positive, 1 unreadable anchor)." in printed or (
        "Triplets left out: 2 (1 unreadable anchor, 1 no readable positive)." in printed
    )


# --- Checksums


def test_checksums_are_found_and_are_those_of_the_repository(tmp_path):
    """In a checkout and in an installation alike; tests/test_tfds_command.py looks into a wheel."""
    builder = make_builder(tmp_path)
    assert builder._checksums_path.read_text() == (REPOSITORY / "checksums.tsv").read_text()
    assert builder.url_infos == {}


# --- Deterministic records


def test_records_do_not_depend_on_the_order_of_the_map(tmp_path):
    names = [f"feature {i}" for i in range(20)]
    for attempt in range(2):
        random.Random(attempt).shuffle(names)
        example = tf.train.Example()
        for name in names:
            example.features.feature[name].int64_list.value.append(len(name))
        writer = DeterministicExampleWriter(file_format=tfds.core.FileFormat.TFRECORD)
        writer.write(tmp_path / str(attempt), [(0, example.SerializeToString())])
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()


def test_dummy_data_is_small():
    assert sum(path.stat().st_size for path in DUMMY_DATA.rglob("*") if path.is_file()) < 300_000


# --- Names of TFDS that are no public API

PRIVATE = [
    ("core.dataset_builder:GeneratorBasedBuilder._download_and_prepare", ["self", "dl_manager", "download_config"]),
    ("core.dataset_builder:GeneratorBasedBuilder._example_writer", ["self"]),
    ("core.dataset_builder:DatasetBuilder._post_download_and_prepare_hook", ["self"]),
    ("core.dataset_builder:DatasetBuilder._get_filename_template", ["self", "split_name"]),
    ("core.dataset_builder:DatasetBuilder._build_data_dir", ["self", "given_data_dir"]),
    ("core.dataset_info:DatasetInfo.set_splits", ["self", "split_dict"]),
    ("core.dataset_info:DatasetInfo.set_nondeterministic_order", ["self", "nondeterministic_order"]),
    ("core.writer:ExampleWriter.write", ["self", "path", "examples"]),
    ("core.splits:SplitDict", ["split_infos", "dataset_name"]),
    ("core.utils.shard_utils:get_shard_boundaries", ["num_examples", "number_of_shards"]),
    ("core.utils.shard_utils:ShardConfig.get_number_shards", None),
    ("core.file_adapters:FileAdapter.write_examples", ["path", "iterator"]),
    ("core.download.download_manager:DownloadManager.manual_dir", None),
    ("core.hashing:Hasher", ["salt"]),
    ("core.hashing:Hasher.hash_key", ["self", "key"]),
    ("core.data_sources.base:BaseDataSource", None),
    ("core.utils:tqdm", ["args", "kwargs"]),
    ("core.utils:is_notebook", []),
    ("core.constants:DATA_DIR", None),
    ("proto:tf_example_pb2.Example", None),
]


@pytest.mark.parametrize(("name", "arguments"), PRIVATE)
def test_private_names_of_tfds_are_there(name, arguments):
    found = pkgutil.resolve_name(f"tensorflow_datasets.{name}")
    if arguments is not None:
        assert list(inspect.signature(found).parameters) == arguments


def test_the_list_of_private_names_is_complete():
    """What is not in the docstring is in an `__all__` of TFDS's, or a method that its guide says to override."""
    listed = hooks.__doc__
    for path in pathlib.Path(landmark_triplets_tfds.__file__).parent.rglob("*.py"):
        text = path.read_text()
        for module, names in re.findall(r"from tensorflow_datasets(?:\.([\w.]+))? import (.+)", text):
            assert module.rpartition(".")[2] in listed or all(name in listed for name in names.split(", ")), path
        for chain in re.findall(r"\btfds((?:\.\w+)+)", text):
            parts = chain.split(".")[1:]
            public = parts[0] in tfds.__all__
            if len(parts) > 1 and parts[0] in ("core", "download", "decode"):
                public = parts[1] in getattr(tfds, parts[0]).__all__
            assert public or f"tfds.{'.'.join(parts)}" in listed, f"{path}: tfds{chain}"


# --- Damaged files beside the shards are errors that name the file and say what to do; repr is a line


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
