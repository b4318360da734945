"""Triplet rows and thumbnails become examples; what happens when an image cannot be read.

A positive or negative that is unreadable is drawn again, by further attempts of the same stateless sampler, so that
the triplets around it stay as they are. A triplet without a readable anchor, positive or negative is left out and
counted with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from landmark_triplets_tfds import build_report
from landmark_triplets_tfds.build_report import TripletCounts
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.sampling import Role, Rows, TripletSampler

Example = dict[str, Any]
GetThumbnail = Callable[[int], bytes | None]

# Triplets planned at a time: the plan of a whole competition need not be in memory, and NumPy's overhead per call is
# nothing against this many rows.
_CHUNK_SIZE = 8192

# Triplets whose thumbnails are announced together, so that the bank can look them up with one query.
_ANNOUNCED = 32


def plan_in_chunks(sampler: TripletSampler, stop: int, start: int = 0) -> Iterator[tuple[int, Rows]]:
    """Yields (number of the first triplet, int64[n, 3] rows) for the triplets ``start`` to ``stop - 1``, in order."""
    for first in range(start, stop, _CHUNK_SIZE):
        yield first, sampler.plan(first, min(first + _CHUNK_SIZE, stop))


def find_distinct_images(sampler: TripletSampler, num_triplets: int, num_images: int) -> Rows:
    """Returns the rows, ascending, of all images in the first ``num_triplets`` triplets, before any redraw."""
    used = np.zeros(num_images, dtype=bool)
    for _, rows in plan_in_chunks(sampler, num_triplets):
        used[rows] = True
    return np.flatnonzero(used)


def assemble(
    table: LandmarkTable,
    sampler: TripletSampler,
    get_thumbnail: GetThumbnail,
    stop: int,
    counts: TripletCounts,
    *,
    start: int = 0,
    announce: Callable[[Rows], object] = lambda rows: None,
) -> Iterator[tuple[str, Example]]:
    """Makes the examples of the triplets ``start`` to ``stop - 1``.

    Args:
      table: of the images.
      sampler: draws the triplets.
      get_thumbnail: gives the thumbnail of a row of the table, None if the image is unreadable.
      stop: after the last triplet to make, at most ``sampler.num_triplets``.
      counts: what becomes of the triplets is added to them.
      start: the first triplet to make.
      announce: told of the rows, int64[n, 3], of the next few triplets before they are asked for.

    Yields:
      Key and example of each triplet. The key is the anchor's id; for further triplets of the same anchor
      ``<anchor_id>/<k>`` with k from 1 up.
    """
    for first, rows in plan_in_chunks(sampler, stop, start):
        draw_numbers = sampler.draw_numbers(np.arange(first, first + len(rows))).tolist()
        for i, (anchor, positive, negative) in enumerate(rows.tolist()):
            if i % _ANNOUNCED == 0:
                announce(rows[i : i + _ANNOUNCED])
            anchor_img = get_thumbnail(anchor)
            if anchor_img is None:
                counts.left_out[build_report.NO_READABLE_ANCHOR] += 1
                continue
            positive_img, negative_img = get_thumbnail(positive), get_thumbnail(negative)
            if positive_img is None or negative_img is None:
                if positive_img is None:
                    positive, positive_img = _redraw(sampler, first + i, Role.POSITIVE, get_thumbnail)
                if positive_img is None:
                    counts.left_out[build_report.NO_READABLE_POSITIVE] += 1
                    continue
                if negative_img is None:
                    negative, negative_img = _redraw(sampler, first + i, Role.NEGATIVE, get_thumbnail)
                if negative_img is None:
                    counts.left_out[build_report.NO_READABLE_NEGATIVE] += 1
                    continue
                counts.num_redrawn += 1
            counts.num_made += 1
            anchor_id = format_image_id(table.image_ids[anchor])
            k = draw_numbers[i]
            yield (
                f"{anchor_id}/{k}" if k else anchor_id,
                {
                    "anchor_img": anchor_img,
                    "positive_img": positive_img,
                    "negative_img": negative_img,
                    "anchor_id": anchor_id,
                    "positive_id": format_image_id(table.image_ids[positive]),
                    "negative_id": format_image_id(table.image_ids[negative]),
                    "landmark_id": table.landmark_ids[anchor],
                    "negative_landmark_id": table.landmark_ids[negative],
                },
            )


def _redraw(sampler: TripletSampler, triplet: int, role: Role, get_thumbnail: GetThumbnail) -> tuple[int, bytes | None]:
    """Returns the first readable candidate after attempt 0 with its thumbnail, or (-1, None) if there is none."""
    triplets = np.array([triplet])
    for attempt in range(1, sampler.num_attempts(triplet, role)):
        row = int(sampler.candidates(triplets, role, attempt)[0])
        thumbnail = get_thumbnail(row)
        if thumbnail is not None:
            return row, thumbnail
    return -1, None
