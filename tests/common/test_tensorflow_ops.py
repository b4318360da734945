import subprocess
import sys
from unittest.mock import Mock

import pytest
import tensorflow as tf

from landmark_triplets_tfds.common.tensorflow_ops import run_tensorflow
from landmark_triplets_tfds.errors import UnreadableImageError
from tests.support.helpers import encode_image, smooth_pixels


def test_an_image_is_decoded():
    assert run_tensorflow("decode_jpeg", encode_image(smooth_pixels(8, 12))).shape == (8, 12, 3)


@pytest.mark.parametrize("data", [b"", b"no image", encode_image(smooth_pixels(64, 64))[:-100]])
def test_what_is_refused_gives_none(data):
    assert run_tensorflow("decode_jpeg", data) is None


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (MemoryError(), True),
        (tf.errors.InternalError(None, None, ""), False),
        (tf.errors.UnknownError(None, None, ""), False),
        (ValueError(), False),
        (OverflowError(), False),
    ],
    ids=repr,
)
def test_whatever_is_raised_is_of_the_image_or_of_memory(monkeypatch, error, is_memory):
    monkeypatch.setattr("tensorflow.io.decode_jpeg", Mock(side_effect=error))
    if is_memory:
        with pytest.raises(UnreadableImageError, match=UnreadableImageError.NO_MEMORY):
            run_tensorflow("decode_jpeg", b"")
    else:
        assert run_tensorflow("decode_jpeg", b"") is None


@pytest.mark.slow
def test_the_import_is_quiet_if_asked(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    program = "from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow; import_tensorflow()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""
