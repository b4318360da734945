"""The bank: thumbnails made so far, on disk for all builds, one SQLite database for each kind of thumbnail.

A row is trusted only if its checksum holds, and used only if the image file has the size and modification time it had
when the thumbnail was made. A file that SQLite calls damaged, or that has another schema, is deleted and begun anew:
everything in it can be made again.

A database is named by a hash of everything that decides the bytes of its thumbnails, so a config with other pixels, or
another version of a codec, has another one. It is in the user's cache folder, or in the folder that a build option
names; where it cannot be, a build does without.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import sqlite3

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.file_access import OFF, cache_folder
from landmark_triplets_tfds.errors import BankError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.bank_writer import (
    ERRORS,
    BankWriter,
    Committed,
    Put,
    checksum,
    connect,
    is_damage,
)
from landmark_triplets_tfds.thumbnails.store import (
    THUMBNAIL,
    UNKNOWN,
    UNREADABLE,
    RecentThumbnails,
    Result,
    SpillStore,
    Stamp,
    ThumbnailStore,
)
from landmark_triplets_tfds.thumbnails.thumbnail import CODEC_DISTRIBUTIONS, PIXELS_VERSION, ThumbnailSpec

_MAX_QUERY_BYTES = 16 << 20  # of thumbnails looked up together


class BankFile:
    """A `ThumbnailStore` that lasts. One connection reads, in the thread that `get`s; another one writes."""

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
        self._read_failure: Exception | None = None
        self._open()

    def _open(self) -> None:
        try:
            self._connect_and_load()
        except ERRORS as error:
            if not is_damage(error):
                raise
            self._delete()
            self._connect_and_load()
        self._writer = BankWriter(self.path, self._note_committed)

    def _connect_and_load(self) -> None:
        num_rows = len(self._image_ids)
        self.known = np.zeros(num_rows, dtype=np.int8)
        self.stamps = np.zeros((num_rows, 2), dtype=np.int64)
        self._checksums = np.zeros(num_rows, dtype=np.uint32)
        self._blob_numbers = np.zeros(num_rows, dtype=np.int64)
        self._errors: dict[int, UnreadableImageError] = {}
        self._uncommitted: dict[int, bytes] = {}
        self._recent = RecentThumbnails()
        self._expected: list[int] = []
        self._thumbnail_bytes = _MAX_QUERY_BYTES  # of the last one read; before the first, as careful as can be
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._reading = connect(self.path)
        try:
            self._load()
        except ERRORS:
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
                _, size, mtime_ns, crc, blob_number, reason, detail = records[i]
                if blob_number is None:
                    if crc != checksum(int(ids[i]), (size, mtime_ns), f"{reason}\n{detail}".encode()):
                        continue
                    self._errors[row] = UnreadableImageError(reason, detail)
                self.known[row] = THUMBNAIL if blob_number is not None else UNREADABLE
                self.stamps[row] = size, mtime_ns
                self._checksums[row] = crc & 0xFFFFFFFF
                self._blob_numbers[row] = blob_number or 0

    # --- ThumbnailStore

    def put(self, row: int, stamp: Stamp, result: Result) -> None:
        if isinstance(result, bytes):
            self._uncommitted[row] = result
        self._writer.put(Put(row, int(self._image_ids[row]), stamp, result))

    def expect(self, rows: list[int]) -> None:
        self._expected = rows

    def get(self, row: int) -> bytes | None:
        in_memory = self._find_in_memory(row)
        if in_memory is not None:
            return in_memory
        # A query costs more than the rows it finds, so what will be asked for next comes with it.
        missing = [each for each in dict.fromkeys(self._expected) if each != row and self._find_in_memory(each) is None]
        num_more = _MAX_QUERY_BYTES // self._thumbnail_bytes
        found = self._select([row, *missing[:num_more]])
        self._expected = missing[num_more:]
        for each, thumbnail in found.items():
            self._recent.add(each, thumbnail)
            self._thumbnail_bytes = len(thumbnail)
        return found.get(row)

    def _find_in_memory(self, row: int) -> bytes | None:
        return self._uncommitted.get(row) or self._recent.get(row)

    def _select(self, rows: list[int]) -> dict[int, bytes]:
        """Returns the sound thumbnails among some rows; the others are lost, damaged or not committed yet."""
        row_of_number = dict(zip(self._blob_numbers[rows].tolist(), rows, strict=True))
        marks = ",".join("?" * len(row_of_number))
        query = f"SELECT blob_number, thumbnail FROM blobs WHERE blob_number IN ({marks})"  # noqa: S608 - marks only
        try:
            found = self._reading.execute(query, list(row_of_number)).fetchall()
        except ERRORS as error:
            self._read_failure = error
            return {}
        sound = {}
        for number, thumbnail in found:
            row = row_of_number[number]
            image_id, stamp = int(self._image_ids[row]), self.stamps[row].tolist()
            if not isinstance(thumbnail, bytes):
                continue
            if checksum(image_id, (stamp[0], stamp[1]), thumbnail) == self._checksums[row]:
                sound[row] = thumbnail
        return sound

    def error(self, row: int) -> UnreadableImageError:
        return self._errors[row]

    def is_behind(self) -> bool:
        return self._writer.is_behind()

    def check(self) -> bool:
        """See `ThumbnailStore`.

        Returns:
          True if the database turned out to be damaged and was begun anew: nothing is known or kept any more.

        Raises:
          BankError: if it cannot be written, as when its disk is full.
        """
        failure = self._writer.failure or self._read_failure
        if failure is None:
            return False
        if not is_damage(failure):
            raise BankError(
                f"The bank of thumbnails in {self.path.parent} ({self.num_bytes() / 1e6:,.1f} MB) cannot be written:"
                f" {failure}. It may be deleted at any time. Free some room there, move it with"
                " LANDMARK_TRIPLETS_BANK=<folder>, or build without it with LANDMARK_TRIPLETS_BANK=off. What is in it"
                " is not made again by the next build."
            ) from failure
        self.close()
        self._delete()
        self._read_failure = None
        self._open()
        return True

    def close(self) -> None:
        self._writer.stop()
        self._reading.close()

    def num_bytes(self) -> int:
        """Returns the room the database takes on disk."""
        return sum(path.stat().st_size for path in self._files() if path.exists())

    def _files(self) -> Sequence[pathlib.Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]

    def _delete(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    def _note_committed(self, committed: list[Committed]) -> None:
        """Notes where thumbnails are; called by the writer."""
        for each in committed:
            row = each.row
            self._checksums[row] = each.checksum
            self.stamps[row] = each.stamp
            self._blob_numbers[row] = each.blob_number
            thumbnail = self._uncommitted.get(row)
            if thumbnail is not None:  # if it was put twice, the later one may be there, or gone with the first
                self._recent.add(row, thumbnail)
                self._uncommitted.pop(row, None)


# Bytes that a thumbnail takes in the bank, per pixel: 0.45 is a detailed photograph at the default quality of 94, and
# SQLite fills its pages to three quarters.
_BYTES_PER_PIXEL = 0.6
_SPARE_BYTES = 256 << 20


def bank_path(spec: ThumbnailSpec, folder: str | None) -> pathlib.Path:
    """Returns the path of the bank file for a kind of thumbnail.

    Args:
      spec: of the thumbnails.
      folder: None: the user's cache folder.
    """
    key = dataclasses.asdict(spec) | {"pixels_version": PIXELS_VERSION}
    for names in CODEC_DISTRIBUTIONS:
        key[names[0]] = _installed_version(names)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder(folder) / f"{spec.resolution}px-{spec.resize_method}-{spec.fit}-{digest[:12]}.sqlite"


def open_store(
    folder: str | None,
    spec: ThumbnailSpec,
    image_ids: npt.NDArray[np.uint64],
    rows: npt.NDArray[np.int64],
    spill_folder: str | None,
) -> ThumbnailStore:
    """Opens the store of a build; says so where it cannot be the bank.

    Args:
      folder: the build option ``bank``: None, a folder or 'off'.
      spec: of the thumbnails.
      image_ids: uint64[num_rows] of the table.
      rows: int64[num_images] that the build will need.
      spill_folder: where thumbnails wait if there is no bank; None: the system's folder for temporary files.
    """
    if folder != OFF:
        path = bank_path(spec, folder)
        try:
            bank = BankFile(path, image_ids)
        except (OSError, sqlite3.Error) as error:
            print(f"Building without the bank of thumbnails: {path} cannot be used ({error}).")
        else:
            num_missing = int((bank.known[rows] == UNKNOWN).sum())
            needed = int(num_missing * spec.resolution**2 * _BYTES_PER_PIXEL) + _SPARE_BYTES
            free = shutil.disk_usage(path.parent).free
            if free >= needed or not num_missing:
                return bank
            bank.close()
            print(
                f"Building without the bank of thumbnails: {num_missing:,} new ones need about {needed / 1e9:,.1f} GB,"
                f" {path.parent} has {free / 1e9:,.1f} GB free. A build that is cut off will begin anew. Free some room"
                " or set LANDMARK_TRIPLETS_BANK to a folder on a larger disk."
            )
    return SpillStore(len(image_ids), spill_folder)


def _installed_version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
