"""A build on a cluster as the program sees it that starts it: what stops it, what it leaves, what it imports."""

import os

import pytest

from landmark_triplets_tfds.errors import MissingImagesError, TooManyUnreadableError
from tests.support.beam_builds import NeverRun, build_with_beam
from tests.support.competition import DUMMY_DATA, REPOSITORY, Competition, run


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
