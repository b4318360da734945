"""The database of a bank: its schema, damage, and the thread that commits."""

import pathlib
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.bank import BankFile
from landmark_triplets_tfds.thumbnails.bank_writer import BankWriter, Put, checksum, connect, is_damage
from landmark_triplets_tfds.thumbnails.store import THUMBNAIL

STAMP = (1234, 1_700_000_000_123_456_789)


def read_table(path, query):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def write(path, *puts):
    committed = []
    writer = BankWriter(path, committed.extend)
    for put in puts:
        writer.put(put)
    writer.stop()
    assert writer.failure is None
    return committed


def test_stopping_commits_what_waits_and_tells_where_it_is(tmp_path):
    path = tmp_path / "bank.sqlite"
    committed = write(path, *(Put(row, -row, STAMP, bytes([row])) for row in range(100)))
    assert [each.row for each in committed] == list(range(100))
    blobs = dict(read_table(path, "SELECT blob_number, thumbnail FROM blobs"))
    for each in committed:
        assert blobs[each.blob_number] == bytes([each.row])
        assert each.checksum == checksum(-each.row, STAMP, bytes([each.row]))


def test_only_reasons_that_last_are_kept(tmp_path):
    path = tmp_path / "bank.sqlite"
    reasons = (UnreadableImageError.DAMAGED, UnreadableImageError.NO_ACCESS, UnreadableImageError.MISSING)
    assert not write(path, *(Put(row, row, STAMP, UnreadableImageError(why)) for row, why in enumerate(reasons)))
    assert read_table(path, "SELECT image_id, blob_number, reason FROM images") == [
        (0, None, UnreadableImageError.DAMAGED),
        (2, None, UnreadableImageError.MISSING),
    ]


def test_a_replaced_thumbnail_leaves_no_blob_behind(tmp_path):
    path = tmp_path / "bank.sqlite"
    for number in range(3):
        write(path, *(Put(row, row, STAMP, f"{number} {row}".encode()) for row in range(5)))
    assert read_table(path, "SELECT thumbnail FROM blobs") == [(f"2 {row}".encode(),) for row in range(5)]


def test_a_folder_that_has_gone_is_a_failure_and_no_crash(tmp_path):
    writer = BankWriter(tmp_path / "nowhere" / "bank.sqlite", print)
    writer.put(Put(0, 0, STAMP, b"thumbnail"))
    writer.put(Put(1, 1, STAMP, b"another"))
    writer.stop()
    assert isinstance(writer.failure, sqlite3.OperationalError)
    assert not is_damage(writer.failure)


@pytest.mark.parametrize("version", [2, 99])
def test_another_schema_is_damage(tmp_path, version):
    connect(tmp_path / "bank.sqlite").close()
    with sqlite3.connect(tmp_path / "bank.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with pytest.raises(sqlite3.DatabaseError, match="another schema") as error:
        connect(tmp_path / "bank.sqlite")
    assert is_damage(error.value)


def test_a_checksum_is_of_id_and_stamp_too():
    sums = {checksum(*key) for key in ((1, (2, 3), b"x"), (2, (2, 3), b"x"), (1, (3, 3), b"x"), (1, (2, 2), b"x"))}
    assert len(sums) == 4


def test_what_was_put_half_a_second_ago_survives_a_kill(tmp_path):
    script = f"""
import sys, time, numpy as np
from landmark_triplets_tfds.thumbnails.bank import BankFile
bank = BankFile(__import__("pathlib").Path({str(tmp_path / "bank.sqlite")!r}), np.arange(1000, dtype=np.uint64))
for row in range(1000):
    bank.put(row, (1, 1), b"thumbnail")
    print(row, time.time(), flush=True)
    time.sleep(0.01)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    lines = [process.stdout.readline().split() for _ in range(120)]
    process.kill()
    process.wait()
    end = float(lines[-1][1])
    bank = BankFile(pathlib.Path(tmp_path / "bank.sqlite"), np.arange(1000, dtype=np.uint64))
    kept = {row for row in range(1000) if bank.known[row] == THUMBNAIL}
    bank.close()
    assert {int(row) for row, seconds in lines if float(seconds) < end - 0.8} <= kept
