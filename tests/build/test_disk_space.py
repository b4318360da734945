"""A full disk is said to be one, whichever step of a build comes upon it; other errors stay what they are."""

import errno
import json
import os
import pathlib
import sys

from etils import epath
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build import build as build_module
from landmark_triplets_tfds.build import local, shards
from landmark_triplets_tfds.build.disk_space import no_space_is_explained
from landmark_triplets_tfds.errors import LandmarkTripletsError, NoSpaceError, PreparedDataError
from tests.support.competition import DUMMY_DATA, REPOSITORY, build, build_images, custom_config, mounted_tmpfs, run

EPATH = type(epath.Path("."))

# Each step of a build that writes, by what it calls.
STEPS = {
    "the lock's folder": (EPATH, "mkdir"),
    "TFDS's unfinished folder": (tfds.core.utils, "incomplete_dir"),
    "what workers have to know": (local, "save_object"),
    "shards": (shards, "write_records"),
    "triplets.csv": (local.LocalBuild, "_write_triplets_csv"),
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
