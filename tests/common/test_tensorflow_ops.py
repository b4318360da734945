import subprocess
import sys

import pytest

from landmark_triplets_tfds.common.tensorflow_ops import run_tensorflow
from landmark_triplets_tfds.errors import UnreadableImageError
from tests.support.helpers import encode_image, smooth_pixels


def test_an_image_is_decoded():
    assert run_tensorflow("decode_jpeg", encode_image(smooth_pixels(8, 12))).shape == (8, 12, 3)


def test_a_truncated_jpeg_is_called_so():
    with pytest.raises(UnreadableImageError) as caught:
        run_tensorflow("decode_jpeg", encode_image(smooth_pixels(64, 64))[:-100])
    assert caught.value.reason == UnreadableImageError.DAMAGED
    assert caught.value.detail == "the end of the JPEG is missing"


def test_other_damage_is_told_in_the_words_of_tensorflow():
    with pytest.raises(UnreadableImageError) as caught:
        run_tensorflow("decode_jpeg", b"no image")
    assert caught.value.reason == UnreadableImageError.DAMAGED
    assert caught.value.detail
    assert "[Op:" not in caught.value.detail


@pytest.mark.slow
def test_the_import_is_quiet_if_asked(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    program = "from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow; import_tensorflow()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""
