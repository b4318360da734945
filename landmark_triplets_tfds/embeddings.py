"""Embeddings with their images' ids and landmarks, checked, scaled to length 1 and put in order of the landmarks.

Everything that mines works on them in this order, in which a landmark's images are one range of places: so what
belongs to the same landmark is told by two numbers, and masks are slices. Within a landmark images are in order of
their ids, so that the order of the rows of a file decides nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import EmbeddingsError, NoTripletError
from landmark_triplets_tfds.landmarks import format_image_id

Vectors = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

_BLOCK_BYTES = 32 << 20


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
      NoTripletError: if there are fewer than two landmarks.
    """
    check_embeddings(embeddings)
    _check_labels(len(embeddings), image_ids, landmark_ids)
    rows = np.lexsort((image_ids, landmark_ids))
    landmarks = landmark_ids[rows]
    is_first = np.concatenate([[True], landmarks[1:] != landmarks[:-1]])
    firsts = np.flatnonzero(is_first)
    sizes = np.diff(firsts, append=len(rows))
    if len(firsts) < 2:
        raise NoTripletError(
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


def name_of(embeddings: npt.NDArray[np.generic]) -> str:
    """Returns what messages call the array: its file, where it is mapped from one."""
    return str(getattr(embeddings, "filename", None) or "the array of embeddings")


def check_embeddings(embeddings: npt.NDArray[np.generic]) -> None:
    """Raises EmbeddingsError if an array is not float16 or float32[n, dim]."""
    name, dtype = name_of(embeddings), embeddings.dtype
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
    check_distinct(image_ids, "the image ids", "row", np.arange(count))


def check_distinct(image_ids: npt.NDArray[np.uint64], name: str, what: str, numbers: Places) -> None:
    """Raises EmbeddingsError if an id occurs twice, with the numbers, int64[n], of its rows or lines."""
    order = np.argsort(image_ids, kind="stable")
    again = np.flatnonzero(image_ids[order[1:]] == image_ids[order[:-1]])
    if len(again):
        at = again[np.argmin(order[again + 1])]  # the first that repeats one
        first, second = numbers[order[at : at + 2]].tolist()
        raise EmbeddingsError(
            f"{name}, {what} {second:,}: image {format_image_id(image_ids[order[at]])} is there already, in {what}"
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
                f"{name_of(embeddings)}, row {row:,} (image {format_image_id(image_ids[row])}) {what}, so it has no"
                " direction to compare. Compute it again, or leave the image out."
            )
        block /= lengths[:, np.newaxis]
        vectors[place_of[start : start + step]] = block
    return vectors
