"""Records by themselves: damage and forgeries are named with shard, record and key."""

import random

import numpy as np
import pytest

from landmark_triplets_tfds.commands.prepared import read_records
from landmark_triplets_tfds.commands.verify import records
from landmark_triplets_tfds.commands.verify.records import Kind
from tests.support.competition import build, build_images, custom_config, images_config
from tests.support.helpers import encode_image, smooth_pixels
from tests.support.prepared_builds import (
    FIELDS,
    assert_all_well,
    assert_forgery_is_found,
    dummy_source,
    problems_of,
    read_examples,
    set_value,
    shards_of,
    value,
    verified,
    write_records,
)


@pytest.mark.parametrize("build_kind", [build, build_images])
def test_array_records(tmp_path, build_kind):
    pytest.importorskip("array_record")
    config = custom_config(**FIELDS) if build_kind is build else images_config(**FIELDS)
    folder = build_kind(tmp_path, config, file_format="array_record", num_shards=2).data_path
    assert_all_well(verified(folder, source=dummy_source()))


def test_processes_give_what_one_gives(copy, monkeypatch):
    path = shards_of(copy)[1]
    path.write_bytes(path.read_bytes()[:-5])
    alone = verified(copy)
    monkeypatch.setattr(records, "_MIN_BYTES_FOR_PROCESSES", 0)
    together = verified(copy, num_processes=2)
    assert together.problems == alone.problems != []
    assert together.sha256 == alone.sha256


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
            found = problems_of(verified(copy), Kind.CHECKSUM)
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
    whole_records = list(read_records(shard, "array_record"))
    first = whole.index(b"\xff\xd8\xff")
    rng = random.Random(0)
    for at in [*(rng.randrange(len(whole)) for _ in range(60)), *(rng.randrange(first, 40_000) for _ in range(60))]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.randrange(8)
        shard.write_bytes(damaged)
        verification = verified(folder, published=before.sha256)
        assert problems_of(verification, Kind.SHA256)
        noticed = verification.num_problems > 1
        assert noticed or list(read_records(shard, "array_record")) == whole_records
        assert noticed or not first <= at < 40_000


@pytest.mark.parametrize("size", [0, 5, 12, 100, -1, -4, -5, -500])
def test_truncated_shards(copy, size):
    shard = shards_of(copy)[0]
    whole = shard.read_bytes()
    num_records = len(read_examples(shard))
    shard.write_bytes(whole[:size])
    verification = verified(copy)
    assert [p.file for p in problems_of(verification, Kind.CHECKSUM)] == [shard.name] * (size != 0)
    if size < 0:
        assert problems_of(verification, Kind.CHECKSUM)[0].record == num_records - 1
        assert "cut off" in problems_of(verification, Kind.CHECKSUM)[0].message
    else:
        (count,) = problems_of(verification, Kind.COUNT)[:1]
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
        (problem,) = problems_of(verification, Kind.CHECKSUM)
        assert (problem.file, problem.record) == (first.name, 3)
        assert problem.message.endswith("build the dataset again")
        assert verification.num_records["train"] == 4 + len(others)
        message = f"it has 4 records, and dataset_info.json says {len(examples)}"
        assert message in [p.message for p in problems_of(verification, Kind.COUNT)]


# --- Forgeries: the checksums are right, the content is not


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
    "negative of the same landmark": (negative_of_the_same_landmark, Kind.RULE, 3, "shows the anchor's landmark"),
    "negative is the positive": (negative_is_the_positive, Kind.RULE, 3, "the negative is the positive itself"),
    "positive is the anchor": (positive_is_anchor, Kind.RULE, 3, "the positive is the anchor itself"),
    "negative landmark_id": (set_value(3, "landmark_id", -5), Kind.RULE, 3, "must be 0 or more, got -5"),
    "wrong size": (
        set_value(1, "positive_img", encode_image(smooth_pixels(16, 15))),
        Kind.IMAGE,
        1,
        "positive_img has 16 x 15 px, and features.json says 16 x 16",
    ),
    "enormous size": (
        set_value(1, "positive_img", lambda e: b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + bytes(9)),
        Kind.IMAGE,
        1,
        "positive_img",
    ),
    "truncated image": (
        set_value(1, "anchor_img", lambda e: value(e, "anchor_img")[0][:-40]), Kind.IMAGE, 1, "does not decode"
    ),
    "no image": (set_value(1, "anchor_img", b"<html>"), Kind.IMAGE, 1, "anchor_img is no JPEG"),
    "empty image": (set_value(1, "anchor_img", b""), Kind.IMAGE, 1, "anchor_img is no JPEG"),
    "PNG": (
        set_value(1, "anchor_img", encode_image(smooth_pixels(16, 16), "PNG")), Kind.IMAGE, 1, "is no JPEG"
    ),
    "feature missing": (
        lambda examples: examples[2].features.feature.pop("negative_id"), Kind.CONTENT, 2, "it lacks negative_id"
    ),
    "feature surplus": (add_feature, Kind.CONTENT, 2, "it has surplus, which features.json does not know"),
    "feature of two values": (two_values, Kind.CONTENT, 2, "anchor_id must be one value in a bytes_list, got 2"),
    "no example": (no_example, Kind.CONTENT, 2, "it is no tf.train.Example"),
    "empty record": (lambda examples: examples.__setitem__(2, b""), Kind.CONTENT, 2, "it lacks anchor_id"),
    "id of other letters": (set_value(2, "anchor_id", b"A" * 16), Kind.CONTENT, 2, "must be 16 hex digits"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    assert_forgery_is_found(copy, *FORGERIES[what])


# --- What is kept of it


def test_counts_stay_bounded_and_complete(copy):
    """All problems are counted, and the first ones of each kind are kept."""
    write_records(shards_of(copy)[0], [b"nothing"] * 300)
    verification = verified(copy)
    assert verification.num_problems_by_kind[Kind.CONTENT] == 300
    assert len(problems_of(verification, Kind.CONTENT)) == records.NUM_KEPT


def test_what_is_taken_over():
    everything = records.Findings()
    for file in ("first", "second"):
        findings = records.Findings()
        for record in range(60):
            findings.add(Kind.CONTENT, "is wrong", file=file, record=record)
        findings.add(Kind.FILE, "is missing", file=file)
        everything.take_over(findings)
    found = everything.as_json()
    assert found["num_problems"] == 122
    assert list(found["num_problems_by_kind"].items()) == [(Kind.FILE, 2), (Kind.CONTENT, 120)]
    problems = [(problem["kind"], problem["file"], problem["record"]) for problem in found["problems"]]
    assert problems[:3] == [
        (Kind.FILE, "first", None),
        (Kind.FILE, "second", None),
        (Kind.CONTENT, "first", 0),
    ]
    assert problems[2:][59:61] == [(Kind.CONTENT, "first", 59), (Kind.CONTENT, "second", 0)]
    assert len(problems) == 2 + records.NUM_KEPT
