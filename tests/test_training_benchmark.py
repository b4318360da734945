"""The tables of the training experiment, from results that are there."""

import json

import pytest

from benchmarks import training


@pytest.fixture
def work(tmp_path):
    results = {("stored", 0): 0.40, ("stored", 1): 0.50, ("stored", 2): 0.45, ("fresh", 0): 0.42, ("fresh", 2): 0.50}
    for (arm, seed), value in results.items():
        folder = training.folder_of(tmp_path, arm, seed)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"map_at_100": value, "recall_at_1": value / 2}))
    return tmp_path


def test_arms_are_compared_seed_by_seed(work, capsys):
    training.print_results(training.read_results(work, [0, 1, 2, 3]))
    arms, differences = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in [*arms[2:], *differences[2:]]]
    assert cells == [
        ["stored", "3", "0.450 (0.400 to 0.500)", "0.225 (0.200 to 0.250)"],
        ["fresh", "2", "0.460 (0.420 to 0.500)", "0.230 (0.210 to 0.250)"],
        ["fresh - stored", "2", "+0.035 (+0.020 to +0.050)", "+0.017 (+0.010 to +0.025)"],
    ]


def test_results_of_other_seeds_are_left_out(work):
    assert training.read_results(work, [1]) == {"stored": {1: {"map_at_100": 0.5, "recall_at_1": 0.25}}}


def test_every_arm_is_compared_with_another():
    compared = {arm: each.against for arm, each in training.ARMS.items() if each.against}
    assert len(compared) == len(training.ARMS) - 1
    assert set(compared.values()) <= set(training.ARMS)


@pytest.mark.parametrize("arm", [arm for arm in training.ARMS if arm != training.MINED])
def test_configs(arm, tmp_path):
    images = training.images_config(training.ARMS[arm].resize_method)
    triplets = training.triplets_config(arm, 7, tmp_path)
    for field in ("resolution", "resize_method", "images_per_landmark", "validation_percent"):
        assert getattr(images, field) == getattr(triplets, field)
    assert triplets.seed == 7
    assert triplets.positive_may_be_anchor == (arm == "stored-notebook")
