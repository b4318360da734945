"""Which source pixels become which thumbnail pixels: geometry and resampling on decoded arrays.

Decoding and encoding are `thumbnail`'s part.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

FITS = ("squash", "crop", "pad")

_MAX_REMAP_PX = 32_766  # OpenCV's maps are int16, and it refuses the highest number
_NO_SECOND_MAP = np.empty(0, dtype=np.int16)  # that would hold fractions of pixels

# Of a picture that is resized along one axis only; 300 MB.
_MAX_BETWEEN_PIXELS = 100_000_000

# OpenCV's own threads would compete with the build's workers, each of which has a core of its own.
cv2.setNumThreads(1)


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle in pixels: rows ``top`` to ``top + height``, columns ``left`` to ``left + width``, ends exclusive."""

    top: int
    left: int
    height: int
    width: int


@functools.lru_cache(maxsize=4096)  # photographs come in few sizes
def fit_boxes(height: int, width: int, resolution: int, fit: str) -> tuple[Box, Box]:
    """Decides which part of the source goes to which part of the square thumbnail.

    Args:
      height: of the source, px.
      width: of the source, px.
      resolution: side of the thumbnail, px.
      fit: 'squash' maps all of the source to all of the square, whatever the aspect ratio; 'crop' takes the centred
        square of the source, as ``tf.image.resize_with_crop_or_pad(image, side, side)`` does; 'pad' keeps the aspect
        ratio and leaves bars, as ``tf.image.resize_with_pad`` does.

    Returns:
      The box taken from the source and the box filled in the thumbnail. With 'pad' the latter is at least 1 px wide
      and high, where TensorFlow leaves nothing but black of sources more than ``resolution`` times as long as wide.
    """
    whole_source, whole_square = Box(0, 0, height, width), Box(0, 0, resolution, resolution)
    if fit == "squash":
        return whole_source, whole_square
    if fit == "crop":
        side = min(height, width)
        return Box((height - side) // 2, (width - side) // 2, side, side), whole_square
    # float32 and the order of operations are those of tf.image.resize_with_pad: its roundings are part of the contract.
    target = np.float32(resolution)
    ratio = max(np.float32(width) / target, np.float32(height) / target)
    fitted_height, fitted_width = np.float32(height) / ratio, np.float32(width) / ratio
    filled = Box(
        top=max(0, int(np.floor((target - fitted_height) / np.float32(2)))),
        left=max(0, int(np.floor((target - fitted_width) / np.float32(2)))),
        height=max(1, int(np.floor(fitted_height))),
        width=max(1, int(np.floor(fitted_width))),
    )
    return whole_source, filled


def place(part: Pixels, box: Box, resolution: int) -> Pixels:
    """Returns the square thumbnail with ``part`` in ``box`` and black bars (0) around it."""
    if box.height == resolution and box.width == resolution:
        return part
    square = np.zeros((resolution, resolution, part.shape[2]), dtype=np.uint8)
    square[box.top : box.top + box.height, box.left : box.left + box.width] = part
    return square


def resize_nearest(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    """Resizes a box of the source by nearest neighbour.

    Gives the pixels of ``tf.image.resize(pixels[box], (height, width), method='nearest')``.

    Args:
      pixels: uint8[source_height, source_width, channels].
      box: the part to take.
      height: of the result, px.
      width: of the result, px.

    Returns:
      uint8[height, width, channels].
    """
    if max(pixels.shape[:2]) > _MAX_REMAP_PX:
        rows, columns = _nearest_indices(box.top, box.height, height), _nearest_indices(box.left, box.width, width)
        if height * pixels.shape[1] > pixels.shape[0] * width:  # less lies in between the other way round
            return pixels.take(columns, axis=1).take(rows, axis=0)
        return pixels.take(rows, axis=0).take(columns, axis=1)
    # The same indexing by OpenCV takes half the time, and other threads may run meanwhile.
    resized: npt.NDArray[Any] = cv2.remap(pixels, _nearest_map(box, height, width), _NO_SECOND_MAP, cv2.INTER_NEAREST)
    return resized.reshape(height, width, pixels.shape[2])


@functools.lru_cache(maxsize=8)  # photographs come in few sizes, and a map of 2048 px takes 16 MiB
def _nearest_map(box: Box, height: int, width: int) -> npt.NDArray[np.int16]:
    """Returns int16[height, width, 2]: x and y of the source pixel of each output pixel."""
    pairs = np.empty((height, width, 2), dtype=np.int16)
    pairs[..., 0] = _nearest_indices(box.left, box.width, width)
    pairs[..., 1] = _nearest_indices(box.top, box.height, height)[:, None]
    return pairs


@functools.lru_cache(maxsize=4096)
def _nearest_indices(start: int, size_in: int, size_out: int) -> npt.NDArray[np.int64]:
    """Returns int64[size_out]: the source index of each output index.

    TensorFlow reads index ``floor((i + 0.5) * float32(size_in / size_out))``, clipped to the source (half-pixel
    centers; tensorflow/core/kernels/image/resize_nearest_neighbor_op.cc).
    """
    scale = np.float32(size_in) / np.float32(size_out)
    centers = (np.arange(size_out, dtype=np.float32) + np.float32(0.5)) * scale
    indices: npt.NDArray[np.int64] = start + np.minimum(np.floor(centers).astype(np.int64), size_in - 1)
    indices.setflags(write=False)
    return indices


def resize_area(pixels: Pixels, box: Box, height: int, width: int) -> Pixels:
    """Resizes a box of the source by averaging the area that each output pixel covers, which does not alias.

    Gives the pixels of ``tf.image.resize(pixels[box], (height, width), method='area')`` rounded to integers, within
    1 level. OpenCV computes them ten times as fast. Takes and returns what `resize_nearest` does.
    """
    part: npt.NDArray[Any] = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    if (box.height < height) != (box.width < width):
        # Where one axis shrinks and the other grows, OpenCV interpolates along both. One axis at a time is right: the
        # first one, unless what lies in between would take gigabytes.
        between = (box.width, height) if box.width * height <= _MAX_BETWEEN_PIXELS else (width, box.height)
        part = cv2.resize(part, between, interpolation=cv2.INTER_AREA).reshape(between[1], between[0], -1)
    resized: npt.NDArray[Any] = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    return resized.reshape(height, width, pixels.shape[2])  # OpenCV drops the axis of a single channel


def scale_box(box: Box, source_size: tuple[int, int], decoded_size: tuple[int, int]) -> Box:
    """Returns the box in a picture that was decoded at a reduced scale, rounded to its pixels, at least 1 x 1."""
    if source_size == decoded_size:
        return box
    y, x = decoded_size[0] / source_size[0], decoded_size[1] / source_size[1]
    top, left = round(box.top * y), round(box.left * x)
    bottom, right = round((box.top + box.height) * y), round((box.left + box.width) * x)
    return Box(top, left, max(1, bottom - top), max(1, right - left))
