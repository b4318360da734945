"""Embeddings with their images' ids and landmarks: read, checked, scaled to length 1 and in order of the landmarks.

Everything that mines works on them in this order, in which a landmark's images are one range of places: so what
belongs to the same landmark is told by two numbers, and masks are slices. Within a landmark images are in order of
their ids, so that the order of the rows of a file decides nothing.
"""

from __future__ import annotations

import codecs
import dataclasses
import os
import re
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import list_some
from landmark_triplets_tfds.common.file_access import is_remote, read_file, stat_file
from landmark_triplets_tfds.competition.tables import (
    IMAGE_ID,
    LandmarkTable,
    find_repeated,
    format_image_id,
    parse_image_ids,
)
from landmark_triplets_tfds.errors import EmbeddingsError, NoExampleError

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_BLOCK_BYTES = 32 << 20
_NUM_IDS_SHOWN = 3
_MAX_LIST_BYTES = 1 << 30


# --- What is read: embeddings, and which image is in which of their rows


def read_embeddings(path: epath.Path) -> npt.NDArray[np.floating]:
    """Maps embeddings from a file, without reading them yet.

    Args:
      path: of a ``.npy`` file with float16 or float32[num_images, dim], not remote.

    Raises:
      EmbeddingsError: if there is no such file, or something else is in it.
    """
    embeddings: npt.NDArray[np.floating] = _load(path, "r", "np.save(path, embeddings)")
    _check_embeddings(embeddings)
    return embeddings


def read_image_ids(path: epath.Path) -> npt.NDArray[np.uint64]:
    """Reads the ids of images, in the order of the embeddings.

    Args:
      path: of a ``.npy`` file with uint64 or with texts of 16 hex digits, or of a text file with such an id per line.
        Blank lines do not count.

    Returns:
      uint64[n].

    Raises:
      EmbeddingsError: if there is no such file, or something else is in it, or an id occurs twice; the message names
        the row, from 0, or the line, from 1.
    """
    ids: npt.NDArray[np.uint64] | list[str]
    if path.suffix == ".npy":
        what, ids = "row", _load_ids(path)
        numbers = np.arange(len(ids))
    else:
        what, lines = "line", _read_lines(path)
        numbers = np.array([number for number, line in enumerate(lines, 1) if line], dtype=np.int64)
        ids = [line for line in lines if line]
    if not len(ids):
        raise EmbeddingsError(f"{path} holds no ids.")
    image_ids = _parse_ids(path, ids, what, numbers) if isinstance(ids, list) else ids
    _check_distinct(image_ids, str(path), what, numbers)
    return image_ids


def landmarks_of(image_ids: npt.NDArray[np.uint64], table: LandmarkTable, table_name: str) -> npt.NDArray[np.int64]:
    """Returns int64[n]: the landmark of each image.

    Raises:
      EmbeddingsError: if images are not in the table; the message names the first ones.
    """
    rows = table.find_rows(image_ids)
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        named = [f"{format_image_id(image_ids[row])} (row {row:,})" for row in missing[: _NUM_IDS_SHOWN + 1].tolist()]
        raise EmbeddingsError(
            f"{len(missing):,} of the {len(image_ids):,} images are not in {table_name}:"
            f" {list_some(named, _NUM_IDS_SHOWN)}. Are the ids of another dataset, or in another form?"
        )
    return table.landmark_ids[rows]


def _load(path: epath.Path, mmap_mode: Any, how_to_save: str) -> npt.NDArray[Any]:
    if is_remote(os.fspath(path)):
        raise EmbeddingsError(f"{path} is not on this machine. Files of arrays are mapped, so copy it here.")
    try:
        stat_file(os.fspath(path))  # a pipe would be waited for
        content = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        raise EmbeddingsError(f"There is no {path}. Expected a file that `{how_to_save}` has written.") from None
    except (ValueError, EOFError, OSError, MemoryError, OverflowError) as error:
        raise EmbeddingsError(
            f"{path} is not a .npy file with plain numbers, or is damaged ({error}). Write it with `{how_to_save}`."
        ) from None
    if not isinstance(content, np.ndarray):
        content.close()
        raise EmbeddingsError(f"{path} holds several arrays. Write one, with `{how_to_save}`.")
    return content


def _load_ids(path: epath.Path) -> npt.NDArray[np.uint64] | list[str]:
    """Returns the ids in a file of an array, as uint64[n] or n texts."""
    content = _load(path, None, "np.save(path, image_ids.astype(np.uint64))")
    if content.ndim != 1:
        raise EmbeddingsError(f"{path} must have the shape [num_images], got {list(content.shape)}.")
    if content.dtype.kind == "u" and content.dtype.itemsize == 8:
        return content.astype(np.uint64)
    if content.dtype.kind not in "SU":
        raise EmbeddingsError(
            f"{path} must hold uint64, or texts of 16 hex digits, got {content.dtype}. Save ids as"
            " `np.array([int(image_id, 16) for image_id in ids], dtype=np.uint64)`."
        )
    texts: list[str] = (np.char.decode(content, "latin-1") if content.dtype.kind == "S" else content).tolist()
    return texts


def _read_lines(path: epath.Path) -> list[str]:
    try:
        content = read_file(os.fspath(path), _MAX_LIST_BYTES)
    except OSError as error:
        raise EmbeddingsError(f"{path} cannot be read ({error}). Expected is text, an image id per line.") from None
    # Whatever the bytes are, they are text in this encoding, of which ids are checked to be hex digits.
    text = content.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    return [line.strip(" \t") for line in re.split("\r\n|\r|\n", text)]


def _parse_ids(path: epath.Path, texts: list[str], what: str, numbers: Places) -> npt.NDArray[np.uint64]:
    try:
        return parse_image_ids(texts)
    except ValueError as error:
        pairs = zip(numbers.tolist(), texts, strict=True)
        number = next(number for number, text in pairs if not IMAGE_ID.pattern.fullmatch(text))
        raise EmbeddingsError(f"{path}, {what} {number:,}: {error}") from None


# --- What is mined


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkVectors:
    """Unit vectors of images, landmark by landmark (ascending id), by image id within each.

    Attributes:
      vectors: float32[n, dim], each of length 1.
      image_ids: uint64[n].
      rows: int64[n]: the row of the embeddings that each place comes from.
      starts, stops: int64[n]: the images of the landmark at place i are the places ``starts[i]`` to ``stops[i]``
        (exclusive).
    """

    vectors: Vectors
    image_ids: npt.NDArray[np.uint64]
    rows: Places
    starts: Places
    stops: Places

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_landmarks(self) -> int:
        return int((self.starts == np.arange(len(self))).sum())


def arrange(
    embeddings: npt.NDArray[np.floating], image_ids: npt.NDArray[np.uint64], landmark_ids: npt.NDArray[np.integer]
) -> LandmarkVectors:
    """Checks embeddings and puts them in order.

    Beside the result, ``4 * n * dim`` bytes, it takes some tens of MB: the embeddings may be memory-mapped, and are
    read once, from the first row to the last.

    Args:
      embeddings: float16 or float32[n, dim], of any length but 0.
      image_ids: uint64[n], all different.
      landmark_ids: whole numbers[n], >= 0.

    Raises:
      EmbeddingsError: if shapes or types are others, an id occurs twice, or a row cannot be scaled to length 1; the
        message names the row, from 0, and the image.
      NoExampleError: if there are fewer than two landmarks.
    """
    _check_embeddings(embeddings)
    _check_labels(len(embeddings), image_ids, landmark_ids)
    rows = np.lexsort((image_ids, landmark_ids))
    landmarks = landmark_ids[rows]
    is_first = np.concatenate([[True], landmarks[1:] != landmarks[:-1]])
    firsts = np.flatnonzero(is_first)
    sizes = np.diff(firsts, append=len(rows))
    if len(firsts) < 2:
        raise NoExampleError(
            f"No triplet can be mined: all {len(rows):,} images show the same landmark, so there is no negative. At"
            " least two landmarks are needed."
        )
    starts = np.repeat(firsts, sizes)
    return LandmarkVectors(
        vectors=_scale(embeddings, rows, image_ids),
        image_ids=image_ids[rows],
        rows=rows,
        starts=starts,
        stops=starts + np.repeat(sizes, sizes),
    )


def _name_of(embeddings: npt.NDArray[np.generic]) -> str:
    """Returns what messages call the array: its file, where it is mapped from one."""
    return str(getattr(embeddings, "filename", None) or "the array of embeddings")


def _check_embeddings(embeddings: npt.NDArray[np.generic]) -> None:
    """Raises EmbeddingsError if an array is not float16 or float32[n, dim]."""
    name, dtype = _name_of(embeddings), embeddings.dtype
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise EmbeddingsError(f"{name} must have the shape [num_images, dim], got {list(embeddings.shape)}.")
    if dtype.kind != "f" or dtype.itemsize not in (2, 4):
        raise EmbeddingsError(
            f"{name} must hold float16 or float32, got {dtype}. Save it with `np.save(path, embeddings.astype("
            "np.float32))`."
        )


def _check_labels(count: int, image_ids: npt.NDArray[np.uint64], landmark_ids: npt.NDArray[np.integer]) -> None:
    if image_ids.dtype != np.uint64 or landmark_ids.dtype.kind not in "iu":
        raise EmbeddingsError(
            f"image_ids must be uint64 and landmark_ids whole numbers, got {image_ids.dtype} and {landmark_ids.dtype}."
        )
    if image_ids.shape != (count,) or landmark_ids.shape != (count,):
        raise EmbeddingsError(
            f"expected an image id and a landmark id for each of the {count:,} rows of embeddings, got"
            f" {list(image_ids.shape)} and {list(landmark_ids.shape)}."
        )
    if landmark_ids.min() < 0:
        raise EmbeddingsError(
            f"{(landmark_ids < 0).sum():,} of the {count:,} images have no landmark (landmark_id"
            f" {landmark_ids.min()}), the first in row {(landmark_ids < 0).argmax():,}. Only images with a landmark can"
            " be mined; leave the other ones out."
        )
    _check_distinct(image_ids, "the image ids", "row", np.arange(count))


def _check_distinct(image_ids: npt.NDArray[np.uint64], name: str, what: str, numbers: Places) -> None:
    """Raises EmbeddingsError if an id occurs twice, with the numbers, int64[n], of its rows or lines."""
    repeated = find_repeated(image_ids)
    if repeated:
        first, second = numbers[list(repeated)].tolist()
        raise EmbeddingsError(
            f"{name}, {what} {second:,}: image {format_image_id(image_ids[repeated[0]])} is there already, in {what}"
            f" {first:,}; each image must occur once."
        )


def _scale(embeddings: npt.NDArray[np.floating], rows: Places, image_ids: npt.NDArray[np.uint64]) -> Vectors:
    """Returns the embeddings at these rows, each scaled to length 1."""
    count, dim = embeddings.shape
    place_of = np.empty(count, dtype=np.int64)
    place_of[rows] = np.arange(count)
    vectors = np.empty((count, dim), dtype=np.float32)
    step = max(1, _BLOCK_BYTES // (8 * dim))
    for start in range(0, count, step):
        block = embeddings[start : start + step].astype(np.float64)  # squares of float32 may not fit float32
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            row = start + int(wrong[0])
            what = "is all zeros" if lengths[wrong[0]] == 0 else "holds NaN or infinity"
            raise EmbeddingsError(
                f"{_name_of(embeddings)}, row {row:,} (image {format_image_id(image_ids[row])}) {what}, so it has no"
                " direction to compare. Compute it again, or leave the image out."
            )
        block /= lengths[:, np.newaxis]
        vectors[place_of[start : start + step]] = block
    return vectors
