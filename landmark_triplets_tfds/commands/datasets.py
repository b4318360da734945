"""The two datasets, and which config of which of them an argument names.

A config is named as ``128px``, as ``landmark_images/128px_all``, or by its fields in JSON as TFDS takes them.
"""

from __future__ import annotations

import dataclasses
import difflib
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
_OF_EVERY_CONFIG = ("name", "version", "release_notes", "supported_versions", "tags")


@dataclasses.dataclass(frozen=True)
class ConfigChoice:
    """A config, by the name of its dataset and as TFDS has it."""

    dataset: str
    config: LandmarkBuilderConfig

    @property
    def builder_class(self) -> type[LandmarkBuilder]:
        return BUILDERS[self.dataset]

    @property
    def is_named(self) -> bool:
        """Whether the config can be asked for by its name."""
        return any(each is self.config for each in self.builder_class.BUILDER_CONFIGS)

    @property
    def full_name(self) -> str:
        return f"{self.dataset}/{self.config.name}"

    def as_json(self) -> dict[str, Any]:
        """Returns the fields that are not as they are by default, as ``--config`` takes them."""
        defaults = {field.name: field.default for field in dataclasses.fields(self.config)}
        values = {name: getattr(self.config, name) for name in defaults if name not in ("description",)}
        return {
            name: value
            for name, value in values.items()
            if name == "name" or (name not in _OF_EVERY_CONFIG and value != defaults[name])
        }

    def build_command(self, manual_dir: str) -> str:
        """Returns the command that builds the dataset."""
        what = self.full_name if self.is_named else self.dataset
        command = f"tfds build {what} --imports landmark_triplets_tfds --manual_dir {shlex.quote(manual_dir)}"
        return command if self.is_named else f"{command} --config {shlex.quote(json.dumps(self.as_json()))}"


def check_dataset(name: str) -> None:
    """Raises CommandError if there is no such dataset."""
    if name not in BUILDERS:
        raise CommandError(f"There is no dataset {name!r}; there are {' and '.join(BUILDERS)}.")


def named_choices(dataset: str) -> list[ConfigChoice]:
    """Returns the configs of a dataset that have names."""
    return [ConfigChoice(dataset, config) for config in BUILDERS[dataset].BUILDER_CONFIGS]


def find_config(text: str, dataset: str) -> ConfigChoice:
    """Returns the config that an argument names.

    Args:
      text: a name, a name after that of a dataset and a slash, or a JSON object of fields.
      dataset: of names without one, and of JSON.

    Raises:
      CommandError: if there is no such dataset or config, or a field does not fit.
    """
    if text.lstrip().startswith("{"):
        return ConfigChoice(dataset, _config_from_json(text, dataset))
    if "/" in text:
        dataset, _, text = text.partition("/")
    check_dataset(dataset)
    choices = {choice.config.name: choice for choice in named_choices(dataset)}
    if text not in choices:
        close = difflib.get_close_matches(text, choices, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise CommandError(f"{dataset} has no config {text!r}; it has {', '.join(choices)}.{hint}")
    return choices[text]


def _config_from_json(text: str, dataset: str) -> LandmarkBuilderConfig:
    config_class = type(BUILDERS[dataset].BUILDER_CONFIGS[0])
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--config {text} is not JSON: {error}.") from None
    known = [field.name for field in dataclasses.fields(config_class)]
    for name in fields:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise CommandError(f"--config {text}: {dataset} has no field {name!r}.{hint}")
    if "name" not in fields:
        raise CommandError(f'--config {text}: a config needs a name, such as "name": "mine".')
    try:
        config: LandmarkBuilderConfig = config_class(**fields)
    except (TypeError, ValueError) as error:
        raise CommandError(f"--config {text}: {error}") from None
    return config
