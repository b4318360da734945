"""Which examples are in which shard, and that its bytes are those that TFDS itself would write."""

from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import hashing
from tensorflow_datasets.core.utils import shard_utils

from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets
from landmark_triplets_tfds.build.shards import (
    choose_num_shards,
    expected_size,
    masked_crc,
    record_order,
    shard_bounds,
    write_shard,
)
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS
from landmark_triplets_tfds.triplets.plan import make_plan
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec
from tests.support.competition import (
    Competition,
    build,
    build_images,
    custom_config,
    images_config,
    read_images,
    shard_hashes,
)

FORMATS = ["tfrecord", "array_record", "parquet"]


class _WrittenByTfds:
    """Gives `_generate_examples` to TFDS's own writer, as a builder does that overrides nothing."""

    _download_and_prepare = tfds.core.GeneratorBasedBuilder._download_and_prepare

    def _post_download_and_prepare_hook(self) -> None:
        pass


class TripletsByTfds(_WrittenByTfds, LandmarkTriplets, skip_registration=True):
    name: ClassVar[str] = "landmark_triplets"


class ImagesByTfds(_WrittenByTfds, LandmarkImages, skip_registration=True):
    name: ClassVar[str] = "landmark_images"


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize(
    ("ours", "theirs", "make_config"),
    [(LandmarkTriplets, TripletsByTfds, custom_config), (LandmarkImages, ImagesByTfds, images_config)],
    ids=["triplets", "images"],
)
def test_files_are_those_of_tfds(tmp_path, ours, theirs, make_config, num_shards, file_format):
    config = make_config(resolution=64, images_per_landmark=None, validation_percent=30)
    arguments = {"config": config, "file_format": file_format, "num_shards": num_shards}
    here = build(tmp_path / "ours", builder_class=ours, **arguments)
    there = build(tmp_path / "theirs", builder_class=theirs, **arguments)
    assert len(shard_hashes(here)) == 2 * num_shards
    assert shard_hashes(here) == shard_hashes(there)
    for split in ("train", "validation"):
        assert here.info.splits[split].shard_lengths == there.info.splits[split].shard_lengths
        assert here.info.splits[split].num_bytes == there.info.splits[split].num_bytes


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_left_out_makes_its_shard_shorter(tmp_path, file_format):
    """Here even empty, which reads right."""
    competition = Competition(tmp_path / "competition")
    missing = competition.ids()[5]
    competition.path(missing).unlink()
    num_images = len(competition.ids())
    builder = build_images(tmp_path / "data", "64px_all", competition.folder, num_shards=num_images)
    assert sorted(builder.info.splits["train"].shard_lengths) == [0, *[1] * (num_images - 1)]
    assert len(shard_hashes(builder)) == num_images

    builder = build_images(
        tmp_path / file_format, "64px_all", competition.folder, num_shards=num_images, file_format=file_format
    )
    if file_format == "array_record":
        source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
        found = [source[number]["image_id"].decode() for number in range(len(source))]
    else:
        found = [example["image_id"] for example in read_images(builder)]
    assert sorted(found) == sorted(set(competition.ids()) - {missing})


def test_a_shard_that_is_cut_off_has_no_name(tmp_path):
    def records():
        yield b"one"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        write_shard(tmp_path / "x.tfrecord-00000-of-00001", "tfrecord", records())
    assert list(tmp_path.iterdir()) == []


def test_the_checksums_are_those_of_tensorflow():
    """As its TFRecordWriter wrote them around the record b'abc'."""
    assert masked_crc((3).to_bytes(8, "little")).hex() == "b099490e"
    assert masked_crc(b"abc").hex() == "6e57f121"


def images_plan(image_ids):
    table = LandmarkTable(np.array(image_ids, dtype=np.uint64), np.arange(len(image_ids)))
    return make_plan(table, ImageSamplingSpec())


def test_examples_are_in_the_order_of_their_hashes():
    plan = images_plan(range(20_000))
    hash_key = hashing.Hasher("validation").hash_key
    expected = sorted(range(12_345), key=lambda number: hash_key(f"{number:016x}"))
    assert record_order(plan, 12_345, "validation").tolist() == expected


def test_keys_that_share_a_hash_are_found_on_the_plan(monkeypatch):
    plan = images_plan(range(5))
    monkeypatch.setattr(plan, "keys", lambda start, stop: ["a", "b", "c", "b", "d"][start:stop])
    with pytest.raises(ValueError, match="Two examples of split 'train' share the key 'b'"):
        record_order(plan, 5, "train")


@pytest.mark.parametrize(
    ("num_examples", "num_shards", "expected"), [(10, 1, [0, 10]), (10, 4, [0, 2, 5, 8, 10]), (3, 3, [0, 1, 2, 3])]
)
def test_shards_are_of_about_equal_numbers(num_examples, num_shards, expected):
    assert shard_bounds(num_examples, num_shards) == expected


PHOTOGRAPHS = ThumbnailSpec(resolution=128)


@pytest.mark.parametrize(
    ("num_examples", "kind", "spec", "config", "expected"),
    [
        (10, TRIPLETS, PHOTOGRAPHS, {}, 1),
        (100_000, TRIPLETS, PHOTOGRAPHS, {}, 32),
        (1_566_451, TRIPLETS, PHOTOGRAPHS, {}, 256),
        (1_566_451, TRIPLETS, ThumbnailSpec(resolution=512), {}, 1024),
        (1_566_451, IMAGES, PHOTOGRAPHS, {}, 128),
        (1_566_451, TRIPLETS, PHOTOGRAPHS, {"num_shards": 7}, 7),
        (1000, TRIPLETS, PHOTOGRAPHS, {"max_shard_size": 1 << 20, "min_shard_size": 1 << 16}, 42),
    ],
)
def test_number_of_shards(num_examples, kind, spec, config, expected):
    assert choose_num_shards(num_examples, kind, spec, shard_utils.ShardConfig(**config)) == expected


def test_more_shards_than_examples():
    with pytest.raises(ValueError, match="11 shards are asked for, and there are 10 examples"):
        choose_num_shards(10, IMAGES, PHOTOGRAPHS, shard_utils.ShardConfig(num_shards=11))


@pytest.mark.parametrize("max_shard_size", [40_000, 100_000])
def test_no_shard_is_larger_than_asked_for(tmp_path, max_shard_size):
    config = custom_config(resolution=64, images_per_landmark=None)
    builder = build(tmp_path, config, max_shard_size=max_shard_size, min_shard_size=10_000)
    sizes = [path.stat().length for path in builder.data_path.glob("*-of-*")]
    assert len(sizes) > 1
    assert max(sizes) <= max_shard_size


def test_sizes_grow_with_resolution_and_quality():
    """`python -m benchmarks.forecast` compares them with photographs."""
    specs = [
        ThumbnailSpec(resolution=r, jpeg_quality=q) for r, q in ((64, 50), (64, 94), (128, 94), (128, 99), (512, 94))
    ]
    sizes = [expected_size(1000, IMAGES, spec) for spec in specs]
    assert sizes == sorted(sizes)
    assert expected_size(1000, TRIPLETS, specs[0]) == pytest.approx(3 * sizes[0], abs=2)
