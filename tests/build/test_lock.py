"""One build of a version at a time, and the leftovers of dead ones."""

import errno
import os
import pathlib
import subprocess
import sys
import threading
import time

from etils import epath
import pytest

from landmark_triplets_tfds.build import lock
from landmark_triplets_tfds.build.lock import build_lock
from tests.support.competition import DUMMY_DATA, build, read_examples, shard_hashes

HOLD = """
import sys
from etils import epath
from landmark_triplets_tfds.build.lock import build_lock
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
    monkeypatch.setattr(lock, "_lock", refuse)
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

    monkeypatch.setattr(lock, "remove", refuse)
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
