"""Verification of prepared data: what is right is called right, and whatever is wrong is named with its place."""

import json
import pathlib
import random
import shutil

import numpy as np
import pytest

from landmark_triplets_tfds.commands.verify import findings
from landmark_triplets_tfds.commands.verify import shards as shard_checks
from landmark_triplets_tfds.commands.verify.records import read_records
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import CommandError, LandmarkTableError
from tests.support.competition import Competition, build, build_images, custom_config, images_config
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.prepared_builds import (
    copy_of,
    dummy_source,
    edit_json,
    forge,
    problems_of,
    read_examples,
    shards_of,
    value,
    verified,
    without_bank,
    write_records,
)

FIELDS = {"resolution": 16, "images_per_landmark": None}


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    """The folder of 43 triplets in two shards. Tests change copies of it."""
    with without_bank():
        return build(tmp_path_factory.mktemp("triplets"), custom_config(**FIELDS), num_shards=2).data_path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of 45 images in a split train and a split validation, and index.npz."""
    with without_bank():
        config = images_config(**FIELDS, validation_percent=50)
        return build_images(tmp_path_factory.mktemp("images"), config, num_shards=2).data_path


@pytest.fixture
def copy(triplets, tmp_path):
    return copy_of(triplets, tmp_path / "custom" / "1.0.0")


@pytest.fixture
def copy_of_images(images, tmp_path):
    return copy_of(images, tmp_path / "custom" / "1.0.0")


def assert_all_well(verification):
    assert verification.findings.problems == []
    assert verification.findings.notes == []


# --- What is right


@pytest.mark.parametrize("with_source", [False, True])
@pytest.mark.parametrize("kind", ["triplets", "images"])
def test_what_a_build_made_is_well(kind, with_source, request):
    folder = request.getfixturevalue(kind)
    # Nothing is written: the folder may be read-only.
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(folder.parent).rglob("*")}
    verification = verified(folder, source=dummy_source() if with_source else None)
    assert_all_well(verification)
    assert sum(verification.num_records.values()) == {"triplets": 43, "images": 45}[kind]
    assert {
        path: path.stat().st_mtime_ns for path in pathlib.Path(folder.parent).rglob("*")
    } == before  # it may be read-only
    assert json.loads(json.dumps(verification.as_json()))["all_well"] is True


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


@pytest.mark.parametrize("build_kind", [build, build_images])
def test_array_records(tmp_path, build_kind):
    pytest.importorskip("array_record")
    config = custom_config(**FIELDS) if build_kind is build else images_config(**FIELDS)
    folder = build_kind(tmp_path, config, file_format="array_record", num_shards=2).data_path
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
    (problem,) = verified(folder, source=dummy_source(competition.folder)).findings.problems
    assert (problem.kind, str(changed) in problem.message, "-index." in problem.file) == (findings.SOURCE, True, True)


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
    assert problems_of(verified(folder, source=dummy_source(competition.folder)), findings.PLAN)
    (folder / "build_report.json").unlink()
    verification = verified(folder, source=dummy_source(competition.folder))
    assert verification.findings.problems == []
    assert "build_report.json" in " ".join(verification.findings.notes)


def test_excluded_landmarks(tmp_path):
    listed = tmp_path / "excluded.txt"
    listed.write_text(f"{Competition(tmp_path / 'competition').table.landmark_ids[0]}\n")
    folder = build(tmp_path, custom_config(**FIELDS, exclude_landmarks=str(listed))).data_path
    verification = verified(folder, source=dummy_source())
    assert verification.findings.problems == []
    assert "--exclude_landmarks" in verification.findings.notes[0]
    assert_all_well(verified(folder, source=dummy_source(exclude_landmarks=str(listed))))
    listed.write_text("1\n")
    with pytest.raises(LandmarkTableError, match="is not the list of landmarks that was excluded"):
        verified(folder, source=dummy_source(exclude_landmarks=str(listed)))


def test_processes_give_what_one_gives(copy, monkeypatch):
    path = shards_of(copy)[1]
    path.write_bytes(path.read_bytes()[:-5])
    alone = verified(copy)
    monkeypatch.setattr(shard_checks, "_MIN_BYTES_FOR_PROCESSES", 0)
    together = verified(copy, num_processes=2)
    assert together.findings.problems == alone.findings.problems != []
    assert together.hashes == alone.hashes


# --- Damage


def test_every_flipped_byte_is_noticed_and_named(copy):
    """Of any byte of a shard: of records, of their lengths, of checksums."""
    rng = random.Random(0)
    for shard in shards_of(copy):
        whole = shard.read_bytes()
        ends = np.cumsum([16 + len(e.SerializeToString()) for e in read_examples(shard)])
        assert ends[-1] == len(whole)
        for at in [*range(12), *(rng.randrange(len(whole)) for _ in range(60)), *range(len(whole) - 4, len(whole))]:
            damaged = bytearray(whole)
            damaged[at] ^= 1 << rng.randrange(8)
            shard.write_bytes(damaged)
            number = int(np.searchsorted(ends, at, side="right"))
            found = problems_of(verified(copy), findings.CHECKSUM)
            assert [(p.file, p.record) for p in found] == [(shard.name, number)], f"byte {at}"
        shard.write_bytes(whole)
    assert_all_well(verified(copy))


def test_flipped_bytes_of_array_records(tmp_path):
    """Their library has no checksum over padding and parts of the framing, which the sha256 of the file covers."""
    pytest.importorskip("array_record")
    folder = build(tmp_path, custom_config(**FIELDS), file_format="array_record").data_path
    (shard,) = shards_of(folder)
    whole = shard.read_bytes()
    before = verified(folder)
    records = list(read_records(shard, "array_record"))
    first = whole.index(b"\xff\xd8\xff")
    rng = random.Random(0)
    for at in [*(rng.randrange(len(whole)) for _ in range(60)), *(rng.randrange(first, 40_000) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        shard.write_bytes(damaged)
        verification = verified(folder, published=before.hashes)
        assert problems_of(verification, findings.SHA256)
        noticed = verification.findings.num_problems > 1
        assert noticed or list(read_records(shard, "array_record")) == records
        assert noticed or not first <= at < 40_000


@pytest.mark.parametrize("size", [0, 5, 12, 100, -1, -4, -5, -500])
def test_truncated_shards(copy, size):
    shard = shards_of(copy)[0]
    whole = shard.read_bytes()
    num_records = len(read_examples(shard))
    shard.write_bytes(whole[:size])
    verification = verified(copy)
    assert [p.file for p in problems_of(verification, findings.CHECKSUM)] == [shard.name] * (size != 0)
    if size < 0:
        assert problems_of(verification, findings.CHECKSUM)[0].record == num_records - 1
        assert "cut off" in problems_of(verification, findings.CHECKSUM)[0].message
    else:
        (count,) = problems_of(verification, findings.COUNT)[:1]
        assert (count.file, f"says {num_records}" in count.message) == (shard.name, True)


def test_a_hole_in_a_shard_ends_it(copy):
    """Whatever is in it; the other shards are read."""
    first, second = shards_of(copy)
    whole = first.read_bytes()
    examples, others = read_examples(first), read_examples(second)
    sizes = [16 + len(e.SerializeToString()) for e in examples]
    start, stop = sum(sizes[:3]), sum(sizes[:5])
    for filling in (bytes(stop - start), random.Random(0).randbytes(stop - start), b"\xff" * (stop - start)):
        first.write_bytes(whole[:start] + filling + whole[stop:])
        verification = verified(copy)
        (problem,) = problems_of(verification, findings.CHECKSUM)
        assert (problem.file, problem.record) == (first.name, 3)
        assert problem.message.endswith("build the dataset again")
        assert verification.num_records["train"] == 4 + len(others)
        message = f"it has 4 records, and dataset_info.json says {len(examples)}"
        assert message in [p.message for p in problems_of(verification, findings.COUNT)]


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


# --- Forgeries: the checksums are right, the content is not


def set_value(number, name, new):
    def change(examples):
        value(examples[number], name)[0] = new if not callable(new) else new(examples[number])

    return change


def swap_images(examples):
    anchor, negative = (value(examples[4], name) for name in ("anchor_img", "negative_img"))
    anchor[0], negative[0] = negative[0], anchor[0]


def add_feature(examples):
    examples[2].features.feature["surplus"].int64_list.value.append(1)


def two_values(examples):
    value(examples[2], "anchor_id").append(b"0" * 16)


def no_example(examples):
    examples[2] = b"\x0a\xff\xff\xff\xff\x0f nothing that protobuf reads"


def positive_is_anchor(examples):
    for name in ("id", "img"):
        value(examples[3], f"positive_{name}")[0] = value(examples[3], f"anchor_{name}")[0]


def negative_of_the_same_landmark(examples):
    """Each of the three ids says what it is; what does not fit is that the landmarks are equal."""
    value(examples[3], "negative_landmark_id")[0] = value(examples[3], "landmark_id")[0]


def negative_is_the_positive(examples):
    """And lies about its landmark."""
    for name in ("id", "img"):
        value(examples[3], f"negative_{name}")[0] = value(examples[3], f"positive_{name}")[0]


FORGERIES = {
    "negative of the same landmark": (negative_of_the_same_landmark, findings.RULE, 3, "shows the anchor's landmark"),
    "negative is the positive": (negative_is_the_positive, findings.RULE, 3, "the negative is the positive itself"),
    "positive is the anchor": (positive_is_anchor, findings.RULE, 3, "the positive is the anchor itself"),
    "negative landmark_id": (set_value(3, "landmark_id", -5), findings.RULE, 3, "must be 0 or more, got -5"),
    "key twice": (lambda examples: examples.__setitem__(5, examples[2]), findings.REPEATED, 5, "record 2 is its key"),
    "wrong size": (
        set_value(1, "positive_img", encode_image(smooth_pixels(16, 15))),
        findings.IMAGE,
        1,
        "positive_img has 16 x 15 px, and features.json says 16 x 16",
    ),
    "enormous size": (
        set_value(1, "positive_img", lambda e: b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(9)),
        findings.IMAGE,
        1,
        "positive_img",
    ),
    "truncated image": (
        set_value(1, "anchor_img", lambda e: value(e, "anchor_img")[0][:-40]), findings.IMAGE, 1, "does not decode"
    ),
    "no image": (set_value(1, "anchor_img", b"<html>"), findings.IMAGE, 1, "anchor_img is no JPEG"),
    "empty image": (set_value(1, "anchor_img", b""), findings.IMAGE, 1, "anchor_img is no JPEG"),
    "PNG": (
        set_value(1, "anchor_img", encode_image(smooth_pixels(16, 16), "PNG")), findings.IMAGE, 1, "is no JPEG"
    ),
    "images swapped": (swap_images, findings.IMAGE, 4, "differs from the image stored under the same id"),
    "another image": (
        set_value(4, "negative_img", encode_image(smooth_pixels(16, 16))), findings.SOURCE, 4, "_img: it is not what"
    ),
    "feature missing": (
        lambda examples: examples[2].features.feature.pop("negative_id"), findings.CONTENT, 2, "it lacks negative_id"
    ),
    "feature surplus": (add_feature, findings.CONTENT, 2, "it has surplus, which features.json does not know"),
    "feature of two values": (two_values, findings.CONTENT, 2, "anchor_id must be one value in a bytes_list, got 2"),
    "no example": (no_example, findings.CONTENT, 2, "it is no tf.train.Example"),
    "empty record": (lambda examples: examples.__setitem__(2, b""), findings.CONTENT, 2, "it lacks anchor_id"),
    "id of other letters": (set_value(2, "anchor_id", b"A" * 16), findings.CONTENT, 2, "must be 16 hex digits"),
    "id that is not in the table": (set_value(2, "anchor_id", b"0" * 16), findings.TABLE, 2, "is not in the table"),
    "another landmark": (set_value(2, "landmark_id", 999), findings.TABLE, 2, "by the table, and 999 here"),
    "another positive": (
        lambda examples: [positive_is_anchor(examples), value(examples[3], "positive_id").__setitem__(0, b"1" * 16)],
        findings.PLAN,
        3,
        "positive_id is 1111111111111111, and the plan has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    change, kind, record, message = FORGERIES[what]
    keys = [value(example, "anchor_id")[0].decode() for example in read_examples(shards_of(copy)[0])]
    shard = forge(copy, change)
    verification = verified(copy, source=dummy_source())
    found = [p for p in problems_of(verification, kind) if message in p.message]
    assert [(p.file, p.record) for p in found] in ([(shard, record)], [(shard, record)] * 2)
    if kind not in (findings.CONTENT, findings.REPEATED) and what != "id that is not in the table":
        assert found[0].key == keys[record]
    # Without the competition's files too, but for what only they show.
    alone = [p for p in problems_of(verified(copy), kind) if message in p.message]
    assert bool(alone) == (kind not in (findings.SOURCE, findings.TABLE, findings.PLAN))


def test_a_landmark_that_other_records_contradict(copy):
    """A negative that lies about its landmark is given away by the records in which it is an anchor."""
    number, lie = 3, 999
    shard = forge(copy, set_value(number, "negative_landmark_id", lie))
    (problem,) = problems_of(verified(copy), findings.RULE)
    assert (problem.file, problem.record) == (shard, number)
    assert f"shows landmark {lie}, and landmark " in problem.message


def test_records_that_are_gone(copy):
    """Even where dataset_info.json agrees."""
    gone = value(read_examples(shards_of(copy)[0])[7], "anchor_id")[0].decode()
    forge(copy, lambda examples: examples.pop(7))
    assert "says" in problems_of(verified(copy), findings.COUNT)[0].message

    def agree(info):
        split = info["splits"][0]
        split["shardLengths"][0] = str(int(split["shardLengths"][0]) - 1)

    edit_json(copy / "dataset_info.json", agree)
    verification = verified(copy, source=dummy_source())
    assert {p.file for p in problems_of(verification, findings.COUNT)} == {"dataset_info.json", "metadata.json"}
    (problem,) = problems_of(verification, findings.PLAN)
    assert f"key {gone} is planned for train" in problem.message


def test_more_anchors_than_the_config_allows(copy):
    edit_json(copy / "metadata.json", lambda metadata: metadata["config"].update(images_per_landmark=3))
    found = problems_of(verified(copy), findings.RULE)
    assert found
    assert all("images_per_landmark=3" in p.message for p in found)


def test_landmarks_in_the_wrong_split(copy_of_images):
    train, *_, validation = shards_of(copy_of_images)
    moved = read_examples(validation)[0]
    forge(copy_of_images, lambda examples: examples.__setitem__(1, moved))
    found = problems_of(verified(copy_of_images), findings.RULE)
    assert [(p.file, p.record) for p in found] == [(train.name, 1)]
    assert "belongs to the other split than train" in found[0].message
    # Splits that no hash decides are disjoint nevertheless.
    edit_json(copy_of_images / "metadata.json", lambda metadata: metadata["config"].pop("validation_percent"))
    found = [p.message for p in problems_of(verified(copy_of_images), findings.RULE)]
    assert f"image {value(moved, 'image_id')[0].decode()} is in both splits, train and validation" in found


def test_the_index_of_images(copy_of_images):
    path = copy_of_images / "index.npz"
    content = dict(np.load(path))
    shard = next(s for s in shards_of(copy_of_images) if "validation" in s.name)
    at = int(content["split_lengths"][0]) + 1
    content["image_id"][at] += np.uint64(1)
    content["landmark_id"][0] += 1
    np.savez(path, **content)
    found = {(p.file, p.record) for p in problems_of(verified(copy_of_images), findings.INDEX)}
    assert found == {(shards_of(copy_of_images)[0].name, 0), (shard.name, 1)}
    np.savez(path, **(content | {"split_lengths": content["split_lengths"][::-1]}))
    assert [p.file for p in problems_of(verified(copy_of_images), findings.INDEX)] == ["index.npz"] * 2
    path.write_bytes(path.read_bytes()[:100])
    assert "is damaged" in problems_of(verified(copy_of_images), findings.INDEX)[0].message
    path.unlink()
    verification = verified(copy_of_images)
    assert verification.findings.problems == []
    assert "no index.npz" in verification.findings.notes[0]


def test_an_image_that_is_there_twice(copy_of_images):
    forge(copy_of_images, lambda examples: examples.__setitem__(4, examples[2]))
    (problem,) = problems_of(verified(copy_of_images), findings.REPEATED)
    assert problem.record == 4


# --- Recorded fields, other sources, other versions


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (lambda report: report.update(dataset="landmark_triplets/other/1.0.0"), "build_report.json"),
        (lambda report: report["config"].update(seed=1), "build_report.json"),
        (lambda report: report.update(table_sha256="0"), "build_report.json"),
        (lambda report: report["counts"].update(num_triplets=1), "build_report.json"),
    ],
)
def test_a_report_of_another_build(copy, change, file):
    edit_json(copy / "build_report.json", change)
    assert [p.file for p in problems_of(verified(copy), findings.INFO)] == [file]


def test_fields_that_do_not_fit_the_records(copy):
    def change(content):
        content["config"].update(resolution=32, seed=5)

    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, change)
    verification = verified(copy, source=dummy_source())
    assert [p.file for p in problems_of(verification, findings.INFO)] == ["metadata.json"]
    assert len(problems_of(verification, findings.PLAN)) > 35  # another seed, other triplets
    assert len(problems_of(verification, findings.SOURCE)) > 40


def test_another_table(copy, tmp_path):
    competition = Competition(tmp_path / "competition")
    table = competition.folder / "train.csv"
    table.write_text(table.read_text() + "0123456789abcdef,5\n")
    (problem,) = verified(copy, source=dummy_source(competition.folder)).findings.problems
    assert "table_sha256 is not that of" in problem.message


def test_a_changed_source(copy, tmp_path):
    competition = Competition(tmp_path / "competition")
    changed, gone = competition.anchor_ids()[:2]
    competition.path(changed).write_bytes(encode_image(smooth_pixels(50, 50)))
    competition.path(gone).unlink()
    found = problems_of(verified(copy, source=dummy_source(competition.folder)), findings.SOURCE)
    assert len(found) == 2
    assert any(changed in p.message and "is not what" in p.message for p in found)
    assert any(gone in p.message and "unreadable now (missing)" in p.message for p in found)


def test_other_library_versions_are_named(copy, tmp_path):
    edit_json(copy / "build_report.json", lambda report: report["versions"].update(imagecodecs="1999.1.1"))
    assert_all_well(verified(copy, source=dummy_source()))
    forge(copy, set_value(4, "negative_img", encode_image(smooth_pixels(16, 16))))
    assert (
        "built with imagecodecs 1999.1.1"
        in problems_of(verified(copy, source=dummy_source()), findings.SOURCE)[0].message
    )


def test_datasets_of_other_versions_of_the_package(copy):
    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, lambda content: content["config"].update(of_the_future=1))
    verification = verified(copy, source=dummy_source())
    assert verification.findings.problems == []
    assert "does not know the recorded of_the_future" in verification.findings.notes[0]
    edit_json(copy / "dataset_info.json", lambda info: info.update(version="2.0.0"))
    edit_json(copy / "build_report.json", lambda report: report.update(dataset="landmark_triplets/custom/2.0.0"))
    verification = verified(copy, source=dummy_source())
    assert verification.findings.problems == []
    assert "It is version 2.0.0, and this package makes 1.0.0" in verification.findings.notes[0]


def test_counts_stay_bounded_and_complete(copy):
    """All problems are counted, and the first ones of each kind are kept."""
    write_records(shards_of(copy)[0], [b"nothing"] * 300)
    verification = verified(copy)
    assert verification.findings.counts[findings.CONTENT] == 300
    assert len(problems_of(verification, findings.CONTENT)) == findings.NUM_KEPT


def test_unknown_ids_do_not_hide_others(copy):
    """The order of the records plays no part: sources are compared image by image."""
    ids = {format_image_id(int(value(e, "anchor_id")[0], 16)) for s in shards_of(copy) for e in read_examples(s)}
    forge(copy, lambda examples: examples.reverse())
    assert len(ids) == 43
    assert_all_well(verified(copy, source=dummy_source()))
