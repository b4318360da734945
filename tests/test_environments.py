"""Where users build: folders with any name, machines without a home, paths that begin with ~."""

import json
import os
import shutil

import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.commands import cli
from tests.support.archives import pack_tars, pack_zip
from tests.support.competition import DUMMY_DATA, Competition, build, read_examples, shard_hashes

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
    said = [line for line in capsys.readouterr().out.splitlines() if "LANDMARK_TRIPLETS_BANK" in line]
    assert len(said) == (2 if pack else 1)
    assert all("home" in line for line in said)
    assert not [name for name in os.listdir(tmp_path) if name.startswith("~")]
