"""What several tests of commands look at: prepared datasets, and a corpus to forecast builds of."""

import pytest

from tests.support.competition import build, build_images, custom_config, images_config
from tests.support.forecasts import make_corpus
from tests.support.prepared_builds import FIELDS, copy_of, without_bank


@pytest.fixture(scope="package")
def triplets(tmp_path_factory):
    """The folder of 43 triplets in two shards. Tests change copies of it."""
    with without_bank():
        return build(tmp_path_factory.mktemp("triplets"), custom_config(**FIELDS), num_shards=2).data_path


@pytest.fixture(scope="package")
def images(tmp_path_factory):
    """The folder of 45 images in a split train and a split validation, and index.npz."""
    with without_bank():
        config = images_config(**FIELDS, validation_percent=50)
        return build_images(tmp_path_factory.mktemp("images"), config, num_shards=2).data_path


@pytest.fixture
def copy(triplets, tmp_path):
    return copy_of(triplets, tmp_path / "custom" / "1.0.0")


@pytest.fixture
def copy_of_images(images, tmp_path):
    return copy_of(images, tmp_path / "custom" / "1.0.0")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder
