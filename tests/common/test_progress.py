import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.common.progress import listing_bar


@pytest.fixture
def bars_are_disabled():
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


def list_three_things():
    with listing_bar("Listing", " things") as advance:
        for num_done in (1, 3):
            advance(num_done, 3)


def test_a_bar_shows_what_is_done(capfd):
    list_three_things()
    assert "Listing" in capfd.readouterr().err


@pytest.mark.usefixtures("bars_are_disabled")
def test_no_bar_where_tfds_has_disabled_them(capfd):
    list_three_things()
    assert "Listing" not in capfd.readouterr().err
