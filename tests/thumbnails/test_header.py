"""What a file's header says, for files that Pillow wrote: it knows what they are."""

from __future__ import annotations

import random

import numpy as np
import pytest
import tensorflow as tf

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import header as headers
from landmark_triplets_tfds.thumbnails.header import ImageHeader, read_header
from tests.fuzz.mutations import mutate_jpeg
from tests.support.helpers import (
    JPEGS,
    PNG_SIGNATURE,
    TRAILERS,
    encode_image,
    first_scans,
    gif_of,
    png_chunk,
    png_of,
    smooth_pixels,
    time_limit,
    with_jpeg_size,
)

BASELINE, PROGRESSIVE = 0xC0, 0xC2


@pytest.mark.parametrize("kind", JPEGS)
def test_size_of_a_jpeg(kind: str) -> None:
    data = JPEGS[kind](smooth_pixels(37, 53))
    height, width, num_components = tf.io.extract_jpeg_shape(data).numpy()
    header = read_header(data)
    assert (header.height, header.width, header.num_pixels) == (height, width, height * width)
    assert header.num_components == num_components
    assert not header.oddity


@pytest.mark.parametrize("seed", range(4))
def test_the_size_of_a_jpeg_is_what_its_decoder_takes_it_for(seed: int) -> None:
    rng, num_read = random.Random(seed), 0
    for kind in list(JPEGS) * 10:
        data = mutate_jpeg(JPEGS[kind](smooth_pixels(37, 53)), rng)
        if not data.startswith(b"\xff\xd8\xff"):  # the decoder looks at that
            continue
        try:
            expected = tf.io.extract_jpeg_shape(data).numpy().tolist()
        except tf.errors.InvalidArgumentError:
            continue
        header = read_header(data)
        assert [header.height, header.width, header.num_components] == expected
        num_read += 1
    assert num_read > 50


@pytest.mark.parametrize(
    ("options", "frame_marker", "num_scans"),
    [({}, BASELINE, 1), ({"progressive": True}, PROGRESSIVE, 10), ({"restart_marker_blocks": 1}, BASELINE, 1)],
)
def test_process_of_a_jpeg(options: dict[str, object], frame_marker: int, num_scans: int) -> None:
    header = read_header(encode_image(smooth_pixels(20, 30), **options))
    assert (header.num_components, header.frame_marker, header.num_scans) == (3, frame_marker, num_scans)
    assert read_header(encode_image(smooth_pixels(20, 30)[..., 0], **options)).num_components == 1


@pytest.mark.parametrize("num_scans", [1, 5, 9])
def test_scans_are_counted(num_scans: int) -> None:
    data = first_scans(encode_image(smooth_pixels(37, 53), progressive=True), num_scans)
    assert read_header(data).num_scans == num_scans


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize(("options", "num_scans"), [({}, 1), ({"progressive": True}, 10)])
def test_scans_after_the_end_do_not_count(options: dict[str, object], num_scans: int, trailer: str) -> None:
    data = encode_image(smooth_pixels(37, 53), **options)
    assert read_header(data + TRAILERS[trailer]).num_scans == num_scans


def test_scans_of_single_components_count_in_a_sequential_jpeg_too() -> None:
    """libjpeg goes over the picture for each, however often it has seen the component."""
    data = encode_image(smooth_pixels(37, 53))
    at = data.index(b"\xff\xda")
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0\x55\xff\0\xff\xd3"
    assert read_header(data[:at] + scan * 50 + b"\xff\xd9" + scan).num_scans == 50


def test_a_jpeg_is_believed() -> None:
    """It is for others to say that this is too much."""
    assert read_header(with_jpeg_size(encode_image(smooth_pixels(8, 8)), 60_000, 50_000)).num_pixels == 3 * 10**9


def test_other_kinds() -> None:
    assert read_header(encode_image(smooth_pixels(20, 30), "PNG")) == ImageHeader("PNG", 600, 20, 30)
    assert read_header(png_of(2**32 - 1, 1)) == ImageHeader("PNG", 2**32 - 1, 2**32 - 1, 1)
    assert read_header(encode_image(np.zeros((20, 30), np.uint8), "GIF")) == ImageHeader("GIF", 600)


@pytest.mark.parametrize("before", [[b""], [b"\0" * 8], [bytes(range(64))], [b""] * 3000])
@pytest.mark.parametrize("name", [b"abCd", b"tEXt", b"iHDR"])
def test_chunks_before_the_header_of_a_png(name: bytes, before: list[bytes]) -> None:
    data = png_of(60, 70)
    chunks = b"".join(png_chunk(name, contents) for contents in before)
    assert read_header(PNG_SIGNATURE + chunks + data[8:]) == ImageHeader("PNG", 4200, 60, 70)


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (encode_image(smooth_pixels(8, 8))[:20], b"\xff\xfe\0\2"),
        (encode_image(smooth_pixels(8, 8), progressive=True)[:-2], b"\xff\xfe\0\2"),
        (PNG_SIGNATURE, png_chunk(b"abCd", b"")),
        (gif_of((1, 1), [])[:-1], b"!\xfe\0"),
        (gif_of((1, 1), [])[:-1] + b"!\xfe", b"\1!"),
    ],
    ids=["JPEG", "progressive JPEG", "PNG", "GIF", "block of a GIF"],
)
def test_a_file_of_millions_of_parts_is_not_walked_to_its_end(start: bytes, part: bytes) -> None:
    with time_limit(20), pytest.raises(UnreadableImageError, match="of over 1,000,000 parts"):
        read_header(start + part * (headers._MAX_PARTS + 2))


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
        (b"\x89PNG", UnreadableImageError.NOT_AN_IMAGE, "starts with"),
        (b"\xff\xd8", UnreadableImageError.NOT_AN_IMAGE, "starts with"),
        (encode_image(smooth_pixels(8, 8), "BMP"), UnreadableImageError.UNSUPPORTED, "BMP"),
        (encode_image(smooth_pixels(8, 8), "WEBP"), UnreadableImageError.UNSUPPORTED, "WebP"),
        (encode_image(smooth_pixels(8, 8), "TIFF"), UnreadableImageError.UNSUPPORTED, "TIFF"),
        (encode_image(smooth_pixels(8, 8), "JPEG2000"), UnreadableImageError.UNSUPPORTED, "JPEG 2000"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", UnreadableImageError.UNSUPPORTED, "AVIF"),
        (b"\0\0\0\x0aftypheic\0\0\0\0mif1heic", UnreadableImageError.UNSUPPORTED, "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", UnreadableImageError.UNSUPPORTED, "video"),
        (b"MM\0*\0\0\0\x08", UnreadableImageError.UNSUPPORTED, "TIFF"),
        (b"\xff\x0a\xfa\x7f", UnreadableImageError.UNSUPPORTED, "JPEG XL"),
        (b"\xff\x4f\xff\x51\0\x2f", UnreadableImageError.UNSUPPORTED, "JPEG 2000"),
        (b"%PDF-1.7", UnreadableImageError.UNSUPPORTED, "PDF"),
        (b"<?xml version='1.0'?>\n<svg xmlns=''/>", UnreadableImageError.UNSUPPORTED, "SVG"),
        (b"BMW", UnreadableImageError.NOT_AN_IMAGE, "starts with b'BMW'"),
    ],
)
def test_what_is_no_image(data: bytes, reason: str, detail: str) -> None:
    with pytest.raises(UnreadableImageError) as error:
        read_header(data)
    assert error.value.reason == reason
    assert error.value.detail.startswith(detail)
