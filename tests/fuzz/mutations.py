"""Damaged files for `tests.fuzz.fuzz`, drawn from whole ones.

Random bytes alone stop at the first checksum or length. So each kind of file has mutators of its own as well, which
change a field and mend the checksums around it: what comes of that gets past the first checks of a reader.
"""

from __future__ import annotations

from collections.abc import Callable
import random
import struct
import zlib

Mutate = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes bytes without knowing what they mean: flips, cuts, insertions, repeats, numbers at the limits."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at, count = rng.randrange(len(changed) + 1), rng.choice([1, 2, 4, 20, 1000])
        how = rng.choice(["flip", "flip", "number", "cut", "delete", "insert", "repeat", "swap", "zero", "append"])
        if how == "flip" and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif how == "number":
            size = rng.choice([1, 2, 4, 8])
            number = rng.choice(_NUMBERS) % (1 << 8 * size)
            changed[at : at + size] = number.to_bytes(size, rng.choice(["little", "big"]))
        elif how == "cut":
            del changed[at:]
        elif how == "delete":
            del changed[at : at + count]
        elif how == "insert":
            changed[at:at] = rng.randbytes(count)
        elif how == "repeat":
            changed[at:at] = bytes(changed[at : at + count]) * rng.choice([1, 2, 50])
        elif how == "swap":
            other = rng.randrange(len(changed) + 1)
            changed[at : at + count], changed[other : other + count] = (
                changed[other : other + count],
                changed[at : at + count],
            )
        elif how == "zero":
            changed[at : at + count] = bytes(len(changed[at : at + count]))
        else:
            changed += rng.randbytes(count)
    return bytes(changed)


def mutate(data: bytes, rng: random.Random, own: Mutate) -> bytes:
    """Damages a file without knowing its kind, or knowing it, or both."""
    how = rng.choice(["bytes", "own", "own", "both"])
    if how != "bytes":
        data = own(data, rng)
    return data if how == "own" else mutate_bytes(data, rng)


# --- Images

_SEGMENT_CHANGES = ("remove", "repeat", "swap", "contents", "length", "scans", "between", "previews")
_FRAME_CHANGES = ("size", "frame", "sampling", "ids", "count", "tables")


def mutate_image(data: bytes, rng: random.Random) -> bytes:
    """Changes an image file as one of its kind, or what comes after it."""
    if rng.random() < 0.1:
        return data + _trailer(data, rng)
    if data.startswith(b"\xff\xd8"):
        return mutate_jpeg(data, rng)
    return mutate_png(data, rng) if data.startswith(b"\x89PNG") else mutate_gif(data, rng)


def _trailer(data: bytes, rng: random.Random) -> bytes:
    """Returns what phones append: a video, in which any bytes are, or another picture."""
    scans = rng.choice([b"\xff\xda", b"\xff\xda\0\x08\1\1\0\0\x3f\0", b"\xff\xc0", b"\0"])
    video = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + rng.randbytes(500) + scans * rng.choice([1, 5000])
    return rng.choice([video, data, data + video, b"\0" * 20 + data])


def mutate_jpeg(data: bytes, rng: random.Random) -> bytes:
    """Changes, removes, repeats or swaps segments, and what the headers of frame and scans claim."""
    segments = _jpeg_segments(data)
    at = rng.randrange(len(segments))
    how = rng.choice(_SEGMENT_CHANGES + _FRAME_CHANGES)
    if how in _FRAME_CHANGES:
        frames = [n for n, segment in enumerate(segments) if segment[1] in (0xC0, 0xC1, 0xC2)]
        if not frames:
            return mutate_bytes(data, rng)
        frame = bytearray(segments[frames[0]])
        if how == "size":
            sizes = [0, 1, 7, 200, 1000, 9999, 10001, 65500, 65535]
            struct.pack_into(">HH", frame, 5, rng.choice(sizes), rng.choice(sizes))
        elif how == "sampling":
            frame[11::3] = bytes(rng.choice([0x11, 0x12, 0x21, 0x22, 0x14, 0x41, 0x33]) for _ in frame[11::3])
        elif how == "ids":  # in frame and scans, or only there
            ids = {old: rng.choice([0, 1, 2, 255, *b"RGB"]) for old in frame[10::3]}
            frame[10::3] = bytes(ids[old] for old in frame[10::3])
            if rng.random() < 0.7:
                segments = [_with_ids(segment, ids) for segment in segments]
        elif how == "count":
            frame[9] = rng.choice([0, 1, 2, 3, 4, 5, 255])
            frame[10:] = (frame[10:] * 255)[: 3 * frame[9]]
            struct.pack_into(">H", frame, 2, len(frame) - 2)
        elif how == "tables":
            frame[12::3] = bytes(rng.choice([0, 1, 3, 255]) for _ in frame[12::3])
        else:  # precision, number of components, sampling factors, tables, coding process
            place = rng.choice([1, 4, *range(9, len(frame))])
            frame[place] = rng.choice([0xC0 + rng.randrange(16)] if place == 1 else [0, 1, 2, 0x11, 0x44, 0xFF])
        segments[frames[0]] = bytes(frame)
    elif how == "remove":
        del segments[at]
    elif how == "repeat":
        segments[at:at] = [segments[at]] * rng.choice([1, 3, 300])
    elif how == "swap":
        other = rng.randrange(len(segments))
        segments[at], segments[other] = segments[other], segments[at]
    elif how == "contents":
        segments[at] = segments[at][:4] + mutate_bytes(segments[at][4:], rng)
    elif how == "length" and len(segments[at]) >= 4:
        segments[at] = segments[at][:2] + rng.choice([b"\0\0", b"\0\1", b"\xff\xff"]) + segments[at][4:]
    elif how == "scans":
        scans = [segment for segment in segments if segment[1] == 0xDA]
        if scans:
            segments[-1:-1] = [rng.choice(scans)] * rng.choice([1, 10, 2000])
    elif how == "between":
        odd = [
            b"\0" * 20,
            b"\xff" * 20,
            b"\xff\xfe\0\2",
            b"\xff\xd0",
            b"\xff\1",
            b"\xff\xd8",
            b"\xff\xfe\0\0",
            b"\xff\2",
        ]
        segments[at:at] = [rng.choice(odd) * rng.choice([1, 5000])]
    else:
        segments[1:1] = [b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in [data[:60_000]]]
    return b"".join(segments)


def _with_ids(segment: bytes, ids: dict[int, int]) -> bytes:
    if segment[1] != 0xDA or len(segment) < 5:
        return segment
    end = 5 + 2 * segment[4]
    header = bytearray(segment[5:end])
    header[::2] = bytes(ids.get(old, old) for old in header[::2])
    return segment[:5] + header + segment[end:]


def _jpeg_segments(data: bytes) -> list[bytes]:
    """Cuts a JPEG before each marker; coded pixels stay with the scan they belong to."""
    starts = [0]
    position = 2
    while position + 4 <= len(data):
        starts.append(position)
        if data[position + 1] == 0xDA:
            position += 2
            while position + 1 < len(data) and not (
                data[position] == 0xFF and data[position + 1] >= 0xC0 and data[position + 1] not in range(0xD0, 0xD8)
            ):
                position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    ends = [*starts[1:], len(data)]
    return [data[start:end] for start, end in zip(starts, ends, strict=True) if end - start >= 2]


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """Changes, removes, repeats or adds chunks, and mends their checksums."""
    chunks = _png_chunks(data)
    at = rng.randrange(len(chunks))
    how = rng.choice(["size", "kind", "remove", "repeat", "contents", "pixels", "text", "checksum", "before"])
    if how == "size":
        sizes = [0, 1, 100, 9999, 10001, 65536, 2**31 - 1, 2**31]
        chunks[0] = (b"IHDR", struct.pack(">II", rng.choice(sizes), rng.choice(sizes)) + chunks[0][1][8:])
    elif how == "kind":  # bit depth, colour type, compression, filter, interlacing
        header = bytearray(chunks[0][1])
        header[rng.randrange(8, 13)] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])
        chunks[0] = (b"IHDR", bytes(header))
    elif how == "remove":
        del chunks[at]
    elif how == "repeat":
        chunks[at:at] = [chunks[at]] * rng.choice([1, 3, 300])
    elif how == "contents":
        chunks[at] = (chunks[at][0], mutate_bytes(chunks[at][1], rng))
    elif how == "pixels":
        chunks = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        chunks.insert(1, (b"IDAT", zlib.compress(rng.choice([bytes(20_000_000), bytes(10), rng.randbytes(10_000)]))))
    elif how == "text":  # a megabyte or a hundred of them, compressed a thousandfold
        packed = zlib.compress(bytes(rng.choice([1, 100]) << 20))
        kind, start = rng.choice([(b"zTXt", b"Comment\0\0"), (b"iCCP", b"sRGB\0\0"), (b"iTXt", b"Comment\0\1\0\0\0")])
        chunks.insert(1, (kind, start + packed))
    elif how == "before":  # libpng passes over chunks that it does not know
        sizes = struct.pack(">II", rng.choice([1, 60, 13_000]), rng.choice([1, 60, 13_000]))
        names = [b"abCd", b"CgBI", b"tEXt", b"IHDR", b"iHDR", b"pHYs"]
        chunks[:0] = [(rng.choice(names), rng.choice([b"", bytes(4), sizes, sizes + chunks[0][1][8:]]))]
        chunks[:0] = chunks[:1] * rng.choice([0, 0, 2000])
    mended = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    if how == "checksum":
        mended[at] = mended[at][:-4] + bytes(4)
    return data[:8] + b"".join(mended)


def mutate_gif(data: bytes, rng: random.Random) -> bytes:
    """Repeats the frame of a GIF that Pillow wrote, changes sizes, or adds an extension."""
    start = data.index(b",\0\0\0\0")
    head, frame = data[:start], data[start:-1]
    how = rng.choice(["frames", "canvas", "frame", "extension", "cut"])
    size = struct.pack("<HH", rng.choice([0, 1, 60, 9999, 65535]), rng.choice([0, 1, 60, 9999, 65535]))
    if how == "frames":
        frame *= rng.choice([2, 3, 500])
    elif how == "canvas":
        head = head[:6] + size + head[10:]
    elif how == "frame":
        frame = frame[:5] + size + frame[9:]
    elif how == "extension":
        head += b"!\xfe" + (b"\1!" * rng.choice([1, 100_000])) + b"\0"
    else:
        frame = frame[: rng.randrange(len(frame))]
    return head + frame + rng.choice([b";", b"", b";" + data])


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, position = [], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


# --- Tables


def mutate_table(data: bytes, rng: random.Random) -> bytes:
    """Changes fields and lines of a table."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    fields = lines[at].split(b",")
    field = rng.randrange(len(fields))
    how = rng.choice(["field", "field", "remove", "repeat", "swap", "cut", "separator", "quote", "encoding", "long"])
    if how == "field":
        odd = [
            b"",
            b" ",
            b"-1",
            b"1e9",
            b"9" * 19,
            b"\xff",
            b"\0",
            b"../" * 5 + b"x",
            b"nan",
            b'"',
            b"a" * 16,
            b"A" * 16,
        ]
        fields[field] = rng.choice(
            [*odd, fields[field] * 2, fields[field][1:], mutate_bytes(fields[field] or b"x", rng)]
        )
        lines[at] = b",".join(fields)
    elif how == "remove":
        del lines[at]
    elif how == "repeat":
        lines[at:at] = [lines[at]] * rng.choice([1, 1000])
    elif how == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "cut":
        return data[: rng.randrange(len(data))]
    elif how == "separator":
        old, new = rng.choice(
            [(b",", b";"), (b",", b"\t"), (b"\n", b"\r"), (b"\n", b"\r\n"), (b"\n", b"\n\n"), (b",", b",,")]
        )
        return data.replace(old, new)
    elif how == "quote":
        lines[at] = b'"' + lines[at]
    elif how == "encoding":
        return data.decode("ascii", "replace").encode(rng.choice(["utf-16", "utf-32", "utf-8-sig", "cp037"]))
    else:
        lines[at] += rng.choice([b",", b" ", b"0", b"\xc3\xa9"]) * 1_000_000
    return b"\n".join(lines)


# --- Archives

# Offset and size in bytes of the fields of a member's header, of the directory and of its end, by signature.
_ZIP_FIELDS = (
    (b"PK\3\4", [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 1)]),
    (b"PK\1\2", [(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (42, 4), (46, 1)]),
    (b"PK\5\6", [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]),
)
_TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155), (345, 155))


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Changes a field of a member's header, of the directory or of what says where the directory is."""
    signature, fields = rng.choice(_ZIP_FIELDS)
    places = [at for at in range(len(data)) if data.startswith(signature, at)]
    if not places:
        return mutate_bytes(data, rng)
    offset, size = rng.choice(fields)
    at = rng.choice(places) + offset
    old = int.from_bytes(data[at : at + size], "little")
    number = rng.choice([*_NUMBERS, old + 1, old - 1, old * 2, rng.getrandbits(32), len(data)]) % (1 << 8 * size)
    return data[:at] + number.to_bytes(size, "little") + data[at + size :]


def mutate_tar(data: bytes, rng: random.Random) -> bytes:
    """Changes a field of a header and mends its checksum; or removes, repeats or swaps blocks."""
    blocks = [data[at : at + 512] for at in range(0, len(data), 512)]
    at = rng.randrange(len(blocks))
    how = rng.choice(["field", "field", "field", "remove", "repeat", "swap"])
    if how == "field":
        headers = [n for n, block in enumerate(blocks) if block[257:262] == b"ustar"]
        if not headers:
            return mutate_bytes(data, rng)
        at = rng.choice(headers)
        header = bytearray(blocks[at])
        start, size = rng.choice(_TAR_FIELDS)
        texts = [b"", b"\0" * size, b"7" * size, b"\xff" * size, b"\x80" + b"\0" * (size - 2) + b"\xff", b"-1"]
        texts.append(rng.randbytes(size))
        texts += [b"../" * 8, b"/etc/passwd", bytes([rng.choice(b"01234567xgLKSDNMV")])]
        header[start : start + size] = rng.choice(texts)[:size].ljust(size, b"\0")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        blocks[at] = bytes(header)
    elif how == "remove":
        del blocks[at]
    elif how == "repeat":
        blocks[at:at] = [blocks[at]] * rng.choice([1, 3, 2000])
    else:
        other = rng.randrange(len(blocks))
        blocks[at], blocks[other] = blocks[other], blocks[at]
    return b"".join(blocks)
