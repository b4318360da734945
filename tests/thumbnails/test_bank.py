"""The bank on disk: what it remembers, what it does not trust, full disks, where it is, and builds without it."""

import os
import shutil
import sqlite3
import threading

import numpy as np
import platformdirs
import pytest

from landmark_triplets_tfds.errors import BankError, UnreadableImageError
from landmark_triplets_tfds.thumbnails import bank as bank_module
from landmark_triplets_tfds.thumbnails.bank import BankFile, bank_path, open_store
from landmark_triplets_tfds.thumbnails.store import THUMBNAIL, UNKNOWN, UNREADABLE, SpillStore
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec
from tests.support.competition import mounted_tmpfs

IDS = np.array([0xFFFFFFFFFFFFFFFF, 3, 2**63, 17, 1], dtype=np.uint64)
ROWS = np.arange(len(IDS))
STAMP = (1234, 1_700_000_000_123_456_789)


def fill(path, ids=IDS) -> dict[int, bytes]:
    """Puts a thumbnail for every id; returns them by id."""
    bank = BankFile(path, ids)
    thumbnails = {int(image_id): os.urandom(3000 + row) for row, image_id in enumerate(ids)}
    for row, image_id in enumerate(ids):
        bank.put(row, STAMP, thumbnails[int(image_id)])
    bank.close()
    return thumbnails


def read(path, ids=IDS) -> dict[int, bytes | None]:
    bank = BankFile(path, ids)
    try:
        return {int(image_id): bank.get(row) for row, image_id in enumerate(ids) if bank.known[row] == THUMBNAIL}
    finally:
        bank.check()
        bank.close()


def test_thumbnails_last_and_are_found_by_id_not_by_row(tmp_path):
    thumbnails = fill(tmp_path / "bank.sqlite")
    other_table = np.concatenate([[np.uint64(99)], IDS[::-1]])
    bank = BankFile(tmp_path / "bank.sqlite", other_table)
    assert bank.known.tolist() == [UNKNOWN] + [THUMBNAIL] * 5
    assert bank.stamps[1:].tolist() == [list(STAMP)] * 5
    assert [bank.get(row) for row in range(1, 6)] == [thumbnails[int(i)] for i in IDS[::-1]]
    bank.close()


def test_a_thumbnail_can_be_had_before_and_after_it_is_committed(tmp_path):
    bank = BankFile(tmp_path / "bank.sqlite", IDS)
    bank.put(0, STAMP, b"first")
    assert bank.get(0) == b"first"
    while bank._uncommitted:
        pass
    assert bank.get(0) == b"first"
    bank.put(0, (1, 1), b"second")
    assert bank.get(0) == b"second"
    bank.close()
    assert read(tmp_path / "bank.sqlite") == {int(IDS[0]): b"second"}


def test_unreadable_images_are_remembered_with_their_reason(tmp_path):
    bank = BankFile(tmp_path / "bank.sqlite", IDS)
    bank.put(0, STAMP, UnreadableImageError(UnreadableImageError.DAMAGED, "ends early"))
    bank.put(1, STAMP, UnreadableImageError(UnreadableImageError.EMPTY))
    bank.put(2, STAMP, UnreadableImageError(UnreadableImageError.NO_ACCESS, "may be there the next time"))
    bank.close()
    bank = BankFile(tmp_path / "bank.sqlite", IDS)
    assert bank.known.tolist() == [UNREADABLE, UNREADABLE, UNKNOWN, UNKNOWN, UNKNOWN]
    assert (bank.error(0).reason, bank.error(0).detail) == (UnreadableImageError.DAMAGED, "ends early")
    assert (bank.error(1).reason, bank.error(1).detail) == (UnreadableImageError.EMPTY, "")
    bank.close()


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\x00" + bytes(5000)])
def test_another_file_of_that_name_is_replaced(tmp_path, content):
    (tmp_path / "bank.sqlite").write_bytes(content)
    assert read(tmp_path / "bank.sqlite") == {}
    thumbnails = fill(tmp_path / "bank.sqlite")
    assert read(tmp_path / "bank.sqlite") == thumbnails


@pytest.mark.parametrize(
    "statement", ["PRAGMA user_version = 99", "DROP TABLE images", "ALTER TABLE images RENAME COLUMN checksum TO crc"]
)
def test_another_schema_is_replaced(tmp_path, statement):
    fill(tmp_path / "bank.sqlite")
    connection = sqlite3.connect(tmp_path / "bank.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert read(tmp_path / "bank.sqlite") == {}
    assert read(tmp_path / "bank.sqlite") == {} != fill(tmp_path / "bank.sqlite")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_truncated_bank_gives_nothing_wrong_and_works_again(tmp_path, keep):
    path = tmp_path / "bank.sqlite"
    ids = np.arange(1, 200, dtype=np.uint64)
    thumbnails = fill(path, ids)
    os.truncate(path, int(path.stat().st_size * keep))
    use_damaged(path, ids, thumbnails)


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_give_nothing_wrong(tmp_path, seed):
    path = tmp_path / "bank.sqlite"
    ids = np.arange(1, 200, dtype=np.uint64)
    thumbnails = fill(path, ids)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0 if seed % 2 else 100, len(content), 2000):
        content[place] ^= random.integers(1, 256)
    path.write_bytes(content)
    use_damaged(path, ids, thumbnails)


def use_damaged(path, ids, thumbnails):
    """Whatever is read must be right; after what is lost is put again, everything must be there."""
    bank = BankFile(path, ids)
    for row, image_id in enumerate(ids):
        found = bank.get(row) if bank.known[row] == THUMBNAIL and tuple(bank.stamps[row]) == STAMP else None
        assert found in (None, thumbnails[int(image_id)])
        bank.check()
    for _ in range(2):  # the first round may be what notices the damage
        for row, image_id in enumerate(ids):
            bank.put(row, STAMP, thumbnails[int(image_id)])
        bank._writer.stop()
        if not bank.check():
            break
    bank.close()
    assert read(path, ids) == thumbnails


def test_damage_while_it_is_open(tmp_path):
    path = tmp_path / "bank.sqlite"
    ids = np.arange(1, 500, dtype=np.uint64)
    fill(path, ids)
    bank = BankFile(path, ids)
    os.truncate(path, 20_000)
    lost = [bank.get(row) for row in range(len(ids))].count(None)
    assert lost
    assert bank.check()  # begun anew
    assert bank.known.tolist() == [UNKNOWN] * len(ids)
    bank.put(0, STAMP, b"again")
    bank.close()
    assert read(path, ids) == {1: b"again"}


def test_two_builds_share_a_bank(tmp_path):
    path = tmp_path / "bank.sqlite"
    halves = np.arange(1, 401, dtype=np.uint64), np.arange(201, 601, dtype=np.uint64)

    def use(ids):
        bank = BankFile(path, ids)
        for row, image_id in enumerate(ids):
            bank.put(row, STAMP, str(image_id).encode())
        bank.close()
        bank.check()

    threads = [threading.Thread(target=use, args=(ids,)) for ids in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = np.arange(1, 601, dtype=np.uint64)
    assert read(path, ids) == {int(i): str(i).encode() for i in ids}


def test_full_disk_names_the_bank(tmp_path):
    with mounted_tmpfs(tmp_path / "disk", "400k") as disk:
        bank = BankFile(disk / "bank.sqlite", np.arange(1000, dtype=np.uint64))
        for row in range(1000):
            bank.put(row, STAMP, os.urandom(3000))
        bank._writer.stop()
        with pytest.raises(BankError, match=r"cannot be written: .*full") as error:
            bank.check()
        bank.close()
        assert str(disk) in str(error.value)
        assert "MB" in str(error.value)
        assert "LANDMARK_TRIPLETS_BANK=off" in str(error.value)


# --- Which store a build uses, and where the bank is


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
    assert "5 new ones need about 0.3 GB" in printed
    assert f"{tmp_path / 'bank'} has 0.1 GB free" in printed
    assert "LANDMARK_TRIPLETS_BANK" in printed


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null/bank"])
def test_folder_that_cannot_be_used(folder, capsys):
    store = open_store(folder, ThumbnailSpec(), IDS, ROWS, None)
    assert isinstance(store, SpillStore)
    store.close()
    assert f"Building without the bank of thumbnails: {folder}/" in capsys.readouterr().out
