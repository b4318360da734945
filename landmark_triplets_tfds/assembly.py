"""A plan and thumbnails become examples, in the order of the plan, a part of it at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from landmark_triplets_tfds.example_plan import Example, ExampleCounts, ExamplePlan, GetThumbnail
from landmark_triplets_tfds.sampling import Rows

# Examples planned at a time: the plan of a whole competition need not be in memory, and NumPy's overhead per call is
# nothing against this many rows.
_CHUNK_SIZE = 8192

# Examples whose thumbnails are announced together, so that the bank can look them up with one query.
_ANNOUNCED = 32


def plan_in_chunks(plan: ExamplePlan, stop: int, start: int = 0) -> Iterator[tuple[int, Rows]]:
    """Yields (number of the first example, int64[n, k] rows) for the examples ``start`` to ``stop - 1``, in order."""
    for first in range(start, stop, _CHUNK_SIZE):
        yield first, plan.rows(first, min(first + _CHUNK_SIZE, stop))


def find_distinct_images(plan: ExamplePlan, num_examples: int, num_images: int) -> Rows:
    """Returns the rows, ascending, of all images in the first ``num_examples`` examples, before any redraw."""
    used = np.zeros(num_images, dtype=bool)
    for _, rows in plan_in_chunks(plan, num_examples):
        used[rows] = True
    return np.flatnonzero(used)


def assemble(
    plan: ExamplePlan,
    get_thumbnail: GetThumbnail,
    stop: int,
    counts: ExampleCounts,
    *,
    start: int = 0,
    announce: Callable[[Rows], object] = lambda rows: None,
) -> Iterator[tuple[str, Example]]:
    """Makes the examples ``start`` to ``stop - 1``.

    Args:
      plan: of the examples.
      get_thumbnail: gives the thumbnail of a row of the table, None if the image is unreadable.
      stop: after the last example to make, at most ``plan.num_examples``.
      counts: what becomes of the examples is added to them.
      start: the first example to make.
      announce: told of the rows, int64[n, k], of the next few examples before they are asked for.

    Yields:
      Key and example of each one that is not left out.
    """
    for first, rows in plan_in_chunks(plan, stop, start):
        keys = plan.keys(first, first + len(rows))
        for i, (key, rows_of_example) in enumerate(zip(keys, rows.tolist(), strict=True)):
            if i % _ANNOUNCED == 0:
                announce(rows[i : i + _ANNOUNCED])
            example = plan.make(first + i, rows_of_example, get_thumbnail, counts)
            if example is not None:
                yield key, example
