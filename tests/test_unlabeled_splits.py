"""Splits of images without labels: the same from every kind of copy and on a cluster, recorded, compared, reported."""

import functools
import os
import shutil

from etils import epath
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages, LandmarkTripletsConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import select_images_of
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.errors import (
    ImageIndexError,
    PreparedDataMismatchError,
    SourceLayoutError,
    TooManyUnreadableError,
)
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.training.epochs import FreshTriplets, LandmarkBatches
from landmark_triplets_tfds.training.records import read_image_index
from landmark_triplets_tfds.triplets.draws import choose_queries
from tests.support.archives import COPIES, image_files, pack_folder_as_tars, pack_tars
from tests.support.beam_builds import build_with_beam, read_report
from tests.support.competition import DUMMY_DATA, Competition, build_images, images_config, read_images, shard_hashes

FIELDS = {"resolution": 16, "images_per_landmark": 2, "unlabeled_splits": True}
SPLITS = {"index": 6, "test": 3}
SPEC = ThumbnailSpec(resolution=16)


class BuilderTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkImages
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [images_config("16px_unlabeled", **FIELDS)]
    SPLITS = {"train": 22} | SPLITS


class BuilderHoldoutTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = LandmarkImages
    EXAMPLE_DIR = str(DUMMY_DATA)
    BUILDER_CONFIG_NAMES_TO_TEST = [images_config("16px_half_unlabeled", **FIELDS, validation_percent=50)]
    SPLITS = {"train": 10, "validation": 12} | SPLITS


def config(**fields):
    return images_config(**(FIELDS | fields))


build_images_with_beam = functools.partial(build_with_beam, builder_class=LandmarkImages)


def hashes_of(builder, *splits) -> dict[str, str]:
    return {name: sha for name, sha in shard_hashes(builder).items() if name.split(".")[0].split("-")[1] in splits}


# --- What is in them


def test_all_images_of_the_folders_are_there_once_and_have_no_landmark(tmp_path):
    """Whatever is sampled or held out of the others, whose shards are those of a dataset without these splits."""
    builder = build_images(tmp_path / "with", config(images_per_landmark=1, validation_percent=50))
    for split in SPLITS:
        files = {path.stem: path.read_bytes() for path in image_files(DUMMY_DATA, split)}
        examples = read_images(builder, split)
        assert {e["image_id"]: e["image"] for e in examples} == {
            image_id: make_thumbnail(content, SPEC) for image_id, content in files.items()
        }
        assert len(examples) == len(files) == SPLITS[split]
        assert {e["landmark_id"] for e in examples} == {-1}
        index = read_image_index(builder.data_dir, split)
        assert [f"{i:016x}" for i in index.image_ids.tolist()] == [e["image_id"] for e in examples]
        assert set(index.landmark_ids.tolist()) == {-1}
    without = build_images(
        tmp_path / "without", config(images_per_landmark=1, validation_percent=50, unlabeled_splits=False)
    )
    assert list(without.info.splits) == ["train", "validation"]
    assert hashes_of(builder, "train", "validation") == shard_hashes(without)
    assert not {"unlabeled_sha256", "num_images_unlabeled"} & {*without.info.metadata, *read_report(without)["counts"]}


def test_every_copy_gives_the_same_dataset(tmp_path):
    """Byte for byte, and in place."""
    wanted = build_images(tmp_path / "data", config())
    for number, make in enumerate(COPIES.values()):
        copy = make(DUMMY_DATA, tmp_path / f"copy{number}")
        files = sorted(copy.rglob("*"))
        built = build_images(tmp_path / f"data{number}", config(), copy)
        assert shard_hashes(built) == shard_hashes(wanted)
        assert built.info.metadata == wanted.info.metadata
        assert sorted(copy.rglob("*")) == files
    build_images(tmp_path / "data", config(), copy)  # prepared from another kind of copy: it is the same


def test_folders_may_be_of_different_kinds(tmp_path):
    """Beside extracted training images there may be tars, and the other way round."""
    wanted = shard_hashes(build_images(tmp_path / "data", config()))
    extracted = Competition(tmp_path / "extracted").folder
    shutil.rmtree(extracted / "index")
    pack_folder_as_tars(DUMMY_DATA / "index", image_files(DUMMY_DATA, "index"), extracted / "index")
    assert shard_hashes(build_images(tmp_path / "data1", config(), extracted)) == wanted
    tars = pack_tars(DUMMY_DATA, tmp_path / "tars")
    shutil.rmtree(tars / "test")
    shutil.copytree(DUMMY_DATA / "test", tars / "test")
    assert shard_hashes(build_images(tmp_path / "data2", config(), tars)) == wanted


def test_capped(tmp_path):
    builder = build_images(tmp_path, config(), max_examples_per_split=4)
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 4,
        "index": 4,
        "test": 3,
    }
    first = sorted(path.stem for path in image_files(DUMMY_DATA, "index"))[:4]
    assert sorted(e["image_id"] for e in read_images(builder, "index")) == first
    assert builder.info.metadata["counts"]["num_images_unlabeled"] == SPLITS
    assert len(read_image_index(builder.data_dir, "index")) == 4


# --- The same id in two folders


@pytest.mark.parametrize("kind", ["folder", "zip, deflated", "tars", "beam"])
def test_one_id_may_be_two_images(tmp_path, kind):
    """Also where both files have the same size, time and place, as stamps of the bank of thumbnails have it."""
    competition = Competition(tmp_path / "competition")
    for folder in SPLITS:
        shutil.rmtree(competition.folder / folder)
    for name in ("train", "index", "test"):  # the first in its tar
        for image_id in ("0" * 16, "5" * 16):
            path = competition.path(image_id, name)
            path.parent.mkdir(parents=True)
            path.write_bytes(b"")
    with (competition.folder / "train.csv").open("a") as table:
        table.write(f"{'0' * 16},7\n{'5' * 16},7\n")
    contents = [path.read_bytes() for path in image_files(DUMMY_DATA)[:6]]
    size = max(map(len, contents))
    for number, content in enumerate(contents):
        path = competition.path("05"[number % 2] * 16, ("train", "index", "test")[number // 2])
        path.write_bytes(content + bytes(size - len(content)))
        os.utime(path, (1_600_000_000, 1_600_000_000))
    copy = competition.folder if kind == "beam" else COPIES[kind](competition.folder, tmp_path / "copy")
    for path in copy.rglob("*.tar"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    make, num_builds = (build_images_with_beam, 1) if kind == "beam" else (build_images, 2)
    for attempt in range(num_builds):  # the second one finds what the first one left in the bank
        builder = make(tmp_path / f"data{attempt}", config(images_per_landmark=None), copy)
        for split in ("train", *SPLITS):
            images = {e["image_id"]: e["image"] for e in read_images(builder, split)}
            for image_id in ("0" * 16, "5" * 16):
                wanted = make_thumbnail(competition.path(image_id, split).read_bytes(), SPEC)
                assert images[image_id] == wanted, (split, image_id)


# --- Folders that are not there


@pytest.mark.parametrize("kind", ["folder", "zip, deflated", "tars"])
@pytest.mark.parametrize("absent", ["index", "test"])
def test_one_folder_is_not_there(tmp_path, capsys, kind, absent):
    competition = Competition(tmp_path / "competition")
    shutil.rmtree(competition.folder / absent)
    (present,) = SPLITS.keys() - {absent}
    builder = build_images(tmp_path / "data", config(), COPIES[kind](competition.folder, tmp_path / "copy"))
    assert set(builder.info.splits) == {"train", present}
    assert builder.info.metadata["counts"]["num_images_unlabeled"] == {present: SPLITS[present], absent: 0}
    assert list(builder.info.metadata["unlabeled_sha256"]) == [present]
    assert f"  No split {absent}: there is no folder {absent}/ with images beside train/.\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "zip, deflated", "tars"])
def test_no_folder_is_there(tmp_path, kind):
    competition = Competition(tmp_path / "competition")
    for folder in SPLITS:
        shutil.rmtree(competition.folder / folder)
    (competition.folder / "test").mkdir()  # with nothing in it
    copy = COPIES[kind](competition.folder, tmp_path / "copy")
    place = copy / "landmark-retrieval-2020.zip" if kind == "zip, deflated" else copy
    message = f"there is no image in {place}/index or {place}/test. Such a folder is beside train/.*without unlabeled_"
    with pytest.raises(SourceLayoutError, match=message):
        build_images(tmp_path / "data", config(), copy)
    build_images(tmp_path / "data", config(unlabeled_splits=False), copy)


def test_a_damaged_tar_stops_the_build(tmp_path):
    copy = pack_tars(DUMMY_DATA, tmp_path / "copy", md5=False)
    path = copy / "test" / "images_001.tar"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SourceLayoutError, match=f"{path} is cut off"):
        build_images(tmp_path / "data", config(), copy)
    build_images(tmp_path / "data", config(unlabeled_splits=False), copy)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_the_field_is_a_switch(value):
    with pytest.raises(ValueError, match="unlabeled_splits must be True or False"):
        config(unlabeled_splits=value)


def test_what_the_description_says():
    assert config(validation_percent=10).description == (
        "16 x 16 px; up to 2 images per landmark; 10 % of the landmarks held out; also index and test, without labels."
    )


# --- Unreadable images


def test_unreadable_images_are_listed_with_their_folder(tmp_path):
    competition = Competition(tmp_path / "competition")
    ids = {split: sorted(path.stem for path in image_files(DUMMY_DATA, split)) for split in SPLITS}
    competition.path(ids["index"][2], "index").write_bytes(b"")
    competition.path(ids["test"][0], "test").write_bytes(b"<html>")
    builder = build_images(tmp_path / "data", config(), competition.folder)
    assert [(e["image_id"], e["location"]) for e in read_report(builder)["unreadable_images"]] == [
        (ids["index"][2], str(competition.path(ids["index"][2], "index"))),
        (ids["test"][0], str(competition.path(ids["test"][0], "test"))),
    ]
    counts = builder.info.metadata["counts"]
    assert {split: counts["splits"][split]["num_examples"] for split in SPLITS} == {"index": 5, "test": 2}
    assert counts["splits"]["index"]["num_examples_left_out_by_reason"] == {"unreadable image": 1}
    assert len(read_image_index(builder.data_dir, "index")) == 5


def test_too_many_unreadable_images(tmp_path):
    competition = Competition(tmp_path / "competition")
    for number in range(11):
        path = competition.path(f"{number:016x}", "test")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    with pytest.raises(TooManyUnreadableError, match="of the 14 images of this dataset more than 10"):
        build_images(tmp_path / "data", config(), competition.folder)
    assert not list((tmp_path / "data" / "landmark_images" / "custom").iterdir())


# --- What is recorded and compared


def test_other_images_in_the_folders_are_another_dataset(tmp_path):
    competition = Competition(tmp_path / "competition")
    builder = build_images(tmp_path / "data", config(), competition.folder)
    assert set(builder.info.metadata["unlabeled_sha256"]) == set(SPLITS)
    build_images(tmp_path / "data", config(), competition.folder)
    moved = tmp_path / "moved.jpg"
    path = image_files(competition.folder, "test")[0]
    path.rename(moved)
    message = "it was made from other images without labels than"
    with pytest.raises(PreparedDataMismatchError, match=message):
        build_images(tmp_path / "data", config(), competition.folder)
    moved.rename(path)
    build_images(tmp_path / "data", config(), competition.folder)
    shutil.move(competition.folder / "index", tmp_path)
    with pytest.raises(PreparedDataMismatchError, match=message):
        build_images(tmp_path / "data", config(), competition.folder)
    shutil.rmtree(competition.folder / "test")  # then the files are not here, as on a machine that only trains
    build_images(tmp_path / "data", config(), competition.folder)
    with pytest.raises(PreparedDataMismatchError, match="unlabeled_splits is True there, False asked for"):
        build_images(tmp_path / "data", config(unlabeled_splits=False), competition.folder)


# --- On a cluster


def test_same_on_a_cluster(tmp_path, monkeypatch):
    """Byte for byte; and no folder is listed but by the program that starts the build."""
    listed = []
    list_images = FolderSource.list_images
    monkeypatch.setattr(FolderSource, "list_images", lambda *given: listed.append(given) or list_images(*given))
    competition = Competition(tmp_path / "competition")
    competition.path(competition.ids()[0]).unlink()
    for split in SPLITS:
        image_files(competition.folder, split)[1].write_bytes(b"")
    fields = config(validation_percent=50, images_per_landmark=None, missing_images="drop")
    local = build_images(tmp_path / "local", fields, competition.folder)
    assert len(listed) == len(SPLITS)
    beam = build_images_with_beam(tmp_path / "beam", fields, competition.folder)
    assert len(listed) == 2 * len(SPLITS)
    assert beam.info.metadata == local.info.metadata
    assert list(beam.info.splits) == list(local.info.splits)
    assert shard_hashes(beam) == shard_hashes(local)
    assert (beam.data_path / "index.npz").read_bytes() == (local.data_path / "index.npz").read_bytes()
    assert {path.name for path in beam.data_path.iterdir()} == {path.name for path in local.data_path.iterdir()}
    assert read_report(beam)["unreadable_images"] == read_report(local)["unreadable_images"]


@pytest.mark.parametrize("kind", ["zip, deflated", "tars"])
def test_archives_are_read_by_workers_in_place(tmp_path, kind):
    copy = COPIES[kind](DUMMY_DATA, tmp_path / "copy")
    beam = build_images_with_beam(tmp_path / "beam", config(), copy)
    assert shard_hashes(beam) == shard_hashes(build_images(tmp_path / "local", config()))
    assert not [path for path in beam.data_path.iterdir() if path.suffix == ".index" or path.name.startswith("beam_")]


# --- What uses labels


def test_what_needs_labels_refuses_them(tmp_path):
    pytest.importorskip("array_record")
    builder = build_images(tmp_path, config(), file_format="array_record")
    for split in SPLITS:
        source = builder.as_data_source(split=split)
        index = read_image_index(builder.data_dir, split)
        assert not choose_queries(index.image_ids, index.landmark_ids).any()
        for make in (FreshTriplets, lambda source: LandmarkBatches(source, 1, 1)):
            with pytest.raises(ImageIndexError, match=r"have no landmark_id .*index and test images"):
                make(source)
    assert len(FreshTriplets(builder.as_data_source(split="train")))


# --- Selection


def test_triplets_have_no_such_field():
    with pytest.raises(ValueError, match="landmark_triplets has no field 'unlabeled_splits'"):
        LandmarkTripletsConfig(name="x", unlabeled_splits=True)


def test_selected_images_are_in_order_of_their_ids():
    source = find_source(epath.Path(DUMMY_DATA))
    selection = select_images_of(config(), source, BuildOptions())
    for split, count in SPLITS.items():
        table = selection.unlabeled[split].table
        assert table.image_ids.tolist() == sorted(int(path.stem, 16) for path in image_files(DUMMY_DATA, split))
        assert table.landmark_ids.tolist() == [-1] * count
    assert not select_images_of(config(unlabeled_splits=False), source, BuildOptions()).unlabeled
