"""Files that are trusted only if a checksum over all of them is right: indexes of archives, and what workers are told.

What is in such a file can be made again, but a flipped bit in it would exchange images without an error. So nothing is
taken from it before all of it has been compared: some 20 ms for the 51 MB that the index of the competition has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import pickle
import struct
from typing import IO, Any

from etils import epath
import google_crc32c

from landmark_triplets_tfds.common.file_access import map_file, open_file
from landmark_triplets_tfds.errors import DamagedFileError

_HEAD = struct.Struct("<4sI")  # signature, CRC-32C of all that follows: number of parts, their lengths, and the parts
_SIGNATURE = b"LTC1"
_NUMBER = struct.Struct("<Q")
_ALIGNMENT = 64  # of the parts, which may be arrays
_CHUNK_BYTES = 1 << 20

Part = bytes | memoryview | pickle.PickleBuffer


def write_parts(file: IO[bytes], parts: Sequence[Part]) -> None:
    """Writes bytes and contiguous arrays."""
    checksum = 0
    for chunk in _chunks(parts):
        checksum = google_crc32c.extend(checksum, chunk)
    file.write(_HEAD.pack(_SIGNATURE, checksum))
    for chunk in _chunks(parts):
        file.write(chunk)


def read_parts(path: str, *, is_mapped: bool = False) -> list[memoryview]:
    """Returns what was written to a file.

    Args:
      path: of the file, local or remote.
      is_mapped: whether the parts are to need no memory, where the file is a local one that stays as it is.

    Raises:
      DamagedFileError: if it is not as it was written.
      OSError: if it cannot be read.
    """
    if is_mapped:
        content = memoryview(map_file(path))
    else:
        with open_file(path) as file:
            content = memoryview(file.read())
    if len(content) < _HEAD.size or content[: len(_SIGNATURE)] != _SIGNATURE:
        raise DamagedFileError(f"{path} begins otherwise than it was written.")
    checksum = 0
    for chunk in _cut(content[_HEAD.size :]):
        checksum = google_crc32c.extend(checksum, chunk)
    if checksum != _HEAD.unpack_from(content)[1]:
        raise DamagedFileError(f"{path} is damaged: its checksum is another one than when it was written.")
    (num_parts,) = _NUMBER.unpack_from(content, _HEAD.size)
    start = _HEAD.size + _NUMBER.size
    parts, at = [], start + num_parts * _NUMBER.size
    for (length,) in _NUMBER.iter_unpack(content[start:at]):
        at += -at % _ALIGNMENT
        parts.append(content[at : at + length])
        at += length
    return parts


def save_object(path: epath.PathLike, value: Any) -> None:
    """Writes an object for processes that this one trusts and is trusted by, its arrays as they are in memory."""
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    with epath.Path(path).open("wb") as file:
        write_parts(file, [content, *buffers])


def load_object(path: str) -> Any:
    """Returns an object that was saved; its arrays, which cannot be written to, are mapped if the file is a local one.

    Raises:
      DamagedFileError: if the file is not as it was written.
      OSError: if it cannot be read.
    """
    try:
        content, *buffers = read_parts(path, is_mapped=True)
    except DamagedFileError as error:
        raise DamagedFileError(f"{error} Build again; if that does not help, its disk is faulty.") from None
    return pickle.loads(content, buffers=buffers)  # noqa: S301 - see `save_object`


def _chunks(parts: Sequence[Part]) -> Iterator[bytes]:
    """Yields what follows the head of a file."""
    views = [pickle.PickleBuffer(part).raw() for part in parts]
    lengths = b"".join(map(_NUMBER.pack, (len(views), *map(len, views))))
    yield lengths
    at = _HEAD.size + len(lengths)
    for view in views:
        yield bytes(-at % _ALIGNMENT)
        yield from _cut(view)
        at += -at % _ALIGNMENT + len(view)


def _cut(view: memoryview) -> Iterator[bytes]:
    for start in range(0, len(view), _CHUNK_BYTES):
        yield bytes(view[start : start + _CHUNK_BYTES])  # google_crc32c and remote files take bytes alone
