"""Prepared datasets against the competition's files: the table, the plan, images made again."""

import json
import shutil

from etils import epath
import pytest

from landmark_triplets_tfds.commands.verify.records import Kind
from landmark_triplets_tfds.competition.archive import ArchiveIndex
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import LandmarkTableError
from tests.support.archives import COPIES
from tests.support.competition import DUMMY_DATA, Competition, build, build_images, custom_config, images_config
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.prepared_builds import (
    FIELDS,
    assert_all_well,
    assert_forgery_is_found,
    dummy_source,
    edit_json,
    forge,
    problems_of,
    read_examples,
    set_value,
    shards_of,
    value,
    verified,
)

# --- What is right


@pytest.mark.parametrize(
    "fields",
    [
        {"triplets_per_anchor": 3},
        {"positive_may_be_anchor": True},
        {"validation_percent": 50},
        {"images_per_landmark": 1},
        {"resize_method": "area", "fit": "crop", "jpeg_quality": 60},
        {"seed": 7},
    ],
)
def test_configs(tmp_path, fields):
    folder = build(tmp_path, custom_config(**(FIELDS | fields))).data_path
    assert_all_well(verified(folder, source=dummy_source()))


def test_images_without_labels(tmp_path):
    """They are in no table, and in as many splits as there are folders of them."""
    competition = Competition(tmp_path / "competition")
    config = images_config(**FIELDS, unlabeled_splits=True, validation_percent=50)
    folder = build_images(tmp_path / "data", config, competition.folder).data_path
    assert_all_well(verified(folder))
    verification = verified(folder, source=dummy_source(competition.folder))
    assert_all_well(verification)
    assert {"train", "validation", "index", "test"} == set(verification.num_records)
    changed = next((competition.folder / "index").rglob("*.jpg"))
    changed.write_bytes(encode_image(smooth_pixels(20, 20)))
    (problem,) = verified(folder, source=dummy_source(competition.folder)).problems
    assert (problem.kind, str(changed) in problem.message, "-index." in problem.file) == (Kind.SOURCE, True, True)
    shutil.rmtree(competition.folder / "index")
    verification = verified(folder, source=dummy_source(competition.folder))
    assert any(
        "image_id" in p.message and "is not in the table" in p.message for p in problems_of(verification, Kind.TABLE)
    )


def test_a_cap_on_examples(tmp_path):
    folder = build(tmp_path, custom_config(**FIELDS), max_examples_per_split=10).data_path
    assert_all_well(verified(folder, source=dummy_source()))


@pytest.mark.parametrize("missing_images", ["error", "drop"])
@pytest.mark.parametrize("build_kind", [build, build_images])
def test_unreadable_images_are_accounted_for(tmp_path, build_kind, missing_images):
    competition = Competition(tmp_path / "competition")
    ids = competition.anchor_ids()
    for image_id in ids[:9:2]:
        competition.path(image_id).unlink()
    competition.path(ids[20]).write_bytes(b"<html>")
    make_config = custom_config if build_kind is build else images_config
    folder = build_kind(
        tmp_path / "data", make_config(**FIELDS, missing_images=missing_images), competition.folder
    ).data_path
    report = json.loads((folder / "build_report.json").read_text())
    assert report["counts"]["num_images_unreadable"] == (6 if missing_images == "error" else 1)
    assert_all_well(verified(folder, source=dummy_source(competition.folder)))
    # An image that the report does not list as unreadable is missed.
    edit_json(folder / "build_report.json", lambda report: report["unreadable_images"].pop())
    assert problems_of(verified(folder, source=dummy_source(competition.folder)), Kind.PLAN)
    (folder / "build_report.json").unlink()
    verification = verified(folder, source=dummy_source(competition.folder))
    assert [problem.file for problem in verification.problems] == ["build_report.json"]
    assert "Whether the records are those that a build plans" in verification.not_checked[1]


def test_excluded_landmarks(tmp_path):
    listed = tmp_path / "excluded.txt"
    listed.write_text(f"{Competition(tmp_path / 'competition').table.landmark_ids[0]}\n")
    folder = build(tmp_path, custom_config(**FIELDS, exclude_landmarks=str(listed))).data_path
    verification = verified(folder, source=dummy_source())
    assert (verification.problems, verification.all_well) == ([], False)
    assert "--exclude_landmarks" in verification.not_checked[0]
    assert_all_well(verified(folder, source=dummy_source(exclude_landmarks=str(listed))))
    listed.write_text("1\n")
    with pytest.raises(LandmarkTableError, match="is not the list of landmarks that was excluded"):
        verified(folder, source=dummy_source(exclude_landmarks=str(listed)))


def test_records_in_another_order(copy):
    """It is an error of its own, and hides no other: with sources, records are compared one by one."""
    ids = {format_image_id(int(value(e, "anchor_id")[0], 16)) for s in shards_of(copy) for e in read_examples(s)}
    forge(copy, lambda examples: examples.reverse())
    assert len(ids) == 43
    assert {problem.kind for problem in verified(copy, source=dummy_source()).problems} == {Kind.ORDER}


# --- What is not


def another_positive(examples):
    value(examples[3], "positive_id")[0] = b"1" * 16
    value(examples[3], "positive_img")[0] = value(examples[3], "anchor_img")[0]


FORGERIES = {
    "another image": (
        set_value(4, "negative_img", encode_image(smooth_pixels(16, 16))), Kind.SOURCE, 4, "_img: it is not what"
    ),
    "id that is not in the table": (set_value(2, "anchor_id", b"0" * 16), Kind.TABLE, 2, "is not in the table"),
    "another landmark": (set_value(2, "landmark_id", 999), Kind.TABLE, 2, "by the table, and 999 here"),
    "another positive": (
        another_positive, Kind.PLAN, 3, "positive_id is 1111111111111111, and the plan has"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    change, kind, record, message = FORGERIES[what]
    assert_forgery_is_found(copy, change, kind, record, message, source=dummy_source())
    assert kind not in verified(copy).num_problems_by_kind  # only the competition's files show it


def test_records_that_are_gone(copy):
    """Even where dataset_info.json agrees."""
    gone = value(read_examples(shards_of(copy)[0])[7], "anchor_id")[0].decode()
    forge(copy, lambda examples: examples.pop(7))
    assert "says" in problems_of(verified(copy), Kind.COUNT)[0].message

    def agree(info):
        split = info["splits"][0]
        split["shardLengths"][0] = str(int(split["shardLengths"][0]) - 1)

    edit_json(copy / "dataset_info.json", agree)
    verification = verified(copy, source=dummy_source())
    assert {p.file for p in problems_of(verification, Kind.COUNT)} == {"dataset_info.json", "metadata.json"}
    (problem,) = problems_of(verification, Kind.PLAN)
    assert f"key {gone} is planned for train" in problem.message


def test_fields_that_do_not_fit_the_records(copy):
    def change(content):
        content["config"].update(resolution=32, seed=5)

    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, change)
    verification = verified(copy, source=dummy_source())
    assert [p.file for p in problems_of(verification, Kind.INFO)] == ["metadata.json"]
    assert len(problems_of(verification, Kind.PLAN)) > 35  # another seed, other triplets
    assert len(problems_of(verification, Kind.SOURCE)) > 40


def test_another_table(copy, tmp_path):
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    table.write_text(table.read_text() + "0123456789abcdef,5\n")
    (problem,) = verified(copy, source=dummy_source(competition.folder)).problems
    assert "table_sha256 is not that of" in problem.message


def test_a_changed_source(copy, tmp_path):
    competition = Competition(tmp_path / "competition")
    changed, gone = competition.anchor_ids()[:2]
    competition.path(changed).write_bytes(encode_image(smooth_pixels(50, 50)))
    competition.path(gone).unlink()
    found = problems_of(verified(copy, source=dummy_source(competition.folder)), Kind.SOURCE)
    assert len(found) == 2
    assert any(changed in p.message and "is not what" in p.message for p in found)
    assert any(gone in p.message and "unreadable now (missing)" in p.message for p in found)


@pytest.mark.parametrize("name", ["zip, deflated", "tars"])
def test_what_a_build_trusted_is_not_trusted(tmp_path, bank, name):
    """An index that lacks images, and whose checksum is right, gives a dataset without them; another one is made."""
    copy, config = COPIES[name](DUMMY_DATA, tmp_path / "copy"), custom_config(**FIELDS, missing_images="drop")
    open_copy(epath.Path(copy), str(bank), 1)
    (path,) = (path for path in bank.glob("*.index") if not path.name.startswith(("index-", "test-")))
    index = ArchiveIndex.load(str(path))
    ArchiveIndex(index.members[5:], index.archives).save(str(path))
    folder = build(tmp_path / "data", config, copy).data_path
    assert json.loads((folder / "build_report.json").read_text())["counts"]["num_images_dropped"] == 5
    forged = path.read_bytes()
    (problem,) = verified(folder, source=dummy_source(copy)).problems
    assert "table_sha256 is not that of" in problem.message
    assert path.read_bytes() == forged
    path.unlink()
    assert_all_well(verified(build(tmp_path / "again", config, copy).data_path, source=dummy_source(copy)))


@pytest.mark.parametrize("splits", [{"train"}, {"validation"}])
def test_splits_that_are_not_there(copy_of_images, splits):
    """Even if no file that lies beside the shards knows of them."""
    for shard in shards_of(copy_of_images):
        if not any(f"-{split}." in shard.name for split in splits):
            shard.unlink()

    def forget(content):
        if "fileFormat" in content:
            content["splits"] = [split for split in content["splits"] if split["name"] in splits]
        else:
            counts = content["counts"]
            counts["splits"] = {name: each for name, each in counts["splits"].items() if name in splits}
            counts["num_examples"] = sum(each["num_examples"] for each in counts["splits"].values())

    for name in ("dataset_info.json", "metadata.json", "build_report.json"):
        edit_json(copy_of_images / name, forget)
    (index,) = verified(copy_of_images).problems
    assert index.kind == Kind.INDEX
    (lost,) = {"train", "validation"} - splits
    found = problems_of(verified(copy_of_images, source=dummy_source()), Kind.PLAN)
    assert [problem.message for problem in found] == [f"split {lost} is not there, and a build makes it"]


def test_other_library_versions_are_named(copy, tmp_path):
    edit_json(copy / "build_report.json", lambda report: report["versions"].update(simplejpeg="1.0.0"))
    assert_all_well(verified(copy, source=dummy_source()))
    forge(copy, set_value(4, "negative_img", encode_image(smooth_pixels(16, 16))))
    assert "built with simplejpeg 1.0.0" in problems_of(verified(copy, source=dummy_source()), Kind.SOURCE)[0].message


def test_datasets_of_other_versions_of_the_package(copy):
    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, lambda content: content["config"].update(of_the_future=1))
    verification = verified(copy, source=dummy_source())
    assert verification.problems == []
    assert "of_the_future" in verification.not_checked[0]
    edit_json(copy / "dataset_info.json", lambda info: info.update(version="2.0.0"))
    edit_json(copy / "build_report.json", lambda report: report.update(dataset="landmark_triplets/custom/2.0.0"))
    verification = verified(copy, source=dummy_source())
    assert verification.problems == []
    assert "It is version 2.0.0, and this package makes 1.0.0" in verification.not_checked[0]
