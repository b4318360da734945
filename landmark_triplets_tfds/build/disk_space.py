"""Disks that are full, whichever step of a build comes upon it: what is full, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import os
import shutil
import sys
import tempfile

from etils import epath

from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.errors import LandmarkTripletsError, NoSpaceError

# Less than this much that is free is none: writers write more at once.
_NOTHING_BYTES = 1 << 20


@contextlib.contextmanager
def no_space_is_explained(name: str, data_dir: epath.Path, *, replaces: bool) -> Iterator[None]:
    """Turns errors that a full disk causes into one that says what is full; errors of other kinds stay what they are.

    Args:
      name: of the dataset.
      data_dir: the folder of all datasets.
      replaces: whether another version is kept until this one is complete.

    Raises:
      NoSpaceError: if a disk, its inodes, a quota or a limit of file sizes is used up.
    """
    try:
        yield
    except LandmarkTripletsError:
        raise  # it says itself what is wrong
    except Exception as error:
        found = _find_no_space(error)
        if found is None:
            raise
        number = errno.EFBIG if found.errno == errno.EFBIG else errno.ENOSPC
        place = _find_full(found, data_dir)
        what, advice = _describe(found, place)
        if place == os.fspath(data_dir) and number == errno.ENOSPC:
            advice = (
                "The dataset and, while it is built, its thumbnails need room there; free some, or use another"
                f" --data_dir{'. The version to be replaced, too, is kept until then' if replaces else ''}"
            )
        raise NoSpaceError(
            number,
            f"{what} while building {name}. Nothing was published and the unfinished files are removed. {advice}",
            place,
        ) from error


def _find_no_space(error: BaseException | None) -> OSError | None:
    """Returns the error of the operating system, of this one and those it was raised from, that says so.

    TFDS wraps errors of its writers in others, and TensorFlow has a type of its own for those of its files.
    """
    tensorflow = sys.modules.get("tensorflow")  # where it is not imported, it has raised nothing
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        if tensorflow and isinstance(error, tensorflow.errors.ResourceExhaustedError):
            return OSError(errno.ENOSPC, str(error))
        error = error.__cause__ or error.__context__
    return None


def _find_full(error: OSError, data_dir: epath.Path) -> str:
    """Returns the folder whose disk is full: most errors do not name a file, and temporary files have a disk too."""
    try:
        temporary = tempfile.gettempdir()
    except FileNotFoundError:  # not even an empty file can be written there
        temporary = os.environ.get("TMPDIR", os.curdir)
    if isinstance(error.filename, str) and error.filename.startswith(temporary + os.sep):
        in_data = error.filename.startswith(os.fspath(data_dir))
        return os.fspath(data_dir) if in_data else temporary
    places = [temporary] if is_remote(str(data_dir)) else [os.fspath(data_dir), temporary]
    for place in places:
        with contextlib.suppress(OSError):
            if shutil.disk_usage(place).free < _NOTHING_BYTES or _lacks_inodes(place):
                return place
    return places[0]


def _lacks_inodes(place: str) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    status = os.statvfs(place)
    return status.f_files > 0 and status.f_favail == 0  # some file systems count none


def _describe(error: OSError, place: str) -> tuple[str, str]:
    """Returns what is used up, and what to do where it is not the room for datasets."""
    if error.errno == errno.EFBIG:
        return "A file became too large", (
            "The file system, or a limit of this process (ulimit -f), allows no larger ones; more shards are smaller"
            " ones (--num_shards)"
        )
    advice = "It holds temporary files; free some room there, or set TMPDIR to another folder"
    if error.errno == errno.EDQUOT:
        return "The disk quota is used up", advice
    with contextlib.suppress(OSError):
        if _lacks_inodes(place):
            return "No room for more files (inodes) is left", advice
    return "No space left", advice
