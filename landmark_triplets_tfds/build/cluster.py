"""What the workers of a cluster have to know, how the work is cut into pieces, and what comes back. No Beam.

A worker gets no table and no examples: it reads train.csv once, or the list of the images that no table lists, and
computes the examples of its shards with the stateless sampler. So a job is described by a few kilobytes, whatever its
size.

What comes back beside the shards are unreadable images and the examples that are not as planned. Workers make small
outcomes, the engine adds them up, one worker writes the sum as a file into the folder of the unfinished dataset, and
the program that started it all reads it there. Beam's metrics would be no replacement: engines report what was
attempted, and a bundle that is tried again counts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.shards import ShardResult, make_record, shard_bounds, write_shard
from landmark_triplets_tfds.common.checked_files import load_object
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import LandmarkTableError, SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.plan import ExamplePlan, Exceptions, find_thumbnails, make_plan
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec, Rows, SamplingSpec

# Pieces that the images of a small build are cut into at least, as far as it goes: many more than there are workers, so
# that they end at about the same time.
_MIN_NUM_PIECES = 256

# Images read and encoded at a time: enough that handing over a piece costs nothing, few enough that trying one again
# after a failure costs little.
_MAX_IMAGES_PER_CHUNK = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A split, as the functions on the workers carry it.

    Attributes:
      source: of the files, in a form that other machines can use.
      table_sha256: fingerprint of the table that examples are drawn from.
      kept_rows_path: a file with bool[rows of train.csv], the rows to draw from; None: all.
      spec: says which examples; a path: of a file with the rows of triplets that are given.
      order_path: a file with int32[num_examples], the numbers of the examples in the order of their records.
      template: the ``tfds.core.ShardedFileTemplate`` of the shards.
      images_per_chunk: images that are read and encoded at a time.
      num_readers: threads that read ahead, in each process that makes thumbnails; 1: it reads for itself.
      image_ids_path: a file with uint64[num_images], images without labels to draw from; None: those of train.csv.
    """

    source: ImageSource
    table_sha256: str
    kept_rows_path: str | None
    spec: SamplingSpec | ImageSamplingSpec | str
    thumbnail_spec: ThumbnailSpec
    order_path: str
    num_examples: int
    num_shards: int
    template: Any
    file_format: str
    images_per_chunk: int
    num_readers: int
    image_ids_path: str | None = None


def choose_images_per_chunk(num_images: int) -> int:
    """Returns how many images are read and encoded at a time."""
    return max(1, min(-(-num_images // _MIN_NUM_PIECES), _MAX_IMAGES_PER_CHUNK))


class ClusterWorker:
    """What one process of a cluster reads once and its threads share."""

    def __init__(self, plan: ClusterPlan):
        """Reads the table.

        Raises:
          SourceLayoutError: if this worker does not see the files.
          LandmarkTableError: if it sees another table than the program that planned the build.
        """
        self.plan = plan
        self.source = plan.source
        table = self._read_table()
        if table.fingerprint != plan.table_sha256:
            raise LandmarkTableError(
                f"{self.source.table_path} is another table, as a worker sees it, than the one this build was planned"
                " with. Every worker needs the same files at the path given as manual_dir, and they must not change"
                " while a build runs."
            )
        self.table: LandmarkTable = table

    def _read_table(self) -> LandmarkTable:
        if self.plan.image_ids_path is not None:
            return LandmarkTable.without_labels(load_object(self.plan.image_ids_path))
        try:
            table = self.source.read_table()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceLayoutError(
                f"A worker does not see the files. Every worker needs them at the path given as manual_dir. {error}"
            ) from None
        if self.plan.kept_rows_path is not None:
            table = table.restrict(load_object(self.plan.kept_rows_path))
        return table

    @functools.cached_property
    def examples(self) -> ExamplePlan:
        spec = self.plan.spec
        return make_plan(self.table, load_object(spec) if isinstance(spec, str) else spec)

    @functools.cached_property
    def _order(self) -> npt.NDArray[np.int32]:
        order: npt.NDArray[np.int32] = load_object(self.plan.order_path)
        return order

    def _numbers_of(self, shard: int) -> Rows:
        """Returns the numbers of the planned examples of a shard, in the order of their records."""
        start, stop = shard_bounds(self.plan.num_examples, self.plan.num_shards)[shard : shard + 2]
        return self._order[start:stop].astype(np.int64)

    def images_of_shard(self, shard: int) -> Rows:
        """Returns the rows, ascending and each once, of the images that a shard needs before redraws."""
        rows: Rows = np.unique(self.examples.rows_at(self._numbers_of(shard)))
        return rows

    def write_shard(
        self, shard: int, get_thumbnail: Callable[[int], bytes | None], exceptions: Exceptions
    ) -> ShardResult:
        """Writes a shard; see `find_thumbnails`."""
        plan, numbers = self.plan, self._numbers_of(shard)

        def records() -> Iterator[bytes]:
            for number, rows in zip(numbers.tolist(), self.examples.rows_at(numbers).tolist(), strict=True):
                found = find_thumbnails(self.examples, number, rows, get_thumbnail, exceptions)
                if found is not None:
                    yield make_record(self.examples.kind, self.table, *found)

        path = plan.template.sharded_filepath(shard_index=shard, num_shards=plan.num_shards)
        return write_shard(path, plan.file_format, records())

    def read(self, row: int) -> bytes | UnreadableImageError:
        """Returns a file's bytes, or why it cannot be read."""
        try:
            return self.source.read(int(self.table.image_ids[row]))
        except UnreadableImageError as error:
            return error.without_traceback()

    def encode(self, file: bytes | UnreadableImageError) -> bytes | UnreadableImageError:
        """Returns the thumbnail of a file, or why there is none."""
        if isinstance(file, UnreadableImageError):
            return file
        try:
            return make_thumbnail(file, self.plan.thumbnail_spec)
        except UnreadableImageError as error:
            return error.without_traceback()


@dataclasses.dataclass
class Outcome:
    """Part of what a build found out. Adding a part twice changes nothing.

    Attributes:
      shards: what came of each, by its number.
      exceptions: the examples that are not made as planned.
      unreadable: why, by row of the table.
      redrawn: rows of the images that were looked at for redraws, readable or not.
    """

    shards: dict[int, ShardResult] = dataclasses.field(default_factory=dict)
    exceptions: Exceptions = dataclasses.field(default_factory=dict)
    unreadable: dict[int, UnreadableImageError] = dataclasses.field(default_factory=dict)
    redrawn: set[int] = dataclasses.field(default_factory=set)

    @classmethod
    def add_up(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """Returns one outcome of all parts."""
        total = cls()
        for outcome in outcomes:
            total.shards |= outcome.shards
            total.exceptions |= outcome.exceptions
            total.unreadable |= outcome.unreadable
            total.redrawn |= outcome.redrawn
        return total
