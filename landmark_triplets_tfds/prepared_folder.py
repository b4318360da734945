"""Which folder a prepared dataset is in, by the name or the path that somebody gives."""

from __future__ import annotations

import os

from etils import epath
import tensorflow_datasets as tfds

from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.prepared_data import FEATURES_NAME, INFO_NAME, SHARD_PATTERN

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
        versions = _list_versions(folder)
        if version in versions:
            return folder / version
        if version and versions:
            raise CommandError(f"{folder} has the versions {', '.join(versions)}, but no {version}.")
        if versions:
            return folder / versions[-1]
        configs = [path.name for path in _list_folders(folder) if _list_versions(path)]
        if len(configs) == 1:
            return find_version_folder(os.fspath(folder), configs[0] + (f":{version}" if version else ""))
        if configs:
            raise CommandError(
                f"{folder} holds several datasets. Name one of them: {', '.join(f'{name}/{c}' for c in configs)}."
            )
    raise CommandError(f"There is no prepared dataset {dataset} in {root}. {_describe_prepared(root)}")


def _is_version(folder: epath.Path) -> bool:
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return bool(names & {INFO_NAME, FEATURES_NAME}) or any(SHARD_PATTERN.fullmatch(name) for name in names)


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
