"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import sys
from typing import Any

import tensorflow_datasets as tfds


def progress_bar(total: int | None, description: str, unit: str) -> Any:
    """Returns a tqdm bar that follows ``tfds.disable_progress_bar`` and writes seldom where lines cannot be redrawn."""
    redrawn = sys.stderr.isatty() or tfds.core.utils.is_notebook()
    return tfds.core.utils.tqdm(
        total=total, desc=description, unit=unit, mininterval=0.5 if redrawn else 30.0, leave=False
    )


@contextlib.contextmanager
def listing_bar(description: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar once there is something to show; yields what is called with the numbers of things done and to do."""
    with contextlib.ExitStack() as stack:
        bars: list[Any] = []
        num_shown = 0

        def advance(num_done: int, num_all: int) -> None:
            nonlocal num_shown
            if not bars:
                bars.append(stack.enter_context(progress_bar(num_all, description, unit)))
            bars[0].update(num_done - num_shown)
            num_shown = num_done  # a bar that TFDS has disabled does not count itself

        yield advance
