"""Reading shards: what TensorFlow writes is read, and of what is damaged all the rest."""

import io

from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import tensorflow as tf

from landmark_triplets_tfds.commands.verify.records import TFRecordReader, choose_records, hash_file, read_records
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
    damaged = bytearray(path.read_bytes())
    damaged[0] ^= 1
    path.write_bytes(bytes(damaged))
    assert [record for record, _ in read_records(path, "tfrecord")] == [None, *records[1:]]


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
def test_any_damage_costs_only_what_it_hits(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "shard"
    records = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=12))
    write_records(path, records)
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole) - 1))
    hole = data.draw(st.binary(max_size=40))
    damaged = whole[:start] + hole + whole[start + len(hole) :]
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    found = list(TFRecordReader(io.BytesIO(damaged), len(damaged)).read_all())
    ends = [sum(16 + len(r) for r in records[: i + 1]) for i in range(len(records))]
    untouched = [
        record
        for record, end in zip(records, ends, strict=True)
        if damaged[end - 16 - len(record) : end] == whole[end - 16 - len(record) : end]
    ]
    good = [record for record, problem in found if record is not None]
    assert good == untouched
    assert all(problem for record, problem in found if record is None)
    if damaged != whole[: len(damaged)] or (len(damaged) not in (0, *ends)):
        assert any(record is None for record, _ in found)
