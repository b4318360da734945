"""TensorFlow's image operations, imported late: the import takes seconds, and most files do without."""

from __future__ import annotations

import functools
from typing import Any

from landmark_triplets_tfds.errors import UnreadableImageError


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow, which takes seconds; without this call, the first file that needs it waits for it."""
    import tensorflow

    return tensorflow


def run_tensorflow(operation: str, image_bytes: bytes) -> Any:
    """Returns what ``tf.io.<operation>`` makes of an image file, as a NumPy array.

    Raises:
      UnreadableImageError: if TensorFlow refuses the file.
    """
    tf = import_tensorflow()
    try:
        with tf.device("CPU"):
            return getattr(tf.io, operation)(image_bytes).numpy()
    except tf.errors.InvalidArgumentError as error:
        truncated = image_bytes.startswith(b"\xff\xd8") and b"\xff\xd9" not in image_bytes[-64:]
        what = "the end of the JPEG is missing" if truncated else str(error.message).split(" [Op:")[0]
        raise UnreadableImageError(UnreadableImageError.DAMAGED, what) from None
