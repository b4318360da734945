"""Build options: what a build may use, never what it makes.

`tfds build` has no flags for a builder's own options, so they come from environment variables. They decide no byte of
the dataset; what does is a field of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import difflib
import os

import loky

PREFIX = "LANDMARK_TRIPLETS_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a local build, each with its environment variable.

    Attributes:
      workers: threads that decode and encode; ``LANDMARK_TRIPLETS_WORKERS``. None: one per usable core, where
        affinity and cgroup limits are respected.
      readers: threads that read files; ``LANDMARK_TRIPLETS_READERS``. None: four per worker and at least 8, for
        remote file systems 32 and more. They wait rather than work, which is why they may be many.
    """

    workers: int | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        for field in ("workers", "readers"):
            value = getattr(self, field)
            if value is not None and not 1 <= value <= 1024:
                raise ValueError(f"{PREFIX}{field.upper()} must be between 1 and 1024, got {value}.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> BuildOptions:
        """Reads the options.

        Raises:
          ValueError: for a value that does not fit, and for a variable with our prefix that is no option.
        """
        fields = {PREFIX + field.name.upper(): field.name for field in dataclasses.fields(cls)}
        values: dict[str, int] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or not text:
                continue
            if variable not in fields:
                close = difflib.get_close_matches(variable, fields, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise ValueError(f"{variable} is not a build option; there are {', '.join(sorted(fields))}.{hint}")
            try:
                values[fields[variable]] = int(text)
            except ValueError:
                raise ValueError(f"{variable} must be a whole number, got {text!r}.") from None
        return cls(**values)

    def num_workers(self) -> int:
        return self.workers or loky.cpu_count()

    def num_readers(self, is_remote: bool) -> int:
        if self.readers:
            return self.readers
        return min(64, max(32 if is_remote else 8, 4 * self.num_workers()))
