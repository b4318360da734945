"""Embeddings with their images' ids and landmarks: read, checked, scaled to length 1 and in order of the landmarks.

Everything that mines works on them in this order, in which a landmark's images are one range of places: so what
belongs to the same landmark is told by two numbers, and masks are slices. Within a landmark images are in order of
their ids, so that the order of the rows of a file decides nothing.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
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

Embeddings = npt.NDArray[np.floating[Any]]
Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_BLOCK_BYTES = 16 << 20
_NUM_IDS_SHOWN = 3
_MAX_LIST_BYTES = 1 << 30


# --- What is read: embeddings, and which image is in which of their rows


def read_embeddings(path: epath.Path, num_images: int, found: str) -> Embeddings:
    """Maps a ``.npy`` file with float16 or float32[num_images, dim], not a remote one, without reading it yet.

    Raises:
      EmbeddingsError: if there is no such file, or something else is in it; ``found`` says where so many images were.
    """
    embeddings: Embeddings = _load(path, "r", "np.save(path, embeddings)")
    _check_embeddings(embeddings)
    if len(embeddings) != num_images:
        raise EmbeddingsError(
            f"{path} has {len(embeddings):,} rows, but {found} Row i must be the embedding of number i of these:"
            " compute embeddings for all of them, in their order."
        )
    return embeddings


def read_image_ids(path: epath.Path) -> npt.NDArray[np.uint64]:
    """Returns uint64[n]: the ids of images, in the order of the embeddings.

    The file is ``.npy``, with uint64 or with texts of 16 hex digits, or a text with such an id per line. Blank lines do
    not count.

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
    if isinstance(ids, list):
        try:
            ids = parse_image_ids(ids)
        except ValueError as error:
            wrong = next(at for at, text in enumerate(ids) if not IMAGE_ID.pattern.fullmatch(text))
            raise EmbeddingsError(f"{path}, {what} {numbers[wrong]:,}: {error}") from None
    _check_distinct(ids, str(path), what, numbers)
    return ids


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


# --- What is mined


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkVectors:
    """Unit vectors of images, landmark by landmark (ascending id), by image id within each."""

    vectors: Vectors  # [n, dim], each of length 1
    image_ids: npt.NDArray[np.uint64]  # [n]
    rows: Places  # [n], of the embeddings that each place comes from
    # [n]: the images of the landmark at place i are the places starts[i] to stops[i] (exclusive).
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
    _, firsts, sizes = np.unique(landmark_ids[rows], return_index=True, return_counts=True)
    if len(firsts) < 2:
        raise NoExampleError(
            f"No triplet can be mined: all {len(rows):,} images show the same landmark, so there is no negative. At"
            " least two landmarks are needed."
        )
    return LandmarkVectors(
        vectors=_scale(embeddings, rows, image_ids),
        image_ids=image_ids[rows],
        rows=rows,
        starts=np.repeat(firsts, sizes),
        stops=np.repeat(firsts + sizes, sizes),
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

    def name_row(row: int) -> str:
        return f"{_name_of(embeddings)}, row {row:,} (image {format_image_id(image_ids[row])})"

    for start in range(0, count, step):
        block = slice(start, start + step)
        vectors[place_of[block]] = as_vectors(embeddings[block], start, name_row)
    return vectors


def as_vectors(embeddings: Embeddings, first: int, name_row: Callable[[int], str], *, scaled: bool = True) -> Vectors:
    """Returns embeddings, float[n, dim] from the row ``first`` on, as float32, by default each divided by its length.

    Raises:
      EmbeddingsError: if one holds NaN or infinity, or is all zeros and to be scaled; ``name_row`` says which row.
    """
    vectors: Vectors
    if scaled:
        wide = embeddings.astype(np.float64)  # squares of float32 may not fit float32
        with np.errstate(divide="ignore", invalid="ignore"):  # of zeros and infinity
            vectors = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    else:
        vectors = np.asarray(embeddings, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        row = int(wrong[0])
        what = "holds NaN or infinity" if embeddings[row].any() else "is all zeros"
        raise EmbeddingsError(
            f"{name_row(first + row)} {what}, so it cannot be compared. Compute it again, or leave the image out."
        )
    return vectors
