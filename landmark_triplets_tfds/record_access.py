"""Records of a prepared `landmark_images`, read at random: the index that belongs to a data source, and reading.

A data source is what ``tfds.data_source`` gives, or anything like it: ``len()``, and item i is a dict with ``image``,
``image_id`` and ``landmark_id``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.fork_safety import guard_forks
from landmark_triplets_tfds.image_index import ImageIndex, read_image_index
from landmark_triplets_tfds.landmarks import format_image_id


class DataSource(Protocol):
    """Records by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def find_index(data_source: DataSource, index: ImageIndex | None = None) -> ImageIndex:
    """Returns the index of a data source's records.

    It reads no record, so that worker processes may be forked afterwards, see `fork_safety`.

    Args:
      data_source: of a whole split of `landmark_images`.
      index: of its records; None: read from `index.npz` in the folder that the data source was opened from.

    Raises:
      ImageIndexError: if there is no index, it is of other records, or the split has no labels.
    """
    if index is None:
        info = getattr(data_source, "dataset_info", None)
        if info is None:
            raise ImageIndexError(
                f"A {type(data_source).__name__} does not say which folder its records are in. Give the index:"
                " index=read_image_index(<folder of the prepared version>)."
            )
        split = str(getattr(data_source, "split", None))
        if "[" in split or "+" in split:
            raise ImageIndexError(
                f"The data source is split={split!r}, and index.npz lists whole splits. Open it with"
                f" split={split.partition('[')[0]!r}, or give the index of its records: index=ImageIndex(...)."
            )
        index = read_image_index(info.data_dir, split)
    if len(index) != len(data_source):
        raise ImageIndexError(
            f"The index lists {len(index):,} records, and the data source has {len(data_source):,}: they are not of the"
            " same split or the same dataset."
        )
    if not len(index):
        raise ImageIndexError("The data source has no records.")
    if index.landmark_ids.min() < 0:
        raise ImageIndexError(
            f"{np.count_nonzero(index.landmark_ids < 0):,} of the {len(index):,} images have no landmark_id (the"
            " competition's own index and test images have none), so nothing can be drawn from them."
        )
    guard_forks(data_source)
    return index


def read_images(data_source: DataSource, index: ImageIndex, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the records with these numbers.

    Raises:
      ImageIndexError: if one of them is of another image than the index says.
    """
    records = read_records(data_source, numbers)
    for number, record in zip(numbers, records, strict=True):
        found = record["image_id"]
        found = found.decode() if isinstance(found, bytes) else str(found)
        if found != format_image_id(index.image_ids[number]):
            raise ImageIndexError(
                f"Record {number} holds image {found}, and the index says {format_image_id(index.image_ids[number])}:"
                " they are not of the same split or the same dataset."
            )
    return records


def read_records(data_source: DataSource, numbers: Sequence[int]) -> list[Any]:
    """Returns the records with these numbers, read together where the data source can."""
    read_together = getattr(data_source, "__getitems__", None)
    if read_together is not None:
        return list(read_together(numbers))
    return [data_source[number] for number in numbers]
