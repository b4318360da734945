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
    """Returns the config that an argument names, of this dataset if it names none.

    Raises:
      CommandError: if there is no such dataset or config, or a field does not fit.
    """
    if text.lstrip().startswith("{"):
        config_class = type(builder_class(dataset).BUILDER_CONFIGS[0])
        try:
            config: LandmarkBuilderConfig = config_class(**json.loads(text))
        except json.JSONDecodeError as error:
            raise CommandError(f"--config {text} is not JSON: {error}.") from None
        except (TypeError, ValueError) as error:
            raise CommandError(f"--config {text}: {error}") from None
        return config
    if "/" in text:
        dataset, _, text = text.partition("/")
    try:
        return builder_class(dataset).named_config(text)
    except ValueError as error:
        raise CommandError(str(error)) from None


def builder_class(dataset: str) -> type[LandmarkBuilder]:
    """Returns the class of a dataset; raises CommandError if there is no such dataset."""
    if dataset not in BUILDERS:
        raise CommandError(f"There is no dataset {dataset!r}; there are {' and '.join(BUILDERS)}.")
    return BUILDERS[dataset]


def full_name(config: LandmarkBuilderConfig) -> str:
    """Returns the name as TFDS takes it, such as ``landmark_images/128px_all``."""
    return f"{config.kind.dataset}/{config.name}"


def fields_as_json(config: LandmarkBuilderConfig) -> dict[str, Any]:
    """Returns the fields that are not as they are by default, as ``--config`` takes them."""
    fields = [field for field in dataclasses.fields(config) if field.name not in _OF_EVERY_CONFIG]
    changed = [field.name for field in fields if getattr(config, field.name) != field.default]
    return {"name": config.name} | {name: getattr(config, name) for name in changed}


def build_command(config: LandmarkBuilderConfig, manual_dir: str) -> str:
    """Returns the command that builds a dataset of the config."""
    is_named = any(each is config for each in BUILDERS[config.kind.dataset].BUILDER_CONFIGS)
    what = full_name(config) if is_named else config.kind.dataset
    command = f"tfds build {what} --imports landmark_triplets_tfds --manual_dir {shlex.quote(manual_dir)}"
    return command if is_named else f"{command} --config {shlex.quote(json.dumps(fields_as_json(config)))}"
