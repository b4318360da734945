"""The build for trial: it counts what it should, and leaves everything else as it was."""

import os
import shutil
import sys

from etils import epath
import pytest
import tensorflow_datasets as tfds
import tqdm.auto

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands.datasets import find_config
from landmark_triplets_tfds.commands.forecast.trial import run_trial
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from tests.support.competition import Competition
from tests.support.forecasts import forecast


@pytest.mark.parametrize("name", ["64px_1per", "landmark_images/128px_area_all"])
def test_sizes_are_those_of_a_build(corpus, tmp_path, name):
    config, source = find_config(name, "landmark_triplets"), find_source(epath.Path(corpus), "off")
    image_ids = source.read_table().image_ids[:20]
    trial = run_trial(config, source, image_ids, BuildOptions(), tmp_path)
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
