"""The command `preview`: a picture of random examples of a prepared dataset, or of what a build would make.

Prepared records are read here rather than by TensorFlow, whose import takes longer than all the rest. What a build
would make comes from the same plan and the same thumbnails as a build's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.datasets import builder_class, find_config, full_name
from landmark_triplets_tfds.commands.prepared import find_version_folder, parse_example, read_prepared_data, read_record
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.errors import CommandError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import make_thumbnail
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index
from landmark_triplets_tfds.training.show import draw_rows
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS, ExampleKind
from landmark_triplets_tfds.triplets.plan import Example, make_example

# Examples of a landmark that are shown side by side.
_IMAGES_PER_LANDMARK = 4

# Examples left out in a row after which a copy counts as unusable.
_MAX_LEFT_OUT = 200


def run(arguments: argparse.Namespace) -> int:
    """Draws the picture and says what is in it."""
    path = check_out(arguments.out)
    examples = _find_examples(arguments)
    noun = examples.kind.noun
    path = path or pathlib.Path(f"{noun}.png")
    rows = _choose_rows(examples, arguments.num, arguments.seed)
    would = " (not built)" if arguments.manual_dir is not None else ""
    title = f"{examples.name}{would}, {arguments.split}: {examples.num_examples:,} {noun}"
    picture = draw_rows(rows, title=title)
    picture.save(path, quality=92)
    found = {
        "schema_version": 1,
        "dataset": examples.name,
        "split": arguments.split,
        "seed": arguments.seed,
        "out": str(path),
        "num_examples": examples.num_examples,
        "notes": examples.notes,
        noun: [_describe(example) for row in rows for example in row],
    }
    what = noun if examples.kind == TRIPLETS else "landmarks"
    lines = [console.styled(f"Note: {note}", "yellow") for note in examples.notes[:10]]
    lines.append(f"Wrote {path}: {len(rows):,} {what} of {examples.name}, {picture.width} x {picture.height} px.")
    console.show_found(found, lines, as_json=arguments.json)
    return console.OK


def check_out(out: str | None) -> pathlib.Path | None:
    """Returns the path to write to, checked before there is any work; None without one."""
    if out is None:
        return None
    path = pathlib.Path(out).expanduser()
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise CommandError(f"--out must end in .png, .jpg or .webp, got {out}.")
    if not path.parent.is_dir():
        raise CommandError(f"--out {out}: there is no folder {path.parent}.")
    return path


def _describe(example: Example) -> dict[str, Any]:
    """Returns the ids of an example, as texts and numbers."""
    return {
        name: value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else int(value)
        for name, value in sorted(example.items())
        if name.endswith("_id")
    }


# --- Examples by number, built or planned


@dataclasses.dataclass(frozen=True)
class _Examples:
    """The examples of a split of a dataset."""

    name: str
    kind: ExampleKind
    num_examples: int
    get: Callable[
        [int], Example | None
    ]  # one by its number, images as stored bytes; None, and a note, if there is none
    landmark_ids: npt.NDArray[np.int64] | None  # [num_examples], of images, where they are known without reading them
    notes: list[str]  # sentences on what had to be stepped over


def _find_examples(arguments: argparse.Namespace) -> _Examples:
    if arguments.manual_dir is None:
        if arguments.config is not None:
            raise CommandError("--config is of use with --manual_dir; a built dataset is named DATASET/CONFIG.")
        return prepared_examples(find_version_folder(arguments.data_dir, arguments.dataset), arguments.split)
    if arguments.data_dir is not None:
        raise CommandError("Give either --data_dir, to see what is built, or --manual_dir, to see what would be.")
    dataset, _, name = arguments.dataset.strip("/").partition("/")
    name = name.partition(":")[0]
    default = builder_class(dataset).DEFAULT_BUILDER_CONFIG_NAME
    if name and arguments.config is not None:
        raise CommandError(f"Name the config once: either {dataset}/{name} or --config.")
    config = find_config(arguments.config or name or default, dataset)
    return _planned_examples(arguments.manual_dir, config, arguments.split)


def prepared_examples(folder: epath.Path, split: str) -> _Examples:
    """Returns the examples of a built dataset; raises CommandError if they cannot be found."""
    data = read_prepared_data(folder)
    _check_split(split, data.name, data.splits())
    shards = [shard for shard in data.shards if shard.split == split]
    lengths = [shard.num_records for shard in shards]
    if None in lengths:
        raise CommandError(f"{folder} is damaged. To see what is wrong: landmark-triplets verify {folder}")
    starts = np.cumsum([0, *lengths])
    notes: list[str] = []

    def get(number: int) -> Example | None:
        at = int(np.searchsorted(starts, number, side="right")) - 1
        shard, in_shard = shards[at], number - int(starts[at])
        try:
            return parse_example(read_record(folder / shard.name, data.file_format, in_shard), data.kind)[0]
        except ValueError:
            notes.append(
                f"Record {in_shard:,} of {shard.name} is damaged. To see what else is wrong: landmark-triplets verify"
                f" {folder}"
            )
            return None

    landmark_ids = None
    if data.kind == IMAGES and (folder / INDEX_NAME).exists():
        landmark_ids = read_image_index(folder, split).landmark_ids.astype(np.int64)
    return _Examples(data.name, data.kind, int(starts[-1]), get, landmark_ids, notes)


def _planned_examples(manual_dir: epath.Path, config: LandmarkBuilderConfig, split: str) -> _Examples:
    """Returns what a build would make from the competition's files, and raises what it would raise."""
    _check_split(split, full_name(config), config.splits())
    options = console.build_options()
    source = open_copy(manual_dir, options.bank, options.num_readers_of(manual_dir))
    plan = SplitPlanner(select_images_of(config, source, options), config).plan_split(split).plan
    notes: list[str] = []

    @functools.cache
    def get_thumbnail(row: int) -> bytes | None:
        image_id = int(plan.table.image_ids[row])
        try:
            return make_thumbnail(source.read(image_id), config.thumbnail_spec())
        except UnreadableImageError as error:
            notes.append(f"{source.locate(image_id)}: {error}")
            return None

    def get(number: int) -> Example | None:
        planned = plan.rows(number, number + 1)[0].tolist()
        rows = plan.choose(number, planned, lambda row: get_thumbnail(row) is not None)
        if isinstance(rows, str):
            (key,) = plan.keys(number, number + 1)
            notes.append(f"A build would leave out the example {key}: {rows}.")
            return None
        return make_example(config.kind, plan.table, rows, [get_thumbnail(row) for row in rows])

    landmark_ids = None
    if config.kind == IMAGES:
        landmark_ids = plan.table.landmark_ids[plan.rows(0, plan.num_examples)[:, 0]]
    return _Examples(full_name(config), config.kind, plan.num_examples, get, landmark_ids, notes)


def _check_split(split: str, name: str, splits: Sequence[str]) -> None:
    if split not in splits:
        raise CommandError(f"{name} has no split {split!r}; it has {', '.join(splits) or 'none'}.")


# --- Which of them


def _choose_rows(examples: _Examples, num: int, seed: int) -> list[list[Example]]:
    """Returns at most ``num`` rows of a triplet, or of a few images of a landmark, the same ones for the same seed."""
    rows: list[list[Example]] = []
    num_failed = 0
    for numbers in _draw(examples, np.random.default_rng(seed)):
        row = [example for example in map(examples.get, numbers) if example is not None]
        if row:
            rows.append(row)
        num_failed = 0 if row else num_failed + 1
        if len(rows) == num or num_failed == _MAX_LEFT_OUT:
            break
    if not rows:
        raise CommandError(f"No example can be shown. {' '.join(examples.notes[:3])}")
    return rows


def _draw(examples: _Examples, rng: np.random.Generator) -> Iterator[list[int]]:
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
