"""What the workers of a cluster carry: what they have to know, and what they found out. Plain fields, no Beam.

A worker gets no table and no examples: it reads train.csv once, or the list of the images that no table lists, and
computes the examples of its pieces with the stateless sampler. So a job is described by a few hundred bytes, whatever
its size.

What comes back beside the examples are outcomes: counts and unreadable images. Workers make small ones, the engine adds
them up, one worker writes the sum as a file into the folder of the unfinished dataset, and the program that started it
all reads it there. Beam's metrics would be no replacement: engines report what was attempted, and a bundle that is
tried again counts twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import dataclasses
import functools
import json
from typing import Any

from etils import epath
import numpy as np

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import LandmarkTableError, SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.plan import ExampleCounts, ExamplePlan, make_plan
from landmark_triplets_tfds.triplets.sampling import ImageSamplingSpec, Rows, SamplingSpec

# Pieces that a small build is cut into at least, as far as it goes: many more than there are workers, so that they end
# at about the same time.
_MIN_NUM_PIECES = 256

# Images read and encoded at a time: enough that handing over a piece costs nothing, few enough that trying one again
# after a failure costs little.
_MAX_IMAGES_PER_CHUNK = 64

# Thumbnails that are in a worker's memory for one range of triplets, and how large one is about: photographs take
# 0.25 to 0.45 bytes per pixel (`python -m benchmarks.pixels area`). A triplet needs up to three.
_MAX_BYTES_PER_RANGE = 16 << 20
_BYTES_PER_PIXEL = 0.45
_MAX_EXAMPLES_PER_RANGE = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """A build, as the functions on the workers carry it.

    Attributes:
      source: of the files, in a form that other machines can use.
      table_sha256: fingerprint of the table that examples are drawn from.
      kept_rows_path: a file with bool[rows of train.csv], the rows to draw from; None: all.
      spec: says which examples; a path: of a file with the rows of triplets that are given.
      thumbnail_spec: of the images.
      num_examples: how many to make.
      examples_per_range: examples that are put together at a time.
      images_per_chunk: images that are read and encoded at a time.
      num_readers: threads that read ahead, in each process that makes thumbnails; 1: it reads for itself.
      image_ids_path: a file with uint64[num_images], images without labels to draw from; None: those of train.csv.
    """

    source: ImageSource
    table_sha256: str
    kept_rows_path: str | None
    spec: SamplingSpec | ImageSamplingSpec | str
    thumbnail_spec: ThumbnailSpec
    num_examples: int
    examples_per_range: int
    images_per_chunk: int
    num_readers: int
    image_ids_path: str | None = None

    @property
    def num_ranges(self) -> int:
        return -(-self.num_examples // self.examples_per_range)

    def range_of(self, number: int) -> tuple[int, int]:
        """Returns the first example of a range and the one after its last."""
        start = number * self.examples_per_range
        return start, min(start + self.examples_per_range, self.num_examples)


def choose_examples_per_range(num_examples: int, resolution: int) -> int:
    """Returns how many examples are put together at a time: as many as memory allows, fewer in small builds."""
    by_memory = int(_MAX_BYTES_PER_RANGE / (3 * _BYTES_PER_PIXEL * resolution**2))
    by_size = -(-num_examples // _MIN_NUM_PIECES)
    return max(1, min(by_memory, by_size, _MAX_EXAMPLES_PER_RANGE))


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
            return LandmarkTable.without_labels(load_array(self.plan.image_ids_path))
        try:
            table = self.source.read_table()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceLayoutError(
                f"A worker does not see the files. Every worker needs them at the path given as manual_dir. {error}"
            ) from None
        if self.plan.kept_rows_path is not None:
            table = table.restrict(load_array(self.plan.kept_rows_path))
        return table

    @functools.cached_property
    def examples(self) -> ExamplePlan:
        spec = self.plan.spec
        return make_plan(self.table, load_array(spec) if isinstance(spec, str) else spec)

    def images_of_range(self, number: int) -> Rows:
        """Returns the rows, ascending and each once, of the images that a range of examples needs before redraws."""
        rows: Rows = np.unique(self.examples.rows(*self.plan.range_of(number)))
        return rows

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


def load_array(path: str) -> Any:
    """Returns an array that was saved for workers; from a local file it is mapped, so that processes share memory."""
    if not file_access.is_remote(path):
        return np.load(path, mmap_mode="r")
    with epath.Path(path).open("rb") as file:
        return np.load(file)


def spread(num_pieces: int, max_num_groups: int) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of about equal groups of pieces, at most so many: what a job's description lists."""
    num_groups = min(num_pieces, max_num_groups)
    for group in range(num_groups):
        yield num_pieces * group // num_groups, num_pieces * (group + 1) // num_groups


@dataclasses.dataclass
class Outcome:
    """Part of what a build found out. Adding a part twice changes its counts, but never its sets of images.

    Attributes:
      counts: of examples.
      unreadable: reason and detail, by row of the table.
      redrawn: rows of the images that were looked at for redraws, readable or not.
    """

    counts: ExampleCounts = dataclasses.field(default_factory=ExampleCounts)
    unreadable: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    redrawn: set[int] = dataclasses.field(default_factory=set)

    def add(self, other: Outcome) -> None:
        self.counts.add(other.counts)
        self.unreadable.update(other.unreadable)
        self.redrawn.update(other.redrawn)

    def note(self, row: int, error: UnreadableImageError) -> None:
        self.unreadable[row] = (error.reason, error.detail)

    def errors(self) -> dict[int, UnreadableImageError]:
        """Returns why, by row, for every unreadable image."""
        return {row: UnreadableImageError(*parts) for row, parts in self.unreadable.items()}

    def write(self, path: epath.Path) -> None:
        content = {
            "num_made": self.counts.num_made,
            "num_redrawn": self.counts.num_redrawn,
            "left_out": dict(self.counts.left_out),
            "unreadable": [[row, *parts] for row, parts in self.unreadable.items()],
            "redrawn": sorted(self.redrawn),
        }
        path.write_text(json.dumps(content))

    @classmethod
    def read(cls, path: epath.Path) -> Outcome:
        content = json.loads(path.read_text())
        return cls(
            counts=ExampleCounts(content["num_made"], content["num_redrawn"], Counter(content["left_out"])),
            unreadable={row: (reason, detail) for row, reason, detail in content["unreadable"]},
            redrawn=set(content["redrawn"]),
        )
