"""A prepared dataset with a list of its triplets beside it."""

import pytest

from tests.support.competition import build, custom_config
from tests.support.prepared_builds import FIELDS, copy_of, without_bank


@pytest.fixture(scope="package")
def with_list(tmp_path_factory):
    with without_bank(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
        return build(tmp_path_factory.mktemp("list"), custom_config(**FIELDS)).data_path


@pytest.fixture
def copy_with_list(with_list, tmp_path):
    return copy_of(with_list, tmp_path / "list" / "custom" / "1.0.0")
