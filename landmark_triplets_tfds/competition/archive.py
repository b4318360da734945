"""Images in archives, read in place: what a zip and tars have in common.

Where each image is within the archives is found once and kept in a file, the index: 51 MB for the competition's zip.
It can be made again from the archives at any time, and is, with a line, if its checksum is not right. Worker processes
do not get it sent to them: they map a copy that belongs to the build, so that all of them share it, and whatever
becomes of the file in the cache meanwhile does not matter.
"""

from __future__ import annotations

import bisect
import contextlib
import copy
import dataclasses
import hashlib
import json
import os
import threading
from typing import IO, Any, TypeVar

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.checked_files import read_parts, write_parts
from landmark_triplets_tfds.common.file_access import OFF, cache_folder, refuse_large, replace_file
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import DamagedFileError, UnreadableImageError

FORMAT_VERSION = 3

# The fields of an image in order, 32 bytes. Sizes over 4 GiB are stored as that: no image that is read comes near.
MEMBER = np.dtype(
    [
        ("image_id", "<u8"),
        ("offset", "<u8"),  # in a zip, of the member's header; in a tar, of its data
        ("size", "<u4"),
        ("stored_size", "<u4"),  # compressed
        ("crc", "<u4"),  # in a zip, of the image; in a tar, of the member's header
        ("archive", "<u2"),  # number of the archive, in the order in which they are described
        ("method", "u1"),  # in a zip, of compression, as zip numbers them; in a tar, of naming, see there
        ("is_encrypted", "u1"),
    ]
)
Members = npt.NDArray[np.void]
LARGEST_SIZE = 2**32 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class ArchiveIndex:
    """The images in one or more archives.

    Attributes:
      members: MEMBER[num_members], ascending by image_id. Of several with the same, the last one counts, as it does
        when archives are extracted one after the other.
      archives: what tells that each archive is still the same, and what a source wants to know of it; ready for JSON.
    """

    members: Members
    archives: list[dict[str, Any]]

    @staticmethod
    def of(members: Members, archives: list[dict[str, Any]]) -> ArchiveIndex:
        """Makes an index of members in the order of the archives and, within each, of the archive."""
        return ArchiveIndex(members[np.argsort(members["image_id"], kind="stable")], archives)

    def find(self, image_id: int) -> Any | None:
        """Returns the member that is this image, or None."""
        # np.searchsorted would first copy the ids, which lie between other fields, for each search.
        ids = self.members["image_id"]
        row = bisect.bisect_right(ids, image_id, key=int) - 1
        return self.members[row] if row >= 0 and int(ids[row]) == image_id else None

    def save(self, path: str) -> None:
        """Writes the index to a file, local or remote, at once or not at all."""
        description = {"format": FORMAT_VERSION, "archives": self.archives}
        file_path = epath.Path(path)
        file_path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(file_path) as file:
            write_parts(file, [json.dumps(description).encode(), self.members.data])

    @staticmethod
    def load(path: str, *, is_mapped: bool = False) -> ArchiveIndex | None:
        """Returns the index in a file; None if there is none or, which is said in a line, none that can be used."""
        try:
            line, members = read_parts(path, is_mapped=is_mapped)
            description = json.loads(bytes(line))
            if description["format"] != FORMAT_VERSION:
                raise DamagedFileError(f"{path} is of another version of this package.")
            rows = len(members) // MEMBER.itemsize
            return ArchiveIndex(np.ndarray(rows, MEMBER, members), description["archives"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, DamagedFileError) as error:
            say(f"An index of archives is made anew: {error}")
            return None


_Source = TypeVar("_Source", bound="ArchiveSource")


class ArchiveSource(ImageSource):
    """Base of the sources that read members of archives in place. Used from many threads, sent to other processes.

    A process that is sent a source gets paths only, and opens the index when it first needs it.
    """

    def __init__(self, archive: str, index_folder: str | None):
        """Opens nothing yet.

        Args:
          archive: path of the archive or of the folder that holds several; it names the index.
          index_folder: where the index is kept: None: the user's cache folder; 'off': nowhere, so that it is made for
            this source alone.
        """
        self.archive = archive
        self.is_remote = file_access.is_remote(archive)
        self._index_folder = index_folder
        self._shared_path = ""  # where another process left it for this one; '': nowhere
        self._is_elsewhere = False
        self._index: ArchiveIndex | None = None
        self._lock = threading.RLock()

    def _make_index(self, known: ArchiveIndex | None, num_threads: int) -> ArchiveIndex:
        """Returns an index of the archives as they are now: ``known`` itself, if nothing has changed.

        Raises:
          ArchiveError: if an archive cannot be used.
        """
        raise NotImplementedError

    def _read_member(self, member: Any) -> bytes:
        """Returns the content of a member of the index; raises UnreadableImageError."""
        raise NotImplementedError

    def _stamp_member(self, member: Any) -> tuple[int, int]:
        """Returns two numbers that tell a changed image."""
        raise NotImplementedError

    # --- ImageSource

    def prepare(self, num_threads: int) -> None:
        """Compares the index with the archives and makes it where it is missing or old."""
        with self._lock:
            path = ""
            with contextlib.suppress(OSError):  # which is said below
                path = self._kept_path()
            known = self._index or (ArchiveIndex.load(path) if path else None)
            self._index = self._make_index(known, num_threads)
            if self._index is not known:
                try:
                    self._keep(self._index)
                except OSError as error:
                    say(
                        f"The index of {self.archive} is kept for this build only: {path or 'a file of it'} cannot be"
                        f" written ({error}). Set LANDMARK_TRIPLETS_BANK to a folder that can be written."
                    )

    def share(self: _Source, folder: epath.Path, *, elsewhere: bool = False) -> _Source:
        """Returns a source for other processes, here or elsewhere: the index is copied into ``folder``."""
        shared = copy.copy(self)
        shared._is_elsewhere = elsewhere
        shared._shared_path = os.fspath(folder / self._index_name())
        self.index().save(shared._shared_path)
        return shared

    def read(self, image_id: int) -> bytes:
        member = self.index().find(image_id)
        if member is None:
            raise UnreadableImageError(UnreadableImageError.MISSING, self.locate(image_id))
        refuse_large(max(int(member["size"]), int(member["stored_size"])))
        return self._read_member(member)

    def stamp(self, image_id: int) -> tuple[int, int]:
        member = self.index().find(image_id)
        return (-1, -1) if member is None else self._stamp_member(member)

    def read_order(self, image_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        members = self.index().members
        places = np.minimum(np.searchsorted(members["image_id"], image_ids), max(len(members) - 1, 0))
        if not len(members):
            return np.arange(len(image_ids))
        return np.lexsort((members["offset"][places], members["archive"][places]))

    def list_images(self, num_threads: int) -> npt.NDArray[np.uint64]:
        ids: npt.NDArray[np.uint64] = self.index().members["image_id"]  # ascending; some perhaps several times
        distinct: npt.NDArray[np.uint64] = ids[np.diff(ids, prepend=~ids[:1]) != 0]
        return distinct

    # --- The index

    def index(self) -> ArchiveIndex:
        """Returns the index, which the first call in a process opens or, if need be, makes."""
        if self._index is None:
            with self._lock:
                if self._index is None and self._shared_path:
                    # It is used as it is, so that all processes of a build agree.
                    self._index = ArchiveIndex.load(self._shared_path, is_mapped=True)
                if self._index is None:
                    self.prepare(1)
        assert self._index is not None  # noqa: S101 - for the type checker
        return self._index

    def _keep(self, index: ArchiveIndex) -> None:
        """Writes the index to where it is kept; raises OSError."""
        if path := self._kept_path():
            index.save(path)

    def _kept_path(self) -> str:
        """Returns where the index is kept, or ''; raises OSError as `cache_folder` does."""
        return "" if self._index_folder == OFF else f"{cache_folder(self._index_folder)}/{self._index_name()}"

    def _index_name(self) -> str:
        place = self.archive if self.is_remote else os.path.realpath(self.archive)
        stem = os.path.basename(self.archive)  # noqa: PTH119
        return f"{stem}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:12]}.index"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what belongs to this process."""
        return self.__dict__ | {"_index": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.RLock()}


class BoundedReads:
    """A file that refuses to be read in larger pieces than make sense, whatever it says of its own size."""

    def __init__(self, file: IO[bytes], max_bytes: int):
        self._file = file
        self._max_bytes = max_bytes
        self.seek, self.tell = file.seek, file.tell

    def read(self, num_bytes: int | None = None) -> bytes:
        if num_bytes is not None and not 0 <= num_bytes <= self._max_bytes:
            raise ValueError(f"a header of {num_bytes:,} bytes")
        return self._file.read(self._max_bytes if num_bytes is None else num_bytes)
