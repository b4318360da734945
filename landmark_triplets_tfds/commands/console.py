"""What commands have in common: exit statuses, build options, and how they show things.

Colours and wide characters are for terminals that have them, JSON is for machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import json
import os
import re
import shutil
import sys
import textwrap
from typing import Any, TypeVar

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.common.progress import progress_bar, showable
from landmark_triplets_tfds.errors import CommandError

_Seen = TypeVar("_Seen")

# Exit statuses of commands.
OK, FOUND_WRONG, FAILED = range(3)

_STYLES = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}
_QUANTITY_PATTERN = re.compile(r"([0-9]) (B|kB|MB|GB|TB|s|min|h|px)\b")
_EIGHTHS: tuple[str, ...] = ("", *"\u258f\u258e\u258d\u258c\u258b\u258a\u2589")  # of a character, from the left


def build_options() -> BuildOptions:
    """Returns the build options of the environment; raises CommandError if one does not fit."""
    try:
        return BuildOptions.from_environment()
    except ValueError as error:
        raise CommandError(str(error)) from None


def styled(text: str, style: str) -> str:
    """Returns the text in a style ('bold', 'red', 'green', 'yellow') where a terminal shows colours, else as it is.

    NO_COLOR says that none are wanted (https://no-color.org).
    """
    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if has_colours else text


def look_at_images(
    look: Callable[[int], _Seen], image_ids: Sequence[int], num_threads: int, description: str
) -> Iterator[_Seen]:
    """Yields what a function returns of each image, in their order; several threads look ahead, and a bar shows it."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        with progress_bar(len(image_ids), description, " images") as bar:
            for seen in pool.map(look, image_ids):
                yield seen
                bar.update()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def show_found(found: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Prints what a command found: one JSON object and nothing else, or the lines of text that were made of it.

    Characters that standard output cannot show are escaped.
    """
    print(showable(json.dumps(found, indent=2) if as_json else "\n".join(lines)))


def format_bytes(num_bytes: float) -> str:
    """Returns a size as disks are sold: 532 B, 6.1 kB, 53 MB, 4.9 GB."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while num_bytes >= 999.5 and len(units) > 1:
        num_bytes /= 1000
        units.pop(0)
    return f"{num_bytes:.1f} {units[0]}" if num_bytes < 9.95 and units[0] != "B" else f"{num_bytes:,.0f} {units[0]}"


def format_seconds(seconds: float) -> str:
    """Returns a duration as people say it: 0.8 s, 42 s, 12 min, 3.5 h."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 119.5:
        return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"


def bar(share: float, width: int) -> str:
    """Returns a horizontal bar, ``width`` characters for a share of 1; a share above 0 shows."""
    eighths = max(round(8 * width * share), 1 if share else 0)
    text = "\u2588" * (eighths // 8) + _EIGHTHS[eighths % 8]
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "#" * -(-eighths // 8)
    return text


def format_table(rows: Sequence[Sequence[str]], *, indent: int = 2, gap: int = 3) -> list[str]:
    """Returns lines of columns, the first one aligned left, the others right; the first row is the heading, in bold."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        line = (" " * gap).join(cells).rstrip()
        lines.append(" " * indent + (styled(line, "bold") if number == 0 else line))
    return lines


def fill(text: str, *, indent: int = 2) -> str:
    """Returns text with each of its lines broken to the width of the terminal, 100 at most, and indented.

    Lines that are indented already (commands, paths) are left in one piece, so that they can be copied.
    """
    width = min(100, shutil.get_terminal_size().columns)
    pad = " " * indent
    kept = _QUANTITY_PATTERN.sub("\\1\u00a0\\2", text)  # textwrap breaks lines at ASCII spaces only
    return "\n".join(
        pad + line
        if line.startswith(" ")
        else textwrap.fill(
            line, width, initial_indent=pad, subsequent_indent=pad, break_long_words=False, break_on_hyphens=False
        )
        for line in kept.split("\n")
    ).replace("\u00a0", " ")
