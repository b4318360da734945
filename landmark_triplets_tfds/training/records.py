"""The records of a prepared `landmark_images`: which image is in which of them, and reading them at random.

TFDS keeps nothing per record. So the file `index.npz` beside the shards says which image, of which landmark, each
record holds: 12 bytes an image, 19 MB for the whole competition. With it, what is to be read can be drawn without
reading anything. A data source is what ``tfds.data_source`` gives, or anything like it: ``len()``, and item i is a dict
with ``image``, ``image_id`` and ``landmark_id``.

``tfds.load`` decodes images with TensorFlow, ``tfds.data_source`` with OpenCV or else with Pillow. All three wrap the
library libjpeg-turbo, but TensorFlow lets it use a faster cosine transform, so that a model trained with one of them
sees other pixels when it is evaluated with another: docs/reading.md says how far apart. simplejpeg can be told to use
the same transform, takes less time, and leaves Python's global lock to other threads.

No record is read before it is asked for, and reading is an error in a process that was forked from one that has read
records, where array_record (0.8) would crash. PyTorch's DataLoader forks its workers on Linux, before Python 3.14, and
array_record keeps a thread that tidies up after readers. A fork does not copy that thread but does copy the locks it
waits on, so that the worker's first reading ends in a segmentation fault, if the main process had read but a single
record. New readers do not help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import os
import threading
from typing import Any, NoReturn, Protocol, SupportsIndex
import weakref

from etils import epath
import numpy as np
import numpy.typing as npt
import simplejpeg
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import ForkedReaderError, ImageIndexError
from landmark_triplets_tfds.triplets.draws import TRAIN

INDEX_NAME = "index.npz"


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
    splits = read_image_indexes(data_dir)
    if split not in splits:
        raise ImageIndexError(
            f"{epath.Path(data_dir) / INDEX_NAME} has the splits {', '.join(splits)}, but no {split!r}."
        )
    return splits[split]


def read_image_indexes(data_dir: epath.PathLike) -> dict[str, ImageIndex]:
    """Returns the index of every split, by its name; raises ImageIndexError if the file is missing or wrong."""
    path = epath.Path(data_dir).expanduser() / INDEX_NAME
    try:
        with file_access.open_file(os.fspath(path)) as file, np.load(file, allow_pickle=False) as content:
            whole = ImageIndex(content["image_id"], content["landmark_id"])
            names, lengths = content["split_names"].tolist(), content["split_lengths"].tolist()
        if len(set(names)) != len(lengths) or sum(lengths) != len(whole) or min(lengths) < 0:
            raise ValueError("lengths that do not fit")
        starts = np.cumsum(lengths)[:-1]
        parts = zip(names, np.split(whole.image_ids, starts), np.split(whole.landmark_ids, starts), strict=True)
        return {name: ImageIndex(image_ids, landmark_ids) for name, image_ids, landmark_ids in parts}
    except FileNotFoundError:
        raise ImageIndexError(
            f"There is no {path}. It is written by builds of landmark_images; name the folder of a prepared version,"
            " such as ~/tensorflow_datasets/landmark_images/128px_all/1.0.0, or build the dataset with"
            " `tfds build landmark_images/128px_all --imports landmark_triplets_tfds`."
        ) from None
    except Exception as error:  # whatever NumPy, zipfile and zlib come upon in damaged bytes
        raise ImageIndexError(
            f"{path} is damaged ({str(error) or type(error).__name__}). Build the dataset again."
        ) from error


class DataSource(Protocol):
    """Records by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


def find_index(data_source: DataSource, index: ImageIndex | None = None) -> ImageIndex:
    """Returns the index of a data source's records.

    It reads no record, so worker processes may be forked afterwards.

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
    prepare_reading(data_source)
    return index


class TensorFlowPixels(tfds.decode.Decoder):
    """Decodes a stored picture to the pixels that ``tfds.load`` gives, bit for bit.

    To be given to TFDS for each feature that is a picture, and so to PyTorch, Grain and JAX::

        tfds.data_source("landmark_images/128px_all", split="train", decoders={"image": TensorFlowPixels()})

    It decodes what this package stores: baseline JPEG, grey or YCbCr. Grey becomes three equal channels. With
    ``tfds.load`` it changes nothing.
    """

    def decode_example(self, serialized_example: object) -> object:
        return self.feature.decode_example(serialized_example)

    def decode_example_np(self, serialized_example: bytes) -> npt.NDArray[np.uint8]:
        """Returns uint8[resolution, resolution, 3].

        Raises:
          ValueError: if the bytes are no JPEG, or it is damaged.
        """
        pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(serialized_example, "RGB", fastdct=True)
        return pixels


def read_images(data_source: DataSource, index: ImageIndex, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the records with these numbers.

    Raises:
      ImageIndexError: if one of them is of another image than the index says.
      ValueError: if a picture is no JPEG, or it is damaged.
    """
    decoders = getattr(data_source, "decoders", None)
    decoder = decoders.get("image") if isinstance(decoders, Mapping) else None
    read = _decode_together if numbers and isinstance(decoder, TensorFlowPixels) else read_records
    records: list[dict[str, Any]] = read(data_source, numbers)
    for number, record in zip(numbers, records, strict=True):
        found = record["image_id"]
        found = found.decode() if isinstance(found, bytes) else str(found)
        if found != format_image_id(index.image_ids[number]):
            raise ImageIndexError(
                f"Record {number} holds image {found}, and the index says {format_image_id(index.image_ids[number])}:"
                " they are not of the same split or the same dataset."
            )
    return records


def _decode_together(data_source: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Returns records of a data source whose decoder is `TensorFlowPixels`, equal to those that it gives itself.

    Without TFDS's general parser, and without memory of its own for each picture, PyTorch's DataLoader takes a quarter
    less CPU time for pictures of 128 px. They are parts of one array, which is there as long as one is.
    """
    stored = read_records(data_source.data_source, numbers)
    buffers = np.empty((len(stored), *data_source.dataset_info.features["image"].shape), np.uint8)
    records = []
    for record, buffer in zip(stored, buffers, strict=True):
        features = tf_example_pb2.Example.FromString(record).features.feature
        (picture,), (image_id,) = features["image"].bytes_list.value, features["image_id"].bytes_list.value
        (landmark_id,) = features["landmark_id"].int64_list.value
        pixels = simplejpeg.decode_jpeg(picture, "RGB", fastdct=True, buffer=buffer)
        records.append({"image": pixels, "image_id": image_id, "landmark_id": landmark_id})
    return records


def read_records(data_source: DataSource, numbers: Sequence[int]) -> list[Any]:
    """Returns the records with these numbers, read together where the data source can."""
    if hasattr(data_source, "__getitems__"):
        return list(data_source.__getitems__(numbers))
    return [data_source[number] for number in numbers]


class _InTurn:
    """Takes the place of array_record's own source of records: reads in the thread that asks, one after the other.

    array_record hands what it reads to threads of its own, which takes 26 us of CPU time for a picture of 128 px; this
    takes 6. Several threads may ask; those that ask for the same file wait for each other.
    """

    def __init__(self, source: Any):
        self._source = source
        self._opened: list[Any] = [None] * len(source._read_instructions)
        self._locks = [threading.Lock() for _ in self._opened]

    @property
    def _readers(self) -> list[Any]:
        return [*self._source._readers, *self._opened]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: SupportsIndex) -> bytes:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[SupportsIndex]) -> list[bytes]:
        return [self._read(*self._source._reader_idx_and_position(number)) for number in numbers]

    def _read(self, file: int, position: int) -> bytes:
        from array_record.python.array_record_module import ArrayRecordReader

        with self._locks[file]:
            if self._opened[file] is None:
                path = self._source._read_instructions[file].filename
                self._opened[file] = ArrayRecordReader(path, "readahead_buffer_size:0,max_parallelism:0")
            try:
                self._opened[file].seek(position)
                record: bytes = self._opened[file].read()
            except Exception:
                self._opened[file] = None  # it would go on failing, also for records that are well
                raise
            return record

    def __reduce__(self) -> Any:
        return _InTurn, (self._source,)


# Data sources to be guarded, by id, for they are compared by what they hold and so have no hash.
_sources: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class _ReadBeforeFork:
    """Takes the place of a data source's reader."""

    def __init__(self, reader: Any):
        self._reader = reader  # is kept: closing its files would crash too

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, numbers: object) -> NoReturn:
        raise ForkedReaderError(
            "This process was forked from one that had read records already, and array_record crashes then. Start"
            " workers as new processes, DataLoader(..., multiprocessing_context='forkserver'), or read nothing in the"
            " main process before the workers are started."
        )

    __getitems__ = __getitem__


def prepare_reading(data_source: Any) -> None:
    """Makes reading from a data source of TFDS cheaper, and an error in forked processes where it would be a crash."""
    records = getattr(data_source, "data_source", None)
    if hasattr(records, "_read_instructions") and hasattr(records, "_reader_idx_and_position"):
        data_source.data_source = _InTurn(records)
    if hasattr(records, "_readers"):
        _sources[id(data_source)] = data_source


def _replace_readers() -> None:
    sources = list(_sources.values())
    # What is broken belongs to the process and not to the reader: if one of them has read, none may.
    if any(any(getattr(source.data_source, "_readers", ())) for source in sources):
        for source in sources:
            source.data_source = _ReadBeforeFork(source.data_source)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_readers)
