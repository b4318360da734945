"""Build options: what a build may use, never what it makes.

`tfds build` has no flags for a builder's own options, so they come from environment variables. They decide no byte of
the dataset; what does is a field of the config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import difflib
import math
import os
from typing import Any

import loky

from landmark_triplets_tfds.common.checks import check_int, check_number
from landmark_triplets_tfds.common.file_access import is_remote

PREFIX = "LANDMARK_TRIPLETS_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Options of a local build, each with its environment variable.

    Attributes:
      bank: folder of the thumbnails made so far, which later builds and resumed ones use again; 'off': keep none;
        ``LANDMARK_TRIPLETS_BANK``. None: the user's cache folder.
      max_unreadable: share of the images of the plan that may be unreadable before the build fails (10 images may in
        any case); ``LANDMARK_TRIPLETS_MAX_UNREADABLE``, as 0.05 or 5%.
      triplets_csv: True also writes triplets.csv, the ids of every triplet, beside the dataset's files;
        ``LANDMARK_TRIPLETS_TRIPLETS_CSV``, as on or off.
      workers: processes that decode, encode and write shards; ``LANDMARK_TRIPLETS_WORKERS``. None: one per usable core,
        where affinity and cgroup limits are respected. 1: this process does all of it.
      readers: threads that read files, of all workers together; ``LANDMARK_TRIPLETS_READERS``. None: four per worker
        and at least 8, for remote file systems at least 32, but at most 64. They wait rather than work, which is why
        they may be many.
    """

    bank: str | None = None
    max_unreadable: float = 0.01
    triplets_csv: bool = False
    workers: int | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.bank is not None:
            if not isinstance(self.bank, str | os.PathLike) or "\0" in str(self.bank):
                raise ValueError(f"{PREFIX}BANK must be a folder or 'off', got {self.bank!r}.")
            object.__setattr__(self, "bank", os.fspath(self.bank))  # it is recorded as JSON
        for field in ("workers", "readers"):
            value = getattr(self, field)
            if value is not None:
                check_int(f"{PREFIX}{field.upper()}", value, 1, 1024)
        check_number(f"{PREFIX}MAX_UNREADABLE", self.max_unreadable, 0, 1)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> BuildOptions:
        """Reads the options.

        Raises:
          ValueError: for a value that does not fit, and for a variable with our prefix that is no option.
        """
        parsers: dict[str, Callable[[str], Any]] = {
            "bank": str,
            "max_unreadable": _parse_share,
            "triplets_csv": _parse_switch,
        }
        fields = {PREFIX + field.name.upper(): field.name for field in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for variable, text in environment.items():
            if not variable.startswith(PREFIX) or not text:
                continue
            if variable not in fields:
                # Without the prefix, which makes any two of them alike.
                names = [name.upper() for name in fields.values()]
                close = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1)
                hint = f" Did you mean {PREFIX}{close[0]}?" if close else ""
                raise ValueError(f"{variable} is not a build option; there are {', '.join(sorted(fields))}.{hint}")
            try:
                values[fields[variable]] = parsers.get(fields[variable], _parse_number)(text)
            except ValueError as error:
                raise ValueError(f"{variable} must be {error}, got {text!r}.") from None
        return cls(**values)

    def num_workers(self) -> int:
        return self.workers or loky.cpu_count()

    def num_readers(self, is_remote: bool) -> int:
        if self.readers:
            return self.readers
        return min(64, max(32 if is_remote else 8, 4 * self.num_workers()))

    def num_readers_of(self, folder: str | os.PathLike[str]) -> int:
        """Returns with how many threads a copy in a folder is read, before it is known what kind of copy it is."""
        return self.num_readers(is_remote(os.fspath(folder)))

    def max_num_unreadable(self, num_images: int) -> int:
        """Returns how many of ``num_images`` images may be unreadable: the share, and 10 in any case."""
        return max(10, math.floor(self.max_unreadable * num_images))


def _parse_number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError("a whole number")
    return int(text)


def _parse_share(text: str) -> float:
    number, percent = (text.strip()[:-1], 100) if text.strip().endswith("%") else (text, 1)
    try:
        return float(number) / percent
    except ValueError:
        raise ValueError("a share such as 0.05 or 5%") from None


def _parse_switch(text: str) -> bool:
    switches = {"1": True, "on": True, "true": True, "yes": True, "0": False, "off": False, "false": False, "no": False}
    if text.strip().lower() not in switches:
        raise ValueError("on or off")
    return switches[text.strip().lower()]
