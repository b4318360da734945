"""The TFDS face: the test harness, configs, records, splits and formats, and the bytes of a build."""

import importlib.metadata
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkTriplets, LandmarkTripletsConfig
from landmark_triplets_tfds.competition.tables import format_image_id, read_landmark_table
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.sampling import TripletSampler
from tests.support.competition import DUMMY_DATA, Competition, build, custom_config, read_examples, shard_hashes

FROM_FILE = {"triplets_file": "hard.csv"}

# dummy_data has 12 landmarks; two of them have a single image, which is no anchor.
NUM_TRIPLETS = {"128px": 20, "64px_all": 43, "128px_area": 20}


class Builder128pxTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = ["128px"]
    SPLITS = {"train": NUM_TRIPLETS["128px"]}


class Builder64pxAllTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = ["64px_all"]
    SPLITS = {"train": NUM_TRIPLETS["64px_all"]}


class BuilderAreaTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = ["128px_area"]
    SPLITS = {"train": NUM_TRIPLETS["128px_area"]}


class BuilderCustomConfigTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [
        LandmarkTripletsConfig(name="40px_3per_twice", resolution=40, images_per_landmark=3, triplets_per_anchor=2)
    ]
    SPLITS = {"train": 2 * 27}


# --- Configs


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("128px", "128 x 128 px; anchors: 2 images per landmark; 162,626 triplets from the whole competition."),
        ("64px_1per", "64 x 64 px; anchors: 1 image per landmark; 81,313 triplets from the whole competition."),
        ("256px_8per", "256 x 256 px; anchors: 8 images per landmark."),
        (
            "512px_area_all",
            "Antialiased, 512 x 512 px; anchors: all images per landmark; 1,580,470 triplets from the whole"
            " competition. Large: each image is stored about three times; landmark_images stores it once.",
        ),
        (
            "128px_holdout10",
            "128 x 128 px; anchors: 2 images per landmark; 162,626 triplets from the whole competition; 10 % of the"
            " landmarks held out.",
        ),
    ],
)
def test_descriptions(name, description):
    assert LandmarkTriplets.builder_configs[name].description == description


def test_description_of_triplets_from_a_file():
    config = custom_config(triplets_file="hard.csv", validation_percent=10)
    assert config.description == "128 x 128 px; triplets from a file; 10 % of the landmarks held out."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"triplets_per_anchor": 0}, "triplets_per_anchor must be"),
        ({"positive_may_be_anchor": 1}, "positive_may_be_anchor must be True or False, got 1"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**63}, "seed must be a whole number between 0 and"),
        (
            FROM_FILE | {"images_per_landmark": None},
            "images_per_landmark must be left out beside triplets_file, .* got None",
        ),
        (
            FROM_FILE | {"triplets_per_anchor": 2},
            "triplets_per_anchor must be left out beside triplets_file, which decides the",
        ),
        (
            FROM_FILE | {"seed": 1},
            "seed must be left out beside triplets_file, which decides the triplets alone, got 1",
        ),
        ({"triplets_file": 7}, "triplets_file must be the path of a CSV or Parquet file, got 7"),
        ({"triplets_file": ""}, "triplets_file must be the path of a CSV or Parquet file, got ''"),
    ],
)
def test_config_checks(fields, message):
    """Of this dataset's own fields; tests/build/test_config.py has the others."""
    with pytest.raises(ValueError, match=message):
        custom_config(**fields)


def test_numbers_of_numpys_are_recorded_as_numbers():
    config = custom_config(seed=np.uint64(7), triplets_per_anchor=np.int32(2))
    assert json.loads(json.dumps(config.dataset_fields()))["seed"] == 7


# --- Records


def test_examples_are_the_plan(tmp_path):
    """Every record against the sampler and make_thumbnail, called directly."""
    config = custom_config(resolution=32, triplets_per_anchor=2, images_per_landmark=3, seed=5)
    table = read_landmark_table(DUMMY_DATA / "train.csv")
    plan = TripletSampler(table, config.example_spec("train")).plan()
    spec = ThumbnailSpec(resolution=32)

    def image(row):
        name = format_image_id(table.image_ids[row])
        path = DUMMY_DATA / "train" / name[0] / name[1] / name[2] / f"{name}.jpg"
        return make_thumbnail(path.read_bytes(), spec)

    expected = [
        {
            "anchor_img": image(anchor),
            "positive_img": image(positive),
            "negative_img": image(negative),
            "anchor_id": format_image_id(table.image_ids[anchor]).encode(),
            "positive_id": format_image_id(table.image_ids[positive]).encode(),
            "negative_id": format_image_id(table.image_ids[negative]).encode(),
            "landmark_id": table.landmark_ids[anchor],
            "negative_landmark_id": table.landmark_ids[negative],
        }
        for anchor, positive, negative in plan
    ]
    expected.sort(key=lambda e: (e["anchor_id"], e["positive_id"], e["negative_id"]))
    assert read_examples(build(tmp_path, config)) == expected


def test_keys_are_anchor_ids_and_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    builder = build(tmp_path, custom_config(resolution=8, triplets_per_anchor=3))
    lines = (builder.data_path / "triplets.csv").read_text().splitlines()
    assert lines[0] == "key,anchor_id,positive_id,negative_id,landmark_id,negative_landmark_id"
    keys, anchors = zip(*(line.split(",")[:2] for line in lines[1:]), strict=True)
    assert keys == tuple(f"{a}/{i % 3}" if i % 3 else a for i, a in enumerate(anchors))
    ids = [tuple(line.split(",")[1:4]) for line in lines[1:]]
    stored = [tuple(e[n].decode() for n in ("anchor_id", "positive_id", "negative_id")) for e in read_examples(builder)]
    assert sorted(ids) == stored


def test_dicts_and_supervised_pairs(tmp_path):
    build(tmp_path, "64px_1per")
    example = next(iter(tfds.load("landmark_triplets/64px_1per", split="train", data_dir=tmp_path)))
    assert {name: (value.shape, value.dtype.name) for name, value in example.items()} == {
        "anchor_img": ((64, 64, 3), "uint8"),
        "positive_img": ((64, 64, 3), "uint8"),
        "negative_img": ((64, 64, 3), "uint8"),
        "anchor_id": ((), "string"),
        "positive_id": ((), "string"),
        "negative_id": ((), "string"),
        "landmark_id": ((), "int64"),
        "negative_landmark_id": ((), "int64"),
    }
    ds = tfds.load("landmark_triplets/64px_1per", split="train", data_dir=tmp_path, as_supervised=True)
    images, landmark_id = next(iter(ds))
    assert [image.shape for image in images] == [(64, 64, 3)] * 3
    assert landmark_id.dtype == tf.int64


def test_the_notebooks_parser_reads_the_shards(tmp_path):
    builder = build(tmp_path, "64px_1per")
    names = ("anchor_img", "positive_img", "negative_img")
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    files = tf.data.Dataset.list_files(str(builder.data_path / "*.tfrecord*"))

    def parse(record):
        parsed = tf.io.parse_single_example(record, features)
        return [tf.image.decode_jpeg(parsed[name], channels=3) for name in names]

    images = [tuple(i.numpy().tobytes() for i in t) for t in tf.data.TFRecordDataset(files).map(parse)]
    expected = [
        tuple(example[name].tobytes() for name in names) for example in tfds.as_numpy(builder.as_dataset(split="train"))
    ]
    assert sorted(images) == sorted(expected)
    assert len(images) == 10


# --- TFDS's options


def test_num_shards(tmp_path):
    builder = build(tmp_path, "64px_all", num_shards=15)
    assert builder.info.splits["train"].num_shards == 15
    assert read_examples(builder) == read_examples(build(tmp_path / "other", "64px_all"))


@pytest.mark.parametrize("cap", [1, 7, 1000])
def test_max_examples_per_split(tmp_path, cap):
    capped = read_examples(build(tmp_path / "capped", "64px_all", max_examples_per_split=cap))
    everything = read_examples(build(tmp_path / "all", "64px_all"))
    assert len(capped) == min(cap, NUM_TRIPLETS["64px_all"])
    assert all(example in everything for example in capped)


def test_array_record_and_data_source(tmp_path):
    pytest.importorskip("array_record")
    build(tmp_path, "64px_1per", file_format="array_record")
    source = tfds.data_source("landmark_triplets/64px_1per", split="train", data_dir=tmp_path)
    tfrecords = build(tmp_path / "tfrecord", "64px_1per")
    ids = ("anchor_id", "positive_id", "negative_id", "landmark_id", "negative_landmark_id")
    assert len(source) == 10
    assert sorted([e[i] for i in ids] for e in source) == [[e[i] for i in ids] for e in read_examples(tfrecords)]
    assert source[3]["anchor_img"].shape == (64, 64, 3)


# --- The bytes of a build


@pytest.mark.parametrize("num_workers", [2, 4])
def test_same_bytes_for_any_number_of_workers(tmp_path, monkeypatch, num_workers):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.ids()[::9]:  # redraws must not depend on timing either
        competition.path(image_id).unlink()
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", "1")
    one = build(tmp_path / "one", "64px_all", competition.folder, num_shards=3)
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", str(num_workers))
    more = build(tmp_path / "more", "64px_all", competition.folder, num_shards=3)
    assert shard_hashes(more) == shard_hashes(one)


# The sha256 of the one shard that dummy_data gives at VERSION 1.0.0, and the versions of the libraries that decide
# pixels with which it was seen.
GOLDEN_VERSION = "1.0.0"
GOLDEN = {
    "64px_all": "2133e477ecaa8917215b988469e971190ecd01f23ac57de836d1e92b7f6d3ae8",
    "128px_area": "be7b2a0a0898c32e5c0095fa480133bf4a53003ad444e589e70949b7c518f237",
}
GOLDEN_LIBRARIES = {
    "tensorflow": {"2.21.0"},
    "simplejpeg": {"1.9.0"},
    "opencv-python-headless": {"5.0.0.93"},
}


@pytest.mark.parametrize("config", GOLDEN)
def test_golden_hash(tmp_path, config):
    (actual,) = shard_hashes(build(tmp_path, config)).values()
    unseen = {
        f"{name} {importlib.metadata.version(name)}"
        for name, versions in GOLDEN_LIBRARIES.items()
        if importlib.metadata.version(name) not in versions
    }
    if actual != GOLDEN[config] and unseen:
        pytest.skip(f"The bytes differ from the golden ones, which were never seen with {', '.join(sorted(unseen))}.")
    assert actual == GOLDEN[config], (
        f"The bytes of a build have changed since VERSION {GOLDEN_VERSION}, with libraries that gave the golden ones"
        " before. Datasets built from now on differ from published ones: bump LandmarkTriplets.VERSION, add a line to"
        " RELEASE_NOTES that says what changed, and update the hashes and GOLDEN_VERSION here."
    )


def test_golden_hash_is_of_this_version():
    assert str(LandmarkTriplets.VERSION) == GOLDEN_VERSION


def test_version_has_release_notes():
    assert str(LandmarkTriplets.VERSION) in LandmarkTriplets.RELEASE_NOTES


def test_grey_and_unusual_sources_read_as_rgb(tmp_path):
    """dummy_data holds grey, tall, wide and progressive JPEGs and a PNG; all decode to three channels."""
    builder = build(tmp_path, "64px_all")
    shapes = {np.shape(e["anchor_img"]) for e in tfds.as_numpy(builder.as_dataset(split="train"))}
    assert shapes == {(64, 64, 3)}
