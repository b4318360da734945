"""What fits a budget does."""

import pytest

from landmark_triplets_tfds.commands.budget import find_fitting, parse_size
from landmark_triplets_tfds.commands.datasets import BUILDERS
from landmark_triplets_tfds.errors import CommandError
from tests.support.competition import DUMMY_DATA, build
from tests.support.forecasts import make_forecaster


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("4.9GB", 4_900_000_000),
        ("500MB", 500_000_000),
        ("500 mb", 500_000_000),
        ("20GiB", 20 << 30),
        ("1.5TB", 1_500_000_000_000),
        ("3k", 3000),
        ("1000000", 1_000_000),
        ("12 B", 12),
    ],
)
def test_sizes(text, num_bytes):
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4,9GB", "0", "4.9 GBytes", "1iB", "0.1B"])
def test_refuses_sizes(text):
    with pytest.raises(CommandError, match=r"--budget must be"):
        parse_size(text)


def fitting(folder, budget, dataset="landmark_triplets", num_sampled=1000):
    return find_fitting(make_forecaster(folder, num_sampled), dataset, budget, lambda: None)


def test_nothing_fits():
    answer = fitting(DUMMY_DATA, 1000)
    assert (answer.named_fits, answer.all_named_fit, answer.custom, answer.alternatives) == (False, False, None, [])
    assert answer.named.config.name == "64px_1per"


def test_all_fit():
    answer = fitting(DUMMY_DATA, 10**9)
    assert answer.named_fits
    assert answer.all_named_fit
    assert answer.named.config.name in ("512px_all", "512px_area_all")
    assert (answer.custom, answer.alternatives) == (None, [])


@pytest.mark.parametrize(("dataset", "budget"), [("landmark_triplets", 800_000), ("landmark_images", 300_000)])
def test_what_fits_does(corpus, tmp_path, dataset, budget):
    answer = fitting(corpus, budget, dataset)
    assert answer.named_fits
    assert answer.named.config in BUILDERS[dataset].BUILDER_CONFIGS
    assert answer.named.num_bytes <= budget
    assert answer.custom is not None
    assert answer.named.num_bytes < answer.custom.num_bytes <= budget
    builder = build(tmp_path / "data", answer.custom.config, corpus, builder_class=BUILDERS[dataset])
    assert 0.85 * budget < builder.info.dataset_size <= budget
    # The next larger config with a name does not fit.
    per_landmark = [each.images_per_landmark or 10**9 for each, _, _ in answer.alternatives]
    resolutions = [each.resolution for each, _, _ in answer.alternatives]
    assert per_landmark == sorted(set(per_landmark))
    assert resolutions == sorted(resolutions, reverse=True)
