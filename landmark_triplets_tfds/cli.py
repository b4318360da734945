"""The command `landmark-triplets`: its arguments, and what each of its commands runs.

Commands look before a build (`inspect`, `forecast`, `preview`) and after it (`preview`, `verify`); what they do is in
modules of their own, imported when they run, so that `--help` is there at once. The exit status is 0 if all is well, 1
if a command found something wrong, and 2 if it could not do its work, which standard error then explains.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys

import simple_parsing

from landmark_triplets_tfds.errors import USER_ERRORS

PROGRAM = "landmark-triplets"

OK, FOUND_WRONG, FAILED = range(3)


# Commands, their dataclasses in the order of --help: each has a method `execute` that returns the exit status.

_COMMANDS: dict[str, type] = {}


def parse(arguments: Sequence[str] | None) -> object:
    """Returns the command that the arguments ask for; ends the process with status 2 if they do not fit."""
    parser = simple_parsing.ArgumentParser(prog=PROGRAM, description="Looks at landmark datasets before and after.")
    command = parser.add_subparsers(title="commands", dest="name", metavar="command", required=True)
    for name, arguments_class in _COMMANDS.items():
        summary = (arguments_class.__doc__ or "").partition("\n")[0]
        own = command.add_parser(name, help=summary, description=summary)
        own.add_arguments(arguments_class, dest="command")
    return parser.parse_args(arguments).command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    command = parse(arguments)
    try:
        return int(command.execute())  # type: ignore[attr-defined]
    except USER_ERRORS as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 128 + 2  # as shells report SIGINT
