"""The report: of a build over every kind of bad file, and the texts that are shown."""

import json

import pytest

from landmark_triplets_tfds.build.report import BuildReport, UnreadableImage, check_num_unreadable, describe_unreadable
from landmark_triplets_tfds.competition.selection import ImageSet, Selection
from landmark_triplets_tfds.errors import TooManyUnreadableError
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS
from landmark_triplets_tfds.triplets.plan import ExampleCounts
from tests.support.competition import Competition, build, read_examples
from tests.support.helpers import landmark_table


def test_report_of_a_build_over_all_kinds_of_bad_files(tmp_path, monkeypatch):
    competition = Competition(tmp_path / "competition")
    ids = competition.anchor_ids()
    contents = [b"", b"<html></html>", b"BM" + bytes(100), competition.path(ids[20]).read_bytes()[:600]]
    reasons = ["empty file", "not a JPEG, PNG or GIF file", "unsupported kind of image", "damaged or truncated"]
    for image_id, content in zip(ids, contents, strict=False):
        competition.path(image_id).write_bytes(content)
    competition.path(ids[4]).unlink()
    competition.path(ids[5]).unlink()
    competition.path(ids[5]).mkdir()
    huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4, "big") * 2 + bytes(20)
    competition.path(ids[6]).write_bytes(huge)
    expected = dict(zip(ids, [*reasons, "missing", "cannot be read from disk", "too many pixels"], strict=False))
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", "2")
    builder = build(tmp_path / "data", "64px_all", competition.folder)
    report = json.loads((builder.data_path / "build_report.json").read_text())

    assert {i["image_id"]: i["reason"] for i in report["unreadable_images"]} == expected
    assert [i["image_id"] for i in report["unreadable_images"]] == sorted(expected)
    for image in report["unreadable_images"]:
        assert image["location"] == str(competition.path(image["image_id"]))
    assert {i["image_id"]: i["detail"] for i in report["unreadable_images"]}[ids[1]] == "HTML page"

    examples = read_examples(builder)
    anchors = set(ids)
    counts = report["counts"]
    assert counts == {
        "num_images": 45,
        "num_landmarks": 12,
        "num_landmarks_without_pair": 2,
        "num_images_excluded": 0,
        "num_landmarks_excluded": 0,
        "num_images_dropped": 0,
        "num_landmarks_dropped": 0,
        "num_images_read": 44,
        "num_images_unreadable": 7,
        "num_images_unreadable_by_reason": {
            "cannot be read from disk": 1,
            "damaged or truncated": 1,
            "empty file": 1,
            "missing": 1,
            "not a JPEG, PNG or GIF file": 1,
            "too many pixels": 1,
            "unsupported kind of image": 1,
        },
        "num_triplets": len(examples),
        "num_triplets_redrawn": counts["num_triplets_redrawn"],
        "num_triplets_left_out": len(anchors) - len(examples),
        "num_triplets_left_out_by_reason": counts["num_triplets_left_out_by_reason"],
        "splits": {"train": {name: counts[name] for name in counts if name.startswith("num_triplets")}},
    }
    assert counts["num_triplets_left_out_by_reason"]["unreadable anchor"] == len(anchors & set(expected))
    intact = {e["anchor_id"]: e for e in read_examples(build(tmp_path / "intact", "64px_all"))}
    changed = [e for e in examples if e != intact[e["anchor_id"]]]
    assert counts["num_triplets_redrawn"] == len(changed) > 0

    assert report["dataset"] == "landmark_triplets/64px_all/1.0.0"
    assert report["config"] == builder.builder_config.dataset_fields()
    assert report["build_options"]["workers"] == 2
    stages = {"read_table", "plan", "look_up_images", "make_thumbnails", "redraw", "write_shards"}
    assert set(report["seconds"]) == stages
    assert all(seconds >= 0 for seconds in report["seconds"].values())
    assert report["images_per_second"] > 0
    assert report["triplets_per_second"] > 0
    assert {"python", "platform", "tensorflow", "tensorflow-datasets", "simplejpeg"} <= set(report["versions"])
    assert builder.info.metadata["counts"] == counts


# --- Texts


def unreadable(number: int, reason: str = "empty file", detail: str = "") -> list[UnreadableImage]:
    return [UnreadableImage(i, reason, detail, f"train/{i}.jpg") for i in range(number)]


def test_unreadable_images_are_counted_and_the_first_are_listed():
    text = describe_unreadable(
        [*unreadable(4), UnreadableImage(9, "missing", "x", "x"), *unreadable(2, "damaged", "y")]
    )
    assert text.splitlines() == [
        "7 (4 empty file, 2 damaged, 1 missing).",
        *(f"    train/{i}.jpg: empty file" for i in range(4)),
        "    x: missing",  # where the detail is the place, it is said once
        "    ... and 2 more",
    ]
    assert str(unreadable(1, "damaged", "y")[0]) == "train/0.jpg: damaged (y)"


@pytest.mark.parametrize(("number", "share"), [(11, "10%"), (100, "20%"), (900, "100%")])
def test_a_share_that_may_be_enough_is_named(number, share):
    check_num_unreadable(unreadable(number), number, 1000)
    with pytest.raises(TooManyUnreadableError, match=f"more than {number - 1} (?s:.*)_MAX_UNREADABLE={share}"):
        check_num_unreadable(unreadable(number), number - 1, 1000)


def make_report(kind, **fields) -> BuildReport:
    table = landmark_table([1, 1, 2])
    return BuildReport(Selection(ImageSet(table, None), table, table), kind, **fields)


@pytest.mark.parametrize("kind", [TRIPLETS, IMAGES])
def test_names_are_those_of_the_kind(kind):
    report = make_report(kind, splits={"train": ExampleCounts(3, 1)}, seconds={"plan": 2.0})
    name = kind.count_name
    assert report.counts()[f"num_{name}"] == 3
    assert (f"num_{name}_redrawn" in report.counts()) == (kind is TRIPLETS)
    assert report.as_json()[f"{name}_per_second"] == 1.5
    assert f"({2:,} {kind.noun}/s)" in report.summary("x", "data")


def test_times_of_stages_are_added_up():
    report = make_report(IMAGES, num_images_read=10)
    with report.stage("plan"):
        pass
    report.seconds["plan"] += 5
    with report.stage("plan"):
        pass
    assert 5 <= report.working_seconds() < 6
    assert report.as_json()["images_per_second"] <= 2


def test_splits_are_added_up():
    splits = {"train": ExampleCounts(3, 1), "validation": ExampleCounts(4, 0)}
    report = make_report(TRIPLETS, splits=splits)
    assert report.examples() == ExampleCounts(7, 1)
    assert "Splits: train 3, validation 4 triplets." in report.summary("x", "data")
    assert splits["train"] == ExampleCounts(3, 1)
