"""Which store a build uses, and where the bank is."""

import shutil

import numpy as np
import platformdirs
import pytest

from landmark_triplets_tfds.thumbnails import bank as bank_folder
from landmark_triplets_tfds.thumbnails.bank import BankFile, bank_path, open_store
from landmark_triplets_tfds.thumbnails.store import SpillStore
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec

IDS = np.arange(10, dtype=np.uint64)
ROWS = np.arange(10)


def test_path_depends_on_everything_that_decides_bytes(tmp_path, monkeypatch):
    specs = [
        ThumbnailSpec(),
        ThumbnailSpec(resolution=64),
        ThumbnailSpec(jpeg_quality=50),
        ThumbnailSpec(resize_method="area"),
        ThumbnailSpec(fit="crop"),
    ]
    paths = [bank_path(spec, str(tmp_path)) for spec in specs]
    monkeypatch.setattr(bank_folder, "PIXELS_VERSION", 2)
    paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    installed = {names: bank_folder._installed_version(names) for names in bank_folder.CODEC_DISTRIBUTIONS}
    for names in installed:
        with monkeypatch.context() as patch:
            patch.setattr(bank_folder, "_installed_version", (installed | {names: "0"}).get)
            paths.append(bank_path(ThumbnailSpec(), str(tmp_path)))
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {tmp_path}


def test_default_folder_is_the_users_cache():
    assert bank_path(ThumbnailSpec(), None).parent == platformdirs.user_cache_path("landmark_triplets_tfds")


def test_bank_in_a_folder_that_does_not_exist_yet(tmp_path):
    store = open_store(str(tmp_path / "a" / "b"), ThumbnailSpec(), IDS, ROWS, None)
    assert isinstance(store, BankFile)
    store.close()


def test_off(tmp_path):
    store = open_store("off", ThumbnailSpec(), IDS, ROWS, str(tmp_path))
    assert isinstance(store, SpillStore)
    assert list(tmp_path.iterdir()) == []  # unlinked
    store.close()


def test_too_little_room(tmp_path, monkeypatch, capsys):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    store = open_store(str(tmp_path / "bank"), ThumbnailSpec(), IDS, ROWS, None)
    assert isinstance(store, SpillStore)
    store.close()
    printed = capsys.readouterr().out
    assert "10 new ones need about 0.3 GB" in printed
    assert f"{tmp_path / 'bank'} has 0.1 GB free" in printed
    assert "LANDMARK_TRIPLETS_BANK" in printed


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/bank"])
def test_folder_that_cannot_be_used(folder, capsys):
    store = open_store(folder, ThumbnailSpec(), IDS, ROWS, None)
    assert isinstance(store, SpillStore)
    store.close()
    assert f"Building without the bank of thumbnails: {folder}/" in capsys.readouterr().out
