"""Which folder is the bank, and builds without it."""

import pkgutil
import shutil

import numpy as np
import platformdirs
import pytest

from landmark_triplets_tfds.thumbnails import bank as bank_module
from landmark_triplets_tfds.thumbnails.bank import bank_path, open_bank
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec


def test_path_depends_on_everything_that_decides_bytes(tmp_path, monkeypatch):
    specs = [
        ThumbnailSpec(),
        ThumbnailSpec(resolution=64),
        ThumbnailSpec(jpeg_quality=50),
        ThumbnailSpec(resize_method="area"),
        ThumbnailSpec(fit="crop"),
    ]
    paths = [bank_path(spec, str(tmp_path)) for spec in specs]
    monkeypatch.setattr(bank_module, "PIXELS_VERSION", 2)
    paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    installed = {names: bank_module._installed_version(names) for names in bank_module.CODEC_DISTRIBUTIONS}
    for names in installed:
        with monkeypatch.context() as patch:
            patch.setattr(bank_module, "_installed_version", (installed | {names: "0"}).get)
            paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {tmp_path}


def test_default_folder_is_the_users_cache():
    assert bank_path(ThumbnailSpec(), None).parent == platformdirs.user_cache_path("landmark_triplets_tfds")


def open_small_bank(folder, num_rows=5):
    ids = np.arange(num_rows, dtype=np.uint64)
    return open_bank(ThumbnailSpec(), None if folder is None else str(folder), ids, np.arange(num_rows))


def test_bank_in_a_folder_that_does_not_exist_yet(tmp_path, capsys):
    index = open_small_bank(tmp_path / "a" / "b")
    assert index.folder == bank_path(ThumbnailSpec(), str(tmp_path / "a" / "b"))
    assert index.folder.is_dir()
    assert capsys.readouterr().out == ""


def test_off(capsys):
    assert open_small_bank("off") is None
    assert capsys.readouterr().out == ""


def test_room(tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert open_small_bank(tmp_path, 0) is not None
    assert capsys.readouterr().out == ""
    assert open_small_bank(tmp_path, 5) is None
    printed = capsys.readouterr().out
    assert "5 new ones need about 0.3 GB" in printed
    assert "has 0.1 GB free" in printed
    assert "LANDMARK_TRIPLETS_BANK" in printed


# --- Banks that cannot be used: a line that says what to set, and the build goes on without


def says_what_to_set(capsys, *expected):
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Building without the bank of thumbnails: ")
    assert line.endswith("Set LANDMARK_TRIPLETS_BANK to a folder that can be written, or to off.")
    for text in expected:
        assert str(text) in line


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/bank", "/sys/bank", "/dev/zero", "x" * 300])
def test_folder_that_cannot_be_used(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, f"{folder}/")


def test_a_file_where_the_folder_should_be(tmp_path, capsys):
    for place in (bank_path(ThumbnailSpec(), str(tmp_path / "bank")), tmp_path / "bank"):
        shutil.rmtree(tmp_path / "bank", ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert open_small_bank(tmp_path / "bank") is None
        says_what_to_set(capsys, tmp_path / "bank")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o711])
def test_folder_of_another_user(tmp_path, other_user, capsys, monkeypatch, mode):
    folder = tmp_path / "128px-nearest"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setattr(bank_module, "bank_path", lambda spec, folder_of_all: folder)
    other_user()
    assert open_small_bank(tmp_path) is None
    says_what_to_set(capsys, folder, "no right to read and write there")


@pytest.mark.parametrize("where", ["landmark_triplets_tfds.thumbnails.bank.StoreIndex.read", "shutil.disk_usage"])
def test_a_bank_that_is_deleted_between_opening_and_looking(tmp_path, monkeypatch, capsys, where):
    name, _, attribute = where.rpartition(".")
    owner = pkgutil.resolve_name(name)
    original = getattr(owner, attribute)

    def delete_first(*arguments):
        shutil.rmtree(bank_path(ThumbnailSpec(), str(tmp_path)))
        return original(*arguments)

    monkeypatch.setattr(owner, attribute, delete_first)
    assert open_small_bank(tmp_path) is None
    says_what_to_set(capsys, tmp_path)


@pytest.mark.parametrize("folder", [None, "~", "~/bank", "~nobody-has-this-name/bank"])
def test_no_home(folder, capsys, no_home):
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, "home")


def test_a_home_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    """As of a user of a container."""
    (tmp_path / "home").touch()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_small_bank(None) is None
    says_what_to_set(capsys, tmp_path / "home")


@pytest.mark.parametrize("folder", ["gs://bucket/bank", "s3://bucket/bank"])
def test_a_folder_elsewhere(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_small_bank(folder) is None
    says_what_to_set(capsys, folder, "it has to be a folder of this machine")
    assert not list(tmp_path.iterdir())
