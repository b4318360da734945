"""The command `forecast`: what it prints, its exit statuses, and that what fits a budget does."""

import json

import pytest

from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.commands.datasets import BUILDERS, find_config
from landmark_triplets_tfds.commands.forecast import find_fitting, parse_size
from landmark_triplets_tfds.errors import CommandError
from tests.support.competition import DUMMY_DATA, build
from tests.support.forecasts import make_forecaster


def run_forecast(capsys, *arguments, folder=DUMMY_DATA):
    status = cli.main(["forecast", "--manual_dir", str(folder), *arguments])
    return status, capsys.readouterr()


def test_json(capsys):
    status, output = run_forecast(capsys, "--json", "--config", "64px", "landmark_images/64px_all", "--budget", "120kB")
    assert status == 0
    found = json.loads(output.out)
    assert set(found) == {"schema_version", "manual_dir", "cores", "forecasts", "budget"}
    triplets, images = found["forecasts"]
    assert (triplets["num_triplets"], triplets["num_distinct_images"]) == (20, 29)
    assert (images["num_examples"], images["dataset"]) == (45, "landmark_images")
    numbers = {name for name, value in triplets.items() if isinstance(value, int | float)}
    assert numbers >= {"dataset_bytes", "dataset_error_bytes", "bank_bytes", "cpu_seconds", "seconds"}
    budget = found["budget"]
    assert set(budget) == {
        "bytes",
        "all_named_fit",
        "largest_named",
        "smallest_named",
        "best_custom",
        "alternatives",
    }
    assert budget["largest_named"]["dataset_bytes"] <= 120_000
    assert budget["largest_named"]["command"].startswith("tfds build landmark_triplets/")
    if budget["best_custom"]:
        assert "--config '{" in budget["best_custom"]["command"]


def test_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    status, output = run_forecast(capsys, "--config", "64px", "--config", "64px_1per")
    assert status == 0
    lines = output.out.splitlines()
    assert lines[0].split()[:3] == ["config", "examples", "images"]
    assert [line.split()[0] for line in lines[1:3]] == ["64px", "64px_1per"]
    assert max(map(len, lines)) <= 90


def test_status_1_where_nothing_fits(capsys):
    status, output = run_forecast(capsys, "--budget", "1kB")
    assert status == 1
    assert "No config with a name fits: the smallest, landmark_triplets/64px_1per" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "128"], "Did you mean '128px'"),
        (["--budget", "much"], "--budget must be a size such as 4.9GB"),
        (["--images", "1"], "--images: it must be a whole number between 10 and"),
        (["--config", '{"name": "x", "exclude_landmarks": "/nowhere/list.txt"}'], "landmark_triplets/x: "),
    ],
)
def test_status_2_where_arguments_do_not_fit(arguments, message, capsys):
    status, output = run_forecast(capsys, *arguments)
    assert status == 2
    assert output.out == ""
    assert message in output.err


def test_status_2_without_files(tmp_path, capsys):
    status, output = run_forecast(capsys, folder=tmp_path)
    assert status == 2
    assert "is an empty folder" in output.err


# --- What fits


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


def fitting(folder, budget, dataset="landmark_triplets", **options):
    return find_fitting(make_forecaster(folder, 1000, **options), dataset, budget, str(folder), lambda: None)


def test_nothing_fits():
    answer = fitting(DUMMY_DATA, 1000)
    assert answer["smallest_named"]["config"]["name"] == "64px_1per"
    assert [answer[name] for name in ("largest_named", "all_named_fit", "best_custom")] == [None, False, None]
    assert answer["alternatives"] == []


def test_all_fit():
    answer = fitting(DUMMY_DATA, 10**9)
    assert answer["largest_named"]["config"]["name"] in ("512px_all", "512px_area_all")
    assert [answer[name] for name in ("smallest_named", "all_named_fit", "best_custom")] == [None, True, None]
    assert answer["alternatives"] == []


@pytest.mark.parametrize(("dataset", "budget"), [("landmark_triplets", 800_000), ("landmark_images", 300_000)])
def test_what_fits_does(corpus, tmp_path, dataset, budget):
    answer = fitting(corpus, budget, dataset)
    named, custom = answer["largest_named"], answer["best_custom"]
    assert named["config"]["name"] in [config.name for config in BUILDERS[dataset].BUILDER_CONFIGS]
    assert named["dataset_bytes"] < custom["dataset_bytes"] <= budget
    config = find_config(json.dumps(custom["config"]), dataset)
    builder = build(tmp_path / "data", config, corpus, builder_class=BUILDERS[dataset])
    assert 0.85 * budget < builder.info.dataset_size <= budget
    assert custom["peak_bytes"] <= budget
    # More images are smaller ones.
    configs = [find_config(json.dumps(each["config"]), dataset) for each in answer["alternatives"]]
    per_landmark = [config.images_per_landmark or 10**9 for config in configs]
    resolutions = [config.resolution for config in configs]
    assert per_landmark == sorted(set(per_landmark))
    assert resolutions == sorted(resolutions, reverse=True)


def test_what_fits_without_a_bank_leaves_room_for_thumbnails_and_no_more(corpus):
    custom = fitting(corpus, 800_000, bank="off")["best_custom"]
    assert custom["dataset_bytes"] + custom["bank_bytes"] < custom["peak_bytes"]
    assert 0.85 * 800_000 < custom["peak_bytes"] <= 800_000
