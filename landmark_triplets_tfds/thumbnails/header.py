"""What an image file says of itself: its kind and size, found without decoding or allocating anything."""

from __future__ import annotations

import dataclasses
import struct

import numpy as np
import simplejpeg

from landmark_triplets_tfds.common.file_access import stand_in
from landmark_triplets_tfds.common.tensorflow_ops import run_tensorflow
from landmark_triplets_tfds.errors import UnreadableImageError

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GIF_SIGNATURE = b"GIF8"  # TensorFlow looks no further


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """Of an image file.

    Attributes:
      num_pixels: that decoding will produce; for a GIF, of all its frames.
      height: in px; 0 for a GIF.
      width: in px; 0 for a GIF.
      colorspace: simplejpeg's name for a JPEG's; None for other kinds, and where simplejpeg cannot tell.
      frame_marker: the code of a JPEG's start-of-frame marker, which tells the coding process; None if there is none.
      num_scans: how often a JPEG's decoder goes over the pixels; 1 for other kinds.
    """

    num_pixels: int
    height: int = 0
    width: int = 0
    colorspace: str | None = None
    frame_marker: int | None = None
    num_scans: int = 1


def read_header(image_bytes: bytes) -> ImageHeader:
    """Reads the header of a JPEG, PNG or GIF file.

    Raises:
      UnreadableImageError: if the file is empty, of another kind, or a JPEG without a header.
    """
    if not image_bytes:
        raise UnreadableImageError(UnreadableImageError.EMPTY)
    if image_bytes.startswith(_JPEG_SIGNATURE):
        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(image_bytes)
        except ValueError:  # an unusual header: TensorFlow's reader decides
            height, width, _ = run_tensorflow("extract_jpeg_shape", image_bytes).tolist()
            colorspace = None
        frame_marker, num_scans = _find_frame_marker(image_bytes), _count_scans(image_bytes)
        return ImageHeader(height * width, height, width, colorspace, frame_marker, num_scans)
    if image_bytes.startswith(_PNG_SIGNATURE) and len(image_bytes) >= 24:
        width, height = struct.unpack_from(">II", image_bytes, 16)  # IHDR is the first chunk by definition
        return ImageHeader(height * width, height, width)
    if image_bytes.startswith(_GIF_SIGNATURE):
        return ImageHeader(_count_gif_pixels(image_bytes))
    kind = stand_in(image_bytes) or f"starts with {image_bytes[:12]!r}"
    raise UnreadableImageError(UnreadableImageError.NOT_AN_IMAGE, kind)


def _find_frame_marker(image_bytes: bytes) -> int | None:
    """Returns the code of a JPEG's start-of-frame marker; None if there is none.

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


def _count_scans(image_bytes: bytes) -> int:
    """Returns how many start-of-scan markers a JPEG has, with those of embedded previews, which are few.

    In coded pixels, a zero byte or a restart marker follows each 0xFF. Pairs of bytes are compared, those that begin at
    even and at odd places: ``bytes.count`` takes five times as long.
    """
    size = len(image_bytes)
    pairs = (np.frombuffer(image_bytes, "<u2", (size - odd) // 2, odd) for odd in (0, 1))
    return int(sum(np.count_nonzero(each == 0xDAFF) for each in pairs))


def _count_gif_pixels(image_bytes: bytes) -> int:
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
