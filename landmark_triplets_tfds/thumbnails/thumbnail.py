"""Every pixel decision: the bytes of an image file in, the bytes of a thumbnail JPEG out. Pure, no I/O.

The reference for ``resize_method='nearest'`` is what these TensorFlow operations give, byte for byte:

    image = tf.io.decode_jpeg(image_bytes)
    image = tf.image.resize(image, (resolution, resolution), method='nearest')
    thumbnail = tf.io.encode_jpeg(image, quality=jpeg_quality, optimize_size=True)

(preceded by ``tf.image.resize_with_crop_or_pad`` for ``fit='crop'``, or with ``tf.image.resize_with_pad`` in place of
``resize`` for ``fit='pad'``). They are not what runs for most files. TensorFlow, simplejpeg and OpenCV wrap the same
library, libjpeg-turbo, so that equal settings give equal bytes; the latter two take half the time and do not hold
Python's global lock. Whatever they refuse, and whatever is not a plain sequential JPEG of one or three components,
TensorFlow decides. Pixels are BGR in between, as OpenCV has them.

``resize_method='area'`` accepts the same files. A JPEG at least twice as large as the thumbnail is decoded at 1/2, 1/4
or 1/8 of its size, which libjpeg does by leaving out the high frequencies of each block; the rest of the way is an
average over areas. tests/thumbnails/test_thumbnail.py bounds how far that is from averaging the whole picture. Its
encoder is the same: one without optimized Huffman tables takes 0.08 ms less of 1.0 ms at 128 px and writes files that
are 9 % larger (docs/performance.md has the figures), and disk is what people run out of.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import os
import struct
import sys
import threading
from typing import Any

import cv2
import numpy as np
import simplejpeg

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.thumbnails import resizing
from landmark_triplets_tfds.thumbnails.header import ImageHeader, explain_refusal, read_header

# Everything that decides a thumbnail's bytes beside the spec and the image. Raise it with any change that gives other
# bytes. The libraries are given by the names they are distributed under.
PIXELS_VERSION = 1
CODEC_DISTRIBUTIONS = (
    ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly"),
    ("simplejpeg",),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
)

RESIZE_METHODS = ("nearest", "area")

# A decoded image of 100 megapixels takes 300 MB. The largest file of the public Google Landmarks Dataset v2 is far
# below; what claims more is damaged or made to exhaust memory.
MAX_PIXELS = 100_000_000

# A progressive JPEG has about 10 scans; each goes over all pixels, however few bytes it has. A file of 0.7 MB can have
# 1,000 scans of 100 megapixels, which take minutes. At this limit, decoding takes 2 s.
MAX_SCANNED_PIXELS = 10 * MAX_PIXELS

_FAST_COMPONENTS = {1: "GRAY", 3: "BGR"}

# Start-of-frame markers by resize_method: 0xC0 and 0xC1 are baseline and extended sequential JPEG, 0xC2 is progressive.
# Of a progressive file that lacks its last scans, two versions of libjpeg-turbo guess the missing detail differently,
# so where bytes have to be TensorFlow's, TensorFlow decodes; all other kinds too.
_FAST_FRAMES = {"nearest": (0xC0, 0xC1), "area": (0xC0, 0xC1, 0xC2)}

# JFIF density, byte 13 on: unit 1 (dots per inch), 300 x 300, which is what tf.io.encode_jpeg writes by default.
_JFIF_DENSITY = np.frombuffer(struct.pack(">BHH", 1, 300, 300), dtype=np.uint8)
_JFIF_DENSITY_AT = 13

_import_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThumbnailSpec:
    """Everything, beside the image, that decides a thumbnail's bytes.

    Attributes:
      resolution: side of the square thumbnail, px.
      jpeg_quality: 1..100.
      resize_method: 'nearest' takes one source pixel per thumbnail pixel, as the notebook did; 'area' averages all
        that it covers (antialiased).
      fit: how a source that is not square becomes square; see `resizing.fit_boxes`.
    """

    resolution: int = 128
    jpeg_quality: int = 94
    resize_method: str = "nearest"
    fit: str = "squash"


# At 128 px and quality 94, photographs become thumbnails of about so many bytes (docs/performance.md has sizes). They
# grow with the resolution to the power of 1.67, and with the step of quantization, which libjpeg derives from the
# quality (jpeg_quality_scaling, in percent), to the power of -0.6.
_BYTES_AT_128_PX = {"nearest": 7_200, "area": 6_000}
_RESOLUTION_EXPONENT, _STEP_EXPONENT = 1.67, -0.6


def expected_bytes(spec: ThumbnailSpec) -> float:
    """Returns about how many bytes the thumbnail of a photograph has: within a factor of two."""
    size = _BYTES_AT_128_PX[spec.resize_method] * (spec.resolution / 128) ** _RESOLUTION_EXPONENT
    return float(size * (_quantization_step(spec.jpeg_quality) / _quantization_step(94)) ** _STEP_EXPONENT)


def _quantization_step(quality: int) -> float:
    return max(3.0, 5000 / quality if quality < 50 else 200 - 2 * quality)


def make_thumbnail(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
    """Makes the thumbnail of one image.

    Args:
      image_bytes: a whole image file: JPEG of any kind, PNG without alpha, or GIF of one frame.
      spec: the thumbnail to make.

    Returns:
      A baseline JPEG of ``resolution`` x ``resolution`` px, 4:2:0 chroma, with one channel where the source is grey
      and three otherwise. Deterministic in the arguments and the versions of the codec libraries.

    Raises:
      UnreadableImageError: if the file is empty, damaged, of another kind, or larger than `MAX_PIXELS` or, with all its
        scans, than `MAX_SCANNED_PIXELS`.
    """
    header = read_header(image_bytes)
    if header.num_pixels > MAX_PIXELS:
        raise UnreadableImageError(
            UnreadableImageError.TOO_LARGE,
            f"{header.num_pixels / 1e6:,.0f} megapixels, at most {MAX_PIXELS / 1e6:,.0f} are read",
        )
    if header.num_pixels * header.num_scans > MAX_SCANNED_PIXELS:
        raise UnreadableImageError(
            UnreadableImageError.TOO_LARGE,
            f"{header.num_pixels / 1e6:,.2f} megapixels in {header.num_scans:,} scans, together at most"
            f" {MAX_SCANNED_PIXELS / 1e6:,.0f} megapixels are read",
        )
    try:
        return _make_thumbnail(image_bytes, header, spec)
    except UnreadableImageError:
        raise
    except Exception as error:  # one image never ends a build
        no_memory = isinstance(error, MemoryError) or getattr(error, "code", None) == cv2.Error.StsNoMem
        reason = UnreadableImageError.NO_MEMORY if no_memory else UnreadableImageError.UNSUPPORTED
        raise UnreadableImageError(reason, f"{type(error).__name__} while its thumbnail was made") from error


def _make_thumbnail(image_bytes: bytes, header: ImageHeader, spec: ThumbnailSpec) -> bytes:
    pixels, size = _decode_fast(image_bytes, header, spec), (header.height, header.width)
    is_fast = pixels is not None
    if pixels is None:
        pixels = _decode_like_tensorflow(image_bytes, header)
        size = pixels.shape[:2]
    source, filled = resizing.fit_boxes(*size, spec.resolution, spec.fit)
    if spec.resize_method == "nearest":
        part = resizing.resize_nearest(pixels, source, filled.height, filled.width)
    else:
        decoded_source = resizing.scale_box(source, size, pixels.shape[:2])
        part = resizing.resize_area(pixels, decoded_source, filled.height, filled.width)
    # Channels are swapped where there are few pixels left.
    return _encode(resizing.place(part if is_fast else part[..., ::-1], filled, spec.resolution), spec.jpeg_quality)


def _choose_reduction(header: ImageHeader, spec: ThumbnailSpec) -> int:
    """Returns the factor, 1, 2, 4 or 8, by which libjpeg may shrink the picture while it decodes.

    The largest one that leaves at least one decoded pixel per thumbnail pixel along both axes, and with which a crop
    begins on a whole decoded pixel. (libjpeg could shrink by other eighths too, but libjpeg-turbo has no fast code for
    them.)
    """
    if spec.resize_method == "nearest":
        return 1
    source, filled = resizing.fit_boxes(header.height, header.width, spec.resolution, spec.fit)
    limit = min(source.height // filled.height, source.width // filled.width)
    fitting = (f for f in (8, 4, 2) if f <= limit and source.top % f == 0 and source.left % f == 0)
    return next(fitting, 1)


def _decode_fast(image_bytes: bytes, header: ImageHeader, spec: ThumbnailSpec) -> resizing.Pixels | None:
    """Decodes to uint8[height, width, 1 or 3], BGR, reduced where that is right; None if the file is odd."""
    colorspace = _FAST_COMPONENTS.get(header.num_components)
    is_usual = header.num_pixels and not header.oddity and header.frame_marker in _FAST_FRAMES[spec.resize_method]
    if not is_usual or colorspace is None:
        return None
    reduction = _choose_reduction(header, spec)
    try:
        # The fast DCT and fancy upsampling are tf.io.decode_jpeg's defaults. Strict: what libjpeg only warns of may be
        # an error for TensorFlow, or not.
        pixels: resizing.Pixels = simplejpeg.decode_jpeg(
            image_bytes,
            colorspace,
            fastdct=True,
            fastupsample=False,
            min_height=-(-header.height // reduction),
            min_width=-(-header.width // reduction),
            strict=True,
        )
    except Exception:  # KeyError of sampling factors that it has no name for, among others
        return None
    return pixels


def _decode_like_tensorflow(image_bytes: bytes, header: ImageHeader) -> resizing.Pixels:
    """Decodes to uint8[height, width, 1 or 3], RGB, whatever TensorFlow decodes."""
    pixels: resizing.Pixels | None = run_tensorflow("decode_jpeg", image_bytes)
    if pixels is None:
        if header.kind == "JPEG" and _lacks_memory(image_bytes):  # TensorFlow does not say
            raise UnreadableImageError(UnreadableImageError.NO_MEMORY)
        raise explain_refusal(image_bytes, header)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UnreadableImageError(
            UnreadableImageError.UNSUPPORTED, f"{pixels.shape[-1]} channels; an alpha channel cannot become a JPEG"
        )
    return pixels


def _lacks_memory(image_bytes: bytes) -> bool:
    """Returns whether libjpeg has too little memory for a JPEG, as for a large progressive one."""
    try:
        simplejpeg.decode_jpeg(image_bytes, "GRAY")
    except MemoryError:
        return True
    except Exception as error:
        return "memory" in str(error)
    return False


def _encode(pixels: resizing.Pixels, quality: int) -> bytes:
    """Gives the bytes of ``tf.io.encode_jpeg(pixels, quality=quality, optimize_size=True)`` of pixels in BGR."""
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, quality),
        *(cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420),
    ]
    encoded: Any = cv2.imencode(".jpg", pixels, settings)[1]
    encoded[_JFIF_DENSITY_AT : _JFIF_DENSITY_AT + len(_JFIF_DENSITY)] = _JFIF_DENSITY
    return bytes(encoded)


# --- TensorFlow, imported late: that takes seconds, and most files do without


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
