import pytest

from tests.support.forecasts import make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """130 images of 26 landmarks, of different detail and so of different sizes."""
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder
