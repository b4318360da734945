"""The SQLite database of a bank file: its schema, how it is opened, and what counts as damage.

SQLite in WAL mode is crash-safe and may be used by several processes at once.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import sqlite3
import struct
import zlib

from landmark_triplets_tfds.bank.thumbnail_store import Stamp

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
