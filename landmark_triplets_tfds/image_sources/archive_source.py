"""What sources of images in archives have in common: an index that is made once and then found by every process."""

from __future__ import annotations

import atexit
from collections.abc import Callable
import copy
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
import threading
from typing import Any, TypeVar

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import file_access
from landmark_triplets_tfds.cache_folder import OFF, cache_folder
from landmark_triplets_tfds.image_sources.archive_index import ArchiveIndex

OnListed = Callable[[int, int], object]
_Source = TypeVar("_Source", bound="ArchiveSource")


class ArchiveSource:
    """Base of the sources that read members of archives in place. Used from many threads, sent to other processes.

    A process that is sent a source gets paths only, and opens the index when it first needs it.
    """

    def __init__(self, archive: str, index_folder: str | None):
        """Opens nothing yet.

        Args:
          archive: path of the archive or of the folder that holds several; it names the index.
          index_folder: where the index is kept: None: the user's cache folder; 'off': a temporary folder, for as long
            as this process lives.
        """
        self.archive = archive
        self.is_remote = file_access.is_remote(archive)
        self._index_folder = index_folder
        self._index_path = ""  # where it was found or written; '': not looked for yet
        self._index: ArchiveIndex | None = None
        self._lock = threading.Lock()

    def _make_index(self, known: ArchiveIndex | None, num_threads: int, on_listed: OnListed) -> ArchiveIndex:
        """Returns an index of the archives as they are now: ``known`` itself, if nothing has changed.

        Raises:
          ArchiveError: if an archive cannot be used.
        """
        raise NotImplementedError

    # --- ImageSource

    def prepare(self, num_threads: int, on_listed: OnListed) -> None:
        """Compares the index with the archives and makes it where it is missing or old."""
        with self._lock:
            self._prepare(num_threads, on_listed)

    def share(self: _Source, folder: epath.Path) -> _Source:
        """Returns a source for machines that cannot see this one's cache: the index is copied into ``folder``."""
        shared = copy.copy(self)
        path = folder / self._index_name()
        self.index().save(os.fspath(path))
        shared._index_path = os.fspath(path)
        return shared

    def exists(self, image_id: int) -> bool:
        return self.index().find(image_id) is not None

    def find_present(
        self, image_ids: npt.NDArray[np.uint64], num_threads: int, on_listed: OnListed
    ) -> npt.NDArray[np.bool_]:
        present = np.isin(image_ids, self.index().members["image_id"])
        on_listed(1, 1)
        return present

    def list_images(self, num_threads: int, on_listed: OnListed) -> npt.NDArray[np.uint64]:
        ids = np.unique(self.index().members["image_id"])
        on_listed(1, 1)
        return ids

    # --- The index

    def index(self) -> ArchiveIndex:
        """Returns the index, which the first call in a process opens or, if need be, makes."""
        if self._index is None:
            with self._lock:
                if self._index is None:
                    # What another process has prepared is used as it is, so that all processes of a build agree.
                    self._index = ArchiveIndex.load(self._index_path) if self._index_path else None
                    if self._index is None:
                        self._prepare(1, lambda num_listed, num_archives: None)
        assert self._index is not None  # noqa: S101 - for the type checker
        return self._index

    def _prepare(self, num_threads: int, on_listed: OnListed) -> None:
        path = self._default_index_path()
        known = ArchiveIndex.load(path)
        index = self._make_index(known, num_threads, on_listed)
        if index is not known:
            path = self._save_index(index)
            index = ArchiveIndex.load(path) or index  # mapped, the memory is shared with other processes
        self._index, self._index_path = index, path

    def _save_index(self, index: ArchiveIndex) -> str:
        """Writes the index to where it is kept, or to a temporary folder; returns the path."""
        path = self._default_index_path()
        try:
            index.save(path)
        except OSError as error:
            print(f"The index of {self.archive} is kept for this build only: {path} cannot be written ({error}).")
            path = os.fspath(_temporary_folder() / self._index_name())
            index.save(path)
        return path

    def _default_index_path(self) -> str:
        folder = _temporary_folder() if self._index_folder == OFF else cache_folder(self._index_folder)
        return os.fspath(folder / self._index_name())

    def _index_name(self) -> str:
        place = self.archive if self.is_remote else os.path.realpath(self.archive)
        stem = os.path.basename(self.archive)  # noqa: PTH119
        return f"{stem}-{hashlib.sha256(place.encode()).hexdigest()[:12]}.index"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what belongs to this process."""
        return self.__dict__ | {"_index": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


@functools.cache
def _temporary_folder() -> pathlib.Path:
    """Returns a folder that is removed when this process ends."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="landmark_triplets."))
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked process inherits the call, not the folder
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
