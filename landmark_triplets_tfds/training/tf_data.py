"""Fresh triplets, P x K batches and single images as tf.data.Dataset.

Python hands over nothing but undecoded records, read many at a time; parsing and decoding are TensorFlow's, in its own
threads, and the pixels are those of ``tfds.load``.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

import loky
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow
from landmark_triplets_tfds.training.fresh_triplets import FreshTriplets, order_of_epoch
from landmark_triplets_tfds.training.landmark_batches import LandmarkBatches
from landmark_triplets_tfds.training.records import DataSource, ImageIndex, guard_forks, read_images, read_records

_IMAGES = ("anchor", "positive", "negative")

# Records read by one call from TensorFlow into Python: the call itself then costs little.
_RECORDS_PER_CALL = 192


def triplets_as_tf_dataset(
    triplets: FreshTriplets, *, num_epochs: int = 1, shuffle: bool = True, num_parallel_calls: int | None = None
) -> Any:
    """Returns a tf.data.Dataset of triplets, dicts as ``tfds.load('landmark_triplets/...')`` gives them.

    Args:
      triplets: of the first epoch.
      num_epochs: epochs that follow each other, each with triplets of its own. To train with Keras on more than one,
        say how long an epoch is: ``model.fit(dataset, epochs=n, steps_per_epoch=len(triplets) // batch_size)``.
      shuffle: each epoch in a random order of its own (of numbers, so it costs no memory); False: in record order.
      num_parallel_calls: of parsing and decoding; None: two for each usable core.

    Raises:
      ImageIndexError: if the index is of other images.
      TypeError: if the triplets are not from a ``tfds.data_source``.
    """
    tf = import_tensorflow()
    features, source = _without_decoding(triplets.data_source, triplets.index)

    def numbers_of(epoch: int) -> npt.NDArray[np.int64]:
        numbers = triplets.record_numbers(int(epoch)).astype(np.int64)
        return numbers[order_of_epoch(len(numbers), triplets.seed, int(epoch))] if shuffle else numbers

    def parse(records: Any) -> dict[str, Any]:
        examples = [features.deserialize_example(records[i]) for i in range(len(_IMAGES))]
        images = {f"{name}_img": example["image"] for name, example in zip(_IMAGES, examples, strict=True)}
        ids = {f"{name}_id": example["image_id"] for name, example in zip(_IMAGES, examples, strict=True)}
        landmarks = {"landmark_id": examples[0]["landmark_id"], "negative_landmark_id": examples[2]["landmark_id"]}
        return images | ids | landmarks

    records = _read_epochs(source, numbers_of, triplets.epoch, num_epochs, len(_IMAGES))
    dataset = records.map(parse, num_parallel_calls=num_parallel_calls or 2 * loky.cpu_count())
    return dataset.apply(tf.data.experimental.assert_cardinality(num_epochs * len(triplets)))


def batches_as_tf_dataset(
    data_source: DataSource, batches: LandmarkBatches, *, num_epochs: int = 1, num_parallel_calls: int | None = None
) -> Any:
    """Returns a tf.data.Dataset of batches (image uint8[P * K, h, w, 3], landmark_id int64[P * K]).

    Args:
      data_source: the one that the batches were drawn from.
      batches: drawn from their epoch on.
      num_epochs: epochs that follow each other, each with batches of its own.
      num_parallel_calls: of parsing and decoding; None: two for each usable core.

    Raises:
      ImageIndexError: if the index is of other images.
      TypeError: if it is not a ``tfds.data_source``.
    """
    tf = import_tensorflow()
    features, source = _without_decoding(data_source, batches.index)

    def numbers_of(epoch: int) -> npt.NDArray[np.int64]:
        return batches.record_numbers(int(epoch)).reshape(-1, 1)

    def parse(records: Any) -> tuple[Any, Any]:
        example = features.deserialize_example(records[0])
        return example["image"], example["landmark_id"]

    records = _read_epochs(source, numbers_of, batches.epoch, num_epochs, 1)
    dataset = records.map(parse, num_parallel_calls=num_parallel_calls or 2 * loky.cpu_count())
    dataset = dataset.batch(batches.batch_size, drop_remainder=True)
    return dataset.apply(tf.data.experimental.assert_cardinality(num_epochs * len(batches)))


def images_as_tf_dataset(data_source: DataSource, *, num_parallel_calls: int | None = None) -> Any:
    """Returns a tf.data.Dataset of all records, dicts as ``tfds.load('landmark_images/...')`` gives them, in order.

    Record i is line i of ``index.npz``, so embeddings that a network makes of this dataset need no ids beside them.

    Args:
      data_source: of a prepared `landmark_images`.
      num_parallel_calls: of parsing and decoding; None: two for each usable core.

    Raises:
      TypeError: if it is not a ``tfds.data_source``.
    """
    tf = import_tensorflow()
    features, source = _without_decoding(data_source, None)
    count = len(data_source)

    def numbers_of(epoch: int) -> npt.NDArray[np.int64]:
        return np.arange(count).reshape(-1, 1)

    def parse(records: Any) -> dict[str, Any]:
        example: dict[str, Any] = features.deserialize_example(records[0])
        return example

    records = _read_epochs(source, numbers_of, 0, 1, 1)
    dataset = records.map(parse, num_parallel_calls=num_parallel_calls or 2 * loky.cpu_count())
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _without_decoding(data_source: Any, index: ImageIndex | None) -> tuple[Any, DataSource]:
    """Returns the features of a data source and one like it that gives records as they are stored.

    The first and the last record are compared with the index, if there is one.
    """
    import tensorflow_datasets as tfds

    if not isinstance(data_source, tfds.core.data_sources.base.BaseDataSource):
        raise TypeError(
            f"expected the data source of a prepared dataset, as tfds.data_source(...) gives it, got a"
            f" {type(data_source).__name__}."
        )
    if index is not None:
        read_images(data_source, index, [0, len(index) - 1])
    raw = dataclasses.replace(data_source, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    guard_forks(raw)
    return data_source.dataset_info.features, raw


def _read_epochs(
    source: DataSource,
    numbers_of: Callable[[int], npt.NDArray[np.int64]],
    first_epoch: int,
    num_epochs: int,
    width: int,
) -> Any:
    """Returns a dataset of the records, string[width], that each line of ``numbers_of(epoch)`` names, in order."""
    tf = import_tensorflow()

    def number_epoch(epoch: Any) -> Any:
        numbers = tf.numpy_function(numbers_of, [epoch], tf.int64, stateful=False)
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(numbers, (None, width)))

    def read_numpy(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        # A distinct record is read once, however often it is asked for.
        distinct, places = np.unique(numbers, return_inverse=True)
        records = np.array(read_records(source, distinct.tolist()), dtype=object)
        return records[places.reshape(numbers.shape)]

    def read(numbers: Any) -> Any:
        records = tf.numpy_function(read_numpy, [numbers], tf.string, stateful=False)
        return tf.ensure_shape(records, (None, width))

    epochs = tf.data.Dataset.range(first_epoch, first_epoch + num_epochs)
    numbers = epochs.flat_map(number_epoch).batch(_RECORDS_PER_CALL // width)
    return numbers.map(read, num_parallel_calls=2, deterministic=True).unbatch()
