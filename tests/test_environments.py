"""Where users build: folders with any name, machines without a home, paths that begin with ~."""

import json
import os
import pickle
import shutil

from etils import epath
import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds import read_image_index
from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.errors import PreparedDataMismatchError
from tests.support.archives import pack_tars, pack_zip
from tests.support.competition import (
    DUMMY_DATA,
    Competition,
    build,
    build_images,
    custom_config,
    make_builder,
    read_examples,
    shard_hashes,
)

# What a shell or `glob` takes for a pattern, what is no UTF-8, what a shell would cut.
ODD_NAMES = ["run[1]", "[x]*", "a?b", "{a,b}", "%s", "caf\udce9", "x y'\n"]


@pytest.fixture
def odd(tmp_path, request):
    """A folder with an odd name, which is also the place of temporary files."""
    folder = tmp_path / request.param
    try:
        folder.mkdir()
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    return folder


@pytest.mark.parametrize("odd", ODD_NAMES, indirect=True)
def test_all_is_in_a_folder_with_an_odd_name(tmp_path, odd, monkeypatch, capsys):
    competition = Competition(odd / "copy")
    missing = competition.anchor_ids()[3]
    competition.path(missing).unlink()
    shutil.copytree(odd / "copy", tmp_path / "copy")
    expected = build(tmp_path / "data", "64px_all", tmp_path / "copy")
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", str(odd / "bank"))
    leftover = odd / "data" / "landmark_triplets" / "64px_all" / "incomplete.ABCDEF_1.0.0"
    leftover.mkdir(parents=True)
    built = build(odd / "data", "64px_all", odd / "copy")
    again = build(odd / "again", "64px_all", odd / "copy")  # from the bank, with what it knows of the missing image
    assert shard_hashes(built) == shard_hashes(again) == shard_hashes(expected)
    assert not leftover.exists()
    for builder in (built, again):
        report = json.loads((builder.data_path / "build_report.json").read_text())
        assert [(i["image_id"], i["location"]) for i in report["unreadable_images"]] == [
            (missing, str(competition.path(missing)))
        ]
        assert report["bank"].startswith(str(odd / "bank"))
        assert not [path for path in builder.data_path.iterdir() if path.name.startswith(("incomplete", "workers"))]
    is_shown = "TensorFlow cannot read it there" in capsys.readouterr().out
    assert is_shown == ("\udce9" in odd.name)
    if "\udce9" not in odd.name:  # which TensorFlow cannot open
        dataset = tfds.load("landmark_triplets/64px_all", split="train", data_dir=odd / "data")
        assert len(list(dataset)) == len(read_examples(expected))


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["run[1]", "caf\udce9"], indirect=True)
def test_commands_in_a_folder_with_an_odd_name(odd, monkeypatch):
    shutil.copytree(DUMMY_DATA, odd / "copy")
    build(odd / "data", "64px_all", odd / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(odd))
        arguments = ["--config", "64px_all", "--manual_dir", str(odd / "copy"), "--images", "10"]
        assert cli.main(["forecast", *arguments]) == 0
    dataset = ["landmark_triplets/64px_all", "--data_dir", str(odd / "data")]
    assert cli.main(["verify", *dataset, "--manual_dir", str(odd / "copy")]) == 0
    assert cli.main(["verify", str(odd / "data" / "landmark_triplets")]) == 0
    assert cli.main(["inspect", "--manual_dir", str(odd / "copy")]) == 0
    if "\udce9" not in odd.name:  # which TensorFlow cannot open
        assert cli.main(["preview", *dataset, "--out", str(odd / "picture.png")]) == 0


@pytest.mark.parametrize("pack", [None, pack_zip, pack_tars])
@pytest.mark.parametrize("asked_for", [None, "~/bank"])
def test_a_machine_without_a_home(tmp_path, monkeypatch, capsys, no_home, pack, asked_for):
    """As in ``docker run --user 12345``: without the bank, indexes with the build, and lines that say what to set."""
    copy = pack(DUMMY_DATA, tmp_path / "copy") if pack else DUMMY_DATA
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LANDMARK_TRIPLETS_BANK")
    if asked_for:
        monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", asked_for)
    builder = build(tmp_path / "data", "64px_1per", copy if copy.is_dir() else copy.parent)
    assert len(read_examples(builder)) == 10
    assert cli.main(["verify", str(builder.data_path)]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "LANDMARK_TRIPLETS_BANK" in line]
    assert len(said) == (2 if pack else 1)
    assert all("home" in line for line in said)
    assert not [path for path in ("~/bank", "~/.cache/landmark_triplets_tfds") if os.path.lexists(path)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, with a copy of the competition and the bank in it; the working folder is another."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("LANDMARK_TRIPLETS_BANK", "~/bank")
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(DUMMY_DATA, tmp_path / "home" / "copy")
    yield tmp_path / "home"
    assert not list((tmp_path / "elsewhere").iterdir())  # such as a folder named ~


def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(home):
    """Wherever it is given: one rule."""
    competition = Competition(home / "other")
    (home / "excluded.txt").write_text(f"{competition.landmark_of(competition.ids()[0])}\n")
    config = custom_config(resolution=8, exclude_landmarks="~/excluded.txt")
    for _ in range(2):  # the second compares
        builder = build("~/data", config, "~/copy")
        assert builder.data_path == epath.Path(home / "data" / "landmark_triplets" / "custom" / "1.0.0")
    assert list((home / "bank").iterdir())
    table = home / "copy" / "train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(PreparedDataMismatchError, match="another table"):
        build("~/data", config, "~/copy")
    dataset = ["landmark_triplets/custom", "--data_dir", "~/data"]
    arguments = ["--manual_dir", "~/other", "--exclude_landmarks", "~/excluded.txt"]
    assert cli.main(["verify", *dataset, *arguments]) == 0
    assert cli.main(["preview", *dataset, "--out", "~/picture.png"]) == 0
    assert (home / "picture.png").exists()


def test_tfds_finds_what_is_in_the_home_folder(home):
    builder = tfds.builder("landmark_triplets/64px_1per", data_dir="~/data")
    builder.download_and_prepare(
        download_dir="~/downloads", download_config=tfds.download.DownloadConfig(manual_dir="~/copy")
    )
    assert (home / "data" / "landmark_triplets" / "64px_1per").is_dir()
    assert len(list(tfds.load("landmark_triplets/64px_1per", split="train", data_dir="~/data"))) == 10
    pickled = pickle.loads(pickle.dumps(builder))
    assert pickled.data_path == builder.data_path
    build_images("~/data", "64px_1per", home / "copy")
    assert len(read_image_index(f"~/data/landmark_images/64px_1per/{builder.version}")) == 12


def test_manual_dir_is_within_the_download_dir(home):
    (home / "downloads").mkdir()
    (home / "copy").rename(home / "downloads" / "manual")
    for _ in range(2):
        make_builder("~/data", "64px_1per").download_and_prepare(download_dir="~/downloads")
    assert (home / "data" / "landmark_triplets" / "64px_1per").is_dir()


def test_the_folder_of_all_datasets_may_begin_with_a_tilde(home, monkeypatch):
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", "~/data")  # as TFDS_DATA_DIR does
    build(None, "64px_1per", home / "copy")
    assert (home / "data" / "landmark_triplets" / "64px_1per").is_dir()
    assert cli.main(["verify", "landmark_triplets/64px_1per"]) == 0
