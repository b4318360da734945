"""The command `forecast`: against real builds, and within budgets."""

import dataclasses
import json
import os
import pathlib
import sys

from etils import epath
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tqdm.auto

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.commands.datasets import find_config
from landmark_triplets_tfds.commands.forecast.budget import find_fitting, parse_size
from landmark_triplets_tfds.commands.forecast.forecast import Forecaster
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.errors import CommandError
from tests.support.archives import pack_zip
from tests.support.competition import DUMMY_DATA, REPOSITORY, Competition, build
from tests.support.helpers import encode_image, smooth_pixels


@pytest.fixture(autouse=True)
def _bank(tmp_path, monkeypatch):
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(tmp_path / "bank"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """130 images of 26 landmarks, of different detail and so of different sizes."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.RandomState(0)
    lines = ["id,landmark_id"]
    for number in range(130):
        image_id = f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"
        pixels = smooth_pixels(240, 320, number)
        noise = random.randint(-3 * (number % 9) - 1, 3 * (number % 9) + 2, pixels.shape)
        path = folder / "train" / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(np.clip(pixels + noise, 0, 255).astype(np.uint8), quality=85))
        lines.append(f"{image_id},{number // 5}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_forecaster(folder, num_sampled=60, seed=0, **options):
    source = find_source(epath.Path(folder), "off")
    return Forecaster(source, BuildOptions(bank="off", **options), num_sampled=num_sampled, seed=seed)


def forecast(folder, name, **settings):
    return make_forecaster(folder, **settings).forecast(find_config(name, "landmark_triplets"))


# --- Against builds

CONFIGS = [
    "64px",
    "128px_area_all",
    "landmark_images/64px_all",
    "128px_holdout10",
    '{"name": "custom", "resolution": 96, "images_per_landmark": 3, "triplets_per_anchor": 3, "fit": "pad"}',
]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_build_makes_what_was_forecast(corpus, tmp_path, name):
    """All images are sampled, so that the sizes of thumbnails are exact too."""
    choice = find_config(name, "landmark_triplets")
    made = forecast(corpus, name, num_sampled=1000)
    builder = build(tmp_path / "data", choice.config, corpus, builder_class=choice.builder_class)
    assert made.num_examples == {split: info.num_examples for split, info in builder.info.splits.items()}
    assert made.num_images == builder.info.metadata["counts"]["num_images_read"]
    assert made.error_bytes == 0
    shards = [path for path in pathlib.Path(builder.data_dir).iterdir() if "-of-" in path.name]
    assert made.num_bytes == pytest.approx(sum(path.stat().st_size for path in shards), rel=0.005)
    (bank,) = (tmp_path / "bank").glob("*.sqlite")
    assert made.num_bank_bytes == pytest.approx(bank.stat().st_size, rel=0.25)


def test_triplets_of_a_file(tmp_path):
    content = (REPOSITORY / "tests" / "chosen.csv").read_text()
    (tmp_path / "hard.csv").write_text(content)
    name = f'{{"name": "hard", "resolution": 16, "triplets_file": "{tmp_path / "hard.csv"}"}}'
    made = forecast(DUMMY_DATA, name)
    assert made.num_examples == {"train": 6}
    assert made.num_images == len({i for line in content.splitlines()[1:] for i in line.split(",")})
    assert make_forecaster(DUMMY_DATA).num_examples(find_config(name, "landmark_triplets")) == 6
    (tmp_path / "hard.csv").unlink()
    with pytest.raises(CommandError, match=r"There is no file .*hard\.csv"):
        forecast(DUMMY_DATA, name)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sample_tells_about_all(corpus, tmp_path, seed):
    made = forecast(corpus, "64px_all", num_sampled=60, seed=seed)
    assert made.num_sampled == 60
    builder = build(tmp_path / "data", "64px_all", corpus)
    # Half of an interval of 95 %; twice of it is hardly ever missed.
    assert abs(made.num_bytes - builder.info.dataset_size) < 2 * made.error_bytes
    assert 0 < made.error_bytes < 0.2 * made.num_bytes
    assert made.cpu_s > 0
    assert made.wall_s > 0
    assert made.limited_by in ("cores", "writing", "reading")


def test_deterministic_but_for_time(corpus):
    first, second = (forecast(corpus, "64px_1per", num_sampled=15) for _ in range(2))
    # Which thumbnails share a page of the bank's file depends on when they are committed.
    assert first.num_bank_bytes == pytest.approx(second.num_bank_bytes, rel=0.25)
    varying = {"cpu_s": 0.0, "wall_s": 0.0, "limited_by": "", "num_bank_bytes": 0}
    assert dataclasses.replace(first, **varying) == dataclasses.replace(second, **varying)
    other = forecast(corpus, "64px_1per", num_sampled=15, seed=1)
    assert other.num_bytes != first.num_bytes
    assert other.num_examples == first.num_examples


def test_the_sample_leaves_nothing_behind(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    forecast(corpus, "64px_1per", num_sampled=10)
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert [name for name in left if not name.endswith("tfds")] == []  # those are TFDS's, and empty
    assert not (tmp_path / "bank").exists()


@pytest.mark.parametrize("is_shown", [True, False])
def test_the_trial_leaves_output_environment_and_bars_as_they_were(corpus, capsys, is_shown):
    tfds.display_progress_bar(is_shown)
    before, streams = dict(os.environ), (sys.stdout, sys.stderr)
    try:
        forecast(corpus, "64px_1per", num_sampled=10)
        assert isinstance(tfds.core.utils.tqdm(disable=True), tqdm.auto.tqdm) == is_shown
    finally:
        tfds.enable_progress_bar()
    assert os.environ == before
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr().out == ""


def test_a_zip_gives_the_same(tmp_path):
    pack_zip(DUMMY_DATA, tmp_path / "zip")
    from_zip, from_folder = forecast(tmp_path / "zip", "64px"), forecast(DUMMY_DATA, "64px")
    assert from_zip.num_bytes == from_folder.num_bytes
    assert from_zip.num_examples == from_folder.num_examples


def test_unreadable_images_are_counted(tmp_path):
    competition = Competition(tmp_path / "copy")
    for image_id in competition.anchor_ids()[:5]:
        competition.path(image_id).write_bytes(b"no image")
    made = forecast(competition.folder, "64px_all")
    assert made.num_unreadable == 5
    whole = forecast(DUMMY_DATA, "64px_all")
    assert made.num_examples == whole.num_examples  # as planned: most of them draw another image
    assert made.num_bytes == pytest.approx(whole.num_bytes, rel=0.1)


def test_nothing_readable_is_an_error(tmp_path):
    competition = Competition(tmp_path / "copy")
    for image_id in competition.ids():
        competition.path(image_id).write_bytes(b"no image")
    with pytest.raises(CommandError, match="Too few of the sampled images are readable"):
        forecast(competition.folder, "64px")


# --- Budgets


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
    return find_fitting(make_forecaster(folder, num_sampled), dataset, budget, 0, lambda: None)


def test_nothing_fits():
    answer = fitting(DUMMY_DATA, 1000)
    assert (answer.named, answer.custom, answer.alternatives) == (None, None, [])
    assert answer.smallest_named.choice.config.name == "64px_1per"
    assert not answer.all_fit


def test_all_fit():
    answer = fitting(DUMMY_DATA, 10**9)
    assert answer.all_fit
    assert answer.named.choice.config.name in ("512px_all", "512px_area_all")
    assert (answer.custom, answer.alternatives) == (None, [])


@pytest.mark.parametrize(("dataset", "budget"), [("landmark_triplets", 900_000), ("landmark_images", 300_000)])
def test_what_fits_does(corpus, tmp_path, dataset, budget):
    answer = fitting(corpus, budget, dataset)
    assert answer.named is not None
    assert answer.named.choice.is_named
    assert answer.named.num_bytes <= budget
    assert answer.custom is not None
    assert answer.named.num_bytes < answer.custom.num_bytes <= budget
    choice = answer.custom.choice
    builder = build(tmp_path / "data", choice.config, corpus, builder_class=choice.builder_class)
    assert 0.85 * budget < builder.info.dataset_size <= budget
    # The next larger config with a name does not fit.
    per_landmark = [each.config.images_per_landmark or 10**9 for each, _, _ in answer.alternatives]
    resolutions = [each.config.resolution for each, _, _ in answer.alternatives]
    assert per_landmark == sorted(set(per_landmark))
    assert resolutions == sorted(resolutions, reverse=True)


# --- The command


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
        (["--config", "128"], "Did you mean 128px"),
        (["--budget", "much"], "--budget must be a size such as 4.9GB"),
        (["--images", "1"], "--images must be at least 10"),
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
