"""Which images a tar holds, and where: Python's tarfile walks it, within bounds.

tarfile takes a damaged header in the middle for the end, reads as much as a header claims, and may go backwards; the
checks around it turn each of these into an error.
"""

from __future__ import annotations

import struct
import tarfile
from typing import IO

from landmark_triplets_tfds import file_access
from landmark_triplets_tfds.errors import ArchiveError
from landmark_triplets_tfds.image_sources.layout import IMAGES_NAME, parse_tar_name

_END_MARK = bytes(tarfile.BLOCKSIZE)

# Long names and extended headers are data to tarfile; those of the published tars, if any, have a few hundred bytes.
_MAX_HEADER_BYTES = 1 << 20

# What tarfile raises for headers that make no sense.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, EOFError, KeyError, IndexError, struct.error, RecursionError)


def list_images(path: str, size: int, folder: str = IMAGES_NAME) -> list[tuple[int, int, int]]:
    """Returns (id, where its data starts, size in bytes) of each image in a tar, in its order.

    Args:
      path: of the tar, local or remote.
      size: its size in bytes.
      folder: which one it belongs to, 'train', 'index' or 'test': names of members may begin with it.

    Raises:
      ArchiveError: if it is damaged, cut off or not a plain tar.
      OSError: if it cannot be read.
    """
    images: list[tuple[int, int, int]] = []
    position = -1
    with file_access.open_file(path) as file:
        try:
            with tarfile.open(fileobj=_BoundedReads(file), mode="r:") as tar:  # type: ignore[call-overload]
                is_empty = tar.firstmember is None  # in Python 3.10, next() fails on an empty tar
                while not is_empty and (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile would keep them all
                    if tar.offset <= position:
                        raise ArchiveError(f"{path} is damaged at byte {position:,}.")
                    position = tar.offset
                    is_file = member.isreg() and member.sparse is None
                    image_id = parse_tar_name(member.name, folder) if is_file else None
                    if image_id is not None:
                        images.append((image_id, member.offset_data, member.size))
                    if member.offset_data + (member.size if member.isreg() else 0) > size:
                        raise ArchiveError(f"{path} is cut off: it ends, after {size:,} bytes, within {member.name!r}.")
                end = max(tar.offset, 0)
        except _DAMAGE as error:
            if isinstance(error, ArchiveError):
                raise
            what = "is no tar, is compressed or" if position < 0 else "is"
            raise ArchiveError(f"{path} {what} damaged after byte {max(position, 0):,} ({error}).") from None
        # A missing end is an end that is cut off; anything else here is a header that tarfile could not read.
        file.seek(end)
        last = file.read(tarfile.BLOCKSIZE)
    if last != _END_MARK:
        what = "cut off" if len(last) < tarfile.BLOCKSIZE else "damaged"
        raise ArchiveError(f"{path} is {what} at byte {end:,}: there is neither a member nor the end mark of a tar.")
    return images


class _BoundedReads:
    """A file that refuses to be read in pieces larger than headers are."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, num_bytes: int) -> bytes:
        if not 0 <= num_bytes <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {num_bytes:,} bytes")
        return self._file.read(num_bytes)
