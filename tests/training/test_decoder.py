"""TensorFlow's pixels without TensorFlow. tests/test_frameworks.py has the decoder in use, on prepared data."""

import numpy as np
import pytest
import tensorflow as tf

from landmark_triplets_tfds.training.decoder import TensorFlowPixels
from tests.support.helpers import encode_image, smooth_pixels


@pytest.mark.parametrize("size", [(8, 8), (33, 50), (128, 128)])
@pytest.mark.parametrize("is_grey", [False, True])
def test_the_pixels_are_those_of_tensorflow(size, is_grey):
    noise = np.random.default_rng(0).integers(-40, 40, (*size, 3))
    pixels = np.clip(smooth_pixels(*size).astype(int) + noise, 0, 255).astype(np.uint8)
    encoded = encode_image(pixels[..., 0] if is_grey else pixels)
    decoded = TensorFlowPixels().decode_example_np(encoded)
    assert (decoded == tf.io.decode_jpeg(encoded, channels=3).numpy()).all()
    assert (decoded.dtype, decoded.shape) == (np.uint8, (*size, 3))


@pytest.mark.parametrize("content", [b"not a picture", encode_image(smooth_pixels(64, 64))[:300]])
def test_what_is_no_jpeg(content):
    with pytest.raises(ValueError, match="JPEG"):
        TensorFlowPixels().decode_example_np(content)
