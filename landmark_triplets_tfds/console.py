"""What commands show: colours on a terminal only, JSON for machines, bars for what takes longer than two seconds."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
import os
import sys
from typing import Any

# Exit statuses of commands.
OK, FOUND_WRONG, FAILED = range(3)

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_BAR_DELAY_S = 2.0


def uses_colours() -> bool:
    """Returns whether standard output is a terminal that shows colours; NO_COLOR (https://no-color.org) says no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """Returns the text in a style ('bold', 'dim', 'red', 'green', 'yellow') where colours are shown, else as it is."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if uses_colours() else text


def print_json(content: dict[str, Any]) -> None:
    """Prints one JSON object; nothing else may go to standard output with it."""
    print(json.dumps(content, indent=2))


@contextlib.contextmanager
def progress(total: int | None, description: str, unit: str) -> Iterator[Any]:
    """Yields a tqdm bar on standard error that appears if the work takes longer than two seconds."""
    from tqdm.auto import tqdm  # 0.05 s, which `--help` can do without

    with tqdm(
        total=total, desc=description, unit=unit, delay=_BAR_DELAY_S, leave=False, disable=not sys.stderr.isatty()
    ) as bar:
        yield bar
