"""Every way to read a prepared dataset, each as a function that gives all records of split train in their order.

A reader takes the folder of a prepared version, which names of the features are pictures, and whether to decode
these; it gives dicts in which ids are str, landmark ids int, and pictures arrays or the stored bytes. Where its library
is missing, it skips the test.
"""

from __future__ import annotations

import functools
import multiprocessing

from absl import flags
import numpy as np
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.training.records import TensorFlowPixels

# Records at a time: no divisor of any number of records in the tests, so that there is a last batch that is not full.
BATCH_SIZE = 8


def need_torch():
    """Returns PyTorch with its way to NumPy, or skips the test."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install '.[torch]'")
    try:
        torch.as_tensor(np.zeros(1))
    except RuntimeError as error:
        pytest.skip(f"this PyTorch was built for another NumPy than {np.__version__}: {error}")
    return torch


def worker_options(workers: int) -> dict:
    """Returns a DataLoader's options for so many worker processes that live on from epoch to epoch.

    They are forked from a process that has read nothing, and that imports once what all of them need.
    """
    if not workers:
        return {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "tests.support.readers"])
    return {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": context}


def need_grain():
    return pytest.importorskip("grain", reason="needs Grain: pip install '.[jax]'")


def plain(record) -> dict:
    """Makes what one reader calls an id what all call it."""
    record = dict(record)
    for name, value in record.items():
        if name.endswith("_id"):
            value = value.decode() if isinstance(value, bytes) else value
            record[name] = value if isinstance(value, str) else int(value)
        elif not isinstance(value, bytes):
            record[name] = np.asarray(value)
    return record


def unbatch(batch) -> list[dict]:
    """Takes dicts out of a dict of columns."""
    return [plain(dict(zip(batch, values, strict=True))) for values in zip(*batch.values(), strict=True)]


def skip_decoding(images, decode, instead=None):
    if decode:
        return instead and dict.fromkeys(images, instead)
    return {name: tfds.decode.SkipDecoding() for name in images}


# --- TensorFlow


def with_tf_data(folder, images, decode):
    dataset = tfds.builder_from_directory(folder["tfrecord"]).as_dataset(
        split="train", decoders=skip_decoding(images, decode)
    )
    return [plain(record) for record in tfds.as_numpy(dataset)]


def with_notebook_parser(folder, images, decode):
    """As the notebook's training code reads its TFRecord files, which knows nothing of TFDS."""
    import tensorflow as tf

    info = tfds.builder_from_directory(folder["tfrecord"]).info
    types = {name: tf.string if name in images else feature.tf_dtype for name, feature in info.features.items()}
    features = {name: tf.io.FixedLenFeature([], tf_type) for name, tf_type in types.items()}

    def parse(record):
        example = tf.io.parse_single_example(record, features)
        if decode:
            example |= {name: tf.io.decode_jpeg(example[name], channels=3) for name in images}
        return example

    files = sorted(str(path) for path in folder["tfrecord"].glob("*.tfrecord*"))
    return [plain(record) for record in tf.data.TFRecordDataset(files).map(parse).as_numpy_iterator()]


# --- Random access


def open_source(folder, images, decode, instead=None):
    builder = tfds.builder_from_directory(folder["array_record"])
    return builder.as_data_source(split="train", decoders=skip_decoding(images, decode, instead))


def with_data_source(folder, images, decode):
    return [plain(record) for record in open_source(folder, images, decode)]


def with_tensorflow_pixels(folder, images, decode):
    return [plain(record) for record in open_source(folder, images, decode, TensorFlowPixels())]


def with_torch(folder, images, decode, *, workers):
    torch = need_torch()
    loader = torch.utils.data.DataLoader(
        open_source(folder, images, decode),
        batch_size=BATCH_SIZE,
        **worker_options(workers),
    )
    first, second = ([record for batch in loader for record in unbatch(batch)] for _ in range(2))
    assert [r["landmark_id"] for r in first] == [r["landmark_id"] for r in second]
    return second


def with_grain(folder, images, decode, *, workers):
    grain = need_grain()
    dataset = grain.MapDataset.source(open_source(folder, images, decode)).batch(BATCH_SIZE, batch_fn=as_columns)
    return [record for batch in iterate_grain(grain, dataset, workers) for record in unbatch(batch)]


def iterate_grain(grain, dataset, workers):
    """Returns the iterable dataset of a map-style one, read by threads or by worker processes."""
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    if workers:
        flags.FLAGS.mark_as_parsed()  # which Grain's worker processes demand
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


def as_columns(records):
    """A batch in which bytes keep their length: NumPy's own arrays of bytes cut zeros from the end."""
    return {name: [record[name] for record in records] for name in records[0]}


READERS = {
    "tfds.load": with_tf_data,
    "notebook's parser": with_notebook_parser,
    "tfds.data_source": with_data_source,
    "tfds.data_source, TensorFlowPixels": with_tensorflow_pixels,
    "torch, 0 workers": functools.partial(with_torch, workers=0),
    "torch, 2 workers": functools.partial(with_torch, workers=2),
    "grain, 0 workers": functools.partial(with_grain, workers=0),
    "grain, 2 workers": functools.partial(with_grain, workers=2),
}

# Those that give TensorFlow's pixels, bit for bit.
OF_TENSORFLOW = ("tfds.load", "notebook's parser", "tfds.data_source, TensorFlowPixels")
