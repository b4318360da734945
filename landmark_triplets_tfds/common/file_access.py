"""Reading files and parts of files, local or remote, from many threads and processes; and where files are kept.

What users name is a regular file, or an error that names it: opening a pipe waits for ever, and a device such as
/dev/zero has no end, while its size is said to be 0. So all opening goes through one check, and how much is read is
bounded by what was read; a size that was asked for is a hint.

Every read opens the file anew. A local open and close cost a few microseconds, and so nothing is shared: no position in
a file and no lock between threads, no descriptor between processes, nothing to close.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
import contextlib
import errno
import mmap
import os
import pathlib
import stat
import time
from typing import IO, TypeVar
import uuid

from etils import epath
import platformdirs

from landmark_triplets_tfds.errors import InputFileError, UnreadableImageError

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
Result = TypeVar("Result")

_CHUNK_BYTES = 1 << 20

# A read that fails for another reason than a missing file (a network mount that is busy, say) is tried again.
_NUM_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 0.5


def is_remote(path: str) -> bool:
    """Returns whether epath has to open the file: ``gs://`` and the like."""
    return "://" in path


def open_file(path: str, buffering: int = -1) -> IO[bytes]:
    """Opens a regular file to read and seek in it; raises OSError, for a pipe or a device an `InputFileError`."""
    if is_remote(path):
        file: IO[bytes] = epath.Path(path).open("rb")
        return file
    _stat_regular(path)
    return open(path, "rb", buffering=buffering)


def stat_file(path: str) -> tuple[int, int]:
    """Returns size in bytes and modification time in ns of a regular file; raises OSError as `open_file` does."""
    if is_remote(path):
        remote = epath.Path(path).stat()
        return int(remote.length), int(remote.mtime) * 1_000_000_000
    local = _stat_regular(path)
    return local.st_size, local.st_mtime_ns


def read_file(path: str, max_bytes: int) -> bytes:
    """Returns the content of a regular file; raises OSError as `open_file` does, and if it has more than ``max_bytes``.

    Images are read by `read_image`.
    """

    def refuse(num_bytes: int) -> None:
        if num_bytes > max_bytes:
            raise InputFileError(f"{path} is larger than {max_bytes / 1e6:,.0f} MB, the most that is read of it.")

    with open_file(path, buffering=0) as file:
        return _read_whole(file, path, max_bytes, refuse)


def map_file(path: str) -> Content:
    """Returns the bytes of a file, mapped if it is a local one, so that they need no memory; raises OSError."""
    with open_file(path) as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, AttributeError):  # it is empty, or no local file
            return file.read()


@contextlib.contextmanager
def replace_file(path: epath.Path) -> Iterator[IO[bytes]]:
    """Gives a file to write, local or remote, which is at ``path`` once the block ends, or not at all if it fails.

    After a power cut, too, there is the old file or the whole new one.
    """
    part = path.parent / f".{path.name}.{uuid.uuid4().hex}.part"
    try:
        with part.open("wb") as file:
            yield file
            if not is_remote(os.fspath(path)):
                _sync(file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sync(file: IO[bytes]) -> None:
    """Waits until what was written is on the disk."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # a file system that cannot do that
            raise


def decode_text(content: bytes, errors: str = "strict") -> str:
    """Returns text in UTF-8 or, as some of Windows' tools write it, UTF-16; raises UnicodeDecodeError."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig", errors)


def read_image(path: str, offset: int = 0, length: int | None = None, stamp: tuple[int, int] | None = None) -> bytes:
    """Returns the content of an image file, or of a part of an archive.

    Args:
      path: of the file.
      offset: where the part starts.
      length: of the part, of which there is less where the file ends before; None: the whole file.
      stamp: what `stat_file` must give of the file, where it is a local one; None: anything.

    Raises:
      UnreadableImageError: if the file is missing, another one than the stamp says, larger than `MAX_FILE_BYTES` as a
        whole, or cannot be read after several attempts.
    """
    return _try(path, lambda: _read(path, offset, length, stamp))


def read_local_image(path: str) -> tuple[bytes, tuple[int, int]]:
    """Returns the content of an image file of this machine, and what `stat_file` gave of it before; raises the same."""

    def read() -> tuple[bytes, tuple[int, int]]:
        with open_file(path, buffering=0) as file:
            found = os.fstat(file.fileno())
            return _read_whole(file, path, MAX_FILE_BYTES, refuse_large), (found.st_size, found.st_mtime_ns)

    return _try(path, read)


def _try(path: str, read: Callable[[], Result]) -> Result:
    for attempt in range(1, _NUM_ATTEMPTS + 1):
        try:
            return read()
        except (FileNotFoundError, NotADirectoryError):
            raise UnreadableImageError(UnreadableImageError.MISSING, path) from None
        except (IsADirectoryError, PermissionError, InputFileError) as error:
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


def _read(path: str, offset: int, length: int | None, stamp: tuple[int, int] | None) -> bytes:
    with open_file(path, buffering=0) as file:
        if length is None:
            return _read_whole(file, path, MAX_FILE_BYTES, refuse_large)
        file.seek(offset)
        content = _read_exactly(file, length)
        if stamp is not None and not is_remote(path):
            found = os.fstat(file.fileno())
            if (found.st_size, found.st_mtime_ns) != stamp:
                raise UnreadableImageError(UnreadableImageError.NO_ACCESS, f"{path} has changed meanwhile")
        return content


def _read_whole(file: IO[bytes], path: str, max_bytes: int, refuse: Callable[[int], None]) -> bytes:
    """Returns the content of a file that was just opened; ``refuse`` raises an error for more than ``max_bytes``."""
    size = max_bytes  # asking a remote file for its size would be one more request
    if not is_remote(path):
        size = os.fstat(file.fileno()).st_size
        refuse(size)
    content = _read_exactly(file, size + 1)
    if len(content) > size:  # it grows, or its size is not known
        content += _read_exactly(file, max_bytes - size)
        refuse(len(content))
    return content


def _read_exactly(file: IO[bytes], length: int) -> bytes:
    """Returns the next bytes of a file, of which there are less where it ends before."""
    parts = [bytes(file.read(length))]
    num_read = len(parts[0])
    while num_read < length and (more := file.read(min(length - num_read, _CHUNK_BYTES))):  # a read may be short
        parts.append(bytes(more))
        num_read += len(more)
    return b"".join(parts)


def _stat_regular(path: str) -> os.stat_result:
    # Not after opening: that would wait for a pipe's other end, and O_NONBLOCK fails where files are fetched from tape.
    found = os.stat(path)  # noqa: PTH116
    if not stat.S_ISREG(found.st_mode):
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise InputFileError(f"{path} is a pipe, a device or a socket. Expected a file: save what it gives in one.")
    return found


def cache_folder(folder: str | None) -> pathlib.Path:
    """Returns the folder named, or the user's cache folder for None: for what can be made again.

    Raises:
      OSError: if it would be in a home folder and there is none, or is not on this machine.
    """
    if folder and is_remote(folder):
        raise OSError(errno.ENOTSUP, "it has to be a folder of this machine", folder)
    try:
        path = pathlib.Path(folder).expanduser() if folder else platformdirs.user_cache_path("landmark_triplets_tfds")
    except RuntimeError as error:  # as Python says it
        raise FileNotFoundError(errno.ENOENT, str(error)) from None
    if path.parts[:1] == ("~",):  # as older versions of platformdirs say it
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", str(path))
    return path


def stand_in(content: bytes) -> str | None:
    """Returns `HTML_PAGE` or `LFS_POINTER` if that is what a file begins with; None otherwise."""
    if content.startswith(b"version https://git-lfs"):
        return LFS_POINTER
    return HTML_PAGE if content[:64].lstrip()[:1] == b"<" else None
