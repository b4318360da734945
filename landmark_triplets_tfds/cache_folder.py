"""Where things are kept that can be made again: thumbnails and indexes of archives."""

from __future__ import annotations

import pathlib

import platformdirs

OFF = "off"


def cache_folder(folder: str | None) -> pathlib.Path:
    """Returns the folder named, or the user's cache folder for None."""
    return pathlib.Path(folder).expanduser() if folder else platformdirs.user_cache_path("landmark_triplets_tfds")
