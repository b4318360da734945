"""What work says of itself: lines on standard output, and one progress bar on standard error if it takes a while."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import sys
from typing import Any

_DELAY_S = 2.0
_SECONDS_BETWEEN_LINES = 30.0  # of a log, where a bar cannot be redrawn


_said_on = ["stdout"]


@contextlib.contextmanager
def saying_on_stderr() -> Iterator[None]:
    """Leaves standard output to what a program was asked for; for the process, not only for this thread."""
    _said_on.append("stderr")
    try:
        yield
    finally:
        _said_on.pop()


def say(text: str) -> None:
    """Prints lines about work, which goes on, whether or not they can be shown: see `UnfailingStream`."""
    stream = getattr(sys, _said_on[-1])
    if stream is not None:
        print(text, file=UnfailingStream(stream), flush=True)


def showable(text: str, stream: Any = None) -> str:
    """Returns text in which what a stream, standard output by default, cannot show is escaped."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class UnfailingStream:
    """A text stream that takes everything: what another one cannot show is escaped, what it cannot take is lost."""

    def __init__(self, stream: Any):
        """Takes the other stream, whose other attributes this one has."""
        self._stream = stream

    def write(self, text: str) -> int:
        with self._tolerated():
            self._stream.write(showable(text, self._stream))
        return len(text)

    def flush(self) -> None:
        with self._tolerated():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Leads a standard stream that is gone nowhere: else Python, when it ends, fails at what is still buffered."""
        try:
            yield
        except (BlockingIOError, ValueError):  # it takes no more for now, or is closed
            pass
        except OSError:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if self._stream.fileno() in (1, 2):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self._stream.fileno())
                    os.close(nowhere)


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

    stream, in_notebook = sys.stderr, "ipykernel" in sys.modules
    is_there = stream is not None and not stream.closed
    is_redrawn = in_notebook or (is_there and stream.isatty())
    return tfds.core.utils.tqdm(
        total=total,
        desc=description,
        unit=unit,
        delay=_DELAY_S if is_redrawn else _SECONDS_BETWEEN_LINES,
        mininterval=0.1 if is_redrawn else _SECONDS_BETWEEN_LINES,
        leave=False,
        file=stream if in_notebook or not is_there else UnfailingStream(stream),
        disable=not is_there,
    )
