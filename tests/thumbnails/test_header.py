"""What a file's header says, for files that Pillow wrote: it knows what they are."""

from __future__ import annotations

import numpy as np
import pytest

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails.header import ImageHeader, read_header
from tests.support.helpers import JPEGS, encode_image, first_scans, gif_of, png_of, smooth_pixels, with_jpeg_size

BASELINE, PROGRESSIVE = 0xC0, 0xC2


@pytest.mark.parametrize("kind", JPEGS)
def test_size_of_a_jpeg(kind: str) -> None:
    header = read_header(JPEGS[kind](smooth_pixels(37, 53)))
    assert (header.height, header.width, header.num_pixels) == (37, 53, 37 * 53)


@pytest.mark.parametrize(
    ("options", "colorspace", "frame_marker"),
    [({}, "YCbCr", BASELINE), ({"progressive": True}, "YCbCr", PROGRESSIVE), ({"quality": 10}, "YCbCr", BASELINE)],
)
def test_process_of_a_jpeg(options: dict[str, object], colorspace: str, frame_marker: int) -> None:
    header = read_header(encode_image(smooth_pixels(20, 30), **options))
    assert (header.colorspace, header.frame_marker) == (colorspace, frame_marker)
    assert header.num_scans == (10 if "progressive" in options else 1)
    assert read_header(encode_image(smooth_pixels(20, 30)[..., 0], **options)).colorspace == "Gray"


@pytest.mark.parametrize("num_scans", [1, 5, 9])
def test_scans_are_counted(num_scans: int) -> None:
    data = first_scans(encode_image(smooth_pixels(37, 53), progressive=True), num_scans)
    assert read_header(data).num_scans == num_scans


def test_a_jpeg_is_believed() -> None:
    """It is for others to say that this is too much."""
    assert read_header(with_jpeg_size(encode_image(smooth_pixels(8, 8)), 60_000, 50_000)).num_pixels == 3 * 10**9


def test_other_kinds() -> None:
    assert read_header(encode_image(smooth_pixels(20, 30), "PNG")) == ImageHeader(600, 20, 30)
    assert read_header(png_of(2**32 - 1, 1)) == ImageHeader(2**32 - 1, 2**32 - 1, 1)
    assert read_header(encode_image(np.zeros((20, 30), np.uint8), "GIF")) == ImageHeader(600)


@pytest.mark.parametrize(
    ("canvas", "frames", "num_pixels"),
    [((5, 7), [(5, 7)], 35), ((5, 7), [(1, 1)] * 3, 3 * 35), ((1, 1), [(4, 4), (2, 9)], 16 + 18), ((5, 7), [], 0)],
)
def test_all_frames_of_a_gif_count(canvas: tuple[int, int], frames: list[tuple[int, int]], num_pixels: int) -> None:
    assert read_header(gif_of(canvas, frames)).num_pixels == num_pixels


@pytest.mark.parametrize("cut", [1, 3, 7, 10, 11, 12, 13, 20, 21])
def test_a_gif_that_ends_early_is_no_crash(cut: int) -> None:
    assert read_header(b"GIF8" + gif_of((5, 7), [(5, 7)])[4:][:cut]).num_pixels in (0, 35)


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", UnreadableImageError.EMPTY, ""),
        (b"<html>", UnreadableImageError.NOT_AN_IMAGE, "HTML page"),
        (b"\r\n  <!doctype html>", UnreadableImageError.NOT_AN_IMAGE, "HTML page"),
        (b"<?xml version='1.0'?><html/>", UnreadableImageError.NOT_AN_IMAGE, "HTML page"),
        (b"BM" + bytes(20), UnreadableImageError.NOT_AN_IMAGE, f"starts with {(b'BM' + bytes(10))!r}"),
        (b"\x89PNG\r\n\x1a\n", UnreadableImageError.NOT_AN_IMAGE, "starts with"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(UnreadableImageError) as error:
        read_header(data)
    assert error.value.reason == reason
    assert error.value.detail.startswith(detail)
