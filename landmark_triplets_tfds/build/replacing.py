"""The version that a build replaces is kept until the new one is complete.

TFDS deletes it before the build begins. So it is first renamed, to a name by which TFDS does not find it; and back if
the build fails or, where the process was killed, when the next one begins. A bucket has no folders that could be
renamed at once: there, all is as TFDS does it.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib

from etils import epath

from landmark_triplets_tfds.build.lock import remove
from landmark_triplets_tfds.common.file_access import is_remote
from landmark_triplets_tfds.common.progress import say


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
