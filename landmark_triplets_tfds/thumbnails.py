"""Every pixel decision: the bytes of an image file in, the bytes of a thumbnail JPEG out. Pure, no I/O.

The reference for ``resize_method='nearest'`` is what these TensorFlow operations give, byte for byte:

    image = tf.io.decode_jpeg(image_bytes)
    image = tf.image.resize(image, (resolution, resolution), method='nearest')
    thumbnail = tf.io.encode_jpeg(image, quality=jpeg_quality, optimize_size=True)

(preceded by ``tf.image.resize_with_crop_or_pad`` for ``fit='crop'``, or with ``tf.image.resize_with_pad`` in place of
``resize`` for ``fit='pad'``). They are not what runs for most files. TensorFlow, simplejpeg and imagecodecs wrap the
same library, libjpeg-turbo, so that equal settings give equal bytes; the latter two take half the time and do not hold
Python's global lock. Whatever they refuse, and whatever is not a plain sequential grey or RGB/YCbCr JPEG,
TensorFlow decides.

``resize_method='area'`` accepts the same files. A JPEG at least twice as large as the thumbnail is decoded at 1/2, 1/4
or 1/8 of its size, which libjpeg does by leaving out the high frequencies of each block; the rest of the way is an
average over areas. tests/test_thumbnails.py bounds how far that is from averaging the whole picture. Its encoder is the
same: one without optimized Huffman tables takes 0.1 ms less of about 1.8 ms at 128 px and writes files that are 8 %
larger (docs/pixels.md has the figures), and disk is what people run out of.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from typing import Any

import imagecodecs
import simplejpeg

from landmark_triplets_tfds import resizing
from landmark_triplets_tfds.errors import UnreadableImageError

# Everything that decides a thumbnail's bytes beside the spec and the image. Raise it with any change that gives other
# bytes. The libraries are given by the names they are distributed under.
PIXELS_VERSION = 1
CODEC_DISTRIBUTIONS = (
    ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tf-nightly"),
    ("simplejpeg",),
    ("imagecodecs",),
    ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
)

RESIZE_METHODS = ("nearest", "area")

# A decoded image of 100 megapixels takes 300 MB. The largest file of the public Google Landmarks Dataset v2 is far
# below; what claims more is damaged or made to exhaust memory.
MAX_PIXELS = 100_000_000

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GIF_SIGNATURE = b"GIF8"  # TensorFlow looks no further

_FAST_COLORSPACES = ("YCbCr", "RGB", "Gray")

# Start-of-frame markers by resize_method: 0xC0 and 0xC1 are baseline and extended sequential JPEG, 0xC2 is progressive.
# Of a progressive file that lacks its last scans, two versions of libjpeg-turbo guess the missing detail differently,
# so where bytes have to be TensorFlow's, TensorFlow decodes. All others (lossless, arithmetic) it refuses.
_FAST_FRAMES = {"nearest": (0xC0, 0xC1), "area": (0xC0, 0xC1, 0xC2)}

# JFIF density, byte 13 on: unit 1 (dots per inch), 300 x 300, which is what tf.io.encode_jpeg writes by default.
_JFIF_DENSITY = struct.pack(">BHH", 1, 300, 300)
_JFIF_DENSITY_AT = 13


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


@dataclasses.dataclass(frozen=True)
class _Header:
    """What a file says of itself: ``colorspace`` is simplejpeg's name for it, None where only TensorFlow decodes."""

    height: int
    width: int
    colorspace: str | None


def make_thumbnail(image_bytes: bytes, spec: ThumbnailSpec) -> bytes:
    """Makes the thumbnail of one image.

    Args:
      image_bytes: a whole image file: JPEG of any kind, PNG without alpha, or GIF of one frame.
      spec: the thumbnail to make.

    Returns:
      A baseline JPEG of ``resolution`` x ``resolution`` px, 4:2:0 chroma, with one channel where the source is grey
      and three otherwise. Deterministic in the arguments and the versions of the codec libraries.

    Raises:
      UnreadableImageError: if the file is empty, damaged, of another kind or larger than `MAX_PIXELS`.
    """
    header = _read_header(image_bytes, _FAST_FRAMES[spec.resize_method])
    if header.height * header.width > MAX_PIXELS:
        raise UnreadableImageError(
            UnreadableImageError.TOO_LARGE,
            f"{header.width} x {header.height} px, at most {MAX_PIXELS // 1_000_000} megapixels are read",
        )
    reduction = _choose_reduction(header, spec)
    pixels = _decode(image_bytes, header, reduction)
    decoded_size = pixels.shape[:2]
    size = (header.height, header.width) if reduction > 1 else decoded_size
    source, filled = resizing.fit_boxes(*size, spec.resolution, spec.fit)
    if spec.resize_method == "nearest":
        part = resizing.resize_nearest(pixels, source, filled.height, filled.width)
    else:
        decoded_source = resizing.scale_box(source, size, decoded_size)
        part = resizing.resize_area(pixels, decoded_source, filled.height, filled.width)
    return _encode(resizing.place(part, filled, spec.resolution), spec.jpeg_quality)


def _choose_reduction(header: _Header, spec: ThumbnailSpec) -> int:
    """Returns the factor, 1, 2, 4 or 8, by which libjpeg may shrink the picture while it decodes.

    The largest one that leaves at least one decoded pixel per thumbnail pixel along both axes, and with which a crop
    begins on a whole decoded pixel. (libjpeg could shrink by other eighths too, but libjpeg-turbo has no fast code for
    them.)
    """
    if spec.resize_method == "nearest" or header.colorspace is None:
        return 1
    source, filled = resizing.fit_boxes(header.height, header.width, spec.resolution, spec.fit)
    limit = min(source.height // filled.height, source.width // filled.width)
    fitting = (f for f in (8, 4, 2) if f <= limit and source.top % f == 0 and source.left % f == 0)
    return next(fitting, 1)


def _read_header(image_bytes: bytes, fast_frames: tuple[int, ...]) -> _Header:
    """Finds the size of the image without decoding it.

    Args:
      image_bytes: of the image file.
      fast_frames: codes of the start-of-frame markers of JPEGs that TensorFlow need not decode.
    """
    if not image_bytes:
        raise UnreadableImageError(UnreadableImageError.EMPTY)
    if image_bytes.startswith(_JPEG_SIGNATURE):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(image_bytes)
        except ValueError:  # an unusual header: TensorFlow's reader decides
            height, width, _ = _run_tensorflow("extract_jpeg_shape", image_bytes)
            return _Header(int(height), int(width), None)
        is_fast = colorspace in _FAST_COLORSPACES and _find_frame_marker(image_bytes) in fast_frames
        return _Header(height, width, colorspace if is_fast else None)
    if image_bytes.startswith(_PNG_SIGNATURE) and len(image_bytes) >= 24:
        width, height = struct.unpack_from(">II", image_bytes, 16)  # IHDR is the first chunk by definition
        return _Header(height, width, None)
    if image_bytes.startswith(_GIF_SIGNATURE):
        return _Header(_num_gif_pixels(image_bytes), 1, None)
    start = image_bytes[:64].lstrip()
    kind = "HTML page" if start[:1] == b"<" else f"starts with {image_bytes[:12]!r}"
    raise UnreadableImageError(UnreadableImageError.NOT_AN_IMAGE, kind)


def _find_frame_marker(image_bytes: bytes) -> int | None:
    """Returns the code of a JPEG's start-of-frame marker, which tells the coding process; None if there is none.

    Walks the segments (ITU-T T.81, annex B): 0xFF, a code, and unless the code stands alone a length that counts
    itself.
    """
    position = 2
    while position + 4 <= len(image_bytes) and image_bytes[position] == 0xFF:
        code = image_bytes[position + 1]
        if code == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):  # those are tables and an extension
            return code
        else:
            (length,) = struct.unpack_from(">H", image_bytes, position + 2)
            position += 2 + length
    return None


def _num_gif_pixels(image_bytes: bytes) -> int:
    """Returns how many pixels a GIF decoder allocates: those of all frames, each at least as large as the canvas.

    Walks the blocks of the file (GIF89a specification, sections 17 to 26) until they end or make no sense.
    """
    if len(image_bytes) < 13:
        return 0
    canvas_width, canvas_height, flags = struct.unpack_from("<HHB", image_bytes, 6)
    position = 13 + _color_table_size(flags)
    num_pixels = 0
    while position < len(image_bytes):
        block = image_bytes[position]
        if block == 0x2C and position + 10 <= len(image_bytes):  # image descriptor
            width, height, flags = struct.unpack_from("<HHB", image_bytes, position + 5)
            num_pixels += max(width, canvas_width) * max(height, canvas_height)
            position += 11 + _color_table_size(flags)  # the descriptor, its colours, the LZW code size
        elif block == 0x21:  # extension
            position += 2
        else:
            break
        while position < len(image_bytes) and image_bytes[position]:  # sub-blocks, each with its length in front
            position += 1 + image_bytes[position]
        position += 1
    return num_pixels


def _color_table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _decode(image_bytes: bytes, header: _Header, reduction: int) -> resizing.Pixels:
    """Decodes to uint8[height, width, 1 or 3]; where TensorFlow has to do it, without the reduction."""
    if header.colorspace is not None:
        colorspace = "GRAY" if header.colorspace == "Gray" else "RGB"
        try:
            # The fast DCT and fancy upsampling are tf.io.decode_jpeg's defaults. Strict: what libjpeg only warns of
            # may be an error for TensorFlow, or not, so those files take the slow way.
            pixels: resizing.Pixels = simplejpeg.decode_jpeg(
                image_bytes,
                colorspace,
                fastdct=True,
                fastupsample=False,
                min_height=-(-header.height // reduction),
                min_width=-(-header.width // reduction),
                strict=True,
            )
            return pixels
        except ValueError:
            pass
    pixels = _run_tensorflow("decode_jpeg", image_bytes)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise UnreadableImageError(
            UnreadableImageError.UNSUPPORTED, f"{pixels.shape[-1]} channels; an alpha channel cannot become a JPEG"
        )
    return pixels


def _encode(pixels: resizing.Pixels, quality: int) -> bytes:
    """Gives the bytes of ``tf.io.encode_jpeg(pixels, quality=quality, optimize_size=True)``."""
    grey = pixels.shape[2] == 1
    encoded = imagecodecs.jpeg8_encode(
        pixels[..., 0] if grey else pixels,
        level=quality,
        colorspace="grayscale" if grey else "rgb",
        outcolorspace="grayscale" if grey else "ycbcr",
        subsampling=None if grey else "420",
        optimize=True,
    )
    after = _JFIF_DENSITY_AT + len(_JFIF_DENSITY)
    return bytes(encoded[:_JFIF_DENSITY_AT]) + _JFIF_DENSITY + bytes(encoded[after:])


@functools.cache
def import_tensorflow() -> Any:
    """Imports TensorFlow, which takes seconds; without this call, the first file that needs it waits for it."""
    import tensorflow

    return tensorflow


def _run_tensorflow(operation: str, image_bytes: bytes) -> Any:
    """Runs ``tf.io.<operation>`` and turns its refusal into UnreadableImageError."""
    tf = import_tensorflow()
    try:
        with tf.device("CPU"):
            return getattr(tf.io, operation)(image_bytes).numpy()
    except tf.errors.InvalidArgumentError as error:
        truncated = image_bytes.startswith(_JPEG_SIGNATURE) and b"\xff\xd9" not in image_bytes[-64:]
        what = "the end of the JPEG is missing" if truncated else str(error.message).split(" [Op:")[0]
        raise UnreadableImageError(UnreadableImageError.DAMAGED, what) from None
