"""Local builds do not do work again that is done: killed builds, other configs, changed files, damaged banks."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build import local
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.errors import DamagedFileError, TooManyUnreadableError
from landmark_triplets_tfds.thumbnails import maker as thumbnail_maker
from landmark_triplets_tfds.thumbnails.store import StoreIndex
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    custom_config,
    make_builder,
    mounted_tmpfs,
    read_examples,
    run,
    shard_hashes,
)
from tests.support.forecasts import make_corpus


@pytest.fixture
def made(monkeypatch):
    """A list that grows by one entry with every call of make_thumbnail."""
    calls = []
    make_thumbnail = thumbnail_maker.make_thumbnail

    def counting(image_bytes, spec):
        calls.append(spec)
        return make_thumbnail(image_bytes, spec)

    monkeypatch.setattr(thumbnail_maker, "make_thumbnail", counting)
    return calls


@pytest.mark.slow
def test_killed_builds_resume(tmp_path):
    """Kills builds while they plan, make thumbnails and write shards; without options, the program kills fifty."""
    make_corpus(tmp_path / "corpus")
    program = [sys.executable, "-m", "benchmarks.kill_resume", "--corpus", tmp_path / "corpus", "--work", tmp_path]
    options = ("--config", "64px_all", "--slow-down", "0.02", "--runs", "3", "--seed", "1")
    assert re.search(r"\| all +\| +3 \| +0 \| +3 \| +0 \| +[1-9]", run(*program, *options, cwd=REPOSITORY).stdout)


SLOW_BUILD = """
import pathlib, sys
from benchmarks.kill_resume import build
data, corpus = map(pathlib.Path, sys.argv[1:])
build("64px_all", corpus, data, None, data / "log", 0.05)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals to another process")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_interrupted_leaves_nothing(tmp_path, how):
    """No unfinished file, and no worker."""
    make_corpus(tmp_path / "corpus")
    (tmp_path / "data").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, tmp_path / "data", tmp_path / "corpus"],
        cwd=REPOSITORY,
        # Shells start what runs in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        workers = []
        while len(workers) < 2 or not (tmp_path / "data" / "log").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
            children = psutil.Process(process.pid).children()
            workers = [child for child in children if any("popen_loky" in word for word in child.cmdline())]
        process.send_signal(how)
        assert process.wait(timeout=30) != 0
        assert psutil.wait_procs(workers, timeout=5)[1] == []
    finally:
        process.kill()
    assert [path.name for path in (tmp_path / "data" / "data").glob("*/64px_all/*")] == []


PLAIN_BUILD = """
import sys
import tensorflow_datasets as tfds
import landmark_triplets_tfds
from landmark_triplets_tfds.common import worker_pool

def asking(pool, stop=worker_pool.WorkerPool._stop):
    if pool._executor:
        print("worker", pool._executor.submit(eval, "'tensorflow' in __import__('sys').modules").result())
    stop(pool)

worker_pool._WORTH_S, worker_pool.WorkerPool._stop = 0.0, asking
builder = tfds.builder("landmark_triplets/64px_all", data_dir=sys.argv[1])
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[2]))
print("parent", "tensorflow" in sys.modules)
"""


@pytest.mark.slow
def test_no_process_of_a_build_of_plain_jpegs_imports_tensorflow(tmp_path):
    make_corpus(tmp_path / "corpus")
    environment = {"PYTHONPATH": str(REPOSITORY), "LANDMARK_TRIPLETS_WORKERS": "2"}
    command = (sys.executable, "-c", PLAIN_BUILD, tmp_path / "data", tmp_path / "corpus")
    printed = run(*command, environment=environment, cwd=REPOSITORY).stdout.splitlines()
    assert "worker False" in printed
    assert "parent False" in printed


def test_a_larger_sample_makes_only_what_is_missing(tmp_path, made):
    plans = []
    for config in ("64px", "64px_all", "64px_1per"):
        examples = read_examples(build(tmp_path, config))
        plans.append({e[name] for e in examples for name in ("anchor_id", "positive_id", "negative_id")})
        assert len(made) == len(set.union(*plans))
    assert len(plans[0]) < len(plans[1])


def test_another_seed_and_more_triplets_make_nothing_new(tmp_path, made):
    build(tmp_path, "64px_all")
    build(tmp_path, custom_config(resolution=64, images_per_landmark=None, seed=1, triplets_per_anchor=3))
    assert len(made) == 45  # the other landmark with a single image


def test_other_pixels_are_not_mixed_up(tmp_path, made):
    build(tmp_path, "64px_1per")
    first = len(made)
    build(tmp_path, "128px_1per")
    assert len(made) == 2 * first


def test_reused_thumbnails_give_the_same_bytes(tmp_path, monkeypatch):
    build(tmp_path / "first", "64px_1per")
    resumed = build(tmp_path / "second", "64px_all")
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", "off")
    assert shard_hashes(resumed) == shard_hashes(build(tmp_path / "third", "64px_all"))


def test_off_keeps_nothing(tmp_path, made, bank, monkeypatch, capsys):
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", "off")
    build(tmp_path / "first", "64px_all")
    build(tmp_path / "second", "64px_all")
    assert len(made) == 88
    assert list(bank.iterdir()) == []
    assert "Thumbnails are kept" not in capsys.readouterr().out


def test_the_end_of_a_build_says_where_the_bank_is(tmp_path, bank, capsys):
    build(tmp_path, "64px_all")
    (folder,) = bank.iterdir()
    printed = capsys.readouterr().out
    assert f"Thumbnails are kept for the next build in {folder} (" in printed
    assert "; 0 came from there). It may be deleted at any time." in printed


def test_what_came_from_the_bank_is_counted_with_images_drawn_again(tmp_path, bank, capsys):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.anchor_ids()[:4]:
        competition.path(image_id).write_bytes(b"\xff\xd8 broken")
    for number, config in enumerate(("64px", "64px_all", "64px_all")):
        builder = build(tmp_path / str(number), config, competition.folder)
        report = json.loads((builder.data_path / "build_report.json").read_text())
        num_reused = report["counts"]["num_images_read"] - report["num_thumbnails_made"]
        assert f"; {num_reused} came from there)" in capsys.readouterr().out
        assert (num_reused == 0) if number == 0 else (num_reused > 0)


def test_changed_files_are_read_again(tmp_path, made):
    competition = Competition(tmp_path / "competition")
    ids = competition.anchor_ids()
    first = build(tmp_path / "first", "64px_all", competition.folder)
    competition.path(ids[0]).write_bytes(competition.path(ids[1]).read_bytes())
    os.utime(competition.path(ids[2]), ns=(1, 1))
    second = build(tmp_path / "second", "64px_all", competition.folder)
    assert len(made) == 46
    assert shard_hashes(first) != shard_hashes(second)


def test_unreadable_images_are_remembered_until_the_file_changes(tmp_path, made):
    competition = Competition(tmp_path / "competition")
    ids = competition.anchor_ids()
    original = competition.path(ids[0]).read_bytes()
    competition.path(ids[0]).write_bytes(original[:500])
    competition.path(ids[1]).unlink()
    broken = build(tmp_path / "first", "64px_all", competition.folder)
    num_made = len(made)
    again = build(tmp_path / "second", "64px_all", competition.folder)
    assert len(made) == num_made
    assert again.info.metadata["counts"] == broken.info.metadata["counts"]
    assert again.info.metadata["counts"]["num_images_unreadable_by_reason"] == {
        "damaged or truncated": 1,
        "missing": 1,
    }
    competition.path(ids[0]).write_bytes(original)
    competition.path(ids[1]).write_bytes(
        (DUMMY_DATA / competition.path(ids[1]).relative_to(competition.folder)).read_bytes()
    )
    mended = build(tmp_path / "third", "64px_all", competition.folder)
    assert shard_hashes(mended) == shard_hashes(build(tmp_path / "fourth", "64px_all"))


def damage_cut(path):
    os.truncate(path, path.stat().st_size // 2)


def damage_flip(path):
    content = bytearray(path.read_bytes())
    for place in range(200, len(content), 97):
        content[place] ^= 0x55
    path.write_bytes(content)


def damage_rewrite(path):
    path.write_bytes(b"something else")


def damage_remove(path):
    path.unlink()


@pytest.mark.parametrize("suffix", [".data", ".places"])
@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_rewrite, damage_remove])
def test_a_damaged_bank_is_neither_trusted_nor_fatal(tmp_path, bank, suffix, damage, capsys):
    first = build(tmp_path / "first", "64px_all")
    (path,) = bank.glob(f"*/*{suffix}")
    damage(path)
    StoreIndex.read(path.parent, np.array([1], dtype=np.uint64))
    is_said = suffix == ".places" and damage in (damage_flip, damage_rewrite)
    assert (f"{path} is damaged" in capsys.readouterr().out) == is_said
    for name in ("second", "third"):
        assert shard_hashes(build(tmp_path / name, "64px_all")) == shard_hashes(first)


@pytest.mark.parametrize("at", [0, 5, 200, -5000, -1])
def test_what_workers_are_told_is_not_trusted_once_it_is_damaged(tmp_path, monkeypatch, at):
    """A flipped bit there would give other rows, ids or places."""
    write_shards = local.LocalBuild._write_shards

    def damage(build, tasks, pool):
        path = pathlib.Path(tasks[0][0]) / "job"
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        write_shards(build, tasks, pool)

    monkeypatch.setattr(local.LocalBuild, "_write_shards", damage)
    with pytest.raises(DamagedFileError, match=r"workers\..*job .*[Bb]uild again"):
        build(tmp_path / "data", "64px_all")
    assert not list((tmp_path / "data").rglob("*tfrecord*"))


@pytest.mark.parametrize("when", ["thumbnails", "shards"])
def test_the_bank_may_be_deleted_while_it_is_used(tmp_path, bank, monkeypatch, when):
    """It is a convenience: a build goes on without it."""
    first = build(tmp_path / "first", "64px_all")
    module, name = (thumbnail_maker, "make_thumbnail") if when == "thumbnails" else (local, "write_shard")
    original = getattr(module, name)

    def delete_first(*args):
        shutil.rmtree(bank, ignore_errors=True)
        return original(*args)

    monkeypatch.setattr(module, name, delete_first)
    shutil.rmtree(bank)
    assert shard_hashes(build(tmp_path / "second", "64px_all")) == shard_hashes(first)


@pytest.mark.parametrize("num_workers", [1, 2, 7])
def test_the_number_of_processes_decides_nothing(tmp_path, monkeypatch, num_workers):
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", "off")
    here = build(tmp_path / "here", "64px_all", num_shards=5)
    monkeypatch.setattr("landmark_triplets_tfds.common.worker_pool._WORTH_S", 0.0)
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", str(num_workers))
    assert shard_hashes(build(tmp_path / "processes", "64px_all", num_shards=5)) == shard_hashes(here)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_full_disk_under_the_bank(tmp_path, monkeypatch, capsys, num_workers):
    """What fits is kept, the build goes on without it, and says so once."""
    first = build(tmp_path / "first", "256px_all")
    monkeypatch.setattr("landmark_triplets_tfds.common.worker_pool._WORTH_S", 0.0)
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", str(num_workers))
    monkeypatch.setattr("landmark_triplets_tfds.thumbnails.store._SPARE_BYTES", -(10**9))
    with mounted_tmpfs(tmp_path / "disk", "200k") as disk:
        monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(disk))
        capsys.readouterr()
        builder = build(tmp_path / "data", "256px_all")
        printed = capsys.readouterr().out
        assert printed.count("Going on without the bank of thumbnails: nothing can be written to") == 1
        assert f"{disk}/256px-" in printed
        assert "set LANDMARK_TRIPLETS_BANK to another folder" in printed
        assert "Thumbnails are kept" not in printed
    assert shard_hashes(builder) == shard_hashes(first)
    assert json.loads((builder.data_path / "build_report.json").read_text())["bank"] is None


@pytest.mark.parametrize("what", ["a file in its place", "read only", "deleted"])
def test_a_bank_that_is_lost_between_opening_and_writing(tmp_path, monkeypatch, capsys, what):
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", "off")
    first = build(tmp_path / "first", "64px_all")
    make, lost = thumbnail_maker.ThumbnailMaker.make, []

    def lose_first(maker, rows):
        folder = maker.index.folder
        if not lost and what == "read only":
            assert not os.system(f"mount -o remount,ro '{folder.parent}'")
        elif not lost:
            shutil.rmtree(folder)
            if what == "a file in its place":
                folder.touch()
        lost.append(folder)
        make(maker, rows)

    monkeypatch.setattr(thumbnail_maker.ThumbnailMaker, "make", lose_first)
    monkeypatch.setattr("landmark_triplets_tfds.thumbnails.store._SPARE_BYTES", -(10**9))
    with mounted_tmpfs(tmp_path / "disk", "10m") as disk:
        monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(disk))
        capsys.readouterr()
        second = build(tmp_path / "second", "64px_all")
    assert shard_hashes(second) == shard_hashes(first)
    said = f"Going on without the bank of thumbnails: nothing can be written to {lost[0]} ("
    assert capsys.readouterr().out.count(said) == (what != "deleted")


def test_a_split_without_a_readable_image_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", "100%")
    competition = Competition(tmp_path / "copy")
    for image_id in competition.ids():
        competition.path(image_id).write_bytes(b"<html>")
    with pytest.raises(TooManyUnreadableError, match=r"(?s)no example of split 'train' could be made.*HTML page"):
        build(tmp_path / "data", "64px", competition.folder)
    assert not (tmp_path / "data" / "landmark_triplets" / "64px" / "1.0.0").exists()


def test_options_that_are_given_take_the_place_of_the_environment(tmp_path, bank):
    builder = make_builder(tmp_path / "data", "64px")
    builder.build_options = BuildOptions(bank=str(tmp_path / "own"), triplets_csv=True)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=DUMMY_DATA))
    assert (builder.data_path / "triplets.csv").exists()
    assert list((tmp_path / "own").glob("*/*.places"))
    assert not list(bank.iterdir())
