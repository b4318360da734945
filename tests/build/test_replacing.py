"""What is overwritten is there again, byte for byte, unless the new version is complete: however the build ends."""

import os
import pathlib
import signal
import sys

from etils import epath
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build import build as build_module
from landmark_triplets_tfds.build import local, replacing
from landmark_triplets_tfds.build.replacing import kept_until_replaced, settle_replaced
from landmark_triplets_tfds.errors import LandmarkTripletsError
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    custom_config,
    make_builder,
    read_examples,
    run,
)

OVERWRITE = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS


@pytest.fixture
def old(tmp_path, capsys):
    """The folder of a small dataset that is to be overwritten."""
    folder = pathlib.Path(build(tmp_path / "data", custom_config(resolution=8)).data_dir)
    capsys.readouterr()
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def overwrite(folder, manual_dir=DUMMY_DATA, resolution=16, **settings):
    config = custom_config(resolution=resolution, **settings)
    return build(folder.parents[2], config, manual_dir, download_mode=OVERWRITE)


def test_the_new_version_takes_the_place_of_the_old_one(old):
    builder = overwrite(old)
    assert builder.info.metadata["config"]["resolution"] == 16
    assert read_examples(builder)[0]["anchor_img"] != b""
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    build(old.parents[2], custom_config(resolution=16))  # now it is what is asked for


def test_a_builder_that_has_read_the_old_version_reads_the_new_one(old):
    builder = make_builder(old.parents[2], custom_config(resolution=8))
    config = tfds.download.DownloadConfig(manual_dir=DUMMY_DATA, download_mode=OVERWRITE, max_examples_per_split=5)
    builder.download_and_prepare(download_config=config)
    assert len(builder.as_dataset(split="train")) == 5


# --- What ends a build


def misspell_an_option(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_TRIPLETS_WROKERS", "2")
    return {}


def empty_the_manual_dir(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    return {"manual_dir": tmp_path / "empty"}


def name_no_manual_dir(tmp_path, monkeypatch):
    return {"manual_dir": None}


def forget_most_images(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "partial")
    for image_id in competition.ids()[5:]:
        competition.path(image_id).unlink()
    return {"manual_dir": competition.folder}


def damage_the_table(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "damaged")
    (competition.folder / "train.csv").write_text("id,landmark_id\nnonsense,1\n")
    return {"manual_dir": competition.folder}


def make_images_unreadable(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "unreadable")
    for image_id in competition.ids():
        competition.path(image_id).write_bytes(b"")
    return {"manual_dir": competition.folder}


def name_a_file_that_is_not_there(tmp_path, monkeypatch):
    return {"exclude_landmarks": str(tmp_path / "nowhere.txt")}


def name_a_file_that_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "triplets.csv").write_text("a,b\n")
    return {"triplets_file": str(tmp_path / "triplets.csv")}


def raise_at(target, name, error):
    def prepare(tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr(target, name, fail)
        return {}

    return prepare


def send_sigterm(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "write_shard", lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", "1")
    return {}


WAYS = {
    "a misspelt option": misspell_an_option,
    "an empty manual_dir": empty_the_manual_dir,
    "no manual_dir": name_no_manual_dir,
    "a partial copy": forget_most_images,
    "a damaged table": damage_the_table,
    "unreadable images": make_images_unreadable,
    "a list that is not there": name_a_file_that_is_not_there,
    "triplets that are wrong": name_a_file_that_is_wrong,
    "Ctrl-C in planning": raise_at(build_module, "find_distinct_images", KeyboardInterrupt()),
    "Ctrl-C in the end": raise_at(build_module.Build, "write_report", KeyboardInterrupt()),
    "a full disk": raise_at(build_module.Build, "write_report", OSError(28, "No space left on device")),
    "Ctrl-C when TFDS writes": raise_at(tfds.core.DatasetInfo, "write_to_directory", KeyboardInterrupt()),
    "an error at TFDS's renaming": raise_at(epath.Path(".").__class__, "rename", OSError(5, "the mount")),
    "SIGTERM": pytest.param(send_sigterm, marks=pytest.mark.skipif(sys.platform == "win32", reason="signals")),
    "an error of ours": raise_at(build_module.Build, "_look_up", ZeroDivisionError()),
}


@pytest.mark.parametrize("prepare", WAYS.values(), ids=WAYS.keys())
def test_a_build_that_fails_leaves_the_old_version(old, tmp_path, monkeypatch, prepare):
    before = content(old)
    with monkeypatch.context() as patch:
        settings = prepare(tmp_path, patch)
        with pytest.raises((Exception, KeyboardInterrupt, SystemExit)):
            overwrite(old, **settings)
    assert content(old) == before
    assert [path.name for path in old.parent.iterdir()] == [old.name]
    assert build(old.parents[2], custom_config(resolution=8)).info.metadata["config"]["resolution"] == 8


def test_what_can_be_checked_is_checked_while_the_old_version_is_in_its_place(old, monkeypatch, tmp_path):
    def fail(data_path):
        raise AssertionError("it is set aside already")

    monkeypatch.setattr("landmark_triplets_tfds.build.hooks.kept_until_replaced", fail)
    for prepare in (misspell_an_option, empty_the_manual_dir, name_a_file_that_is_not_there, name_a_file_that_is_wrong):
        with monkeypatch.context() as patch, pytest.raises((LandmarkTripletsError, ValueError, OSError)):
            overwrite(old, **prepare(tmp_path, patch))


def test_a_format_that_tfds_refuses_once_it_has_deleted(old):
    builder = make_builder(old.parents[2], custom_config(resolution=8))
    config = tfds.download.DownloadConfig(manual_dir=DUMMY_DATA, download_mode=OVERWRITE)
    before = content(old)
    with pytest.raises(RuntimeError, match="Cannot override the file format"):
        builder.download_and_prepare(download_config=config, file_format="array_record")
    assert content(old) == before


# --- Processes that are killed

KILLED = """
import os, sys
import tensorflow_datasets as tfds
import landmark_triplets_tfds
from etils import epath
from landmark_triplets_tfds.build import build, hooks, local, replacing

data_dir, manual_dir, where = sys.argv[1:]
die = lambda *args, **kwargs: os.kill(os.getpid(), 9)
owner, name = {
    "aside": (hooks, "kept_until_replaced"),
    "planning": (build, "find_distinct_images"),
    "report": (build.Build, "write_report"),
    "info": (tfds.core.DatasetInfo, "write_to_directory"),
    "renaming": (type(epath.Path(".")), "rename"),
    "done": (replacing, "settle_replaced"),
    "removing": (replacing, "remove"),
}[where]
if where == "aside":
    kept = hooks.kept_until_replaced
    setattr(owner, name, lambda data_path: (keeping := kept(data_path), keeping.__enter__(), die()))
else:
    setattr(owner, name, die)
config = landmark_triplets_tfds.LandmarkTripletsConfig(name="custom", resolution=16)
builder = landmark_triplets_tfds.LandmarkTriplets(data_dir=data_dir, config=config)
mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir, download_mode=mode))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(
    ("where", "resolution"),
    [("aside", 8), ("planning", 8), ("report", 8), ("info", 8), ("renaming", 8), ("done", 16), ("removing", 16)],
)
def test_a_killed_build_is_settled_by_the_next(old, capsys, where, resolution):
    before = content(old)
    result = run(sys.executable, "-c", KILLED, old.parents[2], DUMMY_DATA, where, cwd=REPOSITORY, check=False)
    assert result.returncode == -9
    assert len(list(old.parent.iterdir())) > 1 or not old.exists()
    builder = build(old.parents[2], custom_config(resolution=resolution))
    assert builder.info.metadata["config"]["resolution"] == resolution
    assert len(builder.as_dataset(split="train")) == 20
    if resolution == 8:
        assert content(old) == before
        assert f"{old} is again what it was" in capsys.readouterr().out
    build(old.parents[2], custom_config(name="other"))  # and nothing is left where a build has looked
    overwrite(old)
    assert [path.name for path in old.parent.iterdir()] == [old.name]


# --- Folders


def make(folder, text):
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)


def test_a_link_is_replaced_as_a_link(tmp_path):
    make(tmp_path / "elsewhere", "old")
    path = tmp_path / "config" / "1.0.0"
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with kept_until_replaced(epath.Path(path)):
        assert not os.path.lexists(path)
        make(path, "new")
    assert not path.is_symlink()
    assert (path / "file").read_text() == "new"
    assert (tmp_path / "elsewhere" / "file").read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("name", ["1.0.0", "[1]*", "caf\udce9"])
def test_any_name_will_do(tmp_path, name):
    path = tmp_path / name / "1.0.0"
    make(path, "old")
    with pytest.raises(ZeroDivisionError), kept_until_replaced(epath.Path(path)):
        raise ZeroDivisionError
    assert (path / "file").read_text() == "old"


def test_nothing_is_kept_where_there_is_nothing(tmp_path):
    with kept_until_replaced(epath.Path(tmp_path / "1.0.0")):
        pass
    settle_replaced(epath.Path(tmp_path / "1.0.0"))
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_cannot_be_removed_is_named(tmp_path, monkeypatch, capsys):
    path = tmp_path / "1.0.0"
    make(path, "old")

    def fail(folder):
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(replacing, "remove", fail)
    with kept_until_replaced(epath.Path(path)):
        make(path, "new")
    assert (path / "file").read_text() == "new"
    assert (
        f"What was replaced, in {tmp_path}/incomplete.replaced_1.0.0, could not be removed" in capsys.readouterr().out
    )


def test_a_version_that_cannot_be_put_back_is_named(tmp_path, monkeypatch, capsys):
    path = tmp_path / "1.0.0"
    make(path, "old")
    with kept_until_replaced(epath.Path(path)):
        monkeypatch.setattr(type(pathlib.Path()), "rename", raise_error)
    assert f"What was to be replaced is in {tmp_path}/replaced_1.0.0; rename it to 1.0.0" in capsys.readouterr().out


def raise_error(self, target):
    raise PermissionError(13, "not yours")


def test_a_version_that_cannot_be_kept_ends_the_build_before_it_begins(old, monkeypatch):
    monkeypatch.setattr(type(pathlib.Path()), "rename", raise_error)
    before = content(old)
    with pytest.raises(PermissionError):
        overwrite(old)
    assert content(old) == before


def test_buckets_are_left_to_tfds(monkeypatch):
    monkeypatch.setattr(replacing, "_kept", None)
    with kept_until_replaced(epath.Path("gs://bucket/1.0.0")):
        pass
