"""The command `forecast`: what it prints, and its exit statuses."""

import json

import pytest

from landmark_triplets_tfds.commands import cli
from tests.support.competition import DUMMY_DATA


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
