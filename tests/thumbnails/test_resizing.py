"""Geometry and resampling: nearest neighbours as TensorFlow takes them, areas within a level, boxes that fit."""

from __future__ import annotations

from collections.abc import Callable
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import tensorflow as tf

from landmark_triplets_tfds.thumbnails.resizing import (
    FITS,
    Box,
    fit_boxes,
    place,
    resize_area,
    resize_nearest,
    scale_box,
)
from tests.support.helpers import smooth_pixels

sides = st.integers(1, 300)


def whole(pixels: np.ndarray) -> Box:
    return Box(0, 0, *pixels.shape[:2])


@settings(max_examples=100, deadline=None)
@given(height=sides, width=sides, to_height=sides, to_width=sides, data=st.data())
def test_nearest_is_tensorflows(height: int, width: int, to_height: int, to_width: int, data: st.DataObject) -> None:
    pixels = np.arange(height * width * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    part = pixels[top:, left:]
    expected = tf.image.resize(part, (to_height, to_width), method="nearest").numpy()
    found = resize_nearest(pixels, Box(top, left, *part.shape[:2]), to_height, to_width)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("height", "width"), [(40_000, 3), (2, 33_000), (32_767, 2), (32_768, 2)])
def test_nearest_of_sources_too_long_for_opencvs_maps(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = tf.image.resize(pixels, (64, 64), method="nearest").numpy()
    np.testing.assert_array_equal(resize_nearest(pixels, whole(pixels), 64, 64), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "target"), [((64, 80), (8, 8)), ((37, 53), (36, 52)), ((20, 300), (64, 64)), ((300, 20), (65, 10))]
)
def test_area_is_tensorflows_within_a_level(size: tuple[int, int], target: tuple[int, int], channels: int) -> None:
    pixels = smooth_pixels(*size)[..., :channels]
    expected = tf.image.resize(pixels, target, method="area").numpy()
    found = resize_area(pixels, whole(pixels), *target)
    assert found.shape == (*target, channels)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(("resize", "method"), [(resize_nearest, "nearest"), (resize_area, "area")])
@pytest.mark.parametrize("size", [(1, 900_000), (900_000, 1), (3, 300_000)])
def test_long_pictures_take_no_gigabytes(
    resize: Callable[[np.ndarray, Box, int, int], np.ndarray], method: str, size: tuple[int, int]
) -> None:
    """One axis is resized before the other; in the worse order, what lies in between is hundreds of times as large."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    tracemalloc.start()
    found = resize(pixels, whole(pixels), 512, 512)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 300_000_000
    expected = tf.image.resize(pixels, (512, 512), method=method).numpy()
    assert np.abs(found - expected).max() <= (1.5 if method == "area" else 0)  # rounded for each axis


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), resolution=st.integers(8, 2048))
def test_boxes_are_within_their_pictures(height: int, width: int, resolution: int) -> None:
    for fit in FITS:
        source, filled = fit_boxes(height, width, resolution, fit)
        for box, limits in ((source, (height, width)), (filled, (resolution, resolution))):
            assert min(box.top, box.left) >= 0
            assert min(box.height, box.width) >= 1
            assert box.top + box.height <= limits[0]
            assert box.left + box.width <= limits[1]
        assert fit == "crop" or source == Box(0, 0, height, width)
        assert fit == "pad" or filled == Box(0, 0, resolution, resolution)
        assert fit != "crop" or source.height == source.width == min(height, width)
        assert fit != "pad" or max(filled.height, filled.width) >= resolution - 1  # as TensorFlow rounds


def test_bars_are_black() -> None:
    part = np.full((8, 4, 3), 200, np.uint8)
    square = place(part, Box(0, 2, 8, 4), 8)
    assert square.shape == (8, 8, 3)
    assert (square[:, 2:6] == 200).all()
    assert square.sum() == part.sum()
    assert place(square, Box(0, 0, 8, 8), 8) is square


@given(
    box=st.builds(Box, st.integers(0, 500), st.integers(0, 500), st.integers(8, 500), st.integers(8, 500)),
    factor=st.sampled_from([1, 2, 4, 8]),
)
def test_a_box_of_a_reduced_picture(box: Box, factor: int) -> None:
    """Rounding moves a box by half a decoded pixel; so does what the last row or column lacks of a whole one."""
    size = (box.top + box.height, box.left + box.width)
    decoded = (-(-size[0] // factor), -(-size[1] // factor))
    scaled = scale_box(box, size, decoded)
    assert min(scaled.height, scaled.width) >= 1
    assert abs(scaled.top * factor - box.top) <= 1.5 * factor
    assert abs(scaled.left * factor - box.left) <= 1.5 * factor
    assert (scaled.top + scaled.height, scaled.left + scaled.width) == decoded
    assert factor > 1 or scaled == box
