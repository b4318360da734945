"""Made-up tables and images that several test modules share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import io
import signal
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from landmark_triplets_tfds.landmarks import LandmarkTable


def landmark_table(landmark_ids: Sequence[int], image_ids: Sequence[int] | None = None) -> LandmarkTable:
    """Makes a table; by default the image ids are scrambled row numbers, so that no order is implied."""
    if image_ids is None:
        image_ids = [(row + 1) * 0x9E3779B97F4A7C15 % 2**64 for row in range(len(landmark_ids))]
    return LandmarkTable(np.array(image_ids, dtype=np.uint64), np.array(landmark_ids, dtype=np.int64))


def smooth_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Makes uint8[height, width, 3]: a smooth random field with a little noise, as photographs are."""
    random = np.random.RandomState(seed)  # noqa: NPY002 - its numbers are the same in every version of NumPy
    coarse = Image.fromarray(random.randint(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return np.clip(smooth + random.randint(-4, 5, (height, width, 1)), 0, 255).astype(np.uint8)


def encode_image(image: Image.Image | np.ndarray, file_format: str = "JPEG", **options: Any) -> bytes:
    """Returns the bytes of an image file that Pillow writes."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, file_format, **options)
    return buffer.getvalue()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Turns a hang into a failure."""

    def fail(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"hangs: not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
