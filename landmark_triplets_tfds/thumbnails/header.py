"""What an image file says of itself: its kind and size, found without decoding or allocating anything.

What bounds a decoder has to look where the decoder looks. So a file is walked part by part as libjpeg, libpng and
giflib walk it, over whatever lies in between, and no further than the end of the picture: phones and cameras append
videos, depth maps and second pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
import re
import struct

from landmark_triplets_tfds.common.file_access import stand_in
from landmark_triplets_tfds.errors import UnreadableImageError

_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GIF_SIGNATURE = b"GIF8"  # TensorFlow looks no further

# How other files begin that people take for images.
_OTHER_KINDS = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"BM.{4}\0{4}", "BMP"),
        (rb"RIFF.{4}WEBP", "WebP"),
        (rb".{4}ftypavi[fs]", "AVIF"),
        (rb".{4}ftyp(?:he[iv][cmsx]|mif1|msf1)", "HEIC"),
        (rb".{4}ftyp", "video"),
        (rb"II[*+]\0|MM\0[*+]", "TIFF"),  # many raw formats too
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
        (rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  ", "JPEG 2000"),
        (rb"II\xbc\x01", "JPEG XR"),
        (rb"8BPS", "Photoshop"),
        (rb"%PDF-", "PDF"),
        (rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE svg[^>]*>\s*)?<svg\b", "SVG"),
    )
)

# Codes of JPEG markers (ITU-T T.81, table B.1; T.87 for JPEG-LS). What stands between them, and those without contents
# of their own (restarts), is passed over.
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
PROGRESSIVE = (0xC2, 0xCA)
_USUAL_FRAMES = (0xC0, 0xC1, 0xC9, *PROGRESSIVE)  # baseline and extended sequential; the latter arithmetic-coded
_UNUSUAL_FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE), "hierarchical JPEG"),
    0xF7: "JPEG-LS",
}

# Segments of a JPEG, chunks of a PNG, blocks of a GIF. One that has more, which takes a second to walk, was made so.
_MAX_PARTS = 1_000_000


@dataclasses.dataclass(frozen=True)
class ImageHeader:
    """Of an image file.

    Attributes:
      kind: 'JPEG', 'PNG' or 'GIF'.
      num_pixels: that decoding will produce; for a GIF, of all its frames; 0 if that is not said.
      height: in px; 0 for a GIF.
      width: in px; 0 for a GIF.
      num_components: of a JPEG; 0 for other kinds.
      frame_marker: the code of a JPEG's start-of-frame marker, which tells the coding process; None if there is none.
      num_scans: how often a JPEG's decoder goes over the pixels; 1 for other kinds.
      oddity: which unusual kind of its kind it is, such as 'animated GIF'; '' if a usual one.
    """

    kind: str
    num_pixels: int
    height: int = 0
    width: int = 0
    num_components: int = 0
    frame_marker: int | None = None
    num_scans: int = 1
    oddity: str = ""


def read_header(image_bytes: bytes) -> ImageHeader:
    """Reads the header of a JPEG, PNG or GIF file. What it does not find there is for a decoder to miss.

    Raises:
      UnreadableImageError: if the file is empty, of another kind, or of so many parts that it was made to be slow.
    """
    if image_bytes.startswith(_JPEG_SIGNATURE):
        return _read_jpeg(image_bytes)
    if image_bytes.startswith(_PNG_SIGNATURE):
        return _read_png(image_bytes)
    if image_bytes.startswith(_GIF_SIGNATURE):
        return _read_gif(image_bytes)
    if not image_bytes:
        raise UnreadableImageError(UnreadableImageError.EMPTY)
    for pattern, kind in _OTHER_KINDS:
        if pattern.match(image_bytes):
            raise UnreadableImageError(UnreadableImageError.UNSUPPORTED, kind)
    found = stand_in(image_bytes) or f"starts with {image_bytes[:12]!r}"
    raise UnreadableImageError(UnreadableImageError.NOT_AN_IMAGE, found)


def explain_refusal(image_bytes: bytes, header: ImageHeader) -> UnreadableImageError:
    """Returns why no decoder makes anything of a file with this header, as far as that can be told."""
    if header.oddity:
        return UnreadableImageError(UnreadableImageError.UNSUPPORTED, header.oddity)
    if header.kind == "JPEG":
        ends = b"\xff\xd9" in image_bytes[-64:] or any(code == _EOI for code, *_ in _jpeg_segments(image_bytes))
    else:
        ends = header.kind == "GIF" or any(name == b"IEND" for name, _ in _png_chunks(image_bytes))
    detail = f"the {header.kind} cannot be decoded" if ends else f"the end of the {header.kind} is missing"
    return UnreadableImageError(UnreadableImageError.DAMAGED, detail)


# --- JPEG


def _read_jpeg(image_bytes: bytes) -> ImageHeader:
    frame_marker = None
    height = width = num_components = num_scans = 0
    oddity = ""
    for code, start, size in _jpeg_segments(image_bytes):
        if code == _SOS:
            num_scans += 1
            # A sequential JPEG is complete after a scan of all its components. Others go on until they say so.
            if num_scans == 1 and frame_marker not in PROGRESSIVE and image_bytes[start] == num_components:
                break
        elif frame_marker is None and size >= 6 and (code in _USUAL_FRAMES or code in _UNUSUAL_FRAMES):
            frame_marker = code
            precision, height, width, num_components = struct.unpack_from(">BHHB", image_bytes, start)
            oddity = _UNUSUAL_FRAMES.get(code, "")
            if not oddity and 8 < precision <= 16:
                oddity = f"{precision}-bit JPEG"
            elif not oddity and num_components not in (0, 1, 3, 4):
                oddity = f"JPEG of {num_components} components"
    return ImageHeader("JPEG", height * width, height, width, num_components, frame_marker, num_scans, oddity)


def _jpeg_segments(image_bytes: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields code, place and size of the contents of each segment of a JPEG, to the end of the picture.

    A segment is 0xFF, a code, and, unless the code stands alone, a length that counts itself (ITU-T T.81, annex B).
    """
    position = 2
    for _ in range(_MAX_PARTS):
        marker = _MARKER.search(image_bytes, position)
        if marker is None:
            return
        position = marker.end()
        code, size = image_bytes[position - 1], 0
        if code not in (_SOI, _EOI):
            size = int.from_bytes(image_bytes[position : position + 2], "big") - 2
            position += 2
            if position + max(size, 1) > len(image_bytes):
                return
        yield code, position, size
        if code == _EOI:
            return
        position += max(size, 0)
    raise _too_many_parts("JPEG")


# --- PNG


def _read_png(image_bytes: bytes) -> ImageHeader:
    """Reads the header chunk, which should be the first; libpng passes over others before it."""
    names = []
    for name, start in _png_chunks(image_bytes):
        if name == b"IHDR" and start + 8 <= len(image_bytes):
            width, height = struct.unpack_from(">II", image_bytes, start)
            break
        names.append(name)
    else:
        width = height = 0
    oddity = "PNG for iOS (CgBI)" if b"CgBI" in names[:1] else ""
    return ImageHeader("PNG", height * width, height, width, oddity=oddity)


def _png_chunks(image_bytes: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields name and place of the contents of each chunk."""
    position = 8
    for _ in range(_MAX_PARTS):
        if position + 8 > len(image_bytes):
            return
        size, name = struct.unpack_from(">I4s", image_bytes, position)
        yield name, position + 8
        position += 12 + size
    raise _too_many_parts("PNG")


# --- GIF


def _read_gif(image_bytes: bytes) -> ImageHeader:
    """Counts the pixels that a decoder allocates: those of all frames, each at least as large as the canvas.

    Walks the blocks of the file (GIF89a specification, sections 17 to 26) until they end or make no sense.
    """
    if len(image_bytes) < 13:
        return ImageHeader("GIF", 0)
    canvas_width, canvas_height, flags = struct.unpack_from("<HHB", image_bytes, 6)
    position = 13 + _color_table_size(flags)
    num_pixels = num_frames = num_blocks = 0
    while position < len(image_bytes):
        block = image_bytes[position]
        if block == 0x2C and position + 10 <= len(image_bytes):  # image descriptor
            width, height, flags = struct.unpack_from("<HHB", image_bytes, position + 5)
            num_pixels += max(width, canvas_width) * max(height, canvas_height)
            num_frames += 1
            position += 11 + _color_table_size(flags)  # the descriptor, its colours, the LZW code size
        elif block == 0x21:  # extension
            position += 2
        else:
            break
        while position < len(image_bytes) and image_bytes[position]:  # sub-blocks, each with its length in front
            position += 1 + image_bytes[position]
            num_blocks += 1
        position += 1
        num_blocks += 1
        if num_blocks > _MAX_PARTS:
            raise _too_many_parts("GIF")
    return ImageHeader("GIF", num_pixels, oddity=f"animated GIF, {num_frames:,} frames" if num_frames > 1 else "")


def _color_table_size(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _too_many_parts(kind: str) -> UnreadableImageError:
    return UnreadableImageError(UnreadableImageError.UNSUPPORTED, f"{kind} of over {_MAX_PARTS:,} parts")
