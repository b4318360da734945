"""A dataset as it lies on disk: which folder it is in, and what its own files say about it.

TFDS's reader of these files raises whatever comes up when one of them is damaged. Here each file is read by itself, so
that `verify` can say what is wrong with one and still look at the others. Nothing but the folder is needed: not the
competition's files, not the version of the package that built it, no right to write.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import re
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands.verify.findings import FILE, INFO, Findings
from landmark_triplets_tfds.commands.verify.records import FILE_FORMATS
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.triplets.examples import ExampleKind, kind_of_dataset, kind_of_features

INFO_NAME, FEATURES_NAME, METADATA_NAME = "dataset_info.json", "features.json", "metadata.json"

SHARD_PATTERN = re.compile(r"(?P<dataset>.+)-(?P<split>\w+)\.(?P<format>\w+)-(?P<number>\d+)-of-(?P<count>\d+)")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file of records.

    Attributes:
      split: the name of the split that it is a part of.
      name: of the file.
      num_records: as dataset_info.json has it; None if that cannot be read.
    """

    split: str
    name: str
    num_records: int | None


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """A prepared dataset.

    Attributes:
      folder: of its version.
      name: such as ``landmark_triplets/128px/1.0.0``.
      kind: of its examples.
      image_px: height and width of the stored images; None: not known.
      features: the names of the features of a record.
      file_format: one of `FILE_FORMATS`.
      shards: of all splits; those of a split are in their order.
      split_bytes: the sum of the sizes of all records, by split, as dataset_info.json has it.
      metadata: what metadata.json holds; {} if it cannot be read.
      report: what build_report.json holds; None if it is not there or cannot be read.
    """

    folder: epath.Path
    name: str
    kind: ExampleKind
    image_px: tuple[int, int] | None
    features: frozenset[str]
    file_format: str
    shards: tuple[Shard, ...]
    split_bytes: dict[str, int]
    metadata: dict[str, Any]
    report: dict[str, Any] | None

    @property
    def config_name(self) -> str:
        return self.name.split("/")[1]

    @property
    def version(self) -> str:
        return self.name.split("/")[-1]

    @property
    def config_fields(self) -> dict[str, Any]:
        """The recorded fields of the config; {} if there are none."""
        fields: dict[str, Any] = self.metadata.get("config", {})
        return fields

    def splits(self) -> list[str]:
        """Returns the names of the splits, in their order."""
        return list(dict.fromkeys(shard.split for shard in self.shards))


def read_prepared_data(folder: epath.Path, findings: Findings) -> PreparedData:
    """Reads what the files of a dataset say about it; adds what is wrong with them to the findings.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
    """
    names = sorted(path.name for path in folder.iterdir())
    info = _read_json(folder / INFO_NAME, findings, _list_shards)
    features = _read_features(folder, findings)
    metadata = _read_json(folder / METADATA_NAME, findings, lambda content: content["config"].items())
    report = None
    if REPORT_NAME in names:
        report = _read_json(folder / REPORT_NAME, findings, _look_at_report) or None
    matches = [match for match in map(SHARD_PATTERN.fullmatch, names) if match]
    file_format = str(info.get("fileFormat") or (matches[0]["format"] if matches else FILE_FORMATS[0]))
    if file_format not in FILE_FORMATS:
        raise CommandError(
            f"{folder} is in the file format {file_format}. What can be looked at is {' and '.join(FILE_FORMATS)}."
        )
    dataset = str(info.get("name") or (matches[0]["dataset"] if matches else folder.parent.parent.name))
    if info:
        shards, split_bytes = _list_shards(info)
    else:
        shards, split_bytes = [Shard(match["split"], match[0], None) for match in matches], {}
    _compare_files(names, shards, findings)
    kind = kind_of_features(features) if features else kind_of_dataset(dataset)
    if kind is None:
        raise CommandError(
            f"{folder} holds neither triplets nor single images of this package: its records have the features"
            f" {', '.join(sorted(features or {})) or 'of no readable features.json'}."
        )
    shape: tuple[int | None, ...] = features[kind.image_features[0]].shape if features else ()
    image_px = (shape[0], shape[1]) if len(shape) == 3 and shape[0] and shape[1] else None
    if image_px is None and isinstance(resolution := metadata.get("config", {}).get("resolution"), int):
        image_px = (resolution, resolution)
    config, version = str(info.get("configName") or folder.parent.name), str(info.get("version") or folder.name)
    return PreparedData(
        folder=folder,
        name=f"{dataset}/{config}/{version}",
        kind=kind,
        image_px=image_px,
        features=frozenset(features) if features else kind.feature_names,
        file_format=file_format,
        shards=tuple(shards),
        split_bytes=split_bytes,
        metadata=metadata,
        report=report,
    )


def _read_json(path: epath.Path, findings: Findings, look_at: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Returns the object in a JSON file; {} with a problem added if there is none that can be looked at."""
    try:
        content = json.loads(path.read_text())
        look_at(content)
    except FileNotFoundError:
        findings.add(INFO, "it is missing", file=path.name)
    # UnicodeDecodeError and JSON's are ValueErrors.
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        findings.add(INFO, f"it is damaged ({why})", file=path.name)
    else:
        if isinstance(content, dict):
            return content
    return {}


def _look_at_report(content: dict[str, Any]) -> object:
    return content["counts"].items(), [int(image["image_id"], 16) for image in content["unreadable_images"]]


def _read_features(folder: epath.Path, findings: Findings) -> dict[str, Any] | None:
    """Returns the features of a record by name, as TFDS describes them."""
    if not (folder / FEATURES_NAME).exists():
        findings.add(INFO, "it is missing", file=FEATURES_NAME)
        return None
    try:
        return dict(tfds.features.FeatureConnector.from_config(folder).items())
    except Exception as error:  # TFDS and protobuf raise many types
        findings.add(
            INFO, f"it is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})", file=FEATURES_NAME
        )
        return None


def _list_shards(info: dict[str, Any]) -> tuple[list[Shard], dict[str, int]]:
    """Returns the shards that dataset_info.json lists, and the size of each split."""
    shards, split_bytes = [], {}
    for split in info["splits"]:
        name, lengths = str(split["name"]), [int(length) for length in split.get("shardLengths", [])]
        template = tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(),
            template=split.get("filepathTemplate", ""),
            dataset_name=str(info["name"]),
            split=name,
            filetype_suffix=str(info["fileFormat"]),
        )
        files = template.sharded_filenames(len(lengths)) if lengths else []
        shards += [Shard(name, file, length) for file, length in zip(files, lengths, strict=True)]
        split_bytes[name] = int(split.get("numBytes", 0))
    return shards, split_bytes


def _compare_files(names: list[str], shards: list[Shard], findings: Findings) -> None:
    """Adds shards that are missing and files that look like shards and belong to none."""
    listed = {shard.name for shard in shards}
    for name in sorted(listed - set(names)):
        findings.add(FILE, "it is missing", file=name)
    for name in names:
        if name not in listed and SHARD_PATTERN.fullmatch(name):
            findings.add(FILE, f"{INFO_NAME} lists no such shard", file=name)


_NUM_NAMES_SHOWN = 20


def find_version_folder(data_dir: str | None, dataset: str) -> epath.Path:
    """Finds the folder of a prepared dataset.

    Args:
      data_dir: where datasets are; None: where TFDS keeps them.
      dataset: ``landmark_triplets/128px``, for the newest version, ``landmark_triplets/128px:1.0.0``, or the path of a
        folder: of a version, or of a config.

    Raises:
      CommandError: if there is no such dataset; it names those that are there.
    """
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    name, _, version = dataset.rstrip("/").partition(":") if "://" not in dataset else (dataset.rstrip("/"), "", "")
    for folder in (root / name, epath.Path(name).expanduser()):
        if _is_version(folder):
            return folder
        configs = (
            [folder] if _list_versions(folder) else [path for path in _list_folders(folder) if _list_versions(path)]
        )
        if len(configs) > 1:
            names = ", ".join(f"{name}/{path.name}" for path in configs)
            raise CommandError(f"{folder} holds several datasets. Name one of them: {names}.")
        if configs:
            versions = _list_versions(configs[0])
            if version and version not in versions:
                raise CommandError(f"{configs[0]} has the versions {', '.join(versions)}, but no {version}.")
            return configs[0] / (version or versions[-1])
    raise CommandError(f"There is no prepared dataset {dataset} in {root}. {_describe_prepared(root)}")


def _is_version(folder: epath.Path) -> bool:
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return any(name in (INFO_NAME, FEATURES_NAME) or SHARD_PATTERN.fullmatch(name) for name in names)


def _list_versions(folder: epath.Path) -> list[str]:
    """Returns the versions in a folder, the newest last."""
    names = [path.name for path in _list_folders(folder) if tfds.core.Version.is_valid(path.name)]
    return sorted((name for name in names if "*" not in name), key=tfds.core.Version)


def _list_folders(folder: epath.Path) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _describe_prepared(root: epath.Path) -> str:
    if not root.is_dir():
        return "That folder does not exist. Name the folder that the dataset was built into: --data_dir DIR."
    found = [
        f"{dataset.name}/{config.name}"
        for dataset in _list_folders(root)
        for config in _list_folders(dataset)
        if _list_versions(config)
    ]
    if not found:
        return "It holds no datasets. Name the folder that the dataset was built into: --data_dir DIR."
    return f"It holds {', '.join(found[:_NUM_NAMES_SHOWN])}{', ...' if len(found) > _NUM_NAMES_SHOWN else ''}."
