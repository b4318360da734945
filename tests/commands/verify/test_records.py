"""Reading shards: what TensorFlow writes is read, and of what is damaged all that can be told apart."""

import struct

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import tensorflow as tf

from landmark_triplets_tfds.commands.verify.records import choose_records, hash_file, masked_crc, read_records
from tests.support.prepared_builds import write_records

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
    assert choose_records(path, "tfrecord", [5, 4]) == [records[5], records[4]]


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


@pytest.mark.parametrize("numbers", [[], [0], [53], [5, 2, 2], list(range(54))])
def test_chosen_records(shard, numbers):
    assert choose_records(shard, "tfrecord", numbers) == [RECORDS[number] for number in numbers]


def test_chosen_records_that_cannot_be_had(shard):
    content = bytearray(shard.read_bytes())
    assert choose_records(shard, "tfrecord", [54, 1, 100]) == [None, b"a", None]
    content[16 + 12] ^= 1  # the only byte of record 1
    shard.write_bytes(bytes(content))
    assert choose_records(shard, "tfrecord", [0, 1, 2]) == [b"", None, RECORDS[2]]
    content[16] ^= 1  # its length, without which nothing after it is found
    shard.write_bytes(bytes(content))
    assert choose_records(shard, "tfrecord", [0, 1, 2]) == [b"", None, None]


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
