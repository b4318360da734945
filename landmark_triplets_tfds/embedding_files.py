"""The files that mining reads: embeddings as NumPy writes them, and which image is in which row."""

from __future__ import annotations

import codecs
import os
import re
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.embeddings import check_distinct, check_embeddings
from landmark_triplets_tfds.errors import EmbeddingsError
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id, parse_image_ids

_ID_PATTERN = re.compile(r"[0-9a-f]{16}")
_NUM_IDS_SHOWN = 3
_NUM_CHARACTERS_SHOWN = 60


def read_embeddings(path: epath.Path) -> npt.NDArray[np.floating]:
    """Maps embeddings from a file, without reading them yet.

    Args:
      path: of a ``.npy`` file with float16 or float32[num_images, dim], not remote.

    Raises:
      EmbeddingsError: if there is no such file, or something else is in it.
    """
    embeddings: npt.NDArray[np.floating] = _load(path, "r", "np.save(path, embeddings)")
    check_embeddings(embeddings)
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
    if path.suffix == ".npy":
        content = _load(path, None, "np.save(path, image_ids.astype(np.uint64))")
        what, first_number = "row", 0
        if content.ndim != 1:
            raise EmbeddingsError(f"{path} must have the shape [num_images], got {list(content.shape)}.")
        if content.dtype.kind == "S":
            content = np.char.decode(content, "latin-1")
        if content.dtype.kind == "U":
            image_ids = _parse(path, content.tolist(), range(len(content)), what)
        elif content.dtype.kind == "u" and content.dtype.itemsize == 8:
            image_ids = content.astype(np.uint64)
        else:
            raise EmbeddingsError(
                f"{path} must hold uint64, or texts of 16 hex digits, got {content.dtype}. Save ids as"
                " `np.array([int(image_id, 16) for image_id in ids], dtype=np.uint64)`."
            )
        numbers = np.arange(len(image_ids))
    else:
        lines = _read_lines(path)
        what, first_number = "line", 1
        numbers = np.array([number for number, line in enumerate(lines, first_number) if line], dtype=np.int64)
        image_ids = _parse(path, [line for line in lines if line], numbers.tolist(), what)
    if not len(image_ids):
        raise EmbeddingsError(f"{path} holds no ids.")
    check_distinct(image_ids, str(path), what, numbers)
    return image_ids


def landmarks_of(image_ids: npt.NDArray[np.uint64], table: LandmarkTable, table_name: str) -> npt.NDArray[np.int64]:
    """Returns int64[n]: the landmark of each image.

    Raises:
      EmbeddingsError: if images are not in the table; the message names the first ones.
    """
    order = np.argsort(table.image_ids)
    at = np.minimum(np.searchsorted(table.image_ids[order], image_ids), table.num_images - 1)
    rows = order[at]
    missing = np.flatnonzero(table.image_ids[rows] != image_ids)
    if len(missing):
        shown = ", ".join(
            f"{format_image_id(image_ids[row])} (row {row:,})" for row in missing[:_NUM_IDS_SHOWN].tolist()
        )
        raise EmbeddingsError(
            f"{len(missing):,} of the {len(image_ids):,} images are not in {table_name}: {shown}"
            f"{', ...' if len(missing) > _NUM_IDS_SHOWN else ''}. Are the ids of another dataset, or in another form?"
        )
    return table.landmark_ids[rows]


def _load(path: epath.Path, mmap_mode: Any, how_to_save: str) -> npt.NDArray[Any]:
    if "://" in os.fspath(path):
        raise EmbeddingsError(f"{path} is not on this machine. Files of arrays are mapped, so copy it here.")
    try:
        content = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        raise EmbeddingsError(f"There is no {path}. Expected a file that `{how_to_save}` has written.") from None
    except (ValueError, EOFError, OSError) as error:
        raise EmbeddingsError(
            f"{path} is not a .npy file with plain numbers, or is damaged ({error}). Write it with `{how_to_save}`."
        ) from None
    if not isinstance(content, np.ndarray):
        content.close()
        raise EmbeddingsError(f"{path} holds several arrays. Write one, with `{how_to_save}`.")
    return content


def _read_lines(path: epath.Path) -> list[str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EmbeddingsError(f"{path} cannot be read ({error}). Expected is text, an image id per line.") from None
    # Whatever the bytes are, they are text in this encoding, of which ids are checked to be hex digits.
    text = content.removeprefix(codecs.BOM_UTF8).decode("latin-1")
    return [line.strip(" \t") for line in re.split("\r\n|\r|\n", text)]


def _parse(path: epath.Path, texts: list[str], numbers: Any, what: str) -> npt.NDArray[np.uint64]:
    try:
        return parse_image_ids(texts)
    except ValueError:
        at = next(at for at, text in enumerate(texts) if not _ID_PATTERN.fullmatch(text))
        raise EmbeddingsError(
            f"{path}, {what} {numbers[at]:,}: an id must be 16 hex digits (0-9, a-f), got"
            f" {texts[at][:_NUM_CHARACTERS_SHOWN]!r}."
        ) from None
