"""Reading files and parts of files, local or remote, from many threads and processes; and where files are kept.

Every read opens the file anew. A local open and close cost a few microseconds, and so nothing is shared: no position in
a file and no lock between threads, no descriptor between processes, nothing to close.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import mmap
import os
import pathlib
import time
from typing import IO
import uuid

from etils import epath
import platformdirs

from landmark_triplets_tfds.errors import UnreadableImageError

# The largest image file that is read: with it a thread's memory is bounded, whatever an archive claims. The photographs
# of the public Google Landmarks Dataset v2 have 0.1 MB on average.
MAX_FILE_BYTES = 256 << 20

# In place of the name of a cache folder: nothing is kept.
OFF = "off"

# What lies in a file's place when fetching it went wrong in one of the usual ways.
HTML_PAGE = "HTML page"
LFS_POINTER = "Git LFS pointer"
ADVICE = {
    HTML_PAGE: "A server's error or login page was saved in its place. Fetch the file again.",
    LFS_POINTER: "It only says which file should be here. To get that: git lfs pull",
}

Content = bytes | mmap.mmap

# A read that fails for another reason than a missing file (a network mount that is busy, say) is tried again.
_NUM_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 0.5


def is_remote(path: str) -> bool:
    """Returns whether epath has to open the file: ``gs://`` and the like."""
    return "://" in path


def open_file(path: str, buffering: int = -1) -> IO[bytes]:
    """Opens a file to read and seek in it."""
    if is_remote(path):
        file: IO[bytes] = epath.Path(path).open("rb")
        return file
    return open(path, "rb", buffering=buffering)


def stat_file(path: str) -> tuple[int, int]:
    """Returns size in bytes and modification time in ns; raises OSError."""
    if is_remote(path):
        remote = epath.Path(path).stat()
        return int(remote.length), int(remote.mtime) * 1_000_000_000
    local = os.stat(path)  # noqa: PTH116
    return local.st_size, local.st_mtime_ns


def map_file(path: str) -> Content:
    """Returns the bytes of a file, mapped if it is a local one, so that they need no memory; raises OSError."""
    with open_file(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, AttributeError):  # it is empty, or no local file
            return file.read()


@contextlib.contextmanager
def replace_file(path: epath.Path) -> Iterator[IO[bytes]]:
    """Gives a file to write, local or remote, which is at ``path`` once the block ends, or not at all if it fails."""
    part = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_image(path: str, offset: int = 0, length: int | None = None) -> bytes:
    """Returns the content of an image file, or of a part of an archive.

    Args:
      path: of the file.
      offset: where the part starts.
      length: of the part, of which there is less where the file ends before; None: the whole file.

    Raises:
      UnreadableImageError: if the file is missing, larger than `MAX_FILE_BYTES` as a whole, or cannot be read after
        several attempts.
    """
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            return _read(path, offset, length)
        except (FileNotFoundError, NotADirectoryError):
            raise UnreadableImageError(UnreadableImageError.MISSING, path) from None
        except (IsADirectoryError, PermissionError) as error:
            raise UnreadableImageError(UnreadableImageError.NO_ACCESS, str(error)) from None
        except OSError as error:
            if attempt == _NUM_ATTEMPTS:
                raise UnreadableImageError(UnreadableImageError.NO_ACCESS, str(error)) from None
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS * attempt)
    raise AssertionError("unreachable")


def refuse_large(num_bytes: int) -> None:
    """Raises UnreadableImageError for a file that is too large to be an image."""
    if num_bytes > MAX_FILE_BYTES:
        raise UnreadableImageError(
            UnreadableImageError.FILE_TOO_LARGE,
            f"{num_bytes / 1e6:,.0f} MB, at most {MAX_FILE_BYTES / 1e6:,.0f} are read",
        )


def _read(path: str, offset: int, length: int | None) -> bytes:
    with open_file(path, buffering=0) as file:
        if length is None:
            if not is_remote(path):
                refuse_large(os.fstat(file.fileno()).st_size)
                return file.read()
            content = bytes(file.read(MAX_FILE_BYTES + 1))  # asking for the size first would be one more request
            refuse_large(len(content))
            return content
        file.seek(offset)
        content = bytes(file.read(length))
        while len(content) < length and (more := file.read(length - len(content))):  # an unbuffered read may be short
            content += more
        return content


def cache_folder(folder: str | None) -> pathlib.Path:
    """Returns the folder named, or the user's cache folder for None: for what can be made again."""
    return pathlib.Path(folder).expanduser() if folder else platformdirs.user_cache_path("landmark_triplets_tfds")


def stand_in(content: bytes) -> str | None:
    """Returns `HTML_PAGE` or `LFS_POINTER` if that is what a file begins with; None otherwise."""
    if content.startswith(b"version https://git-lfs"):
        return LFS_POINTER
    return HTML_PAGE if content[:64].lstrip()[:1] == b"<" else None
