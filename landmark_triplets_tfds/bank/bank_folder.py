"""Which store a build uses: the bank in the user's cache folder, one moved elsewhere, or none.

Bank files are named by a hash of everything that decides the bytes of their thumbnails, so a config with other pixels,
or another version of a codec, has another file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import sqlite3

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.bank.bank_file import BankFile
from landmark_triplets_tfds.bank.thumbnail_store import UNKNOWN, SpillStore, ThumbnailStore
from landmark_triplets_tfds.cache_folder import OFF, cache_folder
from landmark_triplets_tfds.thumbnails import CODEC_DISTRIBUTIONS, PIXELS_VERSION, ThumbnailSpec

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
