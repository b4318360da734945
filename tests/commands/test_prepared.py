"""A dataset as it lies on disk: which folder is meant, and what can be read where a file is damaged.

What TensorFlow writes is read, and of damaged shards all that can be told apart.
"""

import shutil
import struct

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from landmark_triplets_tfds.commands.prepared import (
    find_version_folder,
    hash_file,
    masked_crc,
    read_record,
    read_records,
)
from landmark_triplets_tfds.commands.verify.records import Kind
from landmark_triplets_tfds.errors import CommandError
from tests.support.prepared_builds import (
    assert_all_well,
    copy_of,
    dummy_source,
    edit_json,
    problems_of,
    shards_of,
    verified,
    write_records,
)
from tests.support.special_files import SPECIAL_FILES

# --- What its files say


def edit_split(**values):
    return lambda info: info["splits"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        edit_split(filepathTemplate="elsewhere/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"),
        edit_split(filepathTemplate="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"),
        edit_split(filepathTemplate="/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"),
        edit_split(filepathTemplate="{DATASET}-{SPLIT}.{FILEFORMAT}-00000-of-00002"),
        edit_split(filepathTemplate="{OTHER}"),
        edit_split(filepathTemplate="{DATASET.x}"),
        edit_split(filepathTemplate="{"),
        edit_split(filepathTemplate=1),
        edit_split(name="other"),
        edit_split(name=""),
        edit_split(shardLengths=["23"]),
        edit_split(shardLengths=["20", "20", "3"]),
        edit_split(shardLengths=["24", "20", "0"]),
        edit_split(shardLengths=[]),
        edit_split(shardLengths=["0", "0"]),
        edit_split(shardLengths=["-1", "44"]),
        edit_split(shardLengths=["x", "20"]),
        edit_split(numBytes="1"),
        edit_split(numBytes="x"),
        edit_split(of_the_future=1),
        lambda info: info["splits"].append(info["splits"][0] | {"name": "extra"}),
        lambda info: info["splits"].append(
            info["splits"][0] | {"name": "extra", "filepathTemplate": "{DATASET}-train.{FILEFORMAT}-{SHARD_X_OF_Y}"}
        ),
        lambda info: info.pop("splits"),
        lambda info: info.update(splits=[]),
        lambda info: info.update(name="landmark_images"),
        lambda info: info.pop("name"),
        lambda info: info.update(version="1.0.1"),
        lambda info: info.update(version="x"),
        lambda info: info.update(configName="other"),
        lambda info: info.pop("configName"),
        lambda info: info.update(fileFormat="array_record"),
        lambda info: info.update(fileFormat="of_the_future"),
        lambda info: info.update(isBlocked="It is wrong."),
        lambda info: info.pop("supervisedKeys"),
        lambda info: info.update(of_the_future=1),
    ],
)
@pytest.mark.parametrize("with_source", [False, True])
def test_what_tfds_does_not_read_as_builds_make_it(copy, change, with_source):
    """Where the shards are is what TFDS makes of dataset_info.json, not what they would be called."""
    edit_json(copy / "dataset_info.json", change)
    verification = verified(copy, source=dummy_source() if with_source else None)
    assert not verification.all_well
    assert verification.problems


def test_shards_are_where_tfds_looks_for_them(copy):
    (copy / "elsewhere").mkdir()
    for shard in shards_of(copy):
        shard.rename(copy / "elsewhere" / shard.name.replace("landmark_triplets-", ""))
    edit_json(copy / "dataset_info.json", edit_split(filepathTemplate="elsewhere/{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"))
    assert_all_well(verified(copy, source=dummy_source()))
    builder = tfds.builder_from_directory(copy)
    assert len(list(builder.as_dataset(split="train"))) == sum(verified(copy).num_records.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [('"int64"', '"int32"'), ('"3"', '"1"'), ('"16"', '"32"'), ('"jpeg"', '"png"'), ('"jpeg"', '"of_the_future"')],
)
def test_features_that_builds_do_not_have(copy, before, after):
    path = copy / "features.json"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    png = after == '"png"'  # which TFDS reads all the same: it looks at the bytes
    assert verified(copy).all_well is png


def replace(path, make):
    path.unlink()
    make(path)


@pytest.mark.parametrize("what", ["a dangling link", "a link to itself", "a folder", *SPECIAL_FILES])
@pytest.mark.parametrize("name", ["shard", "dataset_info.json", "features.json", "metadata.json", "build_report.json"])
def test_what_is_no_file(copy, name, what):
    """Nothing is waited for, and what stands in a file's place is named."""
    make = {
        "a dangling link": lambda path: path.symlink_to("nowhere"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a folder": lambda path: path.mkdir(),
    } | SPECIAL_FILES
    path = shards_of(copy)[0] if name == "shard" else copy / name
    replace(path, make[what])
    verification = verified(copy)
    assert path.name in [p.file for p in verification.problems if p.kind in (Kind.FILE, Kind.INFO)]
    assert not verification.all_well


def test_shards_elsewhere(copy, tmp_path):
    """A link to a file is the file."""
    path = shards_of(copy)[0]
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    assert_all_well(verified(copy))


def test_missing_and_surplus_shards(copy):
    first, second = shards_of(copy)
    shutil.copy(first, copy / first.name.replace("-of-00002", "-of-00003"))
    (copy / "notes.txt").write_text("of no concern")
    second.unlink()
    found = {p.file: p.message for p in problems_of(verified(copy), Kind.FILE)}
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
    named = [p.file for p in problems_of(verification, Kind.INFO)]
    assert name in named
    assert verification.not_checked
    assert len(problems_of(verification, Kind.CHECKSUM)) == 1
    assert verification.num_records == {"train": 43}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(max_examples_per_split=-1),
        lambda content: content.update(max_examples_per_split=1.5),
        lambda content: content.update(max_examples_per_split="x"),
        lambda content: content["config"].update(exclude_landmarks="no_such_file"),
        lambda content: content["config"].update(triplets_file=[1]),
        lambda content: content["config"].update(triplets_per_anchor=10**9),
        lambda content: content["config"].update(triplets_per_anchor="x"),
        lambda content: content["config"].update(resolution=None),
        lambda content: content["config"].update(images_per_landmark="x"),
        lambda content: content["config"].update(validation_percent=-1),
        lambda content: content["config"].update(seed=[]),
        lambda content: content["counts"].update(num_triplets="x"),
        lambda content: content["counts"]["splits"].update(train=[]),
    ],
)
def test_values_that_are_none(copy, change):
    """They are named, even if both files have them, and nothing else breaks."""
    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, change)
    verification = verified(copy, source=dummy_source(sample=3))
    assert "metadata.json" in [problem.file for problem in verification.problems]


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


# --- Records

RECORDS = [b"", b"a", bytes(1000), b"\xff" * 70, *(bytes([i]) * (i + 20) for i in range(50))]


@pytest.fixture
def shard(tmp_path):
    path = epath.Path(tmp_path) / "shard.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    return path


def test_what_tensorflow_writes(shard, tmp_path):
    assert list(read_records(shard, "tfrecord")) == [(record, "") for record in RECORDS]
    ours = tmp_path / "ours.tfrecord"
    write_records(ours, RECORDS)
    assert ours.read_bytes() == shard.read_bytes()
    assert hash_file(shard) == hash_file(epath.Path(ours))


def test_records_larger_than_what_is_read_at_once(tmp_path):
    path = epath.Path(tmp_path) / "large"
    records = [bytes([i + 1]) * ((3 << 20) + i) for i in range(4)] + [b"x" * (9 << 20), b"last"]
    write_records(path, records)
    assert [record for record, _ in read_records(path, "tfrecord")] == records
    assert read_record(path, "tfrecord", 4) == records[4]


def test_a_record_whose_bytes_are_damaged_is_named_and_read_past(shard):
    content = bytearray(shard.read_bytes())
    content[16 + 12] ^= 1  # the only byte of record 1
    shard.write_bytes(bytes(content))
    found = list(read_records(shard, "tfrecord"))
    assert found[1] == (None, "its 1 bytes, from byte 28, fail their checksum")
    assert [record for record, _ in found] == [RECORDS[0], None, *RECORDS[2:]]


@pytest.mark.parametrize("at", [0, 5, 8, 11])
def test_a_damaged_length_ends_a_shard(shard, at):
    """Where the next record begins is not guessed."""
    content = bytearray(shard.read_bytes())
    content[16 + at] ^= 1
    shard.write_bytes(bytes(content))
    (first, problem) = read_records(shard, "tfrecord")
    assert first == (RECORDS[0], "")
    message = "its length, at byte 16, fails its checksum, so what is behind it cannot be read"
    assert problem == (None, message)


def test_a_length_that_claims_more_than_there_is(tmp_path):
    """Its checksum is right, so nothing but the file's size tells."""
    path = epath.Path(tmp_path) / "shard"
    length = struct.pack("<Q", 1 << 62)
    path.write_bytes(length + masked_crc(length) + b"abc")
    ((record, problem),) = read_records(path, "tfrecord")
    assert record is None
    assert problem.startswith(f"cut off: the file ends after 3 of its {1 << 62:,} bytes")


def test_a_record_by_its_number(shard):
    assert [read_record(shard, "tfrecord", number) for number in range(len(RECORDS))] == RECORDS


def test_a_record_that_cannot_be_had(shard):
    content = bytearray(shard.read_bytes())
    with pytest.raises(ValueError, match="it is not there"):
        read_record(shard, "tfrecord", 54)
    content[16 + 12] ^= 1  # the only byte of record 1
    shard.write_bytes(bytes(content))
    assert [read_record(shard, "tfrecord", number) for number in (0, 2)] == [b"", RECORDS[2]]
    with pytest.raises(ValueError, match="fail their checksum"):
        read_record(shard, "tfrecord", 1)
    content[16] ^= 1  # its length, without which nothing after it is found
    shard.write_bytes(bytes(content))
    assert read_record(shard, "tfrecord", 0) == b""
    for number in (1, 2):
        with pytest.raises(ValueError, match=r"fails its checksum|not there"):
            read_record(shard, "tfrecord", number)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_is_noticed_and_costs_nothing_before_it(tmp_path_factory, data):
    path = epath.Path(tmp_path_factory.mktemp("damage")) / "shard"
    records = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=12))
    write_records(path, records)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    hole = data.draw(st.binary(max_size=min(40, len(whole) - start)))
    damaged = whole[:start] + hole + whole[start + len(hole) :]
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    path.write_bytes(damaged)
    found = list(read_records(path, "tfrecord"))
    expected = []
    position = 0
    for record in records:
        header, end = slice(position, position + 12), position + 16 + len(record)
        if position >= len(damaged):
            break
        same = damaged[position:end] == whole[position:end]
        expected.append(record if same else None)
        if damaged[header] != whole[header] or end > len(damaged):
            break
        position = end
    assert [record for record, _ in found] == expected
    assert all(problem for record, problem in found if record is None)
