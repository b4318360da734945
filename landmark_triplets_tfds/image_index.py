"""Which image, of which landmark, is in which record: the file `index.npz` beside the shards of `landmark_images`.

TFDS keeps nothing per record. With this file, whoever reads records at random knows what they hold without reading any:
12 bytes an image, 19 MB for the whole competition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import zipfile

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.holdout import TRAIN
from landmark_triplets_tfds.landmarks import format_image_id

INDEX_NAME = "index.npz"

_FIELDS = ("image_id", "landmark_id", "split_names", "split_lengths")


@dataclasses.dataclass(frozen=True)
class ImageIndex:
    """The records of a split, in their order.

    Attributes:
      image_ids: uint64[n].
      landmark_ids: int32[n]; -1 where there is no label.

    Raises:
      ValueError: if the arrays differ in length or are of other types.
    """

    image_ids: npt.NDArray[np.uint64]
    landmark_ids: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.image_ids.dtype != np.uint64 or self.landmark_ids.dtype != np.int32:
            raise ValueError(
                f"expected uint64 image ids and int32 landmark ids, got {self.image_ids.dtype} and"
                f" {self.landmark_ids.dtype}."
            )
        if self.image_ids.ndim != 1 or self.image_ids.shape != self.landmark_ids.shape:
            raise ValueError(
                f"expected as many image ids as landmark ids, got {self.image_ids.shape} and {self.landmark_ids.shape}."
            )

    def __len__(self) -> int:
        return len(self.image_ids)


def check_landmark_ids(landmark_ids: npt.NDArray[np.int64]) -> None:
    """Raises ImageIndexError if a landmark_id needs more than 32 bits."""
    largest = np.iinfo(np.int32).max
    if len(landmark_ids) and landmark_ids.max() > largest:
        raise ImageIndexError(
            f"{INDEX_NAME} holds landmark_ids of up to {largest}, and the table has {landmark_ids.max()}. Give the"
            " landmarks smaller numbers in the table."
        )


def in_record_order(image_ids: npt.NDArray[np.uint64], landmark_ids: npt.NDArray[np.int64], split: str) -> ImageIndex:
    """Returns the index of a split's images, given in any order.

    TFDS writes the records of a split, here as on a cluster, in the order of their keys' MD5 with the split's name as
    salt, and the key of an image is its id.

    Raises:
      ImageIndexError: if a landmark_id needs more than 32 bits.
    """
    from tensorflow_datasets.core import hashing

    check_landmark_ids(landmark_ids)
    hasher = hashing.Hasher(split)
    hashes = [hasher.hash_key(format_image_id(image_id)) for image_id in image_ids.tolist()]
    order = np.array(sorted(range(len(hashes)), key=hashes.__getitem__), dtype=np.int64)
    return ImageIndex(image_ids[order], landmark_ids[order].astype(np.int32))


def write_image_index(path: epath.Path, splits: Mapping[str, ImageIndex]) -> None:
    """Writes the index of all splits of a dataset.

    The file holds ``image_id`` uint64[n] and ``landmark_id`` int32[n], all splits one after the other, and
    ``split_names`` and ``split_lengths`` int64 that tell them apart.
    """
    with path.open("wb") as file:
        np.savez(
            file,
            image_id=np.concatenate([index.image_ids for index in splits.values()]),
            landmark_id=np.concatenate([index.landmark_ids for index in splits.values()]),
            split_names=np.array(list(splits)),
            split_lengths=np.array([len(index) for index in splits.values()], dtype=np.int64),
        )


def read_image_index(data_dir: epath.PathLike, split: str = TRAIN) -> ImageIndex:
    """Reads the index of a split.

    Args:
      data_dir: the folder of the prepared version, with the shards in it; `builder.data_dir`.
      split: its name.

    Raises:
      ImageIndexError: if the file is missing or wrong, or there is no such split.
    """
    path = epath.Path(data_dir) / INDEX_NAME
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            image_ids, landmark_ids, names, lengths = (content[field] for field in _FIELDS)
    except FileNotFoundError:
        raise ImageIndexError(
            f"There is no {path}. It is written by builds of landmark_images; name the folder of a prepared version,"
            " such as ~/tensorflow_datasets/landmark_images/128px_all/1.0.0, or build the dataset with"
            " `tfds build landmark_images/128px_all --imports landmark_triplets_tfds`."
        ) from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise ImageIndexError(f"{path} is damaged ({error}). Build the dataset again.") from error
    found: Sequence[str] = names.tolist()
    if split not in found:
        raise ImageIndexError(f"{path} has the splits {', '.join(found)}, but no {split!r}.")
    ends = np.cumsum(lengths)
    if lengths.shape != names.shape or image_ids.shape != landmark_ids.shape or ends[-1] != len(image_ids):
        raise ImageIndexError(f"{path} is damaged (lengths that do not fit). Build the dataset again.")
    at = found.index(split)
    part = slice(int(ends[at] - lengths[at]), int(ends[at]))
    return ImageIndex(image_ids[part], landmark_ids[part])
