"""TensorFlow's image operations, imported late: the import takes seconds, and most files do without."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import os
import sys
import threading
from typing import Any

from landmark_triplets_tfds.errors import UnreadableImageError

_import_lock = threading.Lock()


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow, which takes seconds; without this call, the first file that needs it waits for it."""
    with _import_lock, _quiet_if_asked():
        import tensorflow

    return tensorflow


@contextlib.contextmanager
def _quiet_if_asked() -> Iterator[None]:
    """Hides what native code writes to standard error, if TF_CPP_MIN_LOG_LEVEL is 3: TensorFlow 2.21 overlooks that."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3" or "tensorflow" in sys.modules:
        yield
        return
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def run_tensorflow(operation: str, image_bytes: bytes) -> Any:
    """Returns what ``tf.io.<operation>`` makes of an image file, as a NumPy array; None if it refuses the file.

    Raises:
      UnreadableImageError: if there is too little memory.
    """
    tf = import_tensorflow()
    try:
        with tf.device("CPU"):
            return getattr(tf.io, operation)(image_bytes).numpy()
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise UnreadableImageError(UnreadableImageError.NO_MEMORY) from None
    except Exception:  # whatever it is, it is the file's: one image never ends a build
        return None
