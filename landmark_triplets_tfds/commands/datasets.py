"""The two datasets, and which config of which of them an argument names.

A config is named as ``128px``, as ``landmark_images/128px_all``, or by its fields in JSON as TFDS takes them.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Any

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.hooks import LandmarkBuilder
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.landmark_images import LandmarkImages
from landmark_triplets_tfds.landmark_triplets import LandmarkTriplets
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS

BUILDERS: dict[str, type[LandmarkBuilder]] = {TRIPLETS.dataset: LandmarkTriplets, IMAGES.dataset: LandmarkImages}
# What is no field of ours: TFDS has it for every config.
_OF_EVERY_CONFIG = ("name", "description", "version", "release_notes", "supported_versions", "tags")


def find_config(text: str, dataset: str) -> LandmarkBuilderConfig:
    """Returns the config that an argument names.

    Args:
      text: a name, a name after that of a dataset and a slash, or a JSON object of fields.
      dataset: of names without one, and of JSON.

    Raises:
      CommandError: if there is no such dataset or config, or a field does not fit.
    """
    if text.lstrip().startswith("{"):
        return _config_from_json(text, builder_class(dataset))
    if "/" in text:
        dataset, _, text = text.partition("/")
    builder = builder_class(dataset)
    try:
        return builder.named_config(text)
    except ValueError as error:
        raise CommandError(str(error)) from None


def builder_class(dataset: str) -> type[LandmarkBuilder]:
    """Returns the class of a dataset; raises CommandError if there is no such dataset."""
    if dataset not in BUILDERS:
        raise CommandError(f"There is no dataset {dataset!r}; there are {' and '.join(BUILDERS)}.")
    return BUILDERS[dataset]


def _config_from_json(text: str, builder: type[LandmarkBuilder]) -> LandmarkBuilderConfig:
    config_class = type(builder.BUILDER_CONFIGS[0])
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--config {text} is not JSON: {error}.") from None
    try:
        config: LandmarkBuilderConfig = config_class(**fields)
    except (TypeError, ValueError) as error:
        raise CommandError(f"--config {text}: {error}") from None
    return config


def full_name(config: LandmarkBuilderConfig) -> str:
    """Returns the name as TFDS takes it, such as ``landmark_images/128px_all``."""
    return f"{config.kind.dataset}/{config.name}"


def fields_as_json(config: LandmarkBuilderConfig) -> dict[str, Any]:
    """Returns the fields that are not as they are by default, as ``--config`` takes them."""
    values = {field.name: (getattr(config, field.name), field.default) for field in dataclasses.fields(config)}
    changed = {
        name: value for name, (value, default) in values.items() if name not in _OF_EVERY_CONFIG and value != default
    }
    return {"name": config.name} | changed


def build_command(config: LandmarkBuilderConfig, manual_dir: str) -> str:
    """Returns the command that builds a dataset of the config."""
    is_named = any(each is config for each in BUILDERS[config.kind.dataset].BUILDER_CONFIGS)
    what = full_name(config) if is_named else config.kind.dataset
    command = f"tfds build {what} --imports landmark_triplets_tfds --manual_dir {shlex.quote(manual_dir)}"
    return command if is_named else f"{command} --config {shlex.quote(json.dumps(fields_as_json(config)))}"
