"""One build of a version at a time, and the leftovers of dead ones.

Of two builds at a time the second would fail at the renaming, after all its work.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib

from etils import epath
import filelock

from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.common.progress import say

_WAIT_S = 2.0  # before it is said that another build is waited for


@contextlib.contextmanager
def build_lock(data_path: epath.Path) -> Iterator[None]:
    """Holds the lock of one version of a dataset, and removes what dead builds of it left.

    The lock is a file in TFDS's own folder for such things, ``<data_dir>/<dataset>/.config``. The operating system
    releases it when the process ends, however it ends. Remote file systems have no such locks: there, leftovers are
    only named.

    Args:
      data_path: ``<data_dir>/<dataset>/<config>/<version>``.
    """
    config_dir = data_path.parent
    leftovers = f"incomplete.*_{data_path.name}"
    if is_remote(str(data_path)):
        if config_dir.exists():
            for folder in config_dir.glob(leftovers):
                say(f"{folder} is of another build that is running or was killed; delete it if none is running.")
        yield
        return
    path = config_dir.parent / ".config" / f"{config_dir.name}-{data_path.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=_WAIT_S)
    except filelock.Timeout:
        say(f"Another process is building {data_path}; waiting for it to end.")
        lock.acquire()
    try:
        if config_dir.exists():
            for folder in config_dir.glob(leftovers):
                say(f"Removing {folder}, left by a build that was killed.")
                folder.rmtree()
        yield
    finally:
        lock.release()
