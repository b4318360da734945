"""The builder of single images: records, index.npz, splits of landmarks, and the same images as in the triplets."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets
from landmark_triplets_tfds.competition.tables import format_image_id, read_landmark_table
from landmark_triplets_tfds.errors import ImageIndexError, NoExampleError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.training.records import read_image_index
from landmark_triplets_tfds.triplets.draws import choose_queries, is_held_out
from tests.support.competition import (
    DUMMY_DATA,
    Competition,
    build,
    build_images,
    custom_config,
    images_config,
    read_examples,
    read_images,
    shard_hashes,
)

TABLE = read_landmark_table(DUMMY_DATA / "train.csv")  # 45 images of 12 landmarks
IDS = [format_image_id(image_id) for image_id in TABLE.image_ids]
LANDMARK_OF = dict(zip(IDS, TABLE.landmark_ids.tolist(), strict=True))


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkImages
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = ["64px_all"]
    SPLITS = {"train": 45}


class BuilderHoldoutTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkImages
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [images_config("16px_half", resolution=16, validation_percent=50)]
    SPLITS = {"train": 10, "validation": 12}


class TripletsHoldoutTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkTriplets
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [custom_config("16px_half", resolution=16, validation_percent=50)]
    SPLITS = {"train": 10, "validation": 10}


def stored_image(image_id, resolution):
    path = DUMMY_DATA / "train" / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg"
    return make_thumbnail(path.read_bytes(), ThumbnailSpec(resolution=resolution))


def test_both_builders_have_the_same_names():
    assert [c.name for c in LandmarkImages.BUILDER_CONFIGS] == [c.name for c in LandmarkTriplets.BUILDER_CONFIGS]
    assert LandmarkImages.builder_configs["128px_all"].description == (
        "128 x 128 px; all images per landmark, 1,580,470 in the whole competition."
    )


def test_every_image_is_there_once(tmp_path):
    builder = build_images(tmp_path, images_config(resolution=32, images_per_landmark=None))
    examples = read_images(builder)
    assert sorted(e["image_id"] for e in examples) == sorted(IDS)
    for example in examples:
        assert example["landmark_id"] == LANDMARK_OF[example["image_id"]]
        assert example["image"] == stored_image(example["image_id"], 32)


def test_the_sample_is_the_first_images_of_each_landmark(tmp_path):
    examples = read_images(build_images(tmp_path, images_config(resolution=16, images_per_landmark=2)))
    first = {i for landmark in set(LANDMARK_OF.values()) for i in [i for i in IDS if LANDMARK_OF[i] == landmark][:2]}
    assert {e["image_id"] for e in examples} == first


def test_as_supervised(tmp_path):
    build_images(tmp_path, "64px_1per")
    image, landmark_id = next(
        iter(tfds.load("landmark_images/64px_1per", split="train", data_dir=tmp_path, as_supervised=True))
    )
    assert (image.shape, image.dtype.name, landmark_id.dtype.name) == ((64, 64, 3), "uint8", "int64")


def test_both_builders_share_the_bank(tmp_path):
    build_images(tmp_path, "64px_all")
    builder = build(tmp_path, "64px_all")
    report = json.loads((builder.data_path / "build_report.json").read_text())
    assert report["num_thumbnails_made"] == 0
    assert report["counts"]["num_images_read"] == 44


# --- index.npz


@pytest.mark.parametrize(("file_format", "num_shards"), [("tfrecord", 3), ("array_record", 2), ("tfrecord", None)])
def test_index_is_in_record_order(tmp_path, file_format, num_shards):
    if file_format == "array_record":
        pytest.importorskip("array_record")
    config = images_config(resolution=8, images_per_landmark=None, validation_percent=50)
    builder = build_images(tmp_path, config, file_format=file_format, num_shards=num_shards)
    for split in ("train", "validation"):
        if file_format == "array_record":
            records = list(builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()}))
            found = [(e["image_id"].decode(), int(e["landmark_id"])) for e in records]
        else:
            found = [(e["image_id"], e["landmark_id"]) for e in read_images(builder, split)]
        index = read_image_index(builder.data_dir, split)
        assert found == [
            (format_image_id(image), landmark)
            for image, landmark in zip(index.image_ids, index.landmark_ids.tolist(), strict=True)
        ]
        assert (index.image_ids.dtype, index.landmark_ids.dtype) == (np.uint64, np.int32)
    whole = np.load(builder.data_path / "index.npz")
    assert sorted(whole["image_id"].tolist()) == sorted(TABLE.image_ids.tolist())
    assert whole["landmark_id"].dtype == np.int32


def test_index_lacks_unreadable_images(tmp_path):
    competition = Competition(tmp_path / "competition")
    gone = competition.ids()[::9]
    for image_id in gone:
        competition.path(image_id).write_bytes(b"<html>")
    builder = build_images(tmp_path / "data", "64px_all", competition.folder)
    index = read_image_index(builder.data_dir)
    assert [format_image_id(i) for i in index.image_ids] == [e["image_id"] for e in read_images(builder)]
    assert not set(gone) & {format_image_id(i) for i in index.image_ids}
    counts = builder.info.metadata["counts"]
    assert counts["num_examples"] == len(IDS) - len(gone)
    assert counts["num_examples_left_out_by_reason"] == {"unreadable image": len(gone)}


def test_index_of_a_capped_split(tmp_path):
    builder = build_images(tmp_path, "64px_all", max_examples_per_split=7)
    index = read_image_index(builder.data_dir)
    assert [format_image_id(i) for i in index.image_ids] == [e["image_id"] for e in read_images(builder)]
    assert len(index) == 7


def test_landmark_ids_that_do_not_fit_are_refused_before_anything_is_made(tmp_path):
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    table.write_text(table.read_text() + f"{'a' * 16},{2**31}\n")
    with pytest.raises(ImageIndexError, match="up to 2147483647, and the table has 2147483648"):
        build_images(tmp_path / "data", "64px_all", competition.folder)


# --- Landmarks never seen


@pytest.mark.parametrize("percent", [20, 50])
def test_no_landmark_and_no_image_is_in_both_splits(tmp_path, percent):
    fields = {"resolution": 8, "images_per_landmark": None, "validation_percent": percent}
    triplets = build(tmp_path, custom_config(**fields, triplets_per_anchor=2))
    images = build_images(tmp_path, images_config(**fields))
    held_out = {i for i in IDS if is_held_out(np.array([LANDMARK_OF[i]]), percent)[0]}
    assert held_out
    for split, own in (("train", set(IDS) - held_out), ("validation", held_out)):
        assert {e["image_id"] for e in read_images(images, split)} == own
        used = {
            e[field].decode()
            for e in read_examples(triplets, split)
            for field in ("anchor_id", "positive_id", "negative_id")
        }
        assert used <= own
        assert images.info.metadata["counts"]["splits"][split]["num_examples"] == len(own)
    # All landmarks but for the size of the sample: the same division in a smaller dataset.
    smaller = build_images(tmp_path, images_config("other", resolution=16, validation_percent=percent))
    assert {e["image_id"] for e in read_images(smaller, "validation")} <= held_out
    assert {e["image_id"] for e in read_images(smaller, "train")}.isdisjoint(held_out)


def test_the_training_split_does_not_depend_on_what_is_held_out_being_there(tmp_path):
    """Training data with a held-out part are those of a table that never had it."""
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    header, *lines = table.read_text().splitlines(True)
    held_out = is_held_out(TABLE.landmark_ids, 50)
    table.write_text(header + "".join(line for line, out in zip(lines, held_out, strict=True) if not out))
    fields = {"resolution": 8, "images_per_landmark": None}
    never = build(tmp_path / "never", custom_config(**fields), competition.folder)
    with_holdout = build(tmp_path / "with", custom_config(**fields, validation_percent=50))
    train = {name: sha for name, sha in shard_hashes(with_holdout).items() if "-train" in name}
    assert train == shard_hashes(never)


def test_queries_of_the_validation_split(tmp_path):
    config = images_config(resolution=8, images_per_landmark=None, validation_percent=50)
    index = read_image_index(build_images(tmp_path, config).data_dir, "validation")
    queries = choose_queries(index.image_ids, index.landmark_ids)
    assert queries.any()
    assert set(index.landmark_ids[queries]) <= set(index.landmark_ids[~queries])


def test_an_empty_split_says_so(tmp_path):
    with pytest.raises(NoExampleError, match=r"'validation' would be empty: validation_percent=0\.01"):
        build_images(tmp_path, images_config(validation_percent=0.01))


# --- Excluded landmarks


@pytest.mark.parametrize("builder_class", [LandmarkImages, LandmarkTriplets])
def test_excluded_landmarks(tmp_path, builder_class):
    excluded = sorted(set(LANDMARK_OF.values()))[::3]
    listed = tmp_path / "excluded.txt"
    listed.write_text(
        "# overlap with a public test set\n" + "".join(f"{i}  # so many\r\n" for i in excluded) + "\n999\n"
    )
    make_config = images_config if builder_class is LandmarkImages else custom_config
    config = make_config(resolution=8, images_per_landmark=None, exclude_landmarks=str(listed))
    builder = build(tmp_path / "data", config, builder_class=builder_class)
    read = read_images if builder_class is LandmarkImages else read_examples
    examples = read(builder)
    assert not {e["landmark_id"] for e in examples} & set(excluded)
    assert not {e.get("negative_landmark_id") for e in examples} & set(excluded)
    counts = builder.info.metadata["counts"]
    assert counts["num_landmarks_excluded"] == len(excluded)
    assert counts["num_images_excluded"] == sum(landmark in excluded for landmark in LANDMARK_OF.values())
    # What counts are the ids: the same list elsewhere is the same dataset, another list is not.
    recorded = builder.info.metadata["config"]["exclude_landmarks"]
    assert recorded.startswith("sha256:")
    copy = tmp_path / "copy.txt"
    copy.write_text("".join(f"{i}\n" for i in [999, *reversed(excluded)]))
    same = make_config(resolution=8, images_per_landmark=None, exclude_landmarks=str(copy))
    build(tmp_path / "data", same, builder_class=builder_class)
    copy.write_text(f"{excluded[0]}\n")
    with pytest.raises(ValueError, match="exclude_landmarks is 'sha256:"):
        build(tmp_path / "data", same, builder_class=builder_class)
    copy.unlink()  # as on a machine that only trains
    build(tmp_path / "data", same, builder_class=builder_class)
