"""Which dataset is meant on the command line: a named config, or one's own as `tfds build --config` takes it."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import Any

from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets
from landmark_triplets_tfds.builder_config import LandmarkBuilderConfig
from landmark_triplets_tfds.errors import CommandError

_BUILDERS: dict[str, Any] = {builder.name: builder for builder in (LandmarkTriplets, LandmarkImages)}


@dataclasses.dataclass(frozen=True)
class ConfigChoice:
    """A dataset that could be built.

    Attributes:
      dataset: 'landmark_triplets' or 'landmark_images'.
      config: of it.
    """

    dataset: str
    config: LandmarkBuilderConfig

    @property
    def name(self) -> str:
        """Such as ``landmark_triplets/128px``."""
        return f"{self.dataset}/{self.config.name}"


def choose_config(dataset: str, config: str | None = None) -> ConfigChoice:
    """Finds or makes the config that is meant.

    Args:
      dataset: ``landmark_triplets/128px``, or ``landmark_triplets`` for the default config or with the next argument.
      config: a name, or the fields of one's own config in JSON: ``{"name": "96px", "resolution": 96}``.

    Raises:
      CommandError: if there is none such.
    """
    name, _, named = dataset.strip("/").partition("/")
    named = named.partition(":")[0]
    if name not in _BUILDERS:
        raise CommandError(
            f"There is no dataset {name!r}; there are {' and '.join(_BUILDERS)}.{_suggest(name, _BUILDERS)}"
        )
    builder = _BUILDERS[name]
    if config is not None and named:
        raise CommandError(f"Name the config once: either {name}/{named} or --config.")
    if config is not None and config.lstrip().startswith("{"):
        return ConfigChoice(name, _parse_config(builder, config))
    named = config or named or builder.DEFAULT_BUILDER_CONFIG_NAME
    if named not in builder.builder_configs:
        raise CommandError(
            f"{name} has no config {named!r}.{_suggest(named, builder.builder_configs)} There are"
            f" {', '.join(builder.builder_configs)}; your own is given by its fields, such as"
            """ --config '{"name": "96px", "resolution": 96}'."""
        )
    return ConfigChoice(name, builder.builder_configs[named])


def _parse_config(builder: Any, text: str) -> LandmarkBuilderConfig:
    try:
        config: LandmarkBuilderConfig = builder.builder_config_cls(**json.loads(text))
    except (ValueError, TypeError) as error:
        problem = (
            str(error)
            .replace("LandmarkTripletsConfig.__init__()", "it")
            .replace("LandmarkImagesConfig.__init__()", "it")
        )
        raise CommandError(f"--config {text} is no config of {builder.name}: {problem}") from None
    return config


def _suggest(wrong: str, names: Any) -> str:
    close = difflib.get_close_matches(wrong, list(names), n=1)
    return f" Did you mean {close[0]}?" if close else ""
