"""What a build will make and take, before it runs.

Numbers of examples and of distinct images come from the plan itself and are exact. Bytes and CPU time come from a
trial: a build like any other, of a small competition in a temporary folder. Its images are a random sample of the
config's own (a config of two images per landmark sees other images than one of all), as if four each showed a landmark,
so that there are as many examples as images. In a dataset of triplets an image counts as often as the plan uses it.

They are built twice, with an empty bank of thumbnails and with the bank that the first time filled. What the first
build takes longer than the second is per image: reading, decoding, encoding, the bank. What the second takes is per
example (thumbnails from the bank, serializing, writing), but for what every build takes once, which a trial of few
images shows. Nothing is assumed of the machine. A trial has one worker, which is this process: so its CPU time is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import gc
import io
import itertools
import json
import os
import pathlib
import tempfile
import time
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands.datasets import BUILDERS, fields_as_json
from landmark_triplets_tfds.commands.prepared import TFRECORD, parse_example, read_records
from landmark_triplets_tfds.common.file_access import OFF, stat_file
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, image_path
from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import ID_COLUMN, LANDMARK_COLUMN, LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import CommandError, NoExampleError, TooManyUnreadableError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.thumbnail import import_tensorflow
from landmark_triplets_tfds.triplets.draws import TRAIN, choose_rows
from landmark_triplets_tfds.triplets.examples import ExampleKind
from landmark_triplets_tfds.triplets.plan import ExamplePlan, SplitSpec, plan_in_chunks

TOO_FEW_READABLE = "Too few of the sampled images are readable to forecast anything: run inspect first."

_NUM_WARM_UP = 20  # images
_IMAGES_PER_LANDMARK = 4  # of a trial

# Of the arrays that worker processes map (`build.local`, `thumbnails.maker`): 120 for an image, 4 for each use of it.
_BYTES_PER_ROW, _BYTES_PER_USE = 120, 4

_Z = 1.96  # 95 % of a normal distribution lies within so many standard deviations

_Ids = npt.NDArray[np.uint64]


class Forecaster:
    """Makes forecasts for one copy of the competition, whose source is prepared; keeps what several of them need."""

    def __init__(self, source: ImageSource, options: BuildOptions, *, num_sampled: int, seed: int):
        self.source = source
        self.options = options
        self.seed = seed
        self._num_sampled = num_sampled
        self._selections: dict[tuple[str | None, str], tuple[Selection, float]] = {}
        self._num_examples: dict[tuple[str, tuple[SplitSpec, ...]], int] = {}
        self._warm_ups: dict[str, Trial] = {}

    def table(self, config: LandmarkBuilderConfig) -> LandmarkTable:
        """Returns the images that a config draws from."""
        return self._select(config)[0].images.table

    def _select(self, config: LandmarkBuilderConfig) -> tuple[Selection, float]:
        """Returns what the config selects, and the CPU time of that."""
        key = (config.exclude_landmarks, config.missing_images)
        if key not in self._selections:
            started = time.process_time()
            selection = select_images_of(config, self.source, self.options)
            self._selections[key] = selection, time.process_time() - started
        return self._selections[key]

    def _plans(self, config: LandmarkBuilderConfig) -> Iterator[tuple[str, ExamplePlan]]:
        """Yields the splits and their plans, one after the other: that of a whole competition takes 100 MB."""
        planner = SplitPlanner(self._select(config)[0], config)
        for split in config.splits():
            yield split, planner.plan_split(split).plan

    def num_examples(self, config: LandmarkBuilderConfig) -> int:
        """Returns how many examples a config plans, without drawing them; 0 if it makes none of this table."""
        key = (self.table(config).fingerprint, tuple(map(config.example_spec, config.splits())))
        if key not in self._num_examples:
            try:
                self._num_examples[key] = sum(plan.num_examples for _, plan in self._plans(config))
            except NoExampleError:
                self._num_examples[key] = 0
        return self._num_examples[key]

    def forecast(self, config: LandmarkBuilderConfig) -> dict[str, Any]:
        """Forecasts a build with an empty bank of thumbnails, without the start of TFDS and of worker processes.

        Returns:
          What `--json` prints of it; docs/commands.md documents it. The peak is the dataset with the whole of its
          error, what workers have to know and, without a bank, the thumbnails.

        Raises:
          NoExampleError: if the config makes no example of this table.
          FileNotFoundError: if there is no file that it names.
        """
        selection, selection_cpu_s = self._select(config)
        table = selection.images.table
        started = time.process_time()
        uses = np.zeros(table.num_images, dtype=np.int64)  # of each image, before redraws
        splits = {}
        for split, plan in self._plans(config):
            splits[split] = plan.num_examples
            for _, rows in plan_in_chunks(plan, plan.num_examples):
                np.add.at(uses, rows.ravel(), 1)
        plan_cpu_s = time.process_time() - started
        used = np.flatnonzero(uses)
        sample = used[choose_rows(table.image_ids[used], self._num_sampled, self.seed)]
        warm_up = self.warm_up(config)
        sample_read_s = self._read_all(table.image_ids[sample])
        trial = run_trial(config, self.source, table.image_ids[sample], self.options)
        known = trial.thumbnail_bytes > 0
        mean, error = _weighted_mean(trial.thumbnail_bytes[known], uses[sample[known]], len(used))
        num_uses, num_images, num_examples = int(uses.sum()), len(used), sum(splits.values())
        # What a build does once is in both; so are a few examples, of which there may be no more here.
        num_more = max(1, trial.num_examples - warm_up.num_examples)
        example_cpu_s = max(0.0, trial.examples_cpu_s - warm_up.examples_cpu_s) / num_more
        cpu_s = selection_cpu_s + plan_cpu_s + num_images * trial.image_cpu_s + num_examples * example_cpu_s
        cores_s, reading_s = cpu_s / self.options.num_workers(), num_images * sample_read_s / len(sample)
        num_bytes, error_bytes = num_uses * mean + num_examples * trial.overhead_bytes, num_uses * _Z * error
        num_bank_bytes = num_images * trial.bank_bytes
        peak_bytes = num_bytes + error_bytes + _BYTES_PER_ROW * table.num_images + _BYTES_PER_USE * num_uses
        if self.options.bank == OFF:
            peak_bytes += num_bank_bytes
        return {
            "dataset": config.kind.dataset,
            "config": fields_as_json(config),
            f"num_{config.kind.count_name}": num_examples,
            "splits": splits,
            "num_distinct_images": num_images,
            "dataset_bytes": round(num_bytes),
            "dataset_error_bytes": round(error_bytes),
            "bank_bytes": round(num_bank_bytes),
            "peak_bytes": round(peak_bytes),
            "cpu_seconds": round(cpu_s, 2),
            "seconds": round(max(cores_s, reading_s), 2),
            "limited_by": "cores" if cores_s >= reading_s else "reading",
            "num_images_sampled": len(sample),
            "num_images_unreadable": trial.num_unreadable,
        }

    def warm_up(self, config: LandmarkBuilderConfig) -> Trial:
        """Returns a trial of a few images: what is done for the first time in a process takes longer."""
        dataset = config.kind.dataset
        if dataset not in self._warm_ups:
            image_ids = self.table(config).image_ids
            few = image_ids[choose_rows(image_ids, _NUM_WARM_UP, self.seed)]
            self._warm_ups[dataset] = run_trial(config, self.source, few, self.options)
        return self._warm_ups[dataset]

    def _read_all(self, image_ids: _Ids) -> float:
        """Returns how long reading files takes here, as many at a time as in a build; then they are in memory."""

        def read(image_id: int) -> None:
            with contextlib.suppress(UnreadableImageError):
                self.source.read(image_id)

        started = time.perf_counter()
        with ThreadPoolExecutor(self.options.num_readers(self.source.is_remote)) as pool:
            list(pool.map(read, image_ids.tolist()))
        return time.perf_counter() - started


def _weighted_mean(values: Any, weights: Any, num_all: int) -> tuple[float, float]:
    """Returns the weighted mean of a sample out of ``num_all`` values, and its standard error.

    The ratio estimator of sampling theory (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    mean = float((weights * values).sum() / weights.sum())
    share_left = max(0.0, 1 - len(values) / num_all)
    error = float(np.sqrt(share_left * ((weights * (values - mean)) ** 2).sum()) / weights.sum())
    return mean, error


# --- The trial


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of a trial. CPU times are user and system, of all threads."""

    thumbnail_bytes: npt.NDArray[np.int64]  # in the order of the images; 0 for one that is unreadable or not used
    num_unreadable: int  # images
    overhead_bytes: float  # of a record in its shard, beyond its thumbnails
    bank_bytes: float  # that an image takes in the bank
    num_examples: int
    image_cpu_s: float  # of an image
    examples_cpu_s: float  # of all examples, and of what a build does once


def run_trial(config: LandmarkBuilderConfig, source: ImageSource, image_ids: _Ids, options: BuildOptions) -> Trial:
    """Builds a dataset of some images of a source, at least two, twice, in a temporary folder.

    Raises:
      CommandError: if no example could be made, because images are unreadable, or the folder has no room for a bank.
    """
    import_tensorflow()
    # What a config has beside these says which images there are, and here all of them are wanted.
    pixels = dataclasses.asdict(config.thumbnail_spec())
    small_config = type(config)(name="trial", images_per_landmark=None, **pixels)
    with tempfile.TemporaryDirectory(prefix="landmark_triplets.") as temporary:
        folder = pathlib.Path(temporary)
        copy = folder / "copy"
        unpacking_cpu_s = _write_copy(copy, source, image_ids)
        bank = os.fspath(folder / "bank")
        options = dataclasses.replace(options, bank=bank, max_unreadable=1.0, triplets_csv=False, workers=1)
        made, first_cpu_s = _build(small_config, options, copy, folder / "first")
        _, second_cpu_s = _build(small_config, options, copy, folder / "second")
        report = json.loads((made / REPORT_NAME).read_text())
        if report["bank"] is None:
            raise CommandError(f"{folder.parent} has no room for a trial. TMPDIR=<folder> names another place.")
        shards = [path for path in made.iterdir() if f"-{TRAIN}." in path.name]
        sizes, num_examples, used_bytes = _measure_thumbnails(shards, config.kind)
        return Trial(
            thumbnail_bytes=np.array([sizes.get(image_id, 0) for image_id in map(format_image_id, image_ids)]),
            num_unreadable=report["counts"]["num_images_unreadable"],
            overhead_bytes=(sum(stat_file(str(path))[0] for path in shards) - used_bytes) / num_examples,
            bank_bytes=report["num_bank_bytes"] / len(image_ids),
            num_examples=num_examples,
            image_cpu_s=(max(0.0, first_cpu_s - second_cpu_s) + unpacking_cpu_s) / len(image_ids),
            examples_cpu_s=second_cpu_s,
        )


def _write_copy(folder: pathlib.Path, source: ImageSource, image_ids: _Ids) -> float:
    """Writes a small competition, from which an image that cannot be had is missing too.

    Returns the CPU time by which images take longer to read from the source, where that unpacks them, than from here.
    """
    (folder / IMAGES_NAME / "0").mkdir(parents=True)  # as there is in any copy, even without a readable image
    num_landmarks = max(2, len(image_ids) // _IMAGES_PER_LANDMARK)
    lines = [f"{ID_COLUMN},{LANDMARK_COLUMN}"]
    unpacking_cpu_s = 0.0
    for number, image_id in enumerate(image_ids.tolist()):
        lines.append(f"{format_image_id(image_id)},{number % num_landmarks}")
        path = folder / IMAGES_NAME / image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.thread_time()
        try:
            content = source.read(image_id)
        except UnreadableImageError:
            continue
        read = time.thread_time()
        path.write_bytes(content)
        written = time.thread_time()
        path.read_bytes()
        unpacking_cpu_s += (read - started) - (time.thread_time() - written)
    (folder / TABLE_NAME).write_text("\n".join(lines) + "\n")
    return max(0.0, unpacking_cpu_s)


def _build(
    config: LandmarkBuilderConfig, options: BuildOptions, copy: pathlib.Path, folder: pathlib.Path
) -> tuple[epath.Path, float]:
    """Builds a dataset; returns its folder and the CPU time of this process, user and system, of all threads."""
    builder = BUILDERS[config.kind.dataset](config=config, data_dir=os.fspath(folder))
    builder.build_options = options
    nowhere = io.StringIO()  # for what a build says, and its bars, which nobody has asked for
    gc.freeze()  # what has been there before is not looked through at the trial's cost
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=copy))
    except TooManyUnreadableError as error:
        raise CommandError(TOO_FEW_READABLE) from error
    finally:
        gc.unfreeze()
    return builder.data_path, time.process_time() - started


def _measure_thumbnails(shards: Sequence[epath.Path], kind: ExampleKind) -> tuple[dict[str, int], int, int]:
    """Returns the size of the thumbnail of each image id, the number of examples, and the bytes of all their images."""
    sizes: dict[str, int] = {}
    num_examples = num_bytes = 0
    for record, _ in itertools.chain.from_iterable(read_records(path, TFRECORD) for path in shards):
        example, _ = parse_example(record or b"", kind)
        num_examples += 1
        for id_feature, image_feature in zip(kind.id_features, kind.image_features, strict=True):
            sizes[example[id_feature].decode()] = len(example[image_feature])
            num_bytes += len(example[image_feature])
    return sizes, num_examples, num_bytes
