import inspect
import pickle

import pytest

from landmark_triplets_tfds import errors
from landmark_triplets_tfds.errors import LandmarkTripletsError, UnreadableImageError, advise_on_unreadable

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


@pytest.mark.parametrize(
    ("reasons", "fetch", "convert"),
    [
        ([UnreadableImageError.DAMAGED, UnreadableImageError.MISSING], True, False),
        ([UnreadableImageError.UNSUPPORTED], False, True),
        ([UnreadableImageError.UNSUPPORTED, UnreadableImageError.NOT_AN_IMAGE], True, True),
        ([UnreadableImageError.NO_MEMORY], False, False),
    ],
)
def test_only_what_may_be_mended_so_is_to_be_fetched_again(reasons, fetch, convert):
    advice = advise_on_unreadable(reasons)
    assert ("Fetch these files again." in advice, "convert them to JPEG" in advice) == (fetch, convert)
    assert ("Fewer workers" in advice) == (UnreadableImageError.NO_MEMORY in reasons)
