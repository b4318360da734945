"""TensorFlow's pixels without TensorFlow: a decoder for ``tfds.data_source``, and so for PyTorch, Grain and JAX.

``tfds.load`` decodes with TensorFlow, ``tfds.data_source`` with OpenCV or else with Pillow. All three wrap the library
libjpeg-turbo, but TensorFlow lets it use a faster cosine transform, so that a model trained with one of them sees other
pixels when it is evaluated with another: docs/reading.md says how far apart. simplejpeg can be told to use the same
transform as TensorFlow. It also takes less time, and leaves Python's global lock to other threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2


class TensorFlowPixels(tfds.decode.Decoder):
    """Decodes a stored picture to the pixels that ``tfds.load`` gives, bit for bit.

    To be given to TFDS for each feature that is a picture::

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

    def read_together(self, data_source: Any, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Returns records of a data source of `landmark_images`, equal to those that it gives itself, in less time.

        Without TFDS's general parser, and without memory of its own for each picture, PyTorch's DataLoader takes a
        quarter less CPU time for pictures of 128 px. They are parts of one array, which is there as long as one is.

        Raises:
          ValueError: if a picture is no JPEG, or it is damaged.
        """
        records = data_source.data_source.__getitems__(numbers)
        pixels = np.empty((len(records), *data_source.dataset_info.features["image"].shape), np.uint8)
        return [_decode_record(record, buffer) for record, buffer in zip(records, pixels, strict=True)]


def _decode_record(record: bytes, buffer: npt.NDArray[np.uint8]) -> dict[str, Any]:
    features = tf_example_pb2.Example.FromString(record).features.feature
    (picture,), (image_id,) = features["image"].bytes_list.value, features["image_id"].bytes_list.value
    (landmark_id,) = features["landmark_id"].int64_list.value
    pixels = simplejpeg.decode_jpeg(picture, "RGB", fastdct=True, buffer=buffer)
    return {"image": pixels, "image_id": image_id, "landmark_id": landmark_id}
