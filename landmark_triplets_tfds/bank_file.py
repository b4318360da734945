"""Thumbnails made so far, on disk for all builds: one SQLite database for each kind of thumbnail.

A row is trusted only if its checksum holds, and used only if the image file has the size and modification time it had
when the thumbnail was made. A file that SQLite calls damaged, or that has another schema, is deleted and begun anew:
everything in it can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import queue
import sqlite3
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import bank_database
from landmark_triplets_tfds.errors import BankError, UnreadableImageError
from landmark_triplets_tfds.thumbnail_store import THUMBNAIL, UNREADABLE, RecentThumbnails, Result, Stamp

# What a killed build loses at most, beside what was being encoded.
_COMMIT_INTERVAL_S = 0.25
_MAX_BATCH_BYTES = 64 << 20
_MAX_WAITING = 8192  # results that may wait for the disk

# Reasons that may pass by themselves are not worth remembering.
_NOT_REMEMBERED = (UnreadableImageError.NO_ACCESS,)
_STOP = None


class BankFile:
    """A `ThumbnailStore` that lasts. One thread writes to the database, in transactions of up to 0.25 s of results."""

    is_durable = True

    def __init__(self, path: pathlib.Path, image_ids: npt.NDArray[np.uint64]):
        """Opens or creates the database and reads what it knows of the images.

        Args:
          path: of the database.
          image_ids: uint64[num_rows] of the table whose rows are stored.

        Raises:
          sqlite3.Error, OSError: if a database cannot even be created there.
        """
        self.path = path
        self._image_ids = image_ids.view(np.int64)  # SQLite's integers are signed
        self._failure: Exception | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._connect_and_load()
        except bank_database.ERRORS as error:
            if not bank_database.is_damage(error):
                raise
            self._delete()
            self._connect_and_load()
        self._queue: queue.SimpleQueue[tuple[int, Stamp, Result] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_stopped, name="bank", daemon=True)
        self._writer.start()

    def _connect_and_load(self) -> None:
        num_rows = len(self._image_ids)
        self.known = np.zeros(num_rows, dtype=np.int8)
        self.stamps = np.zeros((num_rows, 2), dtype=np.int64)
        self._checksums = np.zeros(num_rows, dtype=np.uint32)
        self._blob_numbers = np.zeros(num_rows, dtype=np.int64)
        self._errors: dict[int, UnreadableImageError] = {}
        self._uncommitted: dict[int, bytes] = {}
        self._recent = RecentThumbnails()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._reading = bank_database.connect(self.path)
        try:
            self._load()
        except bank_database.ERRORS:
            self._reading.close()
            raise

    def _load(self) -> None:
        """Fills the arrays from the table of images."""
        order = np.argsort(self._image_ids)
        sorted_ids = self._image_ids[order]
        cursor = self._reading.execute(
            "SELECT image_id, size, mtime_ns, checksum, blob_number, reason, detail FROM images"
        )
        while records := cursor.fetchmany(50_000):
            ids = np.array([record[0] for record in records], dtype=np.int64)
            places = np.minimum(np.searchsorted(sorted_ids, ids), len(sorted_ids) - 1)
            for i in np.flatnonzero(sorted_ids[places] == ids).tolist():
                row = int(order[places[i]])
                _, size, mtime_ns, checksum, blob_number, reason, detail = records[i]
                if blob_number is None:
                    if checksum != bank_database.checksum(
                        int(ids[i]), (size, mtime_ns), f"{reason}\n{detail}".encode()
                    ):
                        continue
                    self._errors[row] = UnreadableImageError(reason, detail)
                self.known[row] = THUMBNAIL if blob_number is not None else UNREADABLE
                self.stamps[row] = size, mtime_ns
                self._checksums[row] = checksum & 0xFFFFFFFF
                self._blob_numbers[row] = blob_number or 0

    # --- ThumbnailStore

    def put(self, row: int, stamp: Stamp, result: Result) -> None:
        if isinstance(result, bytes):
            self._uncommitted[row] = result
        self._queue.put((row, stamp, result))

    def get(self, row: int) -> bytes | None:
        in_memory = self._uncommitted.get(row) or self._recent.get(row)
        if in_memory is not None:
            return in_memory
        try:
            found = self._reading.execute(
                "SELECT thumbnail FROM blobs WHERE blob_number = ?", (int(self._blob_numbers[row]),)
            ).fetchone()
        except bank_database.ERRORS as error:
            self._failure = self._failure or error
            return None
        thumbnail = found[0] if found else None
        if not isinstance(thumbnail, bytes):
            return None
        stamp = (int(self.stamps[row, 0]), int(self.stamps[row, 1]))
        if bank_database.checksum(int(self._image_ids[row]), stamp, thumbnail) != self._checksums[row]:
            return None
        self._recent.add(row, thumbnail)
        return thumbnail

    def error(self, row: int) -> UnreadableImageError:
        return self._errors[row]

    def is_behind(self) -> bool:
        return self._queue.qsize() > _MAX_WAITING

    def check(self) -> bool:
        """See `ThumbnailStore`.

        Returns:
          True if the database turned out to be damaged and was begun anew: nothing is known or kept any more.

        Raises:
          BankError: if it cannot be written, as when its disk is full.
        """
        if self._failure is None:
            return False
        failure, self._failure = self._failure, None
        if not bank_database.is_damage(failure):
            raise BankError(
                f"The bank of thumbnails in {self.path.parent} ({self.num_bytes() / 1e6:,.1f} MB) cannot be written:"
                f" {failure}. It may be deleted at any time. Free some room there, move it with"
                " LANDMARK_TRIPLETS_BANK=<folder>, or build without it with LANDMARK_TRIPLETS_BANK=off. What is in it"
                " is not made again by the next build."
            ) from failure
        self._stop_writing()
        self._reading.close()
        self._delete()
        self._failure = None
        self._open()
        return True

    def close(self) -> None:
        self._stop_writing()
        self._reading.close()

    def num_bytes(self) -> int:
        """Returns the room the database takes on disk."""
        return sum(path.stat().st_size for path in self._files() if path.exists())

    def _files(self) -> Sequence[pathlib.Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]

    def _delete(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    # --- The thread that writes

    def _stop_writing(self) -> None:
        if self._writer.is_alive():
            self._queue.put(_STOP)
            self._writer.join()

    def _write_until_stopped(self) -> None:
        """Collects results and commits them; after a failure it only empties the queue."""
        connection: sqlite3.Connection | None = None
        stopped = False
        while not stopped:
            batch, stopped = self._next_batch()
            if self._failure is not None or not batch:
                continue
            try:
                connection = connection or bank_database.connect(self.path)
                self._commit(connection, batch)
            except bank_database.ERRORS as error:
                self._failure = error
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[tuple[int, Stamp, Result]], bool]:
        """Waits for results; returns those of one commit interval, and whether the end has come."""
        batch: list[tuple[int, Stamp, Result]] = []
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
            num_bytes += len(item[2]) if isinstance(item[2], bytes) else 0
        return batch, False

    def _commit(self, connection: sqlite3.Connection, batch: list[tuple[int, Stamp, Result]]) -> None:
        images: list[tuple[Any, ...]] = []
        blobs: list[tuple[int, bytes]] = []
        numbers: dict[int, tuple[int, int, int, int]] = {}
        with bank_database.transaction(connection):
            last = connection.execute("SELECT COALESCE(MAX(blob_number), 0) FROM blobs").fetchone()[0]
            for row, (size, mtime_ns), result in batch:
                image_id = int(self._image_ids[row])
                if isinstance(result, bytes):
                    checksum = bank_database.checksum(image_id, (size, mtime_ns), result)
                    last += 1
                    blobs.append((last, result))
                    images.append((image_id, size, mtime_ns, checksum, last, None, None))
                    numbers[row] = (last, checksum, size, mtime_ns)
                elif result.reason not in _NOT_REMEMBERED:
                    text = f"{result.reason}\n{result.detail}".encode()
                    checksum = bank_database.checksum(image_id, (size, mtime_ns), text)
                    images.append((image_id, size, mtime_ns, checksum, None, result.reason, result.detail))
            connection.executemany("INSERT INTO blobs VALUES (?, ?)", blobs)
            images.sort()  # neighbours in the table are written together
            connection.executemany(
                "DELETE FROM blobs WHERE blob_number = (SELECT blob_number FROM images WHERE image_id = ?)",
                [image[:1] for image in images],
            )
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", images)
        for row, (number, checksum, size, mtime_ns) in numbers.items():
            self._checksums[row] = checksum
            self.stamps[row] = size, mtime_ns
            self._blob_numbers[row] = number
            thumbnail = self._uncommitted.get(row)
            if thumbnail is not None:  # if it was put twice, the later one may be there, or gone with the first
                self._recent.add(row, thumbnail)
                self._uncommitted.pop(row, None)
