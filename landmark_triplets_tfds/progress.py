"""Progress bars."""

from __future__ import annotations

import sys
from typing import Any

import tensorflow_datasets as tfds


def progress_bar(total: int | None, description: str, unit: str) -> Any:
    """Returns a tqdm bar that follows ``tfds.disable_progress_bar`` and writes seldom where lines cannot be redrawn."""
    redrawn = sys.stderr.isatty() or tfds.core.utils.is_notebook()
    return tfds.core.utils.tqdm(
        total=total, desc=description, unit=unit, mininterval=0.5 if redrawn else 30.0, leave=False
    )
