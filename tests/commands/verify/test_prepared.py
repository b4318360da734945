"""A dataset as it lies on disk: which folder is meant, and damage of the files beside the shards."""

import shutil

from etils import epath
import pytest

from landmark_triplets_tfds.commands.verify import findings
from landmark_triplets_tfds.commands.verify.prepared import find_version_folder
from landmark_triplets_tfds.errors import CommandError
from tests.support.prepared_builds import copy_of, dummy_source, edit_json, problems_of, shards_of, verified

# --- What its files say


def test_missing_and_surplus_shards(copy):
    first, second = shards_of(copy)
    shutil.copy(first, copy / first.name.replace("-of-00002", "-of-00003"))
    (copy / "notes.txt").write_text("of no concern")
    second.unlink()
    found = {p.file: p.message for p in problems_of(verified(copy), findings.FILE)}
    assert found == {
        second.name: "it is missing",
        first.name.replace("-of-00002", "-of-00003"): "dataset_info.json lists no such shard",
    }


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json", "build_report.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"splits": [1]}', '"x"', b"\xff\xfe\0", None])
def test_damaged_json(copy, name, content):
    """It is named, and the shards are looked at all the same."""
    shards_of(copy)[0].write_bytes(shards_of(copy)[0].read_bytes()[:-1])
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    verification = verified(copy, source=dummy_source())
    named = [p.file for p in problems_of(verification, findings.INFO)]
    if name == "build_report.json" and content is None:
        assert any("build_report.json" in note for note in verification.findings.notes)
    else:
        assert name in named
    assert len(problems_of(verification, findings.CHECKSUM)) == 1
    assert verification.num_records == {"train": 43}


def test_a_file_format_that_cannot_be_checked(copy):
    edit_json(copy / "dataset_info.json", lambda info: info.update(fileFormat="parquet"))
    with pytest.raises(CommandError, match=r"in the file format parquet\. What can be looked at is tfrecord and"):
        verified(copy)


def test_another_kind_of_dataset(copy):
    edit_json(
        copy / "features.json",
        lambda content: [content["featuresDict"]["features"].pop(name) for name in ("anchor_img", "landmark_id")],
    )
    with pytest.raises(CommandError, match="holds neither triplets nor single images"):
        verified(copy)


# --- How a dataset is named


@pytest.fixture
def data_dir(triplets, tmp_path):
    copy_of(triplets, tmp_path / "data" / "landmark_triplets" / "custom" / "1.0.0")
    return tmp_path / "data"


def test_versions(data_dir):
    config = data_dir / "landmark_triplets" / "custom"
    for version in ("1.0.1", "1.10.0"):
        shutil.copytree(config / "1.0.0", config / version)
    (config / "1.11.0.incompleteX").mkdir()
    for name, version in {
        "landmark_triplets/custom": "1.10.0",
        "landmark_triplets/custom/": "1.10.0",
        "landmark_triplets": "1.10.0",
        "landmark_triplets/custom:1.0.1": "1.0.1",
        "landmark_triplets/custom/1.0.1": "1.0.1",
    }.items():
        assert find_version_folder(str(data_dir), name) == epath.Path(config / version), name
    assert find_version_folder(None, str(config)) == epath.Path(config / "1.10.0")
    assert find_version_folder(None, str(config / "1.0.0")) == epath.Path(config / "1.0.0")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("landmark_triplets/128px", "There is no prepared dataset landmark_triplets/128px in"),
        ("landmark_triplets/128px", r"It holds landmark_triplets/custom/1\.0\.0\."),
        ("landmark_triplets/custom:3.0.0", r"custom:3.0.0 in .* It holds landmark_triplets/custom/1\.0\.0\."),
        ("mnist", "There is no prepared dataset mnist"),
    ],
)
def test_datasets_that_are_not_there(data_dir, dataset, message):
    with pytest.raises(CommandError, match=message):
        find_version_folder(str(data_dir), dataset)


def test_several_configs_without_a_name(data_dir):
    shutil.copytree(data_dir / "landmark_triplets" / "custom", data_dir / "landmark_triplets" / "other")
    with pytest.raises(CommandError, match=r"It holds landmark_triplets/custom/1\.0\.0, landmark_triplets/other/1"):
        find_version_folder(str(data_dir), "landmark_triplets")


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: folder.mkdir()])
def test_folders_without_datasets(tmp_path, make):
    folder = tmp_path / "data"
    make(folder)
    with pytest.raises(CommandError, match=r"Name the folder that the dataset was built into: --data_dir DIR\."):
        find_version_folder(str(folder), "landmark_triplets/128px")
