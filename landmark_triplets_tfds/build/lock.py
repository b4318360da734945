"""One build of a version at a time, and the leftovers of dead ones.

TFDS builds in ``incomplete.<random>_<version>`` beside the version's folder, and renames that at the end. Of two builds
at a time the second would fail at the renaming, after all its work; and a build that was killed leaves its folder
behind, which only the holder of the lock knows to be dead. Where there is no lock, the build goes on all the same, and
leftovers are named, not removed.

The lock is the operating system's own, of which nothing remains when a process ends, however it ends. The package
filelock is not used: from version to version it takes a file system that refuses locks for another build, or leaves a
marker there that is waited for when its owner is long dead on another machine.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import shutil
import sys
import time

from etils import epath

from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.common.progress import say

_POLL_S = 0.2

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
    config_dir = data_path.parent
    descriptor = None
    if not is_remote(str(data_path)):  # these have no locks
        path = config_dir.parent / ".config" / f"{config_dir.name}-{data_path.name}.lock"
        try:
            descriptor = _open(path)
            _wait_for(descriptor, f"Another process is building {data_path}; waiting for it to end. It holds {path}.")
        except OSError as error:
            say(f"No lock for this build: {path} ({error}). Do not build {data_path} twice at the same time.")
            if descriptor is not None:
                os.close(descriptor)
                descriptor = None
    try:
        _clear(config_dir, data_path.name, is_alone=descriptor is not None)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # and with it the lock


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
    is_said = False
    while True:
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in _IS_HELD:
                raise
        else:
            return
        if not is_said:
            say(why)
            is_said = True
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
