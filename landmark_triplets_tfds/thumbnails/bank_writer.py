"""The SQLite database of a bank: its schema, how it is opened, what counts as damage, and the thread that writes to it.

SQLite in WAL mode is crash-safe and may be used by several processes at once. Commits cost milliseconds and wait for
disks, so one thread does them for all, in transactions of 0.25 s of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import pathlib
import queue
import sqlite3
import struct
import threading
import time
from typing import Any
import zlib

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.store import Result, Stamp

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE images (  -- small rows, so that all of them are read in a second or two
    image_id INTEGER PRIMARY KEY,  -- as int64
    size INTEGER NOT NULL,  -- of the image file, bytes
    mtime_ns INTEGER NOT NULL,
    checksum INTEGER NOT NULL,  -- see checksum()
    blob_number INTEGER,  -- NULL: the image is unreadable
    reason TEXT,
    detail TEXT
) WITHOUT ROWID;
CREATE TABLE blobs (  -- in order of insertion, which is the cheapest to write
    blob_number INTEGER PRIMARY KEY,
    thumbnail BLOB NOT NULL
);
"""
_PAGE_BYTES = 8192
_CHECKPOINT_PAGES = (32 << 20) // _PAGE_BYTES  # the write-ahead log grows to 32 MiB before it is merged
_BUSY_TIMEOUT_S = 120.0  # another build commits within milliseconds, but its disk may be slow


def connect(path: pathlib.Path) -> sqlite3.Connection:
    """Opens a database of our schema; creates the tables in an empty one.

    Raises:
      sqlite3.DatabaseError: if it is damaged or has another schema.
    """
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda text: text.decode(errors="replace")
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        with transaction(connection):
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (num_tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            if version == 0 and num_tables == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            elif version != _SCHEMA_VERSION:
                raise sqlite3.DatabaseError(f"another schema: version {version}")
    except ERRORS:
        connection.close()
        raise
    return connection


# What reading a damaged database can raise: SQLite's own errors, and values of another type than the column's.
ERRORS = (sqlite3.Error, ValueError, TypeError, OverflowError)


def is_damage(error: Exception) -> bool:
    """Returns whether one of `ERRORS` means that the file's content is wrong, not that it cannot be used now."""
    if isinstance(error, sqlite3.OperationalError):
        return "no such" in str(error)  # table or column: another schema
    return True


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Takes the write lock at once, so that two processes wait for each other instead of failing half-way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def checksum(image_id: int, stamp: Stamp, content: bytes) -> int:
    """Returns the CRC-32 of a row: of its id and stamp too, so that no flipped bit gives another image's pixels."""
    return zlib.crc32(content, zlib.crc32(struct.pack("<qqq", image_id, *stamp)))


# What a killed build loses at most, beside what was being encoded.
_COMMIT_INTERVAL_S = 0.25
_MAX_BATCH_BYTES = 64 << 20
_MAX_WAITING = 8192  # results that may wait for the disk

# Reasons that may pass by themselves are not worth remembering.
_NOT_REMEMBERED = (UnreadableImageError.NO_ACCESS,)
_STOP = None


@dataclasses.dataclass(frozen=True)
class Put:
    """A result on its way into the database: of which row and image (id as int64), from a file with which stamp."""

    row: int
    image_id: int
    stamp: Stamp
    result: Result


@dataclasses.dataclass(frozen=True)
class Committed:
    """Where a thumbnail is now."""

    row: int
    stamp: Stamp
    blob_number: int
    checksum: int


class BankWriter:
    """Takes results from any thread and commits them.

    Attributes:
      failure: the error that made writing impossible; None while all is well.
    """

    def __init__(self, path: pathlib.Path, on_commit: Callable[[list[Committed]], object]):
        """Starts the thread; ``on_commit`` is told, in that thread, of the thumbnails of each transaction."""
        self.failure: Exception | None = None
        self._path = path
        self._on_commit = on_commit
        self._queue: queue.SimpleQueue[Put | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_until_stopped, name="bank", daemon=True)
        self._thread.start()

    def put(self, item: Put) -> None:
        """Hands over a result."""
        self._queue.put(item)

    def is_behind(self) -> bool:
        """Returns whether so much waits that no more should be made for now."""
        return self._queue.qsize() > _MAX_WAITING

    def stop(self) -> None:
        """Commits what waits and ends the thread."""
        if self._thread.is_alive():
            self._queue.put(_STOP)
            self._thread.join()

    def _write_until_stopped(self) -> None:
        """Collects results and commits them; after a failure it only empties the queue."""
        connection: sqlite3.Connection | None = None
        stopped = False
        while not stopped:
            batch, stopped = self._next_batch()
            if self.failure is not None or not batch:
                continue
            try:
                connection = connection or connect(self._path)
                committed = _commit(connection, batch)
            except ERRORS as error:
                self.failure = error
            else:
                self._on_commit(committed)
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[Put], bool]:
        """Waits for results; returns those of one commit interval, and whether the end has come."""
        batch: list[Put] = []
        num_bytes, deadline = 0, float("inf")
        while num_bytes < _MAX_BATCH_BYTES:
            try:
                item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()) if batch else None)
            except queue.Empty:
                break
            if item is _STOP:
                return batch, True
            if not batch:
                deadline = time.monotonic() + _COMMIT_INTERVAL_S
            batch.append(item)
            num_bytes += len(item.result) if isinstance(item.result, bytes) else 0
        return batch, False


def _commit(connection: sqlite3.Connection, batch: list[Put]) -> list[Committed]:
    """Writes results in one transaction; returns where the thumbnails among them are."""
    images: list[tuple[Any, ...]] = []
    blobs: list[tuple[int, bytes]] = []
    committed: list[Committed] = []
    with transaction(connection):
        last = connection.execute("SELECT COALESCE(MAX(blob_number), 0) FROM blobs").fetchone()[0]
        for put in batch:
            result = put.result
            if isinstance(result, bytes):
                crc = checksum(put.image_id, put.stamp, result)
                last += 1
                blobs.append((last, result))
                images.append((put.image_id, *put.stamp, crc, last, None, None))
                committed.append(Committed(put.row, put.stamp, last, crc))
            elif result.reason not in _NOT_REMEMBERED:
                text = f"{result.reason}\n{result.detail}".encode()
                crc = checksum(put.image_id, put.stamp, text)
                images.append((put.image_id, *put.stamp, crc, None, result.reason, result.detail))
        connection.executemany("INSERT INTO blobs VALUES (?, ?)", blobs)
        images.sort()  # neighbours in the table are written together
        connection.executemany(
            "DELETE FROM blobs WHERE blob_number = (SELECT blob_number FROM images WHERE image_id = ?)",
            [image[:1] for image in images],
        )
        connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", images)
    return committed
