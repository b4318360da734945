"""The command `preview`: the same examples as in the dataset, before it is built and after."""

import json
import shutil

from PIL import Image
import pytest

from landmark_triplets_tfds.commands import cli
from tests.support.competition import DUMMY_DATA, Competition, build, build_images, custom_config, images_config
from tests.support.prepared_builds import copy_of, shards_of, without_bank

CONFIG = '{"name": "custom", "resolution": 16, "images_per_landmark": null}'


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with without_bank():
        build(folder, custom_config(resolution=16, images_per_landmark=None), num_shards=3)
        build_images(folder, images_config(resolution=16, validation_percent=50))
    return folder


def preview(capsys, *arguments):
    """Returns the JSON that the command prints."""
    assert cli.main(["preview", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_picture_of_what_is_built(data_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["preview", "--data_dir", str(data_dir), "landmark_triplets/custom", "--num", "3"]) == 0
    said = capsys.readouterr().out
    with Image.open("triplets.png") as picture:
        assert f"Wrote triplets.png: 3 triplets of landmark_triplets/custom/1.0.0, {picture.width} x" in said


def test_what_would_be_built_is_what_is_built(data_dir, tmp_path, capsys):
    """All 43 triplets, whatever order they are drawn in."""
    out = tmp_path / "picture.jpg"
    before = preview(
        capsys, "landmark_triplets", "--config", CONFIG, "--manual_dir", DUMMY_DATA, "--num", 43, "--out", out
    )
    after = preview(capsys, "landmark_triplets/custom", "--data_dir", data_dir, "--num", 100, "--out", out)
    assert before["num_examples"] == after["num_examples"] == 43
    by_anchor = [{t["anchor_id"]: t for t in content["triplets"]} for content in (before, after)]
    assert by_anchor[0] == by_anchor[1]
    assert len(by_anchor[0]) == 43


def test_the_seed_decides(data_dir, tmp_path, capsys):
    drawn = [
        preview(capsys, "landmark_triplets/custom", "--data_dir", data_dir, "--seed", seed, "--out", tmp_path / "a.png")
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0]["triplets"] != drawn[2]["triplets"]
    assert len(drawn[0]["triplets"]) == 6


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("with_index", [True, False])
def test_images_in_rows_of_a_landmark(data_dir, tmp_path, capsys, split, with_index):
    folder = copy_of(data_dir / "landmark_images" / "custom" / "1.0.0", tmp_path / "1.0.0")
    if not with_index:
        (folder / "index.npz").unlink()
    content = preview(capsys, folder, "--split", split, "--num", 3, "--out", tmp_path / "a.webp")
    landmarks = [image["landmark_id"] for image in content["images"]]
    assert len(landmarks) == (6 if with_index else 3)  # two images of each landmark are in the sample
    if with_index:
        assert len(set(landmarks)) == 3
        assert landmarks == [landmark for landmark in dict.fromkeys(landmarks) for _ in range(2)]


def test_images_before_they_are_built(tmp_path, capsys):
    content = preview(capsys, "landmark_images/64px_all", "--manual_dir", DUMMY_DATA, "--out", tmp_path / "a.png")
    assert content["num_examples"] == 45
    assert len({image["landmark_id"] for image in content["images"]}) == 6


def test_unreadable_images_are_drawn_again_as_in_a_build(tmp_path, capsys, monkeypatch):
    competition = Competition(tmp_path / "competition")
    for image_id in competition.anchor_ids()[::2]:
        competition.path(image_id).write_bytes(b"<html>")
    options = ("--num", 40, "--out", tmp_path / "a.png")
    content = preview(capsys, "landmark_triplets", "--config", CONFIG, "--manual_dir", competition.folder, *options)
    assert any("HTML page" in note for note in content["notes"])
    assert any("A build would leave out" in note for note in content["notes"])
    monkeypatch.setenv("LANDMARK_TRIPLETS_MAX_UNREADABLE", "100%")
    build(tmp_path / "data", custom_config(resolution=16, images_per_landmark=None), competition.folder)
    capsys.readouterr()
    built = preview(capsys, "landmark_triplets/custom", "--data_dir", tmp_path / "data", *options)
    ids = [sorted(map(str, content["triplets"])), sorted(map(str, built["triplets"]))]
    assert ids[0] == ids[1]


def test_nothing_to_show(tmp_path, capsys):
    competition = Competition(tmp_path / "competition")
    shutil.rmtree(competition.folder / "train")
    (competition.folder / "train" / "0").mkdir(parents=True)
    arguments = ["landmark_triplets/64px", "--manual_dir", str(competition.folder), "--out", str(tmp_path / "a.png")]
    assert cli.main(["preview", *arguments]) == 2
    assert "No example can be shown." in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()


def test_damaged_records_are_named(data_dir, tmp_path, capsys):
    folder = copy_of(data_dir / "landmark_triplets" / "custom" / "1.0.0", tmp_path / "1.0.0")
    shard = shards_of(folder)[0]
    content = bytearray(shard.read_bytes())
    content[500] ^= 1
    shard.write_bytes(content)
    drawn = preview(capsys, folder, "--num", 43, "--out", tmp_path / "a.png")
    assert len(drawn["triplets"]) == 42
    assert drawn["notes"] == [
        f"Record 0 of {shard.name} is damaged. To see what else is wrong: landmark-triplets verify {folder}"
    ]
    (folder / "dataset_info.json").write_text("{")
    assert cli.main(["preview", str(folder)]) == 2
    assert f"landmark-triplets verify {folder}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["landmark_triplets/nothing"], "There is no prepared dataset landmark_triplets/nothing"),
        (["landmark_triplets/custom", "--split", "test"], "has no split 'test'; it has train"),
        (["landmark_triplets/custom", "--num", "0"], "--num: it must be a whole number between 1 and 100, got 0"),
        (["landmark_triplets/custom", "--seed", "-1"], "--seed: it must be a whole number"),
        (["landmark_triplets/custom", "--out", "a.pdf"], "--out must end in .png, .jpg or .webp, got a.pdf"),
        (["landmark_triplets/custom", "--out", "no/where/a.png"], "there is no folder"),
        (["landmark_triplets/custom", "--config", "{}"], "--config is of use with --manual_dir"),
        (["landmark_triplets/64px", "--manual_dir", str(DUMMY_DATA)], "Give either --data_dir"),
    ],
)
def test_wrong_arguments(data_dir, capsys, arguments, message):
    assert cli.main(["preview", "--data_dir", str(data_dir), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_split_that_no_build_makes(capsys):
    assert cli.main(["preview", "--manual_dir", str(DUMMY_DATA), "landmark_triplets", "--split", "validation"]) == 2
    assert "has no split 'validation'; it has train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["landmark_triplets"], "landmark_triplets/128px"),
        (["landmark_images"], "landmark_images/128px_all"),
        (["landmark_triplets/64px:1.0.0"], "landmark_triplets/64px"),
        (["landmark_triplets", "--config", "64px_all"], "landmark_triplets/64px_all"),
        (["landmark_triplets", "--config", CONFIG], "landmark_triplets/custom"),
    ],
)
def test_which_config_is_meant(capsys, tmp_path, arguments, name):
    options = ("--manual_dir", DUMMY_DATA, "--num", 1, "--out", tmp_path / "a.png")
    assert preview(capsys, *arguments, *options)["dataset"] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["landmark_triplet"], "There is no dataset 'landmark_triplet'; there are landmark_triplets and"),
        (["landmark_triplets/128x"], "has no config '128x'"),
        (["landmark_triplets/64px", "--config", "128px"], "Name the config once"),
        (["landmark_triplets", "--config", '{"name": "a", "resolution": 3}'], "resolution must be a whole number"),
        (["landmark_images", "--config", '{"name": "a", "seed": 3}'], "landmark_images has no field 'seed'"),
    ],
)
def test_wrong_configs(capsys, arguments, message):
    assert cli.main(["preview", "--manual_dir", str(DUMMY_DATA), *arguments]) == 2
    assert message in capsys.readouterr().err
