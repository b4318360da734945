"""Thumbnails: the bytes of the TensorFlow operations, what is refused and why, and what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import io
import itertools
import pathlib
import random
import struct
import subprocess
import sys
from unittest.mock import Mock

import cv2
import numpy as np
from PIL import Image
import pytest
import tensorflow as tf

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import resizing
from landmark_triplets_tfds.thumbnails import thumbnail as thumbnails
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail, run_tensorflow
from tests.support.helpers import (
    JPEGS,
    OTHERS,
    PNG_SIGNATURE,
    REFUSED,
    TRAILERS,
    encode_image,
    first_scans,
    gif_of,
    mutate,
    png_chunk,
    png_of,
    smooth_pixels,
    with_jpeg_size,
    with_sampling,
)

SPEC = ThumbnailSpec()


def resize(image: tf.Tensor, spec: ThumbnailSpec) -> tf.Tensor:
    if spec.fit == "pad":
        return tf.image.resize_with_pad(image, spec.resolution, spec.resolution, method=spec.resize_method)
    if spec.fit == "crop":
        side = min(image.shape[:2])
        image = tf.image.resize_with_crop_or_pad(image, side, side)
    return tf.image.resize(image, (spec.resolution, spec.resolution), method=spec.resize_method)


def reference(data: bytes, spec: ThumbnailSpec) -> bytes | None:
    """What the TensorFlow operations of the module's docstring give; None where one of them refuses."""
    try:
        image = resize(tf.io.decode_jpeg(data), spec)
        return tf.io.encode_jpeg(image, quality=spec.jpeg_quality, optimize_size=True).numpy()
    except tf.errors.InvalidArgumentError:
        return None


def thumbnail_or_none(data: bytes, spec: ThumbnailSpec) -> bytes | None:
    try:
        return make_thumbnail(data, spec)
    except UnreadableImageError:
        return None


def refusal(data: bytes, spec: ThumbnailSpec = SPEC) -> UnreadableImageError:
    with pytest.raises(UnreadableImageError) as caught:
        make_thumbnail(data, spec)
    return caught.value


FILES = JPEGS | OTHERS
SIZES = [(1, 1), (1, 300), (300, 1), (2, 3), (8, 8), (37, 53), (64, 64), (131, 200)]
TARGETS = [(8, 94), (65, 50), (128, 94), (128, 1), (200, 100)]


@pytest.mark.parametrize("kind", FILES)
def test_gives_the_bytes_of_the_tensorflow_operations(kind: str) -> None:
    for number, size in enumerate(SIZES):
        data = FILES[kind](smooth_pixels(*size, number))
        for resolution, quality in TARGETS:
            spec = ThumbnailSpec(resolution=resolution, jpeg_quality=quality)
            assert make_thumbnail(data, spec) == reference(data, spec), (size, spec)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *(("4:2:0", (1000, 4000)), ("progressive 4:4:4", (4000, 501)), ("grey", (1999, 2001))),
        *(("CMYK", (4000, 30)), ("PNG", (30, 4000))),
    ],
)
def test_gives_the_bytes_of_the_tensorflow_operations_for_large_pictures(kind: str, size: tuple[int, int]) -> None:
    data = FILES[kind](smooth_pixels(*size))
    assert make_thumbnail(data, SPEC) == reference(data, SPEC)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("num_scans", range(1, 10))
def test_gives_the_bytes_of_the_tensorflow_operations_without_the_last_scans(num_scans: int, subsampling: int) -> None:
    # libjpeg-turbo guesses what the missing scans would have refined, not alike in all versions.
    data = encode_image(smooth_pixels(37, 53), progressive=True, subsampling=subsampling)
    data = first_scans(data, num_scans)
    assert make_thumbnail(data, SPEC) == reference(data, SPEC)


_FACTORS = [0x11, 0x12, 0x21, 0x22, 0x14, 0x41, 0x13, 0x24, 0x44]


@pytest.mark.parametrize("first", _FACTORS)
def test_any_sampling_factors_give_the_bytes_of_the_tensorflow_operations(first: int) -> None:
    """Most of these files do not fit their factors; what becomes of them is TensorFlow's to say all the same."""
    data = encode_image(smooth_pixels(40, 50), subsampling=1)
    for second, third in itertools.product(_FACTORS, repeat=2):
        odd = with_sampling(data, first, second, third)
        expected = reference(odd, SPEC)
        assert thumbnail_or_none(odd, SPEC) == expected, (second, third)
        area = thumbnail_or_none(odd, ThumbnailSpec(resize_method="area"))
        assert (area is None) == (expected is None), (second, third)


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("kind", ["4:2:0", "progressive 4:2:0", "grey", "restart markers"])
def test_what_follows_the_picture_is_no_matter(kind: str, trailer: str) -> None:
    data = JPEGS[kind](smooth_pixels(600, 700))  # with the video's scans, 1,260 megapixels
    assert make_thumbnail(data + TRAILERS[trailer], SPEC) == make_thumbnail(data, SPEC) == reference(data, SPEC)


@pytest.mark.parametrize("name", [b"abCd", b"tEXt", b"CgBI", b"iHDR", b"IHDR"])
@pytest.mark.parametrize("size", [(1, 1), (60_000, 60_000)])
def test_chunks_before_the_header_of_a_png_decide_nothing(name: bytes, size: tuple[int, int]) -> None:
    first = png_chunk(name, struct.pack(">II", *size) + bytes(5))
    data = PNG_SIGNATURE + first + encode_image(smooth_pixels(60, 60), "PNG")[8:]
    for spec in (SPEC, ThumbnailSpec(resize_method="area")):
        assert (thumbnail_or_none(data, spec) is None) == (reference(data, SPEC) is None)
    assert name != b"abCd" or make_thumbnail(data, SPEC) == reference(data, SPEC)
    bomb = PNG_SIGNATURE + first + png_of(13_000, 13_000)[8:]
    assert name == b"IHDR" or refusal(bomb).reason == UnreadableImageError.TOO_LARGE


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("kind", ["4:2:0", "progressive grey", "CMYK", "PNG"])
def test_fits_as_the_tensorflow_operations_do(kind: str, fit: str) -> None:
    for size in [(1, 1), (5, 8), (64, 64), (53, 37), (131, 200), (201, 130), (600, 799)]:
        data = FILES[kind](smooth_pixels(*size))
        for resolution in (8, 65, 128):
            spec = ThumbnailSpec(resolution=resolution, fit=fit)
            assert make_thumbnail(data, spec) == reference(data, spec), (size, spec)


@pytest.mark.parametrize("kind", REFUSED)
def test_refuses_what_the_tensorflow_operations_refuse(kind: str) -> None:
    data = REFUSED[kind](smooth_pixels(64, 80))
    assert reference(data, SPEC) is None
    assert refusal(data).reason in vars(UnreadableImageError).values()
    assert refusal(data, ThumbnailSpec(resize_method="area")).reason == refusal(data).reason


@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_are_accepted_or_refused_alike(seed: int) -> None:
    rng, outcomes = random.Random(seed), Counter[bool]()
    spec, area = ThumbnailSpec(resolution=64), ThumbnailSpec(resolution=64, resize_method="area")
    for number in range(200):
        kind = rng.choice([*JPEGS, *JPEGS, *OTHERS])
        data = mutate(FILES[kind](smooth_pixels(*rng.choice(SIZES), number)), rng)
        expected = reference(data, spec)
        assert thumbnail_or_none(data, spec) == expected, (kind, number)
        assert (thumbnail_or_none(data, area) is None) == (expected is None), (kind, number)
        outcomes[expected is None] += 1
    assert min(outcomes[True], outcomes[False]) > 40


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(
    ("size", "mean_difference"),
    [
        *(((5, 5), 0.5), ((64, 64), 0.5), ((20, 300), 0.6), ((200, 131), 0.5)),
        *(((300, 257), 2), ((600, 800), 2), ((1024, 1100), 2)),  # decoded at 1/2, 1/4 and 1/8 of their sizes
    ],
)
def test_area_is_close_to_averaging_the_whole_picture(size: tuple[int, int], mean_difference: float, fit: str) -> None:
    spec = ThumbnailSpec(resize_method="area", jpeg_quality=100, fit=fit)
    for kind in ("4:4:4", "4:2:0", "grey"):
        data = JPEGS[kind](smooth_pixels(*size))
        averaged = np.clip(np.rint(resize(tf.io.decode_jpeg(data), spec)), 0, 255).astype(np.uint8)
        expected = tf.io.decode_jpeg(tf.io.encode_jpeg(averaged, quality=100)).numpy().astype(int)
        difference = np.abs(tf.io.decode_jpeg(make_thumbnail(data, spec)).numpy() - expected)
        assert difference.mean() < mean_difference


# --- What is refused, and why


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("empty", UnreadableImageError.EMPTY, ""),
        ("HTML", UnreadableImageError.NOT_AN_IMAGE, "HTML"),
        ("text", UnreadableImageError.NOT_AN_IMAGE, "Git LFS pointer"),
        ("BMP", UnreadableImageError.UNSUPPORTED, "BMP"),
        ("WebP", UnreadableImageError.UNSUPPORTED, "WebP"),
        ("TIFF", UnreadableImageError.UNSUPPORTED, "TIFF"),
        ("a byte before", UnreadableImageError.NOT_AN_IMAGE, ""),
        ("JPEG, cut", UnreadableImageError.DAMAGED, "the end of the JPEG is missing"),
        ("JPEG, only a header", UnreadableImageError.DAMAGED, "the end of the JPEG is missing"),
        ("JPEG, no height", UnreadableImageError.DAMAGED, "the JPEG cannot be decoded"),
        ("JPEG, lossless", UnreadableImageError.UNSUPPORTED, "lossless JPEG"),
        ("JPEG, lossless grey", UnreadableImageError.UNSUPPORTED, "lossless JPEG"),
        ("JPEG, 12 bit", UnreadableImageError.UNSUPPORTED, "12-bit JPEG"),
        ("PNG, cut", UnreadableImageError.DAMAGED, "the end of the PNG is missing"),
        ("GIF, only a header", UnreadableImageError.DAMAGED, "the GIF cannot be decoded"),
        ("GIF, animated", UnreadableImageError.UNSUPPORTED, "animated GIF, 2 frames"),
        ("PNG, alpha", UnreadableImageError.UNSUPPORTED, "alpha"),
        ("PNG, grey with alpha", UnreadableImageError.UNSUPPORTED, "alpha"),
    ],
)
def test_reasons(kind: str, reason: str, detail: str) -> None:
    error = refusal(REFUSED[kind](smooth_pixels(64, 80)))
    assert error.reason == reason
    assert detail in error.detail
    assert str(error) == (f"{reason}: {error.detail}" if error.detail else reason)


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC7, 0xCB, 0xCE, 0xDE, 0xF7])
def test_other_processes_of_jpeg_are_named(marker: int) -> None:
    data = encode_image(smooth_pixels(20, 30)).replace(b"\xff\xc0", bytes([0xFF, marker]))
    error = refusal(data)
    assert error.reason == UnreadableImageError.UNSUPPORTED
    assert error.detail in ("lossless JPEG", "hierarchical JPEG", "JPEG-LS")
    assert refusal(data[:-9]).reason == UnreadableImageError.UNSUPPORTED


# --- What libraries raise

_ERRORS = [KeyError(6), ValueError("x"), OverflowError("x"), MemoryError(), RuntimeError("x"), cv2.error("x")]


@pytest.mark.parametrize("error", _ERRORS, ids=repr)
@pytest.mark.parametrize("kind", ["4:2:0", "grey"])
def test_where_the_fast_decoder_fails_tensorflow_decides(
    kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simplejpeg.decode_jpeg", Mock(side_effect=error))
    data = JPEGS[kind](smooth_pixels(40, 50))
    assert make_thumbnail(data, SPEC) == reference(data, SPEC)
    is_memory = isinstance(error, MemoryError)
    reason = UnreadableImageError.NO_MEMORY if is_memory else UnreadableImageError.DAMAGED
    assert refusal(data[:-30]).reason == reason


@pytest.mark.slow
def test_too_little_memory_is_no_damage(tmp_path: pathlib.Path) -> None:
    """It may pass, so it must not be remembered as the image's."""
    pixels = np.zeros((3000, 3000, 3), np.uint8)
    (tmp_path / "plain.jpg").write_bytes(encode_image(pixels))
    (tmp_path / "progressive.jpg").write_bytes(encode_image(pixels, progressive=True))
    (tmp_path / "plain.png").write_bytes(encode_image(pixels, "PNG", compress_level=1))
    program = f"""
import pathlib, resource, sys
from landmark_triplets_tfds.thumbnails.thumbnail import (
    ThumbnailSpec, UnreadableImageError, make_thumbnail, run_tensorflow
)
run_tensorflow("decode_jpeg", bytes.fromhex({encode_image(smooth_pixels(20, 30)).hex()!r}))
files = [path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()]
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), -1))
for file in files:
    try:
        make_thumbnail(file, ThumbnailSpec())
    except UnreadableImageError as error:
        print(error.reason)
"""
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [UnreadableImageError.NO_MEMORY] * 3


@pytest.mark.parametrize("error", [*_ERRORS, tf.errors.ResourceExhaustedError(None, None, "{{node x}} OOM")], ids=repr)
@pytest.mark.parametrize(
    "where", ["tensorflow.io.decode_jpeg", "cv2.remap", "cv2.resize", "cv2.imencode", f"{resizing.__name__}.place"]
)
@pytest.mark.parametrize("method", ["nearest", "area"])
def test_whatever_is_raised_makes_one_image_unreadable(
    where: str, error: Exception, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image never ends a build."""
    monkeypatch.setattr(where, Mock(side_effect=error))
    spec = ThumbnailSpec(resize_method=method)
    data = OTHERS["PNG"](smooth_pixels(40, 50))
    if where == {"nearest": "cv2.resize", "area": "cv2.remap"}[method]:
        assert make_thumbnail(data, spec)
        return
    caught = refusal(data, spec)
    assert "{{" not in str(caught)
    is_memory = isinstance(error, MemoryError) or (where.startswith("tensorflow") and "Exhausted" in repr(error))
    assert (caught.reason == UnreadableImageError.NO_MEMORY) == is_memory


TOO_LARGE = {
    "JPEG": with_jpeg_size(encode_image(smooth_pixels(64, 64)), 60_000, 60_000),
    "JPEG, progressive": with_jpeg_size(encode_image(smooth_pixels(64, 64), progressive=True), 65_500, 65_500),
    "JPEG, grey": with_jpeg_size(encode_image(smooth_pixels(64, 64)[..., 0]), 60_000, 60_000),
    "JPEG, CMYK": with_jpeg_size(encode_image(Image.new("CMYK", (64, 64))), 60_000, 60_000),
    "PNG": png_of(60_000, 60_000),
    "PNG, long": png_of(1, 2**31 - 1),
    "PNG, longer than allowed": png_of(2**32 - 1, 2**32 - 1),
    "GIF, canvas": gif_of((60_000, 60_000), [(1, 1)]),
    "GIF, frame": gif_of((1, 1), [(60_000, 60_000)]),
    "GIF, second frame": gif_of((1, 1), [(1, 1), (60_000, 60_000)]),
    "GIF, many frames": gif_of((1, 1), [(2000, 2000)] * 30),
    "GIF, many frames on a canvas": gif_of((2000, 2000), [(1, 1)] * 30),
}


def peak_of_address_space() -> int:
    """In bytes, since the process started: counts what is allocated even if it is never touched."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmPeak:")) * 1024


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_claims_of_huge_sizes_are_refused_before_anything_is_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for spec in (SPEC, ThumbnailSpec(resize_method="area", fit="crop")):
        with monkeypatch.context() as patch:
            for decode in ("_decode_fast", "_decode_like_tensorflow"):
                patch.setattr(thumbnails, decode, lambda *args: pytest.fail("decoded"))
            before = peak_of_address_space()
            error = refusal(TOO_LARGE[kind], spec)
            assert peak_of_address_space() - before < 200 << 20
        assert error.reason == UnreadableImageError.TOO_LARGE
        assert "megapixels, at most 100 are read" in error.detail


@pytest.mark.parametrize("kind", ["4:2:0", "PNG", "GIF"])
def test_the_limit_is_inclusive(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = FILES[kind](smooth_pixels(50, 60))
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 3000)
    assert make_thumbnail(data, SPEC) == reference(data, SPEC)
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 2999)
    assert refusal(data).reason == UnreadableImageError.TOO_LARGE


# --- What comes out


@pytest.mark.parametrize(
    ("sizes", "qualities"), [((8, 17, 64), range(1, 101)), ((128, 333), range(1, 101, 11)), ((2048,), (1, 94, 100))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_gives_the_bytes_of_tensorflows(channels: int, sizes: Sequence[int], qualities: range) -> None:
    for size in sizes:
        pixels = smooth_pixels(size, size, size)[..., :channels]
        for quality in qualities:
            expected = tf.io.encode_jpeg(pixels, quality=quality, optimize_size=True).numpy()
            assert thumbnails._encode(pixels[..., ::-1], quality) == expected, (size, quality)


@pytest.mark.parametrize(("kind", "channels"), [("4:2:0", 3), ("grey", 1), ("CMYK", 3), ("PNG, grey", 1), ("GIF", 3)])
@pytest.mark.parametrize("method", ["nearest", "area"])
def test_thumbnails_are_square_jpegs_that_every_reader_reads(kind: str, channels: int, method: str) -> None:
    data = FILES[kind](smooth_pixels(37, 53))
    thumbnail = make_thumbnail(data, ThumbnailSpec(resolution=24, resize_method=method))
    assert tf.io.decode_jpeg(thumbnail).shape == (24, 24, channels)
    assert tf.io.decode_jpeg(thumbnail, channels=3).shape == (24, 24, 3)
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (24, 24), "RGB" if channels == 3 else "L")


def test_plain_jpegs_need_no_tensorflow() -> None:
    program = f"""
import sys
from landmark_triplets_tfds.thumbnails import resizing
from landmark_triplets_tfds.thumbnails import thumbnail as thumbnails
assert not {{"tensorflow", "apache_beam"}} & set(sys.modules), "imported with the module"
data = bytes.fromhex({encode_image(smooth_pixels(20, 30)).hex()!r})
for method in thumbnails.RESIZE_METHODS:
    thumbnails.make_thumbnail(data, thumbnails.ThumbnailSpec(resize_method=method))
assert "tensorflow" not in sys.modules, "imported for a plain JPEG"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- TensorFlow


def test_an_image_is_decoded():
    assert run_tensorflow("decode_jpeg", encode_image(smooth_pixels(8, 12))).shape == (8, 12, 3)


@pytest.mark.parametrize("data", [b"", b"no image", encode_image(smooth_pixels(64, 64))[:-100]])
def test_what_is_refused_gives_none(data):
    assert run_tensorflow("decode_jpeg", data) is None


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (MemoryError(), True),
        (tf.errors.InternalError(None, None, ""), False),
        (tf.errors.UnknownError(None, None, ""), False),
        (ValueError(), False),
        (OverflowError(), False),
    ],
    ids=repr,
)
def test_whatever_is_raised_is_of_the_image_or_of_memory(monkeypatch, error, is_memory):
    monkeypatch.setattr("tensorflow.io.decode_jpeg", Mock(side_effect=error))
    if is_memory:
        with pytest.raises(UnreadableImageError, match=UnreadableImageError.NO_MEMORY):
            run_tensorflow("decode_jpeg", b"")
    else:
        assert run_tensorflow("decode_jpeg", b"") is None


@pytest.mark.slow
def test_the_import_is_quiet_if_asked(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    program = "from landmark_triplets_tfds.thumbnails.thumbnail import import_tensorflow; import_tensorflow()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""
