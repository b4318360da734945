"""What work says of itself: lines on standard output, and one progress bar on standard error if it takes a while."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

_DELAY_S = 2.0
_SECONDS_BETWEEN_LINES = 30.0  # of a log, where a bar cannot be redrawn


def say(text: str) -> None:
    """Prints lines about work, which goes on: what cannot be shown is escaped, and what nobody reads is not shown."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(text.encode(encoding, "backslashreplace").decode(encoding))


def progress_bar(total: int | None, description: str, unit: str) -> Any:
    """Returns a tqdm bar, to be used in a ``with`` statement, that follows ``tfds.disable_progress_bar``.

    It appears if the work takes longer than two seconds. Where lines cannot be redrawn, as in a log, it appears after
    half a minute and is written again that often.

    Args:
      total: how much there is to do; None if that is not known yet.
      description: of the work.
      unit: of what is counted, with a space in front.
    """
    import tensorflow_datasets as tfds  # late, for what has no use for bars

    is_redrawn = sys.stderr.isatty() or "ipykernel" in sys.modules
    return tfds.core.utils.tqdm(
        total=total,
        desc=description,
        unit=unit,
        delay=_DELAY_S if is_redrawn else _SECONDS_BETWEEN_LINES,
        mininterval=0.1 if is_redrawn else _SECONDS_BETWEEN_LINES,
        leave=False,
    )
