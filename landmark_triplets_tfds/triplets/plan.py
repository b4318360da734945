"""Which examples a split is made of, and how they are put together from thumbnails.

A plan is computed from the table and a few plain fields, so any process can have it, and any part of it. It is rows of
the table. An unreadable image changes the rows of its own examples and no others; ids and thumbnails come in last, and
in one place for both kinds of example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.triplets.draws import Purpose
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS, ExampleKind
from landmark_triplets_tfds.triplets.sampling import (
    ImageSamplingSpec,
    Rows,
    SamplingSpec,
    TripletSampler,
    sample_images,
)
from landmark_triplets_tfds.triplets.triplets_file import GivenRows, TripletsFileSpec

Example = dict[str, Any]
GetThumbnail = Callable[[int], bytes | None]

# What decides a plan, beside the table.
ExampleSpec = SamplingSpec | ImageSamplingSpec | GivenRows

# What a config says about a split; of these, a file of triplets becomes rows that are given.
SplitSpec = SamplingSpec | ImageSamplingSpec | TripletsFileSpec

# Why a planned example is left out.
NO_READABLE_ANCHOR = "unreadable anchor"
NO_READABLE_POSITIVE = "no readable positive"
NO_READABLE_NEGATIVE = "no readable negative"
UNREADABLE_IMAGE = "unreadable image"


# By the number of an example that is not made as planned: the rows of its images, or why it is left out.
Exceptions = dict[int, list[int] | str]


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

    @classmethod
    def of(cls, num_examples: int, exceptions: Exceptions) -> ExampleCounts:
        """Counts what became of so many planned examples."""
        left_out = Counter(reason for reason in exceptions.values() if isinstance(reason, str))
        num_left_out = left_out.total()
        return cls(num_examples - num_left_out, len(exceptions) - num_left_out, left_out)


class ExamplePlan:
    """Base of the plans: the examples of a split, numbered from 0.

    Attributes:
      kind: what the examples are.
      table: of the images; the plan's rows are rows of it.
      num_examples: how many are planned.
    """

    kind: ExampleKind
    table: LandmarkTable
    num_examples: int

    def rows(self, start: int, stop: int) -> Rows:
        """Returns int64[stop - start, k]: the rows of the images that each of these examples needs, before redraws."""
        return self.rows_at(np.arange(start, stop))

    def rows_at(self, numbers: Rows) -> Rows:
        """Returns int64[n, k]: the same of the examples with these numbers, int64[n], in any order."""
        raise NotImplementedError

    def keys(self, start: int, stop: int) -> list[str]:
        """Returns the keys of these examples, unique in the split."""
        raise NotImplementedError

    def choose(self, number: int, rows: list[int], is_readable: Callable[[int], bool]) -> list[int] | str:
        """Chooses the images of an example. It is needed only where one of its planned images is unreadable.

        Args:
          number: of the example.
          rows: its line of `rows`.
          is_readable: tells of a row of the table whether its image is.

        Returns:
          k rows of readable images; or the reason for which the example is left out.
        """
        raise NotImplementedError


def make_plan(table: LandmarkTable, spec: ExampleSpec) -> ExamplePlan:
    """Returns the plan that a spec describes.

    Raises:
      NoExampleError: if it holds no example.
    """
    if isinstance(spec, SamplingSpec):
        return TripletPlan(table, TripletSampler(table, spec))
    if isinstance(spec, np.ndarray):
        return TripletPlan(table, _GivenTriplets(spec))
    sample = sample_images(table, spec)
    if not len(sample):
        raise NoExampleError(
            f"Split {spec.split!r} would be empty: validation_percent={spec.validation_percent} leaves it none of the"
            f" {table.num_landmarks:,} landmarks."
        )
    return ImagePlan(table, sample)


class _GivenTriplets:
    """Rows that are given, in place of a `TripletSampler`.

    Someone chose these images, so no other one takes the place of one.
    """

    def __init__(self, rows: GivenRows):
        self._rows = rows[:, :3]
        self._numbers = rows[:, 3]
        self.num_triplets = len(rows)

    def draw(self, triplets: Rows) -> Rows:
        return self._rows[triplets].astype(np.int64)

    def anchors(self, triplets: Rows) -> Rows:
        return self.draw(triplets)[:, 0]

    def draw_numbers(self, triplets: Rows) -> Rows:
        return self._numbers[triplets].astype(np.int64)

    def redraws(self, triplet: int, purpose: Purpose) -> Iterable[int]:
        return ()


class TripletPlan(ExamplePlan):
    """Triplets.

    The key of a triplet is its anchor's id; for further triplets of the same anchor ``<anchor_id>/<k>`` with k from 1
    up. An unreadable positive or negative is drawn again, by further attempts of the same stateless sampler, so that
    the triplets around it stay as they are. A triplet without a readable anchor, positive or negative is left out.
    """

    kind = TRIPLETS

    def __init__(self, table: LandmarkTable, source: TripletSampler | _GivenTriplets):
        self.table = table
        self._source = source
        self.num_examples = source.num_triplets

    def rows_at(self, numbers: Rows) -> Rows:
        return self._source.draw(numbers)

    def keys(self, start: int, stop: int) -> list[str]:
        triplets = np.arange(start, stop)
        anchors = self.table.image_ids[self._source.anchors(triplets)].tolist()
        numbers = self._source.draw_numbers(triplets).tolist()
        return [
            f"{format_image_id(anchor)}/{k}" if k else format_image_id(anchor)
            for anchor, k in zip(anchors, numbers, strict=True)
        ]

    def choose(self, number: int, rows: list[int], is_readable: Callable[[int], bool]) -> list[int] | str:
        anchor, positive, negative = rows
        if not is_readable(anchor):
            return NO_READABLE_ANCHOR
        chosen = [anchor]
        for planned, purpose, reason in (
            (positive, Purpose.POSITIVE, NO_READABLE_POSITIVE),
            (negative, Purpose.NEGATIVE, NO_READABLE_NEGATIVE),
        ):
            candidates = itertools.chain([planned], self._source.redraws(number, purpose))
            row = next(filter(is_readable, candidates), None)
            if row is None:
                return reason
            chosen.append(row)
        return chosen


class ImagePlan(ExamplePlan):
    """Single images, each once; the key is the image's id. An unreadable one is left out."""

    kind = IMAGES

    def __init__(self, table: LandmarkTable, sample: Rows):
        """Takes the table and int64[n], the rows of the images."""
        self.table = table
        self._sample = sample
        self.num_examples = len(sample)

    def rows_at(self, numbers: Rows) -> Rows:
        return self._sample[numbers, np.newaxis]

    def keys(self, start: int, stop: int) -> list[str]:
        return [format_image_id(image_id) for image_id in self.table.image_ids[self._sample[start:stop]].tolist()]

    def choose(self, number: int, rows: list[int], is_readable: Callable[[int], bool]) -> list[int] | str:
        return rows if is_readable(rows[0]) else UNREADABLE_IMAGE


def make_example(kind: ExampleKind, table: LandmarkTable, rows: list[int], thumbnails: Sequence[object]) -> Example:
    """Returns the features of an example, given the rows of its k images and their thumbnails, in any form."""
    example: Example = {}
    features = zip(kind.image_features, kind.id_features, kind.landmark_features, strict=True)
    for (image, image_id, landmark_id), row, thumbnail in zip(features, rows, thumbnails, strict=True):
        example[image] = thumbnail
        example[image_id] = format_image_id(table.image_ids[row])
        example[landmark_id] = table.landmark_ids[row]
    return example


# Examples planned at a time: the plan of a whole competition need not be in memory, and NumPy's overhead per call is
# nothing against this many rows.
CHUNK_SIZE = 8192


def plan_in_chunks(plan: ExamplePlan, stop: int) -> Iterator[tuple[int, Rows]]:
    """Yields (number of the first example, int64[n, k] rows) for the examples 0 to ``stop - 1``, in order."""
    for first in range(0, stop, CHUNK_SIZE):
        yield first, plan.rows(first, min(first + CHUNK_SIZE, stop))


def find_distinct_images(plan: ExamplePlan, num_examples: int) -> Rows:
    """Returns the rows, ascending, of all images in the first ``num_examples`` examples, before any redraw."""
    used = np.zeros(plan.table.num_images, dtype=bool)
    for _, rows in plan_in_chunks(plan, num_examples):
        used[rows] = True
    return np.flatnonzero(used)


def assemble(
    plan: ExamplePlan, get_thumbnail: GetThumbnail, stop: int, exceptions: Exceptions
) -> Iterator[tuple[str, Example]]:
    """Yields key and example of each of the examples 0 to ``stop - 1`` that is not left out; see `find_thumbnails`."""
    for first, rows in plan_in_chunks(plan, stop):
        keys = plan.keys(first, first + len(rows))
        for number, (key, planned) in enumerate(zip(keys, rows.tolist(), strict=True), first):
            found = find_thumbnails(plan, number, planned, get_thumbnail, exceptions)
            if found is not None:
                yield key, make_example(plan.kind, plan.table, *found)


def find_thumbnails(
    plan: ExamplePlan, number: int, rows: list[int], get_thumbnail: GetThumbnail, exceptions: Exceptions
) -> tuple[list[int], list[bytes]] | None:
    """Finds the images of an example, with redraws.

    Args:
      plan: of the example.
      number: of the example.
      rows: that are planned for it.
      get_thumbnail: gives the thumbnail of a row of the table, None if the image is unreadable.
      exceptions: what is not as planned is noted in them.

    Returns:
      Its k rows and their thumbnails; None if it is left out.
    """
    thumbnails = {row: get_thumbnail(row) for row in rows}

    def is_readable(row: int) -> bool:
        if row not in thumbnails:
            thumbnails[row] = get_thumbnail(row)
        return thumbnails[row] is not None

    if None in thumbnails.values():
        chosen = exceptions[number] = plan.choose(number, rows, is_readable)
        if isinstance(chosen, str):
            return None
        rows = chosen
    return rows, [thumbnail for row in rows if (thumbnail := thumbnails[row]) is not None]
