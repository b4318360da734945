"""Made-up tables and image files, and other things that several test modules share."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
import contextlib
import io
import random
import signal
import struct
from types import FrameType
from typing import Any
import zlib

import cv2
import numpy as np
from PIL import Image
import simplejpeg

from landmark_triplets_tfds.competition.tables import LandmarkTable


def landmark_table(landmark_ids: Sequence[int], image_ids: Sequence[int] | None = None) -> LandmarkTable:
    """Makes a table; by default the image ids are scrambled row numbers, so that no order is implied."""
    if image_ids is None:
        image_ids = [(row + 1) * 0x9E3779B97F4A7C15 % 2**64 for row in range(len(landmark_ids))]
    return LandmarkTable(np.array(image_ids, dtype=np.uint64), np.array(landmark_ids, dtype=np.int64))


def smooth_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Makes uint8[height, width, 3]: a smooth random field with a little noise, as photographs are."""
    random = np.random.RandomState(seed)  # its numbers are the same in every version of NumPy
    coarse = Image.fromarray(random.randint(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return np.clip(smooth + random.randint(-4, 5, (height, width, 1)), 0, 255).astype(np.uint8)


def encode_image(image: Image.Image | np.ndarray, file_format: str = "JPEG", **options: Any) -> bytes:
    """Returns the bytes of an image file that Pillow writes."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG of the bit depth of the pixels: 8 or 16."""
    return bytes(cv2.imencode(".png", pixels)[1])


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Turns a hang into a failure."""

    def fail(signal_number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"hangs: not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    # Again each second: an exception may get lost, as NumPy drops those that come up while it compares.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


# --- Image files of many kinds, made from uint8[height, width, 3]

# Kinds of JPEG that the libraries here do not write: 8 x 8 px of one colour, by libjpeg-turbo.
_LOSSLESS = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/8MAEQgACAAIA1IRAEcRAEIRAP/EABcAAQADAAAAAAAAAAAAAAAAAAABBgf/2gAMA1IARwBCAAEAALZhMAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAD//Z"
)
_LOSSLESS_GREY = base64.b64decode("/9j/xAAVAAEBAAAAAAAAAAAAAAAAAAAABv/DAAsIAAgACAEAEQD/2gAIAQAABgAArAAAAAAAAAAA/9k=")
_12_BIT = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDA"
    "sKDAkKCgr/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAADP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AWAP/2Q=="
)
_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PT"
    "gyPC4zNDL/yQALCAAIAAgBAREA/8wABgAQEAX/2gAIAQEAAD8A/wCi/9k="
)


def palette_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).quantize(32)


def rotated_by_exif(pixels: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_image(pixels, exif=exif)


def first_scans(data: bytes, count: int) -> bytes:
    """Cuts a progressive JPEG so that it ends, properly, after its first scans."""
    starts = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    return data[: starts[count]] + b"\xff\xd9"


def with_jpeg_size(data: bytes, height: int, width: int) -> bytes:
    at = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data) + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def with_sampling(data: bytes, *factors: int) -> bytes:
    """Changes the sampling factors of the first components; in a grey file they mean nothing, and are often odd."""
    changed, at = bytearray(data), data.index(b"\xff\xc0") + 11
    changed[at : at + 3 * len(factors) : 3] = factors
    return bytes(changed)


def two_frames(pixels: np.ndarray) -> bytes:
    return encode_image(palette_image(pixels), "GIF", save_all=True, append_images=[palette_image(255 - pixels)])


JPEGS: dict[str, Callable[[np.ndarray], bytes]] = {
    "4:4:4": lambda pixels: encode_image(pixels, subsampling=0, quality=95),
    "4:2:2": lambda pixels: encode_image(pixels, subsampling=1, quality=80),
    "4:2:0": lambda pixels: encode_image(pixels, subsampling=2, quality=75),
    "4:4:0": lambda pixels: simplejpeg.encode_jpeg(pixels, 85, colorsubsampling="440"),
    "4:1:1": lambda pixels: simplejpeg.encode_jpeg(pixels, 85, colorsubsampling="411"),
    "4:4:1": lambda pixels: with_sampling(simplejpeg.encode_jpeg(pixels, 85, colorsubsampling="411"), 0x14),
    "quality 5": lambda pixels: encode_image(pixels, quality=5),
    "quality 100": lambda pixels: encode_image(pixels, quality=100, optimize=True),
    "progressive 4:4:4": lambda pixels: encode_image(pixels, subsampling=0, progressive=True),
    "progressive 4:2:0": lambda pixels: encode_image(pixels, subsampling=2, progressive=True),
    "restart markers": lambda pixels: encode_image(pixels, restart_marker_blocks=2),
    "grey": lambda pixels: encode_image(pixels[..., 0]),
    "progressive grey": lambda pixels: encode_image(pixels[..., 0], progressive=True),
    "grey, factor 2x2": lambda pixels: with_sampling(encode_image(pixels[..., 0]), 0x22),
    "grey, factor 1x4": lambda pixels: with_sampling(encode_image(pixels[..., 0]), 0x14),
    "RGB": lambda pixels: encode_image(pixels, keep_rgb=True),
    "arithmetic-coded": lambda pixels: _ARITHMETIC,
    "CMYK": lambda pixels: encode_image(Image.fromarray(pixels).convert("CMYK")),
    "rotated by EXIF": rotated_by_exif,
    "followed by garbage": lambda pixels: encode_image(pixels) + b"\x00\xff\xd9garbage\xff",
    "followed by another": lambda pixels: encode_image(pixels) + encode_image(255 - pixels),  # as in MPO files
    "no JFIF header": lambda pixels: b"\xff\xd8" + encode_image(pixels)[20:],
}
OTHERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": lambda pixels: encode_image(pixels, "PNG"),
    "PNG, grey": lambda pixels: encode_image(pixels[..., 0], "PNG"),
    "PNG, palette": lambda pixels: encode_image(palette_image(pixels), "PNG"),
    "PNG, 1 bit": lambda pixels: encode_image(Image.fromarray(pixels).convert("1"), "PNG"),
    "PNG, 16 bit": lambda pixels: encode_png(pixels.astype(np.uint16) * 257),
    "PNG, 16 bit grey": lambda pixels: encode_png(pixels[..., 0].astype(np.uint16) * 200),
    "PNG, transparent colour": lambda pixels: encode_image(pixels, "PNG", transparency=(0, 0, 0)),
    "GIF": lambda pixels: encode_image(palette_image(pixels), "GIF"),
}
REFUSED: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG, alpha": lambda pixels: encode_image(Image.fromarray(pixels).convert("RGBA"), "PNG"),
    "PNG, grey with alpha": lambda pixels: encode_image(Image.fromarray(pixels).convert("LA"), "PNG"),
    "PNG, transparent palette": lambda pixels: encode_image(palette_image(pixels), "PNG", transparency=0),
    "GIF, animated": two_frames,
    "BMP": lambda pixels: encode_image(pixels, "BMP"),
    "WebP": lambda pixels: encode_image(pixels, "WEBP"),
    "TIFF": lambda pixels: encode_image(pixels, "TIFF"),
    "JPEG, lossless": lambda pixels: _LOSSLESS,
    "JPEG, lossless grey": lambda pixels: _LOSSLESS_GREY,
    "JPEG, 12 bit": lambda pixels: _12_BIT,
    "JPEG, cut": lambda pixels: encode_image(pixels)[:-30],
    "JPEG, no end marker": lambda pixels: encode_image(pixels)[:-2],
    "JPEG, only a header": lambda pixels: encode_image(pixels)[:100],
    "JPEG, no height": lambda pixels: with_jpeg_size(encode_image(pixels), 0, 50),
    "JPEG, no width": lambda pixels: with_jpeg_size(encode_image(pixels), 50, 0),
    "PNG, cut": lambda pixels: encode_image(pixels, "PNG")[:-30],
    "PNG, only a header": lambda pixels: encode_image(pixels, "PNG")[:33],
    "PNG, half a header": lambda pixels: encode_image(pixels, "PNG")[:20],
    "GIF, only a header": lambda pixels: encode_image(palette_image(pixels), "GIF")[:13],
    "GIF, signature": lambda pixels: b"GIF89a",
    "HTML": lambda pixels: b"<!DOCTYPE html><html><body>404</body></html>",
    "text": lambda pixels: b"version https://git-lfs.github.com/spec/v1\n",
    "a byte before": lambda pixels: b"\n" + encode_image(pixels),
    "JPEG signature": lambda pixels: b"\xff\xd8\xff",
    "zeros": lambda pixels: bytes(1000),
    "empty": lambda pixels: b"",
}


# What phones and cameras append to a JPEG: markers in there mean nothing.
TRAILERS = {
    "video": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\xff\xda\0\x08\1\1\0\0\x3f\0\xff\xda" * 3000,
    "gain map": encode_image(smooth_pixels(20, 30)[..., 0], progressive=True) * 2,
    "second picture": encode_image(smooth_pixels(20, 30), progressive=True, restart_marker_blocks=1),
    "Samsung's": b"\0\0\x31\x0aMotionPhoto_Data" + b"\xff\xda\xff\xc0\xff\xd8" * 3000 + b"SEFT",
}


def gif_of(canvas: tuple[int, int], frames: list[tuple[int, int]]) -> bytes:
    """A GIF that claims these widths and heights; its frames hold no pixels."""
    data = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0xF0, 0, 0) + bytes(6)
    for width, height in frames:
        data += b"\x21\xf9\x04\0\0\0\0\0" + b"\x2c" + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02\x01\0\0"
    return data + b";"


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png_chunk(name: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def png_of(height: int, width: int) -> bytes:
    return PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + bytes(20)


def mutate(data: bytes, rng: random.Random) -> bytes:
    at, count = rng.randrange(len(data)), rng.randint(1, 20)
    how = rng.choice(["flip", "header", "cut", "delete", "insert", "append"])
    if how == "flip":
        changed = bytearray(data)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(changed)
    if how == "header":
        at = rng.randrange(min(len(data), 200))
        return data[:at] + rng.randbytes(1) + data[at + 1 :]
    if how == "cut":
        return data[:at]
    if how == "delete":
        return data[:at] + data[at + count :]
    if how == "insert":
        return data[:at] + rng.randbytes(count) + data[at:]
    return data + rng.randbytes(100)
