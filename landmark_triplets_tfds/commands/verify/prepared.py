"""A dataset as it lies on disk: which folder it is in, and what its own files say about it.

TFDS's reader of these files raises whatever comes up when one of them is damaged. Here each file is read by itself, so
that `verify` can say what is wrong with one and still look at the others. Nothing but the folder is needed: not the
competition's files, not the version of the package that built it, no right to write.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import os
import re
from typing import Any, TypeVar

from etils import epath
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands.verify.findings import FILE, INFO, Findings
from landmark_triplets_tfds.commands.verify.records import FILE_FORMATS
from landmark_triplets_tfds.common.checks import list_some
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.triplets.examples import ExampleKind, kind_of_dataset, kind_of_features

_Parsed = TypeVar("_Parsed")

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
      metadata: what metadata.json holds; None if it cannot be read.
      report: what build_report.json holds; None if it is not there or cannot be read.
    """

    folder: epath.Path
    name: str
    kind: ExampleKind
    image_px: tuple[int, ...] | None
    features: frozenset[str]
    file_format: str
    shards: list[Shard]
    split_bytes: dict[str, int]
    metadata: dict[str, Any] | None
    report: dict[str, Any] | None

    @property
    def config_fields(self) -> dict[str, Any]:
        """The recorded fields of the config; {} if there are none."""
        return self.metadata["config"] if self.metadata else {}

    def splits(self) -> list[str]:
        """Returns the names of the splits, in their order."""
        return list(dict.fromkeys(shard.split for shard in self.shards))


def read_prepared_data(folder: epath.Path, findings: Findings) -> PreparedData:
    """Reads what the files of a dataset say about it; adds what is wrong with them to the findings.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
    """
    names = sorted(path.name for path in folder.iterdir())
    matches = [match for match in map(SHARD_PATTERN.fullmatch, names) if match]

    def read(name: str, parse: Callable[[Any], _Parsed]) -> _Parsed | None:
        try:
            return parse(json.loads((folder / name).read_text()))
        except FileNotFoundError:
            findings.add(INFO, "it is missing", file=name)
        except Exception as error:  # whatever parsing comes upon; TFDS and protobuf raise many types
            why = " ".join(str(error).split())[:200]
            findings.add(INFO, f"it is damaged ({type(error).__name__}: {why})", file=name)
        return None

    info = read(INFO_NAME, _parse_info)
    if info is None:  # then the names of the files say what there is
        dataset, file_format = folder.parent.parent.name, FILE_FORMATS[0]
        if matches:
            dataset, file_format = matches[0].group("dataset", "format")
        shards = [Shard(match["split"], match[0], None) for match in matches]
        info = f"{dataset}/{folder.parent.name}/{folder.name}", file_format, shards, {}
    name, file_format, shards, split_bytes = info
    if file_format not in FILE_FORMATS:
        raise CommandError(
            f"{folder} is in the file format {file_format}. What can be looked at is {' and '.join(FILE_FORMATS)}."
        )
    listed = {shard.name for shard in shards}
    for missing in sorted(listed.difference(names)):
        findings.add(FILE, "it is missing", file=missing)
    for match in matches:
        if match[0] not in listed:
            findings.add(FILE, f"{INFO_NAME} lists no such shard", file=match[0])
    features = read(FEATURES_NAME, lambda content: dict(tfds.features.FeatureConnector.from_json(content).items()))
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
        metadata=read(METADATA_NAME, _parse_metadata),
        report=read(REPORT_NAME, _parse_report) if REPORT_NAME in names else None,
    )


def _parse_info(info: dict[str, Any]) -> tuple[str, str, list[Shard], dict[str, int]]:
    """Returns the name of the dataset, its file format, its shards, and the size of each split."""
    dataset, file_format = str(info["name"]), str(info["fileFormat"])
    shards, split_bytes = [], {}
    for split in info["splits"]:
        name, lengths = str(split["name"]), split.get("shardLengths", [])
        for number, length in enumerate(lengths):
            file = f"{dataset}-{name}.{file_format}-{number:05d}-of-{len(lengths):05d}"
            shards.append(Shard(name, file, int(length)))
        split_bytes[name] = int(split.get("numBytes", 0))
    return f"{dataset}/{info['configName']}/{info['version']}", file_format, shards, split_bytes


# Of the other files all is kept, once what is looked up in them has been there.


def _parse_metadata(content: dict[str, Any]) -> dict[str, Any]:
    content["config"].items(), [counts.items() for counts in content["counts"]["splits"].values()]
    return content


def _parse_report(content: dict[str, Any]) -> dict[str, Any]:
    content["versions"].items(), [int(image["image_id"], 16) for image in content["unreadable_images"]]
    return content


_NUM_NAMES_SHOWN = 20


def find_version_folder(data_dir: str | None, dataset: str) -> epath.Path:
    """Finds the folder of a prepared dataset.

    Args:
      data_dir: where datasets are; None: where TFDS keeps them.
      dataset: ``landmark_triplets/128px``, for the newest version, ``landmark_triplets/128px:1.0.0``, or the path of a
        folder: of a version, or of a config. ``landmark_triplets`` will do where there is one config.

    Raises:
      CommandError: if there is no such dataset; it names those that are there.
    """
    root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    name, _, version = dataset.rstrip("/").partition(":") if "://" not in dataset else (dataset.rstrip("/"), "", "")
    for folder in (root / name / version, epath.Path(name).expanduser() / version):
        files = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        if any(file in (INFO_NAME, FEATURES_NAME) or SHARD_PATTERN.fullmatch(file) for file in files):
            return folder
        versions = [] if version else _list_versions(folder, "*") or _list_versions(folder, "*/*")
        if len({path.parent for path in versions}) == 1:
            return versions[-1]
    found = [os.fspath(path.relative_to(root)) for path in _list_versions(root, "*/*/*")]
    listed = list_some(found, _NUM_NAMES_SHOWN)
    advice = f"It holds {listed}." if found else "Name the folder that the dataset was built into: --data_dir DIR."
    raise CommandError(f"There is no prepared dataset {dataset} in {root}. {advice}")


def _list_versions(folder: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the folders of versions that the pattern finds, those of a config together, the newest last."""
    found = (path for path in folder.glob(pattern) if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and path.is_dir())
    return sorted(found, key=lambda path: (path.parent, *map(int, path.name.split("."))))
