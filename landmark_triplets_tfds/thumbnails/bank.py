"""Which store a build uses: the bank in the user's cache folder, one moved elsewhere, or one that ends with the build.

The bank is the thumbnails that are kept on disk for later builds, a `store` for each kind of thumbnail. Its folders are
named by a hash of everything that decides the bytes, so a config with other pixels, or another version of a codec, has
another one. All in it can be made again, so it may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import shutil

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.file_access import OFF, cache_folder
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.thumbnails.store import StoreIndex
from landmark_triplets_tfds.thumbnails.thumbnail import (
    CODEC_DISTRIBUTIONS,
    PIXELS_VERSION,
    ThumbnailSpec,
    expected_bytes,
)

# Free space that is left to others.
_SPARE_BYTES = 256 << 20


def bank_path(spec: ThumbnailSpec, folder: str | None) -> pathlib.Path:
    """Returns the folder of the bank for a kind of thumbnail.

    Args:
      spec: of the thumbnails.
      folder: of all banks; None: the user's cache folder.

    Raises:
      OSError: as `cache_folder` does.
    """
    key = dataclasses.asdict(spec) | {"pixels_version": PIXELS_VERSION}
    for names in CODEC_DISTRIBUTIONS:
        key[names[0]] = _installed_version(names)
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder(folder) / f"{spec.resolution}px-{spec.resize_method}-{spec.fit}-{digest[:12]}"


def open_bank(
    spec: ThumbnailSpec, folder: str | None, image_ids: npt.NDArray[np.uint64], rows: npt.NDArray[np.int64]
) -> StoreIndex | None:
    """Returns what the bank knows of images, ready to be added to; None, said in a line, if there can be no bank.

    Args:
      spec: of the thumbnails.
      folder: the build option ``bank``: None, a folder or 'off'.
      image_ids: uint64[num_rows].
      rows: int64[n], those of which thumbnails are needed.
    """
    if folder == OFF:
        return None
    path: object = folder or "the cache folder"
    try:
        path = bank = bank_path(spec, folder)
        bank.mkdir(parents=True, exist_ok=True)
        if not os.access(bank, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError("no right to read and write there")
        index = StoreIndex.read(bank, image_ids)
        free = shutil.disk_usage(bank).free
    except OSError as error:
        say(
            f"Building without the bank of thumbnails: {path} cannot be used ({error}). Set LANDMARK_TRIPLETS_BANK to a"
            " folder that can be written, or to off."
        )
        return None
    num_missing = index.count_unknown(rows)
    needed = int(num_missing * expected_bytes(spec)) + _SPARE_BYTES
    if free >= needed or not num_missing:
        return index
    say(
        f"Building without the bank of thumbnails: {num_missing:,} new ones need about {needed / 1e9:,.1f} GB,"
        f" {path} has {free / 1e9:,.1f} GB free. A build that is cut off will begin anew. Free some room or set"
        " LANDMARK_TRIPLETS_BANK to a folder on a larger disk."
    )
    return None


def _installed_version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
