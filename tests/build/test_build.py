"""What stops a build: partial copies, and more unreadable images than the threshold allows."""

import json
import shutil

from etils import epath
import pytest

from landmark_triplets_tfds.build import build as build_module
from landmark_triplets_tfds.build import local as local_build
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import select_images_of
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.errors import LandmarkTableError, MissingImagesError, TooManyUnreadableError
from tests.support.archives import pack_tars
from tests.support.competition import (
    DUMMY_DATA,
    Competition,
    build,
    build_images,
    custom_config,
    images_config,
    read_examples,
    shard_hashes,
)


def remove(competition, image_ids):
    for image_id in image_ids:
        competition.path(image_id).unlink()


def test_what_could_not_be_verified_is_said(tmp_path, capsys):
    copy = pack_tars(DUMMY_DATA, tmp_path / "copy")
    build_images(tmp_path / "data", images_config(resolution=8), copy)
    assert f"All 3 tars in {copy}/train are verified: they are as their MD5 lists say." in capsys.readouterr().out
    (copy / "train/md5.images_001.txt").unlink()
    (copy / "train/md5.images_002.txt").write_text("?")
    build_images(tmp_path / "again", images_config(resolution=8), copy)
    said = capsys.readouterr().out
    assert f"1 of the 3 tars in {copy}/train are verified. No MD5 list names the others (images_001" in said
    assert "could not be verified" in said
    assert f"{copy}/train/md5.images_002.txt has 1 lines that are not understood, such as '?'" in said


# --- Partial copies


def test_many_missing_images_stop_the_build_before_it_starts(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    remove(competition, competition.anchor_ids()[:15])
    monkeypatch.setattr(local_build, "ThumbnailMaker", None)  # must not be reached
    with pytest.raises(MissingImagesError) as error:
        build(tmp_path / "data", "64px_all", competition.folder)
    message = str(error.value)
    assert "15 of the 44 images of this dataset have no file (34%)." in message
    assert '"missing_images": "drop"' in message
    assert "LANDMARK_TRIPLETS_MAX_UNREADABLE=35%" in message
    assert not list((tmp_path / "data" / "landmark_triplets" / "64px_all").iterdir())


@pytest.mark.parametrize(("num_missing", "stops"), [(9, False), (10, True)])
def test_few_missing_images_do_not(tmp_path, num_missing, stops):
    competition = Competition(tmp_path / "competition")
    remove(competition, competition.anchor_ids()[:num_missing])
    if stops:
        with pytest.raises(MissingImagesError):
            build(tmp_path / "data", "64px_all", competition.folder)
    else:
        report = json.loads(
            (build(tmp_path / "data", "64px_all", competition.folder).data_path / "build_report.json").read_text()
        )
        assert report["counts"]["num_images_unreadable_by_reason"] == {"missing": num_missing}


def test_missing_images_are_estimated_from_a_sample(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    remove(competition, competition.anchor_ids())
    monkeypatch.setattr(build_module, "_NUM_LOOKED_UP", 20)
    with pytest.raises(MissingImagesError, match=r"(19|20) of 20 images looked up have no file, so about (95|100)% of"):
        build(tmp_path / "data", "64px_all", competition.folder)


def test_missing_images_within_the_allowed_share_do_not_stop_the_build(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    remove(competition, competition.anchor_ids()[:12])
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", "28%")  # 12 of 44 are 27.3 %
    examples = read_examples(build(tmp_path / "data", "64px_all", competition.folder))
    missing = {image_id.encode() for image_id in competition.ids()} - {
        p.stem.encode() for p in (competition.folder / "train").rglob("*.jpg")
    }
    assert all(missing.isdisjoint((e["anchor_id"], e["positive_id"], e["negative_id"])) for e in examples)


def test_drop_equals_a_table_that_never_had_the_images(tmp_path):
    competition = Competition(tmp_path / "competition")
    gone = competition.ids()[::3]
    remove(competition, gone)
    config = custom_config(resolution=16, images_per_landmark=None, missing_images="drop")
    dropped = build(tmp_path / "dropped", config, competition.folder)

    shorter = Competition(tmp_path / "shorter")
    table = shorter.folder / "train.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(True) if line[:16] not in gone))
    never = build(tmp_path / "never", custom_config(resolution=16, images_per_landmark=None), shorter.folder)

    assert shard_hashes(dropped) == shard_hashes(never)
    counts = dropped.info.metadata["counts"]
    assert (counts["num_images"], counts["num_images_dropped"]) == (30, 15)
    assert counts["num_landmarks"] + counts["num_landmarks_dropped"] == 12
    assert dropped.info.metadata["table_sha256"] == never.info.metadata["table_sha256"]
    # An image that turns up later makes another table.
    image_id = gone[0]
    shutil.copy(
        DUMMY_DATA / "train" / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg", competition.path(image_id)
    )
    with pytest.raises(ValueError, match="another table"):
        build(tmp_path / "dropped", config, competition.folder)


def test_drop_of_everything(tmp_path):
    competition = Competition(tmp_path / "competition")
    remove(competition, competition.ids())
    with pytest.raises(
        LandmarkTableError, match=r"None of the 45 images in .*train\.csv has a file; the first would be"
    ):
        build(tmp_path / "data", custom_config(missing_images="drop"), competition.folder)


def test_drop_keeps_everything_of_a_whole_copy(tmp_path):
    source = find_source(epath.Path(DUMMY_DATA))
    selection = select_images_of(custom_config(missing_images="drop"), source, BuildOptions())
    assert selection.images.table is selection.whole


# --- The threshold


def break_images(competition, num_broken):
    for image_id in competition.anchor_ids()[:num_broken]:
        competition.path(image_id).write_bytes(b"")


@pytest.mark.parametrize(
    ("num_broken", "share", "stops"), [(10, "0", False), (11, "0", True), (12, "27%", True), (12, "28%", False)]
)
def test_threshold(tmp_path, monkeypatch, num_broken, share, stops):
    """max(10, share of the plan's 44 images) may be unreadable; 12 of 44 are 27.3 %."""
    competition = Competition(tmp_path / "competition")
    break_images(competition, num_broken)
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", share)
    if not stops:
        build(tmp_path / "data", "64px_all", competition.folder)
        return
    with pytest.raises(TooManyUnreadableError) as error:
        build(tmp_path / "data", "64px_all", competition.folder)
    message = str(error.value)
    assert "empty file" in message
    assert f"{competition.folder}/train/" in message
    assert "LANDMARK_TRIPLETS_MAX_UNREADABLE" in message
    assert not list((tmp_path / "data" / "landmark_triplets" / "64px_all").iterdir())


def test_threshold_stops_as_soon_as_it_is_certain(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    break_images(competition, 43)
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", "1")
    monkeypatch.setenv("LANDMARK_TRIPLETS_READERS", "1")
    reads = []
    source_class = type(find_source(epath.Path(competition.folder)))
    read = source_class.read

    def counting_read(self, image_id):
        reads.append(image_id)
        return read(self, image_id)

    monkeypatch.setattr(source_class, "read", counting_read)
    with pytest.raises(TooManyUnreadableError, match=r"So far: (11|12|13|14|15|16) "):
        build(tmp_path / "data", "64px_all", competition.folder)
    assert len(reads) <= 43
