"""The folder of a version: one build at a time, what dead ones left, what is overwritten, and full disks."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from etils import epath
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build import build as build_module
from landmark_triplets_tfds.build import folder as folder_module
from landmark_triplets_tfds.build import local, shards
from landmark_triplets_tfds.build.folder import build_lock, kept_until_replaced, no_space_is_explained, settle_replaced
from landmark_triplets_tfds.errors import LandmarkTripletsError, NoSpaceError, PreparedDataError
from tests.support.competition import (
    DUMMY_DATA,
    REPOSITORY,
    Competition,
    build,
    build_images,
    custom_config,
    make_builder,
    mounted_tmpfs,
    read_examples,
    run,
    shard_hashes,
)

HOLD = """
import sys
from etils import epath
from landmark_triplets_tfds.build.folder import build_lock
with build_lock(epath.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""

BUILD = """
import sys, time
import tensorflow_datasets as tfds
import landmark_triplets_tfds
from landmark_triplets_tfds.thumbnails import maker as thumbnail_maker
make_thumbnail = thumbnail_maker.make_thumbnail
thumbnail_maker.make_thumbnail = lambda *a: (time.sleep(0.05), make_thumbnail(*a))[1]
builder = tfds.builder("landmark_triplets/" + sys.argv[2], data_dir=sys.argv[1])
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[3]))
print(builder.info.splits["train"].num_examples)
"""


def start(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def data_path(tmp_path):
    return epath.Path(tmp_path / "data" / "landmark_triplets" / "128px" / "1.0.0")


def lock_path(data_path):
    return pathlib.Path(data_path.parents[1], ".config", "128px-1.0.0.lock")


def is_locked(data_path, capsys):
    """Returns whether another build would have to wait."""

    class WouldWaitError(Exception):
        pass

    def wait(seconds):
        raise WouldWaitError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", wait)
        try:
            with build_lock(data_path):
                return False
        except WouldWaitError:
            said = capsys.readouterr().out
            assert f"Another process is building {data_path}; waiting for it to end." in said
            assert str(lock_path(data_path)) in said
            return True


def test_the_second_waits_and_says_so(data_path, capsys):
    holder = start(HOLD, data_path)
    assert holder.stdout.readline() == "held\n"
    release = threading.Timer(0.5, holder.kill)
    release.start()
    with build_lock(data_path):
        assert holder.wait() != 0
    said = capsys.readouterr().out
    assert said.count(f"Another process is building {data_path}; waiting for it to end.") == 1
    assert f"It holds {lock_path(data_path)}." in said


def test_it_is_held_until_the_end_and_not_longer(data_path, capsys):
    assert not is_locked(data_path, capsys)
    with build_lock(data_path):
        assert is_locked(data_path, capsys)
        assert not is_locked(data_path.parents[1] / "64px" / "1.0.0", capsys)
        assert not is_locked(data_path.parent / "2.0.0", capsys)
    with pytest.raises(KeyboardInterrupt), build_lock(data_path):
        raise KeyboardInterrupt
    assert not is_locked(data_path, capsys)
    assert capsys.readouterr().out == ""


# --- Where there is no lock

ENOTSUPP = 524  # of Linux, which Python has no name for
REFUSALS = ["EOPNOTSUPP", "ENOTSUP", "ENOLCK", "EINVAL", "ENOSYS", "EPERM", "EACCES", "EROFS", "EBADF", "EIO", "ESTALE"]


@pytest.mark.skipif(os.name == "nt", reason="EACCES is how Windows says that another has it")
@pytest.mark.parametrize("number", [*(getattr(errno, name) for name in REFUSALS), ENOTSUPP])
def test_a_file_system_that_refuses_locks(data_path, capsys, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    leftover = data_path.parent / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True)
    monkeypatch.setattr(folder_module, "_lock", refuse)
    with build_lock(data_path):
        assert leftover.exists()  # it may be of a build that runs
    no_lock, left, *more = capsys.readouterr().out.splitlines()
    assert not more
    assert no_lock.startswith(f"No lock for this build: {lock_path(data_path)} ([Errno {number}] ")
    assert left == f"{leftover} is of another build that is running or was killed; delete it if none is running."


@pytest.mark.skipif(os.name == "nt", reason="without flock")
def test_a_build_without_locks(tmp_path, capsys, monkeypatch):
    """None at all: the bank has none."""
    import fcntl

    def refuse(descriptor, operation, *more):
        raise OSError(errno.ENOLCK, "No locks available")

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    assert len(build(tmp_path, "64px_1per").as_dataset(split="train")) == 10
    printed = capsys.readouterr().out
    assert printed.count("No lock for this build") == 1
    assert "Another process" not in printed
    assert "Thumbnails are kept" in printed


@pytest.mark.parametrize("place", [".config", ".config/128px-1.0.0.lock", "."])
@pytest.mark.parametrize("other", ["file", "folder", "dangling link", "link to nowhere"])
def test_something_else_is_where_the_lock_should_be(data_path, place, other, capsys):
    path = pathlib.Path(data_path.parents[1]) / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if other == "file":
        path.write_text("12345\nanother-host\n")  # a marker of filelock's
    elif other == "folder":
        path.mkdir()
    else:
        path.symlink_to("there" if other == "dangling link" else "/proc/nowhere/there")
    with build_lock(data_path):
        pass
    assert "Another process" not in capsys.readouterr().out


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o666])
def test_the_lock_of_another_user(data_path, other_user, capsys, mode):
    with build_lock(data_path):
        pass
    lock_path(data_path).chmod(mode)
    other_user()
    with build_lock(data_path):
        assert is_locked(data_path, capsys)
    assert not is_locked(data_path, capsys)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["128px-1.0.0.lock", ""])
def test_a_lock_that_another_user_must_not_read(data_path, other_user, capsys, name):
    with build_lock(data_path):
        pass
    (lock_path(data_path).parent / name).chmod(0)
    other_user()
    with build_lock(data_path):
        pass
    assert capsys.readouterr().out.startswith(f"No lock for this build: {lock_path(data_path)} ([Errno 13] ")


def test_remote_file_systems_have_none(capsys):
    class RemotePath:
        name = "1.0.0"

        def __init__(self, leftover=""):
            self.leftover = leftover

        def __str__(self):
            return "gs://bucket/landmark_triplets/128px/1.0.0"

        @property
        def parent(self):
            return self

        def is_dir(self):
            return True

        def iterdir(self):
            return [epath.Path("gs://bucket/landmark_triplets/128px/incomplete.ABCDEF_1.0.0")]

    with build_lock(RemotePath()):
        pass
    assert capsys.readouterr().out.splitlines() == [
        "gs://bucket/landmark_triplets/128px/incomplete.ABCDEF_1.0.0 is of another build that is running or was killed;"
        " delete it if none is running."
    ]


# --- What killed builds leave behind


@pytest.mark.parametrize("data_dir", ["data", "run[1]", "[x]*", "a?b", "{a,b}", "**", "caf\udce9", "x y'\n"])
def test_leftovers_of_this_version_are_removed(tmp_path, data_dir, capsys):
    config_dir = tmp_path / data_dir / "landmark_triplets" / "128px"
    try:
        config_dir.mkdir(parents=True)
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    kept = ["0.9.0", "incomplete.ABCDEF_11.0.0", "incomplete.ABCDEF_2.0.0", "other.ABCDEF_1.0.0"]
    for name in ("incomplete.ABCDEF_1.0.0", "incomplete.GHIJKL_1.0.0", *kept):
        (config_dir / name).mkdir()
        (config_dir / name / "file").touch()
    with build_lock(epath.Path(config_dir / "1.0.0")):
        pass
    assert sorted(p.name for p in config_dir.iterdir()) == kept
    assert capsys.readouterr().out.count(", left by a build that was killed") == 2


def test_a_leftover_that_is_a_link_is_removed_without_what_it_points_to(data_path, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    config_dir = pathlib.Path(data_path.parent)
    config_dir.mkdir(parents=True)
    for number, target in enumerate((precious, precious / "file", tmp_path / "nowhere")):
        (config_dir / f"incomplete.{number}_1.0.0").symlink_to(target)
    (config_dir / "incomplete.3_1.0.0").touch()
    with build_lock(data_path):
        assert not list(config_dir.iterdir())
    assert (precious / "file").exists()


def test_a_leftover_that_cannot_be_removed_ends_nothing(data_path, capsys, monkeypatch):
    (data_path.parent / "incomplete.ABCDEF_1.0.0").mkdir(parents=True)

    def refuse(path):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(folder_module, "remove", refuse)
    with build_lock(data_path):
        pass
    assert "It could not be removed ([" in capsys.readouterr().out


# --- Whole builds


@pytest.mark.slow
def test_two_builds_at_once_give_one_dataset(tmp_path):
    builds = [start(BUILD, tmp_path / "data", "64px_all", DUMMY_DATA) for _ in range(2)]
    outputs = [process.communicate() for process in builds]
    assert [process.returncode for process in builds] == [0, 0], outputs
    assert [out.splitlines()[-1] for out, _ in outputs] == ["43", "43"]
    assert sum("Built landmark_triplets/64px_all" in out for out, _ in outputs) == 1
    here = build(tmp_path / "here", "64px_all")
    there = build(tmp_path / "data", "64px_all")
    assert shard_hashes(there) == shard_hashes(here)


@pytest.mark.slow
def test_two_configs_at_once_share_the_bank(tmp_path, bank):
    builds = [start(BUILD, tmp_path / "data", config, DUMMY_DATA) for config in ("64px_all", "64px_8per")]
    outputs = [process.communicate() for process in builds]
    assert [process.returncode for process in builds] == [0, 0], outputs
    assert len(list(bank.iterdir())) == 1
    for config in ("64px_all", "64px_8per"):
        assert read_examples(build(tmp_path / "data", config)) == read_examples(build(tmp_path / "here", config))


# --- What is overwritten is there again, byte for byte, unless the new version is complete: however the build ends


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
from landmark_triplets_tfds.build import build, folder, hooks

data_dir, manual_dir, where = sys.argv[1:]
die = lambda *args, **kwargs: os.kill(os.getpid(), 9)
owner, name = {
    "aside": (hooks, "kept_until_replaced"),
    "planning": (build, "find_distinct_images"),
    "report": (build.Build, "write_report"),
    "info": (tfds.core.DatasetInfo, "write_to_directory"),
    "renaming": (type(epath.Path(".")), "rename"),
    "done": (folder, "settle_replaced"),
    "removing": (folder, "remove"),
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

    monkeypatch.setattr(folder_module, "remove", fail)
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
    monkeypatch.setattr(folder_module, "_kept", None)
    with kept_until_replaced(epath.Path("gs://bucket/1.0.0")):
        pass


# --- A full disk is said to be one, whichever step of a build comes upon it; other errors stay what they are


EPATH = type(epath.Path("."))

# Each step of a build that writes, by what it calls.
STEPS = {
    "the lock's folder": (EPATH, "mkdir"),
    "TFDS's unfinished folder": (tfds.core.utils, "incomplete_dir"),
    "what workers have to know": (local, "save_object"),
    "shards": (shards, "write_records"),
    "triplets.csv": (build_module.Build, "_write_triplets_csv"),
    "index.npz": ("landmark_triplets_tfds.landmark_images", "write_image_index"),
    "the report": (build_module.Build, "write_report"),
    "features.json": (tfds.features.FeaturesDict, "save_config"),
    "metadata.json": (tfds.core.MetadataDict, "save_metadata"),
    "dataset_info.json": (tfds.core.DatasetInfo, "write_dataset_info_json"),
    "the final renaming": (EPATH, "rename"),
}
FULL = {
    "disk": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "file": OSError(errno.EFBIG, "File too large"),
    "tensorflow": tf.errors.ResourceExhaustedError(None, None, "shard; No space left on device"),
}
OTHER = {
    "read only": OSError(errno.EROFS, "Read-only file system"),
    "broken": OSError(errno.EIO, "No space left on device, says the mount"),
    "no right": PermissionError(errno.EACCES, "Permission denied"),
    "a bug": ZeroDivisionError("no space left"),
}


def fail_at(monkeypatch, step, error):
    owner, name = STEPS[step]

    def fail(*args, **kwargs):
        raise error

    if isinstance(owner, str):
        monkeypatch.setattr(f"{owner}.{name}", fail)
    else:
        monkeypatch.setattr(owner, name, fail)


def assert_nothing_is_left(data_dir):
    folder = data_dir / "landmark_images" / "64px_1per"
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("step", "kind"),
    [*((step, "disk") for step in STEPS), *(("shards", kind) for kind in FULL), ("the report", "file")],
)
def test_a_full_disk_at_any_step(tmp_path, monkeypatch, step, kind):
    error, message = FULL[kind], "while building landmark_images/64px_1per/1.0.0. Nothing was published"
    with monkeypatch.context() as patch:
        fail_at(patch, step, error)
        with pytest.raises(NoSpaceError, match=message) as raised:
            build_images(tmp_path, "64px_1per")
    assert raised.value.errno == (errno.EFBIG if kind == "file" else errno.ENOSPC)
    assert raised.value.filename == str(tmp_path)
    assert raised.value.__cause__ is error
    assert_nothing_is_left(tmp_path)
    build_images(tmp_path, "64px_1per")


@pytest.mark.parametrize(
    ("step", "error"),
    [*((step, OTHER["broken"]) for step in STEPS), *(("the report", error) for error in OTHER.values())],
)
def test_other_errors_stay_what_they_are(tmp_path, monkeypatch, step, error):
    fail_at(monkeypatch, step, error)
    with pytest.raises(type(error)) as raised:
        build_images(tmp_path, "64px_1per")
    assert raised.value is error
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("error", [PreparedDataError("A file."), LandmarkTripletsError("Something.")])
def test_an_error_of_ours_says_itself_what_is_wrong(tmp_path, error):
    def fail():
        try:
            raise FULL["disk"]
        except OSError:
            raise error from None

    with pytest.raises(type(error)) as raised, no_space_is_explained("x", epath.Path(tmp_path), replaces=False):
        fail()
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "message", "advice"),
    [
        (FULL["disk"], "No space left while", "free some, or use another --data_dir"),
        (FULL["quota"], "The disk quota is used up while", "free some, or use another --data_dir"),
        (FULL["file"], "A file became too large while", "more shards are smaller ones (--num_shards)"),
        (OSError(errno.ENOSPC, "full", "{tmp}/x"), "No space left while", "set TMPDIR to another folder"),
    ],
)
def test_what_is_used_up_and_what_to_do(tmp_path, monkeypatch, error, message, advice):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    if error.filename:
        error.filename = f"{tmp_path}/tmp/x"
    with (
        pytest.raises(NoSpaceError, match=message) as raised,
        no_space_is_explained("x", epath.Path(tmp_path / "data"), replaces=True),
    ):
        raise error
    assert advice in str(raised.value)
    assert raised.value.filename == str(tmp_path / ("tmp" if "TMPDIR" in advice else "data"))
    assert ("The version to be replaced, too, is kept" in str(raised.value)) == ("--data_dir" in advice)


# --- Real disks


@pytest.mark.parametrize("kilobytes", [0, 4, 12, 60, 140, 220])
def test_a_small_disk(tmp_path, kilobytes):
    """The size is of what is free once the lock has its file."""
    with mounted_tmpfs(tmp_path / "disk", f"{8 + kilobytes}k") as disk:
        with pytest.raises(NoSpaceError, match="while building landmark_images/256px_all") as raised:
            build_images(disk, "256px_all")
        assert raised.value.filename == str(disk)
        folder = disk / "landmark_images" / "256px_all"
        assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("inodes", range(2, 16, 2))
def test_few_inodes(tmp_path, inodes):
    with mounted_tmpfs(tmp_path / "disk", f"10m,nr_inodes={inodes}") as disk:
        try:
            build_images(disk, "64px_1per")
        except NoSpaceError as error:
            assert error.filename == str(disk)  # noqa: PT017
        folder = disk / "landmark_images" / "64px_1per"
        assert not folder.exists() or [path.name for path in folder.iterdir()] in ([], ["1.0.0"])


def test_no_inodes_are_called_so(tmp_path):
    with mounted_tmpfs(tmp_path / "disk", "10m,nr_inodes=3") as disk:
        (disk / "one").touch()
        (disk / "two").touch()
        with (
            pytest.raises(NoSpaceError, match=r"No room for more files \(inodes\) is left"),
            no_space_is_explained("x", epath.Path(disk), replaces=False),
        ):
            (disk / "three").touch()


def test_a_full_temporary_folder_is_not_called_the_data_dir(tmp_path, monkeypatch):
    with mounted_tmpfs(tmp_path / "disk", "100k") as disk:
        (disk / "much").write_bytes(bytes(100 << 10))
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with (
            pytest.raises(NoSpaceError, match="set TMPDIR") as raised,
            no_space_is_explained("x", epath.Path(tmp_path), replaces=False),
        ):
            (disk / "more").write_bytes(bytes(100 << 10))
    assert raised.value.filename == str(disk)


LIMITED = """
import resource, sys
import tensorflow_datasets as tfds
import landmark_triplets_tfds
builder = tfds.builder("landmark_triplets/256px_all", data_dir=sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_a_limit_of_file_sizes(tmp_path):
    environment = {"LANDMARK_TRIPLETS_BANK": "off", "LANDMARK_TRIPLETS_WORKERS": "2"}
    command = (sys.executable, "-c", LIMITED, tmp_path, DUMMY_DATA)
    result = run(*command, cwd=REPOSITORY, environment=environment, check=False)
    assert result.returncode == 1
    assert "A file became too large while building landmark_triplets/256px_all/1.0.0" in result.stderr


def test_a_disk_for_one_version_keeps_the_old_one(tmp_path):
    with mounted_tmpfs(tmp_path / "disk", "600k") as disk:
        folder = pathlib.Path(build(disk, custom_config(resolution=128)).data_dir)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        mode = tfds.download.GenerateMode.REUSE_CACHE_IF_EXISTS
        with pytest.raises(NoSpaceError) as raised:
            build(disk, custom_config(resolution=256, triplets_per_anchor=4), download_mode=mode)
        assert "to be replaced, too, is kept" in str(raised.value)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert json.loads(before["metadata.json"])["config"]["resolution"] == 128
        assert os.listdir(folder.parent) == ["1.0.0"]
