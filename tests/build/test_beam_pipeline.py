"""The same dataset through Apache Beam: equal to the local build, file for file and count for count."""

from collections import Counter
import os
import re
import zipfile

from apache_beam.metrics import MetricsFilter
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
import numpy as np
import pytest

from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets
from landmark_triplets_tfds.build import cluster as cluster_plan
from landmark_triplets_tfds.errors import MissingImagesError, TooManyUnreadableError
from landmark_triplets_tfds.training.records import read_image_index
from tests.support.beam_builds import NeverRun, assert_same, build_with_beam
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    custom_config,
    images_config,
    read_examples,
    read_images,
    run,
)
from tests.support.helpers import encode_image, smooth_pixels

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@pytest.fixture
def broken(tmp_path) -> Competition:
    """A copy of dummy_data/ with unreadable images of several kinds, among them both of a landmark with two."""
    competition = Competition(tmp_path / "competition")
    ids = competition.anchor_ids()
    for image_id in competition.ids_of_landmark(18):
        competition.path(image_id).write_bytes(b"")
    competition.path(ids[0]).unlink(missing_ok=True)
    competition.path(ids[7]).write_bytes(b"<html></html>")
    competition.path(ids[12]).write_bytes(competition.path(ids[12]).read_bytes()[:600])
    for image_id in ids[20:23]:
        competition.path(image_id).write_bytes(b"GIF89a")
    return competition


# --- The same records


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"images_per_landmark": None}, id="nearest, all"),
        pytest.param({"images_per_landmark": 1}, id="1 per landmark: redraws leave the plan"),
        pytest.param({"resize_method": "area", "fit": "crop"}, id="area, crop"),
        pytest.param({"fit": "pad", "jpeg_quality": 60}, id="pad"),
        pytest.param({"triplets_per_anchor": 3, "seed": 5}, id="3 triplets per anchor"),
        pytest.param({"positive_may_be_anchor": True}, id="positive may be anchor"),
        pytest.param({"images_per_landmark": None, "missing_images": "drop"}, id="drop"),
    ],
)
def test_same_as_local_with_unreadable_images(tmp_path, monkeypatch, broken, fields):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    config = {"resolution": 16} | fields
    local = build(tmp_path / "local", custom_config(**config), broken.folder)
    clustered = build_with_beam(tmp_path / "beam", custom_config(**config), broken.folder)
    assert_same(local, clustered)
    counts = clustered.info.metadata["counts"]
    assert counts["num_images_unreadable"] >= 4
    assert counts["num_triplets_redrawn"] > 0
    assert counts["num_triplets_left_out"] > 0


@pytest.mark.parametrize("num_pieces", [1, 7])
def test_the_cut_into_pieces_decides_nothing(tmp_path, monkeypatch, broken, num_pieces):
    """Other tests have one triplet and one image to a piece."""
    monkeypatch.setattr(cluster_plan, "_MIN_NUM_PIECES", num_pieces)
    monkeypatch.setenv("LANDMARK_TRIPLETS_READERS", "3")
    local = build(tmp_path / "local", "64px_all", broken.folder)
    assert_same(local, build_with_beam(tmp_path / "beam", "64px_all", broken.folder))


def test_work_that_is_done_again_is_neither_lost_nor_doubled(tmp_path, broken):
    """Every bundle runs three times. What happens when machines die is tested in tests/cluster/."""
    local = build(tmp_path / "local", "64px_all", broken.folder)
    assert_same(local, build_with_beam(tmp_path / "beam", "64px_all", broken.folder, FnApiRunner(bundle_repeat=2)))


@pytest.mark.slow
def test_command_line_with_worker_processes(tmp_path, monkeypatch, broken):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    options = f"runner={RUNNER},direct_running_mode=multi_processing,direct_num_workers=2"
    command = ("tfds", "build", "landmark_triplets/64px_all", "--imports", "landmark_triplets_tfds")
    folders = ("--manual_dir", broken.folder, "--data_dir", tmp_path / "beam")
    result = run(*command, *folders, "--beam_pipeline_options", options, cwd=REPOSITORY)
    assert "Built landmark_triplets/64px_all/1.0.0: " in result.stdout
    local = build(tmp_path / "local", "64px_all", broken.folder)
    clustered = build(tmp_path / "beam", "64px_all", broken.folder)  # is there already
    assert_same(local, clustered)


# --- TFDS's options


def test_capped(tmp_path, broken):
    local = build(tmp_path / "local", "64px_all", broken.folder, max_examples_per_split=9)
    clustered = build_with_beam(tmp_path / "beam", "64px_all", broken.folder, max_examples_per_split=9)
    assert_same(local, clustered)
    assert clustered.info.metadata["max_examples_per_split"] == 9
    assert build_with_beam(tmp_path / "none", "64px_all", max_examples_per_split=0).info.splits == {}


def test_num_shards_and_file_format(tmp_path):
    local = build(tmp_path / "local", "64px_all", num_shards=3)
    assert_same(local, build_with_beam(tmp_path / "beam", "64px_all", num_shards=3))
    clustered = build_with_beam(tmp_path / "array", "64px_all", num_shards=3, file_format="array_record")
    assert sorted(path.name for path in clustered.data_path.glob("*.array_record-*")) == [
        f"landmark_triplets-train.array_record-0000{i}-of-00003" for i in range(3)
    ]
    assert_same(build(tmp_path / "local array", "64px_all", num_shards=3, file_format="array_record"), clustered)


def test_nondeterministic_order_changes_nothing(tmp_path):
    """There is no faster way: records are not shuffled."""
    local = build(tmp_path / "local", "64px_1per")
    assert_same(local, build_with_beam(tmp_path / "beam", "64px_1per", nondeterministic_order=True))


# --- The description of the job


@pytest.mark.slow
def test_the_job_of_the_whole_competition_is_small(tmp_path, monkeypatch):
    """Dataflow takes descriptions of up to 10 MB."""
    rng = np.random.default_rng(0)
    image_ids = np.unique(rng.integers(0, 2**64, 1_580_470, dtype=np.uint64))
    landmark_ids = np.arange(len(image_ids)) % 81_313
    (tmp_path / "competition" / "train" / "0").mkdir(parents=True)
    with (tmp_path / "competition" / "train.csv").open("w") as file:
        file.write("id,landmark_id\n")
        file.writelines(f"{i:016x},{k}\n" for i, k in zip(image_ids.tolist(), landmark_ids.tolist(), strict=True))
    first = f"{image_ids[0]:016x}"  # the only image that is there: without any, that would be the error
    folder = tmp_path / "competition" / "train" / first[0] / first[1] / first[2]
    folder.mkdir(parents=True)
    (folder / f"{first}.jpg").write_bytes(encode_image(smooth_pixels(8, 8)))
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", "100%")
    beam_runner = NeverRun()
    with pytest.raises(NeverRun.TakenError):
        build_with_beam(tmp_path / "data", "512px_all", tmp_path / "competition", beam_runner)
    assert 10_000 < len(beam_runner.description) < 1_000_000


def test_functions_carry_plain_fields(tmp_path):
    """A builder that was made with a named config object does not unpickle, so none may be within the job."""
    beam_runner = NeverRun()
    with pytest.raises(NeverRun.TakenError):
        build_with_beam(tmp_path, "64px_1per", beam_runner=beam_runner)
    for name in (b"LandmarkTripletsConfig", b"LandmarkBuilder", b"BeamBuild", b"LandmarkTable"):
        assert name not in beam_runner.description


def test_stages_have_names_that_say_what_they_do(tmp_path):
    """Engines show them while a job runs."""
    beam_runner = NeverRun()
    with pytest.raises(NeverRun.TakenError):
        build_with_beam(tmp_path, "64px_1per", beam_runner=beam_runner)
    job = beam_runner_api_pb2.Pipeline.FromString(beam_runner.description)
    names = {transform.unique_name for transform in job.components.transforms.values()}
    assert {name.removeprefix("Build_train/") for name in names if re.fullmatch("Build_train/[^/]+", name)} == {
        "Shards",
        "SpreadShards",
        "PlanImages",
        "GroupByChunkOfImages",
        "MakeThumbnails",
        "GroupByShard",
        "WriteShards",
        "AllOutcomes",
        "AddUpOutcomes",
        "WriteOutcome",
    }


class Watched(FnApiRunner):
    """Keeps what it counted."""

    def run_pipeline(self, pipeline, options):
        result = super().run_pipeline(pipeline, options)
        counters = result.metrics().query(MetricsFilter().with_namespace("landmark_triplets"))["counters"]
        self.counters = Counter()  # of all stages together
        for counter in counters:
            self.counters[counter.key.metric.name] += counter.committed
        return result


def test_counters_to_watch(tmp_path, broken):
    """An image that redraws of several shards need, beyond the plan, counts each time."""
    beam_runner = Watched()
    clustered = build_with_beam(tmp_path, "64px_all", broken.folder, beam_runner)
    counts, counters = clustered.info.metadata["counts"], beam_runner.counters
    sizes = [path.stat().st_size for path in broken.folder.glob("train/*/*/*/*.jpg")]
    assert counters["triplets_redrawn"] == counts["num_triplets_redrawn"]
    assert counts["num_images_read"] <= counters["images_read"] < 2 * counts["num_images_read"]
    assert counts["num_images_unreadable"] <= counters["images_unreadable"] < counters["images_read"]
    assert 0 < counters["bytes_out"] < 0.9 * sum(sizes) < counters["bytes_in"] < 2 * sum(sizes)


# --- Single images, held-out landmarks, archives


@pytest.mark.parametrize("builder_class", [LandmarkImages, LandmarkTriplets])
def test_splits_and_index_are_those_of_a_local_build(tmp_path, builder_class):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.ids()[::9]:
        competition.path(image_id).write_bytes(b"")
    excluded = tmp_path / "excluded.txt"
    excluded.write_text(f"{competition.table.landmark_ids[0]}\n")
    make_config = images_config if builder_class is LandmarkImages else custom_config
    config = make_config(
        resolution=16, images_per_landmark=None, validation_percent=50, exclude_landmarks=str(excluded)
    )
    local = build(tmp_path / "local", config, competition.folder, builder_class=builder_class)
    beam = build_with_beam(tmp_path / "beam", config, competition.folder, builder_class=builder_class)
    assert list(beam.info.splits) == list(local.info.splits) == ["train", "validation"]
    assert beam.info.metadata["counts"] == local.info.metadata["counts"]
    read = read_images if builder_class is LandmarkImages else read_examples
    for split in ("train", "validation"):
        assert read(beam, split) == read(local, split)
        if builder_class is LandmarkImages:
            of_beam, of_local = (read_image_index(builder.data_dir, split) for builder in (beam, local))
            assert of_beam.image_ids.tolist() == of_local.image_ids.tolist()
            assert [f"{i:016x}" for i in of_beam.image_ids.tolist()] == [e["image_id"] for e in read(beam, split)]


def test_a_zip_is_read_by_workers_in_place(tmp_path):
    archive = tmp_path / "zip" / "landmark-retrieval-2020.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(DUMMY_DATA.rglob("*")):
            if path.is_file():
                file.write(path, path.relative_to(DUMMY_DATA))
    config = custom_config(resolution=16, images_per_landmark=None)
    beam = build_with_beam(tmp_path / "beam", config, archive.parent)
    assert read_examples(beam) == read_examples(build(tmp_path / "local", config))
    assert not list(beam.data_path.glob("*.index"))


# --- As the program sees it that starts it: what stops it, what it leaves, what it imports


def test_too_many_unreadable(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.anchor_ids()[:11]:
        competition.path(image_id).write_bytes(b"")
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", "0")
    with pytest.raises(TooManyUnreadableError, match=r"more than 10 .* So far: 11 \(11 empty file\)"):
        build_with_beam(tmp_path / "data", "64px_all", competition.folder)
    assert not list((tmp_path / "data" / "landmark_triplets" / "64px_all").iterdir())


def test_everything_is_unreadable(tmp_path):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.ids():
        competition.path(image_id).write_bytes(b"")
    with pytest.raises(TooManyUnreadableError, match=r"more than 10 .* So far: 4[45] \(4[45] empty file\)"):
        build_with_beam(tmp_path / "data", "64px_all", competition.folder)


def test_many_missing_images_stop_the_build_before_it_starts(tmp_path):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.anchor_ids()[:15]:
        competition.path(image_id).unlink()
    with pytest.raises(MissingImagesError, match="15 of the 44 images"):
        build_with_beam(tmp_path / "data", "64px_all", competition.folder, beam_runner=NeverRun())


@pytest.mark.parametrize("option", ["--manual_dir", "--data_dir"])
def test_relative_paths_are_refused(tmp_path, monkeypatch, option):
    monkeypatch.chdir(REPOSITORY if option == "--manual_dir" else tmp_path)
    folders = ("data", DUMMY_DATA) if option == "--data_dir" else (tmp_path, "dummy_data")
    with pytest.raises(ValueError, match=f"With Beam, {option} must be an absolute path or a URL"):
        build_with_beam(folders[0], "64px_1per", folders[1])


def test_a_pipeline_that_fails_for_another_reason_says_that(tmp_path):
    """A few unreadable images are no reason."""
    competition = Competition(tmp_path / "competition")
    competition.path(competition.ids()[0]).write_bytes(b"")
    with pytest.raises(NeverRun.TakenError):
        build_with_beam(tmp_path / "data", "64px_all", competition.folder, beam_runner=NeverRun())


def test_files_for_the_workers_are_not_published(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
    builder = build_with_beam(tmp_path, "64px_1per")
    assert not [path.name for path in builder.data_path.iterdir() if path.name.startswith(("beam", "incomplete"))]
    assert (builder.data_path / "triplets.csv").exists()


@pytest.mark.slow
def test_a_program_that_builds_locally_does_not_import_beam(tmp_path):
    script = f"""
import sys
import tensorflow_datasets as tfds
import landmark_triplets_tfds
builder = tfds.builder("landmark_triplets/64px_1per", data_dir={os.fspath(tmp_path)!r})
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir={os.fspath(DUMMY_DATA)!r}))
print("landmark_triplets_tfds.build.beam_pipeline" in sys.modules)
"""
    assert run("python", "-c", script, cwd=REPOSITORY).stdout.strip().endswith("False")
