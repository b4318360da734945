"""Says what is wrong where array_record would crash: in a process forked from one that has read records.

On Linux before Python 3.14, PyTorch's DataLoader forks its workers by default. array_record (0.8) keeps a thread that
tidies up after readers. A fork does not copy that thread but does copy the locks it waits on, so that the worker's
first reading ends in a segmentation fault, if the main process had read but a single record. New readers do not help.
So nothing here reads a record before it is asked to, and a worker that would crash gets an error that says what to do.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn
import weakref

from landmark_triplets_tfds.errors import ForkedReaderError

# By id, for data sources are compared by what they hold and so have no hash.
_sources: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


class _ReadBeforeFork:
    """Takes the place of a data source's reader."""

    def __init__(self, reader: Any):
        self._reader = reader  # is kept: closing its files would crash too

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, numbers: object) -> NoReturn:
        raise ForkedReaderError(
            "This process was forked from one that had read records already, and array_record crashes then. Start"
            " workers as new processes, DataLoader(..., multiprocessing_context='forkserver'), or read nothing in the"
            " main process before the workers are started."
        )

    __getitems__ = __getitem__


def guard_forks(data_source: Any) -> None:
    """Makes reading from a data source of TFDS an error in forked processes where it would be a crash."""
    if hasattr(getattr(data_source, "data_source", None), "_readers"):
        _sources[id(data_source)] = data_source


def _replace_readers() -> None:
    sources = list(_sources.values())
    # What is broken belongs to the process and not to the reader: if one of them has read, none may.
    if any(any(getattr(source.data_source, "_readers", ())) for source in sources):
        for source in sources:
            source.data_source = _ReadBeforeFork(source.data_source)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_replace_readers)
