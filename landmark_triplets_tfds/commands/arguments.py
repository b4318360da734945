"""How the command line is read: the fields of a dataclass become the arguments of a command.

simple_parsing does that, as in TFDS's own command. Left to itself it heads each group of arguments with the name of a
Python class and gives a switch a negative twin; what it is told here makes `--help` look as people know it. Names are
written with underscores, as TFDS's are; hyphens do as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import inspect
import re
import shutil
import sys
from typing import Any, NoReturn, Protocol, cast

from etils import epath
import simple_parsing
from simple_parsing.wrappers.dataclass_wrapper import DataclassWrapper

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.errors import CommandError

_MAX_WIDTH = 100
_HYPHENS_PATTERN = re.compile(r"(--[a-z]+(?:-[a-z]+)+)(=.*)?", re.DOTALL)


class Command(Protocol):
    """A dataclass whose fields, made by the functions below, are the arguments of a command.

    The first line of its docstring is shown in the list of commands, all of it above the arguments.
    """

    def execute(self) -> int:
        """Does the work; returns `console.OK` or, if something wrong was found, `console.FOUND_WRONG`."""


def option(help_text: str, *, default: Any = dataclasses.MISSING, metavar: str = "", **settings: Any) -> Any:
    """Returns the field of an argument ``--name VALUE``.

    Args:
      help_text: a sentence or two; it says what the default means.
      default: None where there is none; without it, the argument must be given.
      metavar: what stands for the value in the help, such as ``DIR``.
      **settings: more of what ``argparse.ArgumentParser.add_argument`` takes.
    """
    # simple_parsing would let the value of an optional argument be left out.
    settings = {"nargs": None} | settings
    if default is not dataclasses.MISSING:
        settings["default"] = default
    return simple_parsing.field(help=help_text, metavar=metavar or None, **settings)


def options(help_text: str, *, metavar: str) -> Any:
    """Returns the field, a list, of an argument ``--name VALUE [VALUE ...]`` that may be left out or given again."""
    return simple_parsing.field(
        default_factory=list, help=help_text, metavar=metavar, nargs="+", action="extend", required=False
    )


def flag(help_text: str) -> Any:
    """Returns the field, a bool, of a switch ``--name``."""
    return simple_parsing.field(default=False, action="store_true", help=help_text)


def positional(help_text: str, *, metavar: str) -> Any:
    """Returns the field of an argument without a name."""
    return simple_parsing.field(positional=True, help=help_text, metavar=metavar)


def json_flag() -> Any:
    """Returns the field of the switch that all commands have."""
    return flag("Print one JSON object instead of text (docs/command.md says what is in it).")


def folder(text: str) -> epath.Path:
    """Returns the path that an argument names, local or remote, with ``~`` expanded."""
    return epath.Path(text).expanduser()


def check_at_least(name: str, value: int, lowest: int) -> None:
    """Raises CommandError if the value of an argument is too small."""
    if value < lowest:
        raise CommandError(f"{name} must be at least {lowest}, got {value}.")


def build_options() -> BuildOptions:
    """Returns the build options of the environment; raises CommandError if one does not fit."""
    try:
        return BuildOptions.from_environment()
    except ValueError as error:
        raise CommandError(str(error)) from None


def parse(
    program: str,
    description: str,
    version: str,
    commands: Mapping[str, type[Command]],
    arguments: Sequence[str] | None,
) -> Command | None:
    """Returns the command that the arguments ask for; None, with the help printed, if they name none.

    Ends the process with status 2 if they do not fit, and with 0 after ``--help`` and ``--version``.
    """
    parser = _Parser(prog=program, description=description)
    parser.add_argument(
        "--version", action="version", version=f"{program} {version}", help="Show the version and exit."
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command_class in commands.items():
        text = inspect.getdoc(command_class) or ""
        own = subparsers.add_parser(name, help=text.partition("\n")[0], description=text)
        own.add_arguments(cast(Any, command_class), dest="command", dataclass_wrapper_class=_Ungrouped)
    words = [_with_underscores(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    command: Command | None = getattr(parser.parse_args(words), "command", None)
    if command is None:
        parser.print_help()
    return command


def _with_underscores(word: str) -> str:
    """Returns ``--manual_dir`` for ``--manual-dir``, and so on; other words as they are."""
    match = _HYPHENS_PATTERN.fullmatch(word)
    return "--" + match[1][2:].replace("-", "_") + (match[2] or "") if match else word


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions, fills the terminal up to a limit, and lists commands without a heading."""

    def __init__(self, prog: str, **settings: Any):
        width = min(_MAX_WIDTH, shutil.get_terminal_size().columns - 2)
        super().__init__(prog, **({"max_help_position": 26, "width": width} | settings))

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        if isinstance(action, argparse._SubParsersAction):  # its first line is its metavar alone
            return text.partition("\n")[2].replace("\n  ", "\n").removeprefix("  ")
        return text


class _Parser(simple_parsing.ArgumentParser):
    """Says where help is when arguments do not fit, and what it does with `--help` as the project says things."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=_HelpFormatter, allow_abbrev=False, add_help=False, **settings)
        self.add_argument("-h", "--help", action="help", help="Show this help and exit.")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")


class _Ungrouped(DataclassWrapper):  # type: ignore[type-arg]
    """Adds the fields of a dataclass to a parser's own groups."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        for field in self.fields:
            parser.add_argument(*field.option_strings, **field.arg_options)
