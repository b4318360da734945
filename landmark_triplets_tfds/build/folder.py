"""The folder that datasets are built into: one build of a version at a time, what dead ones left, and full disks.

TFDS builds in ``incomplete.<random>_<version>`` beside the version's folder, and renames that at the end. Of two builds
at a time the second would fail at the renaming, after all its work; and a build that was killed leaves its folder
behind, which only the holder of the lock knows to be dead. Where there is no lock, the build goes on all the same, and
leftovers are named, not removed.

The lock is the operating system's own, of which nothing remains when a process ends, however it ends. The package
filelock is not used: from version to version it takes a file system that refuses locks for another build, or leaves a
marker there that is waited for when its owner is long dead on another machine.

A version that is to be replaced is deleted by TFDS before the build begins. So it is first renamed, to a name by which
TFDS does not find it; and back if the build fails or, where the process was killed, when the next one begins. A bucket
has no folders that could be renamed at once: there, all is as TFDS does it.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import itertools
import os
import pathlib
import shutil
import sys
import tempfile
import time

from etils import epath

from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.common.progress import say
from landmark_triplets_tfds.errors import LandmarkTripletsError, NoSpaceError

_POLL_S = 0.2

# Less than this much that is free is none: writers write more at once.
_NOTHING_BYTES = 1 << 20

if sys.platform == "win32":
    import msvcrt

    _IS_HELD = (errno.EACCES, errno.EDEADLK)

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    _IS_HELD = (errno.EWOULDBLOCK, errno.EAGAIN)

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def build_lock(data_path: epath.Path) -> Iterator[None]:
    """Holds the lock of one version of a dataset, and removes what dead builds of it left.

    The lock is of a file in TFDS's own folder for such things, ``<data_dir>/<dataset>/.config``.

    Args:
      data_path: ``<data_dir>/<dataset>/<config>/<version>``.
    """
    config_dir, is_alone = data_path.parent, False
    with contextlib.ExitStack() as stack:
        if not is_remote(str(data_path)):  # these have no locks
            path = config_dir.parent / ".config" / f"{config_dir.name}-{data_path.name}.lock"
            try:
                descriptor = _open(path)
                stack.callback(os.close, descriptor)  # and with it the lock
                _wait_for(
                    descriptor, f"Another process is building {data_path}; waiting for it to end. It holds {path}."
                )
                is_alone = True
            except OSError as error:
                say(f"No lock for this build: {path} ({error}). Do not build {data_path} twice at the same time.")
        _clear(config_dir, data_path.name, is_alone=is_alone)
        yield


def _open(path: epath.Path) -> int:
    """Opens a file to lock; of another user's, or on a disk that is read only, reading is enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        return os.open(path, os.O_RDONLY)


def _wait_for(descriptor: int, why: str) -> None:
    """Locks an open file, and says so if another process has to end first.

    Raises:
      OSError: if it cannot be locked: network file systems refuse it with errors of many kinds.
    """
    for attempt in itertools.count():
        try:
            _lock(descriptor)
            return
        except OSError as error:
            if error.errno not in _IS_HELD:
                raise
        if attempt == 0:
            say(why)
        time.sleep(_POLL_S)


def _clear(config_dir: epath.Path, version: str, *, is_alone: bool) -> None:
    """Removes the folders of builds that are dead because this one is alone, or names what may be such a folder."""
    if not config_dir.is_dir():
        return
    for path in config_dir.iterdir():
        if not (path.name.startswith("incomplete.") and path.name.endswith(f"_{version}")):
            continue
        if not is_alone:
            say(f"{path} is of another build that is running or was killed; delete it if none is running.")
            continue
        say(f"Removing {path}, left by a build that was killed.")
        try:
            remove(pathlib.Path(path))
        except OSError as error:
            say(f"It could not be removed ({error}).")


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()  # of a link, what it points to is not ours


# --- The version that is replaced


@contextlib.contextmanager
def kept_until_replaced(data_path: epath.Path) -> Iterator[None]:
    """Keeps the version that is there, if the block fails, and removes it when the block has put another in its place.

    Args:
      data_path: ``<data_dir>/<dataset>/<config>/<version>``.
    """
    if not is_remote(str(data_path)) and data_path.exists():
        pathlib.Path(data_path).rename(_kept(data_path))
    try:
        yield
    finally:
        settle_replaced(data_path)


def settle_replaced(data_path: epath.Path) -> None:
    """Puts a version that was kept back, or removes it if another is in its place by now."""
    if is_remote(str(data_path)) or not (kept := _kept(data_path)).exists():
        return
    if not data_path.exists():
        try:
            kept.rename(data_path)
            say(f"{data_path} is again what it was before it was to be replaced.")
        except OSError as error:
            say(f"What was to be replaced is in {kept}; rename it to {data_path.name} ({error}).")
        return
    leftover = kept.with_name(f"incomplete.{kept.name}")  # if this is cut off, the next build removes the rest
    try:
        kept.rename(leftover)
        remove(leftover)
    except OSError as error:
        say(f"What was replaced, in {leftover}, could not be removed ({error}).")


def _kept(data_path: epath.Path) -> pathlib.Path:
    return pathlib.Path(data_path).with_name(f"replaced_{data_path.name}")


# --- Full disks


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
