import inspect
import pickle

import pytest

from landmark_triplets_tfds import errors
from landmark_triplets_tfds.errors import LandmarkTripletsError, UnreadableImageError

TYPES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", TYPES)
def test_one_base_class(kind):
    assert issubclass(kind, LandmarkTripletsError)


@pytest.mark.parametrize("detail", ["", "where and what"])
def test_an_unreadable_image_keeps_both_parts_across_processes(detail):
    error = UnreadableImageError(UnreadableImageError.DAMAGED, detail)
    for copy in (pickle.loads(pickle.dumps(error)), error.without_traceback()):
        assert type(copy) is UnreadableImageError
        assert (copy.reason, copy.detail, str(copy)) == (error.reason, detail, str(error))
