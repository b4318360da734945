"""A prepared dataset as it lies on disk: which folder it is in, what its own files say about it, and its records.

Readers of TFDS and TensorFlow raise whatever comes up when one of these files is damaged, and stop at the first damaged
record without saying which one it is. Here each file is read by itself and shards are taken apart, so that what is
wrong can be said, and the rest still be looked at. Nothing but the folder is needed: not the competition's files, not
the version of the package that built it, not TensorFlow, no right to write.

Shards are TFRecord or array_record files. A TFRecord file is a sequence of: length, uint64; checksum of the length,
uint32; the bytes; checksum of the bytes, uint32; all little-endian
(https://www.tensorflow.org/tutorials/load_data/tfrecord). Where only the bytes are damaged, the next record begins
behind them; where the length is, nobody knows where, and the rest of the shard is lost. Array records have checksums
too, which their own library verifies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import hashlib
import itertools
import json
import os
import re
from typing import Any, TypeVar

from etils import epath
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.build.hooks import FEATURES_NAME, INFO_NAME, METADATA_NAME
from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.build.shards import masked_crc
from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.checks import MAX_WORD, check_int, list_some, shorten
from landmark_triplets_tfds.competition.tables import parse_image_ids
from landmark_triplets_tfds.errors import CommandError, MissingPackageError
from landmark_triplets_tfds.triplets.examples import ExampleKind, kind_of_dataset, kind_of_features
from landmark_triplets_tfds.triplets.plan import Example

_Parsed = TypeVar("_Parsed")

TFRECORD, ARRAY_RECORD = "tfrecord", "array_record"
FILE_FORMATS = (TFRECORD, ARRAY_RECORD)

SHARD_PATTERN = re.compile(r"(?P<dataset>.+)-(?P<split>\w+)\.(?P<format>\w+)-(?P<number>\d+)-of-(?P<count>\d+)")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of a split's records."""

    split: str
    name: str
    num_records: int | None  # as dataset_info.json has it; None if that cannot be read


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A prepared dataset."""

    folder: epath.Path  # of its version
    name: str  # such as landmark_triplets/128px/1.0.0
    kind: ExampleKind
    image_px: tuple[int, ...] | None  # height and width of the stored images; None: not known
    features: frozenset[str]  # the names of those of a record
    file_format: str  # one of FILE_FORMATS
    shards: list[Shard]  # of all splits; those of a split are in their order
    split_bytes: dict[str, int]  # the sum of the sizes of all records, by split, as dataset_info.json has it
    metadata: dict[str, Any] | None  # what metadata.json holds; None if it cannot be read
    report: dict[str, Any] | None  # what build_report.json holds; None if it is not there or cannot be read
    damage: dict[str, str]  # what is wrong with these files, by their names

    @property
    def config_fields(self) -> dict[str, Any]:
        """The recorded fields of the config; {} if there are none."""
        return self.metadata["config"] if self.metadata else {}

    @property
    def counts(self) -> dict[str, Any]:
        """What metadata.json counts; {} if it cannot be read."""
        return self.metadata["counts"] if self.metadata else {}

    def splits(self) -> list[str]:
        """Returns the names of the splits, in their order."""
        return list(dict.fromkeys(shard.split for shard in self.shards))


def read_prepared_data(folder: epath.Path) -> PreparedData:
    """Reads what the files of a dataset say about it. Which files are its shards is for TFDS to say, which reads them.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
    """
    damage: dict[str, str] = {}

    def read(name: str, parse: Callable[[Any], _Parsed]) -> _Parsed | None:
        try:
            with file_access.open_file(os.fspath(folder / name)) as file:
                return parse(json.load(file))
        except FileNotFoundError:
            damage[name] = "it is missing"
        except Exception as error:  # whatever parsing comes upon; TFDS and protobuf raise many types
            damage[name] = f"it is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        return None

    metadata, report = read(METADATA_NAME, _parse_metadata), read(REPORT_NAME, _parse_report)
    features = read(FEATURES_NAME, _parse_features)
    info = None
    if features is not None:  # without them, TFDS opens nothing
        info = read(INFO_NAME, lambda _: _open(folder))
    name, file_format, shards, split_bytes = info or _guess(folder)
    if file_format not in FILE_FORMATS:
        raise CommandError(
            f"{folder} is in the file format {file_format}. What can be looked at is {' and '.join(FILE_FORMATS)}."
        )
    kind = kind_of_dataset(name.split("/")[0]) if features is None else kind_of_features(features)
    if kind is None:
        raise CommandError(
            f"{folder} holds neither triplets nor single images of this package: its records have the features"
            f" {', '.join(sorted(features or {})) or 'of no readable features.json'}."
        )
    return PreparedData(
        folder=folder,
        name=name,
        kind=kind,
        image_px=features[kind.image_features[0]].shape[:2] if features else None,
        features=frozenset(features or kind.feature_names),
        file_format=file_format,
        shards=shards,
        split_bytes=split_bytes,
        metadata=metadata,
        report=report,
        damage=damage,
    )


def _parse_features(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the features by name; raises ValueError if one of ours is not described as builds describe it."""
    features = dict(tfds.features.FeatureConnector.from_json(content).items())
    kind = kind_of_features(features)
    if kind is None:
        return features
    for name in sorted(kind.feature_names):
        found, is_image = features[name], name in kind.image_features
        dtype = "uint8" if is_image else "int64" if name in kind.landmark_features else "object"
        if np.dtype(found.np_dtype) != dtype or found.shape != ((*found.shape[:2], 3) if is_image else ()):
            raise ValueError(f"builds do not describe {name} as {found!r}")
    return features


def _open(folder: epath.Path) -> tuple[str, str, list[Shard], dict[str, int]]:
    """Returns the name of the dataset, its file format, the shards that TFDS reads, and the size of each split.

    Raises:
      Exception: of whatever type, if TFDS does not open it, or not as builds make it.
    """
    builder = tfds.builder_from_directory(folder)
    shards, split_bytes = [], {}
    for split, info in builder.info.splits.items():
        paths = info.filename_template.sharded_filepaths(info.num_shards)
        for path, length in zip(paths, info.shard_lengths, strict=True):
            shards.append(Shard(split, os.path.relpath(path, folder), length))
        split_bytes[split] = int(info.num_bytes)
        if not info.num_examples:
            raise ValueError(f"it lists no records of {split}")
    if not shards:
        raise ValueError("it lists no split")
    if kind := kind_of_features(builder.info.features):
        keys = (kind.image_features if kind.num_images > 1 else kind.image_features[0], kind.landmark_features[0])
        if builder.info.supervised_keys != keys:
            raise ValueError(f"its supervised keys are {builder.info.supervised_keys}, and builds have {keys}")
    config = builder.builder_config.name if builder.builder_config else ""
    name = f"{builder.name}/{config}/{builder.version}"
    return name, builder.info.file_format.value, shards, split_bytes


def _guess(folder: epath.Path) -> tuple[str, str, list[Shard], dict[str, int]]:
    """Returns what the names of the files say of it, where TFDS does not open the dataset."""
    matches = [match for path in sorted(folder.iterdir()) if (match := SHARD_PATTERN.fullmatch(path.name))]
    dataset, file_format = matches[0].group("dataset", "format") if matches else (folder.parent.parent.name, TFRECORD)
    shards = [Shard(match["split"], match[0], None) for match in matches]
    return f"{dataset}/{folder.parent.name}/{folder.name}", file_format, shards, {}


# Of the other files all is kept, once what is looked up in them has been there.


def _parse_metadata(content: dict[str, Any]) -> dict[str, Any]:
    content["counts"].items(), [counts.items() for counts in content["counts"]["splits"].values()]
    fields, cap = content["config"], content.get("max_examples_per_split")
    check_int("triplets_per_anchor", fields.get("triplets_per_anchor", 1), 1, 10_000)
    if cap is not None:
        check_int("max_examples_per_split", cap, 1, MAX_WORD)
    for name in ("exclude_landmarks", "triplets_file"):
        if not str(fields.get(name) or "sha256:").startswith("sha256:"):
            raise ValueError(f"of {name} the hash is recorded, not {shorten(fields[name])}")
    return content


def _parse_report(content: dict[str, Any]) -> dict[str, Any]:
    content["counts"].items(), content["versions"].items(), content["build_options"].items()
    parse_image_ids([image["image_id"] for image in content["unreadable_images"]])
    return content


_NUM_NAMES_SHOWN = 20


def find_version_folder(data_dir: str | None, dataset: str) -> epath.Path:
    """Finds the folder of a prepared dataset in ``data_dir``, or else where TFDS keeps them.

    A dataset is named ``landmark_triplets/128px``, for the newest version, ``landmark_triplets/128px:1.0.0``, or by the
    path of a folder: of a version, or of a config. ``landmark_triplets`` will do where there is one config.

    Raises:
      CommandError: if there is no such dataset; it names those that are there.
    """
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    name, _, version = dataset.rstrip("/").partition(":") if "://" not in dataset else (dataset.rstrip("/"), "", "")
    for folder in (root / name / version, epath.Path(name).expanduser() / version):
        files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if any(file in (INFO_NAME, FEATURES_NAME) or SHARD_PATTERN.fullmatch(file) for file in files):
            return folder
        versions = [] if version else _list_versions(folder, 1) or _list_versions(folder, 2)
        if len({path.parent for path in versions}) == 1:
            return versions[-1]
    found = [os.fspath(path.relative_to(root)) for path in _list_versions(root, 3)]
    listed = list_some(found, _NUM_NAMES_SHOWN)
    advice = f"It holds {listed}." if found else "Name the folder that the dataset was built into: --data_dir DIR."
    raise CommandError(f"There is no prepared dataset {dataset} in {root}. {advice}")


def _list_versions(folder: epath.Path, depth: int) -> list[epath.Path]:
    """Returns the folders of versions so deep in a folder, those of a config together, the newest last."""
    paths = [folder]
    for _ in range(depth):  # not with `glob`, which takes a folder such as run[1] for a pattern too
        paths = [below for path in paths if path.is_dir() for below in path.iterdir()]
    found = (path for path in paths if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and path.is_dir())
    return sorted(found, key=lambda path: (path.parent, *map(int, path.name.split("."))))


# --- Records

_BLOCK_SIZE = 4 << 20  # 4 MiB

# Array records read with one call.
_NUM_TOGETHER = 64

# A record and '', or None and what is wrong with it.
Read = tuple[bytes | None, str]


def read_records(path: epath.Path, file_format: str, first: int = 0) -> Iterator[Read]:
    """Reads the records of a shard, in order, from the one with this number on.

    Others are stepped over, which takes some microseconds each.

    Yields:
      (record, '') for each one; (None, what is wrong) in place of one that is damaged. The last one stands for all
      behind it where these are lost.

    Raises:
      OSError: if the file cannot be read.
      MissingPackageError: if it takes a package that is not installed.
    """
    read = _read_tfrecords if file_format == TFRECORD else _read_array_records
    return read(path, first)


def read_record(path: epath.Path, file_format: str, number: int) -> bytes:
    """Returns the record with this number; raises ValueError if it is damaged or not there."""
    record, problem = next(read_records(path, file_format, number), (None, "it is not there"))
    if record is None:
        raise ValueError(problem)
    return record


def parse_example(record: bytes, kind: ExampleKind) -> tuple[Example, frozenset[str]]:
    """Returns the features of a record that examples of the kind have, and the names of all that it has.

    Images and ids are bytes, landmarks numbers.

    Raises:
      ValueError: if it lacks one of these, or has not one value of it, of its type.
    """
    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # google.protobuf.message.DecodeError, and whatever else it comes upon
        raise ValueError(f"it is no tf.train.Example ({error})") from None
    if missing := sorted(kind.feature_names.difference(features)):
        raise ValueError(f"it lacks {', '.join(missing)}")
    example: Example = {}
    for name in (*kind.id_features, *kind.landmark_features, *kind.image_features):
        type_of_list = "int64_list" if name in kind.landmark_features else "bytes_list"
        values = getattr(features[name], type_of_list).value
        if len(values) != 1:
            raise ValueError(f"{name} must be one value in a {type_of_list}, got {len(values)}")
        example[name] = values[0]
    return example, frozenset(features)


def hash_file(path: epath.Path) -> str:
    """Returns the sha256 of a file."""
    digest = hashlib.sha256()
    with file_access.open_file(os.fspath(path)) as file:
        while block := file.read(_BLOCK_SIZE):
            digest.update(block)
    return digest.hexdigest()


def _read_tfrecords(path: epath.Path, first: int) -> Iterator[Read]:
    size, position = file_access.stat_file(os.fspath(path))[0], 0
    with file_access.open_file(os.fspath(path)) as file:
        for number in itertools.count():
            if position >= size:
                return
            header = file.read(12)
            if masked_crc(header[:8]) != header[8:]:
                what = "is cut off" if len(header) < 12 else "fails its checksum"
                yield None, f"its length, at byte {position:,}, {what}, so what is behind it cannot be read"
                return
            start, length = position + 12, int.from_bytes(header[:8], "little")
            position = start + length + 4
            if position > size:
                yield None, f"cut off: the file ends after {size - start:,} of its {length:,} bytes"
                return
            if number < first:
                file.seek(position)
                continue
            record = file.read(length)
            if file.read(4) == masked_crc(record):
                yield record, ""
            else:
                yield None, f"its {length:,} bytes, from byte {start:,}, fail their checksum"


def _read_array_records(path: epath.Path, first: int) -> Iterator[Read]:
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError as error:
        raise MissingPackageError(
            f"{path} is an array_record file, which the package array_record reads: pip install array_record ({error})."
        ) from error
    file_access.stat_file(os.fspath(path))  # an error of the operating system is raised as such
    name = os.fspath(path)

    def describe(error: Exception) -> str:
        text = " ".join(str(error).replace(name, "the file").split())
        return f"array_record refuses it ({text[:200]})"

    def read(numbers: Sequence[int]) -> list[Read]:
        try:
            return [(record, "") for record in reader.read(list(numbers))]
        except Exception as error:  # of no type of its own
            return [(None, describe(error))] if len(numbers) == 1 else [read([number])[0] for number in numbers]

    try:
        reader = ArrayRecordReader(name, "readahead_buffer_size:0")
        num_records = int(reader.num_records())
    except Exception as error:
        yield None, f"the file as a whole: {describe(error)}"
        return
    for start in range(first, num_records, _NUM_TOGETHER):
        yield from read(range(start, min(start + _NUM_TOGETHER, num_records)))
