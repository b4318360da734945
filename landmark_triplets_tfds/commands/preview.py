"""The command `preview`: a picture of random examples of a prepared dataset, or of what a build would make.

Prepared records are read here rather than by TensorFlow, whose import takes longer than all the rest. What a build
would make comes from the same plan and the same thumbnails as a build's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
import pathlib
from typing import Any, Protocol

from etils import epath
import numpy as np
import numpy.typing as npt
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.datasets import BUILDERS, ConfigChoice, check_dataset, find_config
from landmark_triplets_tfds.commands.verify.findings import Findings
from landmark_triplets_tfds.commands.verify.prepared import PreparedData, find_version_folder, read_prepared_data
from landmark_triplets_tfds.commands.verify.records import choose_records
from landmark_triplets_tfds.competition.source import open_copy
from landmark_triplets_tfds.errors import CommandError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index
from landmark_triplets_tfds.training.show import draw_rows
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS, ExampleKind
from landmark_triplets_tfds.triplets.plan import Example, make_example

SCHEMA_VERSION = 1

# Examples of a landmark that are shown side by side.
_IMAGES_PER_LANDMARK = 4

# Examples left out in a row after which a copy counts as unusable.
_MAX_LEFT_OUT = 200


def run(arguments: argparse.Namespace) -> int:
    """Draws the picture and says what is in it."""
    if not 1 <= arguments.num <= 100:
        raise CommandError(f"--num must be between 1 and 100, got {arguments.num}.")
    if arguments.seed < 0:
        raise CommandError(f"--seed must be 0 or more, got {arguments.seed}.")
    path = _check_out(arguments.out)
    examples = _find_examples(arguments)
    rows = choose_examples(examples, arguments.num, arguments.seed)
    noun = examples.kind.noun
    path = path or pathlib.Path(f"{noun}.png")
    would = " (not built)" if arguments.manual_dir is not None else ""
    title = f"{examples.name}{would}, {arguments.split}: {examples.num_examples:,} {noun}"
    picture = draw_rows(rows, title=title)
    picture.save(path, quality=92)
    if arguments.json:
        console.print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "dataset": examples.name,
                "split": arguments.split,
                "seed": arguments.seed,
                "out": str(path),
                "num_examples": examples.num_examples,
                "notes": examples.notes,
                noun: [describe_example(example) for row in rows for example in row],
            }
        )
        return console.OK
    for note in examples.notes[:10]:
        print(console.styled(f"Note: {note}", "yellow"))
    what = noun if examples.kind == TRIPLETS else "landmarks"
    print(f"Wrote {path}: {len(rows):,} {what} of {examples.name}, {picture.width} x {picture.height} px.")
    return console.OK


def _find_examples(arguments: argparse.Namespace) -> Examples:
    if arguments.manual_dir is None:
        if arguments.config is not None:
            raise CommandError("--config is of use with --manual_dir; a built dataset is named DATASET/CONFIG.")
        return PreparedExamples(find_version_folder(arguments.data_dir, arguments.dataset), arguments.split)
    if arguments.data_dir is not None:
        raise CommandError("Give either --data_dir, to see what is built, or --manual_dir, to see what would be.")
    choice = _choose_config(arguments.dataset, arguments.config)
    return PlannedExamples(epath.Path(arguments.manual_dir).expanduser(), choice, arguments.split)


def _choose_config(dataset: str, config: str | None) -> ConfigChoice:
    """Returns the config that ``landmark_triplets/128px``, or ``landmark_triplets`` with ``--config``, means."""
    dataset, _, name = dataset.strip("/").partition("/")
    name = name.partition(":")[0]
    check_dataset(dataset)
    if name and config is not None:
        raise CommandError(f"Name the config once: either {dataset}/{name} or --config.")
    return find_config(config or name or BUILDERS[dataset].DEFAULT_BUILDER_CONFIG_NAME, dataset)


def _check_out(out: str | None) -> pathlib.Path | None:
    """Returns the path to write to, checked before there is any work; None without one."""
    if out is None:
        return None
    path = pathlib.Path(out).expanduser()
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise CommandError(f"--out must end in .png, .jpg or .webp, got {out}.")
    if not path.parent.is_dir():
        raise CommandError(f"--out {out}: there is no folder {path.parent}.")
    return path


class Examples(Protocol):
    """Examples by number, to choose some from.

    Attributes:
      name: of the dataset.
      kind: of the examples.
      num_examples: how many there are in the split.
      landmark_ids: int64[num_examples] for images whose landmarks are known without reading them; else None.
      notes: sentences on what had to be stepped over.
    """

    name: str
    kind: ExampleKind
    num_examples: int
    landmark_ids: npt.NDArray[np.int64] | None
    notes: list[str]

    def get(self, numbers: Sequence[int]) -> list[Example | None]:
        """Returns these examples, images as stored bytes; None for one that cannot be had."""


class PreparedExamples:
    """Examples of a split of a prepared dataset."""

    def __init__(self, folder: epath.Path, split: str):
        """Reads what the dataset says about itself.

        Raises:
          CommandError: if there is no such split, or it does not know its size.
        """
        self._data: PreparedData = read_prepared_data(folder, Findings())
        self.name, self.kind, self.notes = self._data.name, self._data.kind, list[str]()
        self._shards = [shard for shard in self._data.shards if shard.split == split]
        if not self._shards:
            raise CommandError(
                f"{self.name} has no split {split!r}; it has {', '.join(self._data.splits()) or 'none'}."
            )
        lengths = [shard.num_records for shard in self._shards]
        if None in lengths:
            raise CommandError(f"{folder} is damaged. To see what is wrong: landmark-triplets verify {folder}")
        self._ends = np.cumsum(np.array(lengths, dtype=np.int64))
        self.num_examples = int(self._ends[-1])
        self.landmark_ids = None
        if self.kind == IMAGES and (folder / INDEX_NAME).exists():
            self.landmark_ids = read_image_index(folder, split).landmark_ids.astype(np.int64)

    def get(self, numbers: Sequence[int]) -> list[Example | None]:
        by_shard: dict[int, list[int]] = defaultdict(list)
        for number in numbers:
            by_shard[int(np.searchsorted(self._ends, number, side="right"))].append(number)
        found: dict[int, Example | None] = {}
        for at, of_shard in by_shard.items():
            shard = self._shards[at]
            start = int(self._ends[at - 1]) if at else 0
            records = choose_records(
                self._data.folder / shard.name, self._data.file_format, [number - start for number in of_shard]
            )
            for number, record in zip(of_shard, records, strict=True):
                found[number] = self._parse(record)
                if found[number] is None:
                    self.notes.append(
                        f"Record {number - start:,} of {shard.name} is damaged. To see what else is wrong:"
                        f" landmark-triplets verify {self._data.folder}"
                    )
        return [found[number] for number in numbers]

    def _parse(self, record: bytes | None) -> Example | None:
        if record is None:
            return None
        example: Example = {}
        try:
            features = tf_example_pb2.Example.FromString(record).features.feature
            for name in (*self.kind.image_features, *self.kind.id_features):
                (example[name],) = features[name].bytes_list.value
            for name in set(self.kind.landmark_features):
                (example[name],) = features[name].int64_list.value
        except Exception:  # google.protobuf.message.DecodeError, or no single value
            return None
        return example


class PlannedExamples:
    """Examples that a build would make from the competition's files."""

    def __init__(self, manual_dir: epath.Path, choice: ConfigChoice, split: str):
        """Reads the table and draws the plan.

        Raises:
          CommandError: if there is no such split.
          SourceLayoutError, ArchiveError, LandmarkTableError, NoExampleError: as in a build.
        """
        config = choice.config
        if split not in config.splits():
            raise CommandError(f"{choice.full_name} has no split {split!r}; it has {', '.join(config.splits())}.")
        options = console.build_options()
        self._source = open_copy(manual_dir, options.bank, options.num_readers_of(manual_dir))
        self._plan = SplitPlanner(select_images_of(config, self._source, options), config).plan_split(split).plan
        self._spec = config.thumbnail_spec()
        self._thumbnails: dict[int, bytes | None] = {}
        self.name, self.kind, self.notes = choice.full_name, config.kind, list[str]()
        self.num_examples = self._plan.num_examples
        self.landmark_ids = None
        if self.kind == IMAGES:
            self.landmark_ids = self._plan.table.landmark_ids[self._plan.rows(0, self.num_examples)[:, 0]]

    def get(self, numbers: Sequence[int]) -> list[Example | None]:
        return [self._make(number) for number in numbers]

    def _make(self, number: int) -> Example | None:
        planned = self._plan.rows(number, number + 1)[0].tolist()
        rows = self._plan.choose(number, planned, lambda row: self._get_thumbnail(row) is not None)
        if isinstance(rows, str):
            (key,) = self._plan.keys(number, number + 1)
            self.notes.append(f"A build would leave out the example {key}: {rows}.")
            return None
        return make_example(self.kind, self._plan.table, rows, [self._get_thumbnail(row) for row in rows])

    def _get_thumbnail(self, row: int) -> bytes | None:
        if row not in self._thumbnails:
            image_id = int(self._plan.table.image_ids[row])
            try:
                self._thumbnails[row] = make_thumbnail(self._source.read(image_id), self._spec)
            except UnreadableImageError as error:
                self._thumbnails[row] = None
                self.notes.append(f"{self._source.locate(image_id)}: {error}")
        return self._thumbnails[row]


def choose_examples(examples: Examples, num: int, seed: int) -> list[list[Example]]:
    """Chooses examples at random.

    Returns:
      Rows of examples: of a triplet each, or of a few images of the same landmark each. At most ``num`` rows, the same
      ones for the same seed.

    Raises:
      CommandError: if none can be had.
    """
    rng = np.random.default_rng(seed)
    rows: list[list[Example]] = []
    num_failed = 0
    for numbers in _draw(examples, rng):
        row = [example for example in examples.get(numbers) if example is not None]
        if row:
            rows.append(row)
        num_failed = 0 if row else num_failed + 1
        if len(rows) == num:
            return rows
        if num_failed == _MAX_LEFT_OUT:
            break
    if not rows:
        raise CommandError(f"No example can be shown. {' '.join(examples.notes[:3])}")
    return rows


def _draw(examples: Examples, rng: np.random.Generator) -> Iterator[list[int]]:
    """Yields the numbers of examples for one row after the other."""
    if examples.landmark_ids is None:
        for number in rng.permutation(examples.num_examples).tolist():
            yield [number]
        return
    landmarks, counts = np.unique(examples.landmark_ids, return_counts=True)
    # Landmarks of which there is something to compare come first.
    for landmark in np.concatenate([rng.permutation(landmarks[counts > 1]), rng.permutation(landmarks[counts == 1])]):
        numbers = np.flatnonzero(examples.landmark_ids == landmark)
        yield sorted(rng.permutation(numbers)[:_IMAGES_PER_LANDMARK].tolist())


def describe_example(example: Example) -> dict[str, Any]:
    """Returns the ids of an example, as texts and numbers."""
    return {
        name: value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else int(value)
        for name, value in sorted(example.items())
        if name.endswith("_id")
    }
