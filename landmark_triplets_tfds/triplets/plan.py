"""Which examples a split is made of, and how one is made from thumbnails: triplets, or single images.

A plan is computed from the table and a few plain fields, so any process can have it, and any part of it.

A plan and thumbnails become examples, in the order of the plan, a part of it at a time.

The file triplets.csv, a build option: which images make up which triplet, for looking at without pictures.

Its lines are in the order of the plan, whoever writes them: one thread here, or many workers on a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, Protocol

import numpy as np

from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.draws import TRAIN, Purpose
from landmark_triplets_tfds.triplets.sampling import (
    ImageSamplingSpec,
    Rows,
    SamplingSpec,
    TripletSampler,
    sample_images,
)
from landmark_triplets_tfds.triplets.triplets_file import ChosenTriplets, StoredTriplets, TripletsFileSpec

Example = dict[str, Any]
GetThumbnail = Callable[[int], bytes | None]

# What decides a plan, beside the table.
ExampleSpec = SamplingSpec | ImageSamplingSpec | ChosenTriplets | StoredTriplets

# What a config says about a split; of these, a file of triplets becomes chosen ones (`chosen_splits`).
SplitSpec = SamplingSpec | ImageSamplingSpec | TripletsFileSpec

# Why a planned example is left out.
NO_READABLE_ANCHOR = "unreadable anchor"
NO_READABLE_POSITIVE = "no readable positive"
NO_READABLE_NEGATIVE = "no readable negative"
UNREADABLE_IMAGE = "unreadable image"


@dataclasses.dataclass
class ExampleCounts:
    """What became of planned examples.

    Attributes:
      num_made: examples made.
      num_redrawn: of these, the triplets with a positive or negative drawn again because the first was unreadable.
      left_out: the ones that were not made, by reason.
    """

    num_made: int = 0
    num_redrawn: int = 0
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, other: ExampleCounts) -> None:
        """Adds the counts of other examples to these."""
        self.num_made += other.num_made
        self.num_redrawn += other.num_redrawn
        self.left_out += other.left_out


class ExamplePlan(Protocol):
    """The examples of a split, numbered from 0.

    Attributes:
      num_examples: how many are planned.
    """

    num_examples: int

    def rows(self, start: int, stop: int) -> Rows:
        """Returns int64[stop - start, k]: the rows of the images that each of these examples needs, before redraws."""

    def keys(self, start: int, stop: int) -> list[str]:
        """Returns the keys of these examples, unique in the split."""

    def make(self, number: int, rows: list[int], get_thumbnail: GetThumbnail, counts: ExampleCounts) -> Example | None:
        """Makes an example.

        Args:
          number: of the example.
          rows: its line of `rows`.
          get_thumbnail: gives the thumbnail of a row of the table, None if the image is unreadable.
          counts: what becomes of it is added to them.

        Returns:
          The example; None if it is left out.
        """


def make_plan(table: LandmarkTable, spec: ExampleSpec) -> ExamplePlan:
    """Returns the plan that a spec describes.

    Raises:
      NoExampleError: if it holds no example.
    """
    if isinstance(spec, SamplingSpec):
        return TripletPlan(table, TripletSampler(table, spec))
    if isinstance(spec, StoredTriplets):
        return TripletPlan(table, spec.load())
    if isinstance(spec, ChosenTriplets):
        return TripletPlan(table, spec)
    sample = sample_images(table, spec)
    if not len(sample):
        raise NoExampleError(
            f"Split {spec.split!r} would be empty: validation_percent={spec.validation_percent} leaves it none of the"
            f" {table.num_landmarks:,} landmarks."
        )
    return ImagePlan(table, sample)


class TripletPlan:
    """An `ExamplePlan` of triplets.

    The key of a triplet is its anchor's id; for further triplets of the same anchor ``<anchor_id>/<k>`` with k from 1
    up. A positive or negative that is unreadable is drawn again, by further attempts of the same stateless sampler, so
    that the triplets around it stay as they are; chosen triplets have no further attempts. A triplet without a readable
    anchor, positive or negative is left out.
    """

    def __init__(self, table: LandmarkTable, sampler: TripletSampler | ChosenTriplets):
        """Takes the table of the images and the sampler that draws from it, or triplets that were chosen."""
        self._table = table
        self._sampler = sampler
        self.num_examples = sampler.num_triplets

    def rows(self, start: int, stop: int) -> Rows:
        return self._sampler.plan(start, stop)

    def keys(self, start: int, stop: int) -> list[str]:
        triplets = np.arange(start, stop)
        anchors = self._table.image_ids[self._sampler.anchors(triplets)].tolist()
        draws = self._sampler.draw_numbers(triplets).tolist()
        return [
            f"{format_image_id(anchor)}/{k}" if k else format_image_id(anchor)
            for anchor, k in zip(anchors, draws, strict=True)
        ]

    def make(self, number: int, rows: list[int], get_thumbnail: GetThumbnail, counts: ExampleCounts) -> Example | None:
        anchor, positive, negative = rows
        anchor_img = get_thumbnail(anchor)
        if anchor_img is None:
            counts.left_out[NO_READABLE_ANCHOR] += 1
            return None
        positive_img, negative_img = get_thumbnail(positive), get_thumbnail(negative)
        if positive_img is None or negative_img is None:
            if positive_img is None:
                positive, positive_img = self._redraw(number, Purpose.POSITIVE, get_thumbnail)
            if positive_img is None:
                counts.left_out[NO_READABLE_POSITIVE] += 1
                return None
            if negative_img is None:
                negative, negative_img = self._redraw(number, Purpose.NEGATIVE, get_thumbnail)
            if negative_img is None:
                counts.left_out[NO_READABLE_NEGATIVE] += 1
                return None
            counts.num_redrawn += 1
        counts.num_made += 1
        image_ids, landmark_ids = self._table.image_ids, self._table.landmark_ids
        return {
            "anchor_img": anchor_img,
            "positive_img": positive_img,
            "negative_img": negative_img,
            "anchor_id": format_image_id(image_ids[anchor]),
            "positive_id": format_image_id(image_ids[positive]),
            "negative_id": format_image_id(image_ids[negative]),
            "landmark_id": landmark_ids[anchor],
            "negative_landmark_id": landmark_ids[negative],
        }

    def _redraw(self, number: int, role: Purpose, get_thumbnail: GetThumbnail) -> tuple[int, bytes | None]:
        """Returns the first readable candidate after attempt 0 with its thumbnail, (-1, None) if there is none."""
        triplets = np.array([number])
        for attempt in range(1, self._sampler.num_attempts(number, role)):
            row = int(self._sampler.candidates(triplets, role, attempt)[0])
            thumbnail = get_thumbnail(row)
            if thumbnail is not None:
                return row, thumbnail
        return -1, None


class ImagePlan:
    """An `ExamplePlan` of single images, each once; the key is the image's id. An unreadable one is left out."""

    def __init__(self, table: LandmarkTable, sample: Rows):
        """Takes the table and int64[n], the rows of the images."""
        self._table = table
        self._sample = sample
        self.num_examples = len(sample)

    def rows(self, start: int, stop: int) -> Rows:
        return self._sample[start:stop, np.newaxis]

    def keys(self, start: int, stop: int) -> list[str]:
        return [format_image_id(image_id) for image_id in self._table.image_ids[self._sample[start:stop]].tolist()]

    def make(self, number: int, rows: list[int], get_thumbnail: GetThumbnail, counts: ExampleCounts) -> Example | None:
        (row,) = rows
        thumbnail = get_thumbnail(row)
        if thumbnail is None:
            counts.left_out[UNREADABLE_IMAGE] += 1
            return None
        counts.num_made += 1
        return {
            "image": thumbnail,
            "image_id": format_image_id(self._table.image_ids[row]),
            "landmark_id": self._table.landmark_ids[row],
        }


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


_ID_FIELDS = ("anchor_id", "positive_id", "negative_id", "landmark_id", "negative_landmark_id")

HEADER = ",".join(("key", *_ID_FIELDS)) + "\n"


def applies_to(spec: ExampleSpec) -> bool:
    """Returns whether a split has triplets to list."""
    return not isinstance(spec, ImageSamplingSpec)


def name_for(split: str) -> str:
    """Returns the name of a split's file."""
    return "triplets.csv" if split == TRAIN else f"triplets-{split}.csv"


def format_line(key: str, example: dict[str, Any]) -> str:
    """Returns the line of one triplet. Ids are hex digits and whole numbers, so nothing needs quoting."""
    return ",".join([key, *(str(example[field]) for field in _ID_FIELDS)]) + "\n"
