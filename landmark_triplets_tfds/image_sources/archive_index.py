"""Where each image is within archives: found once, kept in a file, mapped into memory by every process.

The index of the competition's zip is 51 MB. Worker processes do not get it sent to them: they map the file, so that all
of them share one copy and none reads it before it needs it. The index can be made again from the archives at any time.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
import contextlib
import dataclasses
import io
import json
import os
from typing import Any
import uuid

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import file_access

FORMAT_VERSION = 1

# 32 bytes per image. Sizes over 4 GiB are stored as that: no image that is read comes near.
MEMBER = np.dtype(
    [
        ("image_id", "<u8"),
        ("offset", "<u8"),  # in a zip, of the member's header; in a tar, of its data
        ("size", "<u4"),
        ("stored_size", "<u4"),  # compressed
        ("crc", "<u4"),
        ("archive", "<u2"),  # number of the archive, in the order in which they are described
        ("method", "u1"),  # of compression, as zip numbers them
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
        description = json.dumps({"format": FORMAT_VERSION, "archives": self.archives}).encode()
        parts = (np.frombuffer(description, dtype=np.uint8), self.members)
        if file_access.is_remote(path):
            buffer = io.BytesIO()
            for part in parts:
                np.save(buffer, part)
            epath.Path(path).write_bytes(buffer.getvalue())  # an object store shows whole objects only
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        unfinished = f"{path}.{uuid.uuid4().hex}.unfinished"
        try:
            with open(unfinished, "xb") as file:
                for part in parts:
                    np.save(file, part)
            os.replace(unfinished, path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)  # noqa: PTH108
            raise

    @staticmethod
    def load(path: str) -> ArchiveIndex | None:
        """Returns the index in a file; None if there is none, or none of this format."""
        try:
            with file_access.open_file(path) as file:
                description = json.loads(np.load(file).tobytes())
                if description["format"] != FORMAT_VERSION:
                    return None
                if file_access.is_remote(path):
                    members = np.load(file)
                else:
                    np.lib.format.read_magic(file)
                    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                    # A plain array over the mapped file: np.memmap itself makes every access several times as slow.
                    members = np.memmap(file, dtype=dtype, mode="r", offset=file.tell(), shape=shape).view(np.ndarray)
                if members.dtype != MEMBER:
                    return None
            return ArchiveIndex(members, description["archives"])
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None


def make_members(records: Iterable[tuple[int, ...]]) -> Members:
    """Returns MEMBER[n] of n tuples with the fields in order."""
    return np.fromiter(records, dtype=MEMBER)
