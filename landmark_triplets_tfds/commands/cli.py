"""The command `landmark-triplets`: its commands, and what becomes of their errors.

Commands look before a build (`inspect`, `forecast`, `preview`) and after it (`preview`, `verify`); what they do is in
modules of their own, which import what is slow to import when they run, so that `--help` is there at once. The exit
status is 0 if all is well, 1 if a command found something wrong, and 2 if it could not do its work, which standard
error then explains.
"""

from __future__ import annotations

from collections.abc import Sequence
import importlib.metadata
import os
import signal
import sys

from absl import logging as absl_logging

from landmark_triplets_tfds.commands.arguments import Command, parse
from landmark_triplets_tfds.commands.console import FAILED, OK
from landmark_triplets_tfds.commands.forecast.command import ForecastCommand
from landmark_triplets_tfds.commands.inspect_command import Inspect
from landmark_triplets_tfds.commands.mine import Mine
from landmark_triplets_tfds.commands.preview_command import Preview
from landmark_triplets_tfds.commands.verify.command import Verify
from landmark_triplets_tfds.errors import LandmarkTripletsError

PROGRAM = "landmark-triplets"
_DISTRIBUTION = "landmark_triplets_tfds"
_DESCRIPTION = "Looks at the files of a landmark competition before a dataset is built, and at the dataset after it."

# In the order of --help.
_COMMANDS: dict[str, type[Command]] = {
    "inspect": Inspect,
    "forecast": ForecastCommand,
    "preview": Preview,
    "verify": Verify,
    "mine": Mine,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    # What TensorFlow says of its devices, and TFDS of configs, is of no use here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        status = _run(arguments)
        sys.stdout.flush()  # now, where a reader that is gone is no surprise
    except BrokenPipeError:
        # As in `landmark-triplets ... | head`. What is still buffered has nowhere to go, when the process ends either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as shells report SIGPIPE, which Windows has no name for
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (LandmarkTripletsError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return FAILED
    return status


def _run(arguments: Sequence[str] | None) -> int:
    try:
        command = parse(PROGRAM, _DESCRIPTION, _version(), _COMMANDS, arguments)
    except SystemExit as end:  # after --help, or where arguments do not fit
        return int(end.code or OK)
    return command.execute() if command is not None else OK


def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
