"""One build of a version at a time, and the leftovers of dead ones."""

import subprocess
import sys
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
print(len(builder.as_dataset(split="train")))
"""


def start(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_second_waits_and_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lock, "_WAIT_S", 0.1)
    data_path = tmp_path / "landmark_triplets" / "128px" / "1.0.0"
    holder = start(HOLD, data_path)
    assert holder.stdout.readline() == "held\n"
    started = time.monotonic()
    release = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {holder.pid}"])
    with build_lock(epath.Path(data_path)):
        assert time.monotonic() - started > 0.9
    release.wait()
    holder.wait()
    assert f"Another process is building {data_path}; waiting for it to end." in capsys.readouterr().out


def test_leftovers_of_this_version_are_removed(tmp_path, capsys):
    config_dir = tmp_path / "landmark_triplets" / "128px"
    for name in ("incomplete.ABCDEF_1.0.0", "incomplete.ABCDEF_2.0.0", "0.9.0"):
        (config_dir / name).mkdir(parents=True)
        (config_dir / name / "file").touch()
    with build_lock(epath.Path(config_dir / "1.0.0")):
        pass
    assert sorted(p.name for p in config_dir.iterdir()) == ["0.9.0", "incomplete.ABCDEF_2.0.0"]
    assert "incomplete.ABCDEF_1.0.0, left by a build that was killed" in capsys.readouterr().out


def test_nothing_is_removed_on_remote_file_systems(monkeypatch, capsys):
    class RemotePath:
        name = "1.0.0"

        def __str__(self):
            return "gs://bucket/landmark_triplets/128px/1.0.0"

        @property
        def parent(self):
            return self

        def exists(self):
            return True

        def glob(self, pattern):
            assert pattern == "incomplete.*_1.0.0"
            return ["gs://bucket/landmark_triplets/128px/incomplete.ABCDEF_1.0.0"]  # a string cannot be removed

    with build_lock(RemotePath()):
        pass
    assert "incomplete.ABCDEF_1.0.0 is of another build that is running or was killed" in capsys.readouterr().out


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
