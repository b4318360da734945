"""Forecasts against real builds."""

import os
import pathlib
import shutil
import sys

from etils import epath
import pytest
import tensorflow_datasets as tfds
import tqdm.auto

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands.datasets import BUILDERS, find_config
from landmark_triplets_tfds.commands.forecaster import run_trial
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from tests.support.archives import pack_zip
from tests.support.competition import DUMMY_DATA, REPOSITORY, Competition, build
from tests.support.forecasts import forecast, make_forecaster

CONFIGS = [
    "64px",
    "128px_area_all",
    "landmark_images/64px_all",
    "128px_holdout10",
    '{"name": "custom", "resolution": 96, "images_per_landmark": 3, "triplets_per_anchor": 3, "fit": "pad"}',
]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_build_makes_what_was_forecast(corpus, tmp_path, bank, name):
    """All images are sampled, so that the sizes of thumbnails are exact too."""
    config = find_config(name, "landmark_triplets")
    made = forecast(corpus, name, num_sampled=1000)
    builder = build(tmp_path / "data", config, corpus, builder_class=BUILDERS[config.kind.dataset])
    assert made["splits"] == {split: info.num_examples for split, info in builder.info.splits.items()}
    assert made["num_distinct_images"] == builder.info.metadata["counts"]["num_images_read"]
    assert made["dataset_error_bytes"] == 0
    shards = [path for path in pathlib.Path(builder.data_dir).iterdir() if "-of-" in path.name]
    assert made["dataset_bytes"] == pytest.approx(sum(path.stat().st_size for path in shards), rel=0.005)
    assert made["bank_bytes"] == pytest.approx(sum(path.stat().st_size for path in bank.glob("*/*")), rel=0.02)


def test_triplets_of_a_file(tmp_path):
    content = (REPOSITORY / "tests" / "chosen.csv").read_text()
    (tmp_path / "hard.csv").write_text(content)
    name = f'{{"name": "hard", "resolution": 16, "triplets_file": "{tmp_path / "hard.csv"}"}}'
    made = forecast(DUMMY_DATA, name)
    assert made["splits"] == {"train": 6}
    assert made["num_distinct_images"] == len({i for line in content.splitlines()[1:] for i in line.split(",")})
    assert make_forecaster(DUMMY_DATA).num_examples(find_config(name, "landmark_triplets")) == 6
    (tmp_path / "hard.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no file .*hard\.csv"):
        forecast(DUMMY_DATA, name)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_sample_tells_about_all(corpus, tmp_path, seed):
    made = forecast(corpus, "64px_all", num_sampled=60, seed=seed)
    assert made["num_images_sampled"] == 60
    builder = build(tmp_path / "data", "64px_all", corpus)
    # Half of an interval of 95 %; twice of it is hardly ever missed.
    assert abs(made["dataset_bytes"] - builder.info.dataset_size) < 2 * made["dataset_error_bytes"]
    assert 0 < made["dataset_error_bytes"] < 0.2 * made["dataset_bytes"]
    assert made["cpu_seconds"] > 0
    assert made["seconds"] > 0
    assert made["limited_by"] in ("cores", "reading")


def test_thumbnails_without_a_bank_have_to_fit_too(corpus):
    with_bank = forecast(corpus, "64px_1per", num_sampled=1000)
    assert with_bank["dataset_bytes"] < with_bank["peak_bytes"] < 1.2 * with_bank["dataset_bytes"]
    without = forecast(corpus, "64px_1per", num_sampled=1000, bank="off")
    assert without["peak_bytes"] == pytest.approx(with_bank["peak_bytes"] + with_bank["bank_bytes"], rel=0.01)


def test_deterministic_but_for_time(corpus):
    first, second = (forecast(corpus, "64px_1per", num_sampled=15) for _ in range(2))
    varying = dict.fromkeys(("cpu_seconds", "seconds", "limited_by", "bank_bytes", "peak_bytes"))
    assert first | varying == second | varying
    other = forecast(corpus, "64px_1per", num_sampled=15, seed=1)
    assert other["dataset_bytes"] != first["dataset_bytes"]
    assert other["splits"] == first["splits"]


def test_a_zip_gives_the_same(tmp_path):
    pack_zip(DUMMY_DATA, tmp_path / "zip")
    from_zip, from_folder = forecast(tmp_path / "zip", "64px"), forecast(DUMMY_DATA, "64px")
    assert from_zip["dataset_bytes"] == from_folder["dataset_bytes"]
    assert from_zip["splits"] == from_folder["splits"]


def test_unreadable_images_are_counted(tmp_path):
    competition = Competition(tmp_path / "copy")
    for image_id in competition.anchor_ids()[:5]:
        competition.path(image_id).write_bytes(b"no image")
    made = forecast(competition.folder, "64px_all")
    assert made["num_images_unreadable"] == 5
    whole = forecast(DUMMY_DATA, "64px_all")
    assert made["splits"] == whole["splits"]  # as planned: most of them draw another image
    assert made["dataset_bytes"] == pytest.approx(whole["dataset_bytes"], rel=0.1)


# --- The trial: it counts what it should, and leaves everything else as it was


@pytest.mark.parametrize("name", ["64px_1per", "landmark_images/128px_area_all"])
def test_sizes_are_those_of_a_build(corpus, name):
    config, source = find_config(name, "landmark_triplets"), find_source(epath.Path(corpus), "off")
    image_ids = source.read_table().image_ids[:20]
    trial = run_trial(config, source, image_ids, BuildOptions())
    spec = config.thumbnail_spec()
    assert trial.thumbnail_bytes.tolist() == [len(make_thumbnail(source.read(i), spec)) for i in image_ids.tolist()]
    assert (trial.num_examples, trial.num_unreadable) == (20, 0)
    assert 50 < trial.overhead_bytes < 400
    assert trial.bank_bytes > trial.thumbnail_bytes.mean()


def test_a_disk_without_room_is_an_error(corpus, monkeypatch):
    usage = shutil.disk_usage(corpus)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(CommandError, match="has no room for a trial"):
        forecast(corpus, "64px_1per", num_sampled=10)


def test_the_sample_leaves_nothing_behind(corpus, tmp_path, bank, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    forecast(corpus, "64px_1per", num_sampled=10)
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert [name for name in left if not name.endswith("tfds")] == []  # those are TFDS's, and empty
    assert not list(bank.iterdir())


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


def test_nothing_readable_is_an_error(tmp_path):
    competition = Competition(tmp_path / "copy")
    for image_id in competition.ids():
        competition.path(image_id).write_bytes(b"no image")
    with pytest.raises(CommandError, match="Too few of the sampled images are readable"):
        forecast(competition.folder, "64px")
