"""Prepared datasets that tests may damage and forge."""

from collections.abc import Callable, Iterator
import contextlib
import json
import pathlib
import shutil
import struct
from types import SimpleNamespace
from typing import Any

from etils import epath
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.commands.prepared import masked_crc, read_records
from landmark_triplets_tfds.commands.verify import verify
from landmark_triplets_tfds.commands.verify.records import Kind
from landmark_triplets_tfds.commands.verify.source import SourceOptions
from tests.support.competition import DUMMY_DATA

Example = Any  # a tf.train.Example

# Of the configs of these datasets: all images of the tiny competition.
FIELDS: dict[str, Any] = {"resolution": 16, "images_per_landmark": None}


@contextlib.contextmanager
def without_bank() -> Iterator[None]:
    """For builds in fixtures of a wider scope than a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANDMARK_TRIPLETS_BANK", "off")
        yield


def shards_of(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if "-of-" in path.name)


def read_examples(shard: pathlib.Path) -> list[Example]:
    return [tf_example_pb2.Example.FromString(record) for record, _ in read_records(epath.Path(shard), "tfrecord")]


def write_records(shard: pathlib.Path, records: list[bytes]) -> None:
    """Writes a TFRecord file whose checksums are right, whatever the records are."""
    with shard.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + masked_crc(length) + record + masked_crc(record))


def forge(folder: pathlib.Path, change: Callable[[list[Example]], Any], shard: int = 0) -> str:
    """Changes the examples of a shard, given as a list; returns the shard's name."""
    path = shards_of(folder)[shard]
    examples = read_examples(path)
    change(examples)
    write_records(path, [e if isinstance(e, bytes) else e.SerializeToString(deterministic=True) for e in examples])
    return path.name


def value(example: Example, name: str) -> Any:
    """Returns the list with the single value of a feature; its item 0 may be assigned."""
    feature = example.features.feature[name]
    return feature.int64_list.value if feature.HasField("int64_list") else feature.bytes_list.value


def set_value(number: int, name: str, new: Any) -> Callable[[list[Example]], None]:
    """Returns what sets a feature of an example, given as a value or made from the example."""

    def change(examples: list[Example]) -> None:
        value(examples[number], name)[0] = new(examples[number]) if callable(new) else new

    return change


def edit_json(path: pathlib.Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def copy_of(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(folder, target))


def dummy_source(manual_dir: pathlib.Path = DUMMY_DATA, **settings: Any) -> SourceOptions:
    defaults = {"exclude_landmarks": None, "sample": 100, "seed": 0}
    return SourceOptions(manual_dir=epath.Path(manual_dir), **(defaults | settings))


def verified(folder: pathlib.Path, **settings: Any) -> SimpleNamespace:
    """Returns what `verify --json` prints, with attributes in place of keys, of each problem too."""
    _, found = verify(epath.Path(folder), **settings)
    return SimpleNamespace(**found | {"problems": [SimpleNamespace(**problem) for problem in found["problems"]]})


def problems_of(verification: SimpleNamespace, kind: str) -> list[SimpleNamespace]:
    return [problem for problem in verification.problems if problem.kind == kind]


def assert_all_well(verification: SimpleNamespace) -> None:
    assert verification.problems == []
    assert verification.not_checked == []
    assert verification.all_well


def assert_forgery_is_found(
    folder: pathlib.Path, change: Callable[[list[Example]], Any], kind: str, record: int, message: str, **settings: Any
) -> None:
    """Changes a record, whose checksum then is right, and looks for a problem that names it and, if known, its key."""
    shard = forge(folder, change)
    found = [p for p in problems_of(verified(folder, **settings), kind) if message in p.message]
    assert [(p.file, p.record) for p in found] in ([(shard, record)], [(shard, record)] * 2)
    if kind == Kind.CONTENT:  # it says too little
        assert found[0].key is None
    else:
        assert found[0].key == value(read_examples(folder / shard)[record], "anchor_id")[0].decode()
