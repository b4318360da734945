"""Fresh triplets, P x K batches and single images as tf.data.Dataset.

Python hands over nothing but undecoded records, read many at a time; parsing and decoding are TensorFlow's, in its own
threads, and the pixels are those of ``tfds.load``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import operator
from typing import Any

import loky
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds.common.checks import check_int
from landmark_triplets_tfds.training.epochs import FreshTriplets, LandmarkBatches, as_triplet, order_of_epoch
from landmark_triplets_tfds.training.records import DataSource, ImageIndex, prepare_reading, read_images, read_records
from landmark_triplets_tfds.triplets.examples import TRIPLETS

Numbers = npt.NDArray[np.integer[Any]]

# Records read by one call from TensorFlow into Python: the call itself then costs little.
_RECORDS_PER_CALL = 192


def triplets_as_tf_dataset(
    triplets: FreshTriplets, *, num_epochs: int = 1, shuffle: bool = True, start: int = 0
) -> Any:
    """Returns a tf.data.Dataset of triplets, dicts as ``tfds.load('landmark_triplets/...')`` gives them.

    Args:
      triplets: of the first epoch.
      num_epochs: epochs that follow each other, each with triplets of its own. To train with Keras on more than one,
        say how long an epoch is: ``model.fit(dataset, epochs=n, steps_per_epoch=len(triplets) // batch_size)``.
      shuffle: each epoch in a random order of its own (of numbers, so it costs no memory); False: in record order.
      start: triplets of the first epoch that were seen already, and are left out without being read.

    Raises:
      ImageIndexError: if the index is of other images.
      TypeError: if the triplets are not from a ``tfds.data_source``.
    """

    def numbers_of(epoch: int) -> Numbers:
        numbers = triplets.record_numbers(epoch)
        return numbers[order_of_epoch(len(numbers), triplets.seed, epoch)] if shuffle else numbers

    epochs = range(triplets.epoch, triplets.epoch + num_epochs)
    shape = len(triplets), TRIPLETS.num_images
    check_int("start", start, 0, len(triplets))
    return _read_epochs(triplets.data_source, triplets.index, numbers_of, epochs, shape, as_triplet, start)


def batches_as_tf_dataset(
    data_source: DataSource, batches: LandmarkBatches, *, num_epochs: int = 1, start: int = 0
) -> Any:
    """Returns a tf.data.Dataset of batches (image uint8[P * K, h, w, 3], landmark_id int64[P * K]).

    Args:
      data_source: the one that the batches were drawn from.
      batches: drawn from their epoch on.
      num_epochs: epochs that follow each other, each with batches of its own.
      start: batches of the first epoch that were seen already, and are left out without being read.

    Raises:
      ImageIndexError: if the index is of other images.
      TypeError: if it is not a ``tfds.data_source``.
    """

    def as_pair(records: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        return records[0]["image"], records[0]["landmark_id"]

    epochs = range(batches.epoch, batches.epoch + num_epochs)
    shape = len(batches) * batches.batch_size, 1
    start = check_int("start", start, 0, len(batches)) * batches.batch_size
    dataset = _read_epochs(data_source, batches.index, batches.record_numbers, epochs, shape, as_pair, start)
    return dataset.batch(batches.batch_size, drop_remainder=True)


def images_as_tf_dataset(data_source: DataSource) -> Any:
    """Returns a tf.data.Dataset of all records, dicts as ``tfds.load('landmark_images/...')`` gives them, in order.

    Record i is line i of ``index.npz``, so embeddings that a network makes of this dataset need no ids beside them.

    Args:
      data_source: of a prepared `landmark_images`.

    Raises:
      TypeError: if it is not a ``tfds.data_source``.
    """
    count = len(data_source)
    return _read_epochs(data_source, None, lambda _: np.arange(count), range(1), (count, 1), operator.itemgetter(0))


def _read_epochs(
    data_source: DataSource,
    index: ImageIndex | None,
    numbers_of: Callable[[int], Numbers],
    epochs: range,
    shape: tuple[int, int],
    combine: Callable[[Sequence[Mapping[str, Any]]], Any],
    start: int = 0,
) -> Any:
    """Returns a tf.data.Dataset of the examples of epochs, but for the first ``start`` ones of the first epoch.

    There are ``shape``, (num_examples, width), in each: ``numbers_of(epoch)`` says which records they are made of,
    int[num_examples * width] in any shape, and ``combine`` makes one of ``width`` parsed records. Of an index, the
    first and the last record are compared with it.
    """
    import tensorflow as tf

    num_examples, width = shape
    features, source = _without_decoding(data_source, index)

    def number_epoch(epoch: Any) -> Any:
        numbers = tf.numpy_function(lambda e: numbers_of(int(e)).astype(np.int64), [epoch], tf.int64, stateful=False)
        rows = tf.reshape(numbers, (-1, width))
        return tf.data.Dataset.from_tensor_slices(rows[tf.where(epoch == epochs.start, start, 0) :])

    def read_numpy(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
        # A distinct record is read once, however often it is asked for.
        distinct, places = np.unique(numbers, return_inverse=True)
        records = np.array(read_records(source, distinct.tolist()), dtype=object)
        return records[places.reshape(numbers.shape)]

    def read(numbers: Any) -> Any:
        records = tf.numpy_function(read_numpy, [numbers], tf.string, stateful=False)
        return tf.ensure_shape(records, (None, width))

    def parse(records: Any) -> Any:
        return combine([features.deserialize_example(records[i]) for i in range(width)])

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(number_epoch)
    dataset = dataset.batch(_RECORDS_PER_CALL // width).map(read, num_parallel_calls=2, deterministic=True).unbatch()
    dataset = dataset.map(parse, num_parallel_calls=2 * loky.cpu_count())
    return dataset.apply(tf.data.experimental.assert_cardinality(len(epochs) * num_examples - start))


def _without_decoding(data_source: Any, index: ImageIndex | None) -> tuple[Any, DataSource]:
    """Returns the features of a data source and one like it that gives records as they are stored."""
    if not isinstance(data_source, tfds.core.data_sources.base.BaseDataSource):
        raise TypeError(
            f"expected the data source of a prepared dataset, as tfds.data_source(...) gives it, got a"
            f" {type(data_source).__name__}."
        )
    if index is not None:
        read_images(data_source, index, [0, len(index) - 1])
    raw = dataclasses.replace(data_source, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    prepare_reading(raw)
    return data_source.dataset_info.features, raw
