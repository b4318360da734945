"""Which folder is the bank, and builds without it."""

import os
import shutil

import platformdirs
import pytest

from landmark_triplets_tfds.thumbnails import bank as bank_module
from landmark_triplets_tfds.thumbnails.bank import bank_path, has_room, open_bank
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


def test_bank_in_a_folder_that_does_not_exist_yet(tmp_path):
    folder = open_bank(ThumbnailSpec(), str(tmp_path / "a" / "b"))
    assert folder == bank_path(ThumbnailSpec(), str(tmp_path / "a" / "b"))
    assert folder.is_dir()


def test_off(capsys):
    assert open_bank(ThumbnailSpec(), "off") is None
    assert capsys.readouterr().out == ""


def test_room(tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert has_room(tmp_path, ThumbnailSpec(), 0)
    assert capsys.readouterr().out == ""
    assert not has_room(tmp_path, ThumbnailSpec(), 5)
    printed = capsys.readouterr().out
    assert "5 new ones need about 0.3 GB" in printed
    assert f"{tmp_path} has 0.1 GB free" in printed
    assert "LANDMARK_TRIPLETS_BANK" in printed


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/bank"])
def test_folder_that_cannot_be_used(folder, capsys):
    assert open_bank(ThumbnailSpec(), folder) is None
    assert f"Building without the bank of thumbnails: {folder}/" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_must_not_be_written(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert open_bank(ThumbnailSpec(), str(tmp_path)) is None
    assert "Building without the bank of thumbnails" in capsys.readouterr().out
