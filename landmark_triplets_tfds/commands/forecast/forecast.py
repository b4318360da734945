"""What a build will make and take, before it runs.

Numbers of examples and of distinct images come from the plan itself and are exact. Bytes and CPU time come from a trial
build of a random sample of the config's own images: a config of two images per landmark sees other images than one of
all. In a dataset of triplets an image counts as often as the plan uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands.datasets import fields_as_json
from landmark_triplets_tfds.commands.forecast.trial import Trial, run_trial
from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import NoExampleError, UnreadableImageError
from landmark_triplets_tfds.triplets.draws import choose_rows
from landmark_triplets_tfds.triplets.plan import ExamplePlan, SplitSpec, plan_in_chunks

_NUM_WARM_UP = 20  # images

_Z = 1.96  # 95 % of a normal distribution lies within so many standard deviations


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a build will make and take.

    Attributes:
      config: of the dataset.
      num_examples: planned, by split.
      num_images: distinct ones.
      num_bytes: of the dataset.
      error_bytes: half of a 95 % interval around it, for the luck of the sample.
      num_bank_bytes: of the bank of thumbnails.
      cpu_s: CPU time of a build with an empty bank, without the start of TFDS and TensorFlow.
      wall_s: what that means on this machine.
      limited_by: 'cores' or 'reading' (of the files).
      num_sampled: images built for trial.
      num_unreadable: of these.
    """

    config: LandmarkBuilderConfig
    num_examples: dict[str, int]
    num_images: int
    num_bytes: int
    error_bytes: int
    num_bank_bytes: int
    cpu_s: float
    wall_s: float
    limited_by: str
    num_sampled: int
    num_unreadable: int

    @property
    def total_examples(self) -> int:
        return sum(self.num_examples.values())

    def fits(self, budget: int) -> bool:
        """Returns whether the dataset will most likely stay within a number of bytes."""
        return self.num_bytes + self.error_bytes <= budget

    def as_json(self) -> dict[str, Any]:
        """Returns what `--json` prints; docs/commands.md documents it."""
        return {
            "dataset": self.config.kind.dataset,
            "config": fields_as_json(self.config),
            f"num_{self.config.kind.count_name}": self.total_examples,
            "splits": self.num_examples,
            "num_distinct_images": self.num_images,
            "dataset_bytes": self.num_bytes,
            "dataset_error_bytes": self.error_bytes,
            "bank_bytes": self.num_bank_bytes,
            "cpu_seconds": round(self.cpu_s, 2),
            "seconds": round(self.wall_s, 2),
            "limited_by": self.limited_by,
            "num_images_sampled": self.num_sampled,
            "num_images_unreadable": self.num_unreadable,
        }


class Forecaster:
    """Makes forecasts for one copy of the competition; keeps what several of them need."""

    def __init__(self, source: ImageSource, options: BuildOptions, *, num_sampled: int, seed: int):
        """Takes the source of files, and how large a sample to build for trial.

        Args:
          source: prepared.
          options: how many threads there are.
          num_sampled: images per trial.
          seed: of the sample.
        """
        self.source = source
        self.options = options
        self._num_sampled = num_sampled
        self._seed = seed
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

    def overhead_bytes(self, config: LandmarkBuilderConfig) -> float:
        """Returns the bytes of a record beyond its thumbnails, from a few real ones of the same dataset."""
        return self._warm_up(config).overhead_bytes

    def forecast(self, config: LandmarkBuilderConfig) -> Forecast:
        """Forecasts a build with an empty bank of thumbnails.

        Raises:
          NoExampleError: if the config makes no example of this table.
          FileNotFoundError: if there is no file that it names.
        """
        selection, selection_cpu_s = self._select(config)
        table = selection.images.table
        started = time.process_time()
        uses = np.zeros(table.num_images, dtype=np.int64)  # of each image, before redraws
        num_examples = {}
        for split, plan in self._plans(config):
            num_examples[split] = plan.num_examples
            for _, rows in plan_in_chunks(plan, plan.num_examples):
                np.add.at(uses, rows.ravel(), 1)
        plan_cpu_s = time.process_time() - started
        used = np.flatnonzero(uses)
        sample = used[choose_rows(table.image_ids[used], self._num_sampled, self._seed)]
        warm_up = self._warm_up(config)
        sample_read_s = self._read_all(table.image_ids[sample])
        trial = self._try(config, table.image_ids[sample])
        known = trial.thumbnail_bytes > 0
        mean, error = _weighted_mean(trial.thumbnail_bytes[known], uses[sample[known]], len(used))
        num_uses, num_images, total = int(uses.sum()), len(used), sum(num_examples.values())
        # What a build does once is in both; so are a few examples, of which there may be no more here.
        num_more = max(1, trial.num_examples - warm_up.num_examples)
        example_cpu_s = max(0.0, trial.examples_cpu_s - warm_up.examples_cpu_s) / num_more
        cpu_s = selection_cpu_s + plan_cpu_s + num_images * trial.image_cpu_s + total * example_cpu_s
        cores_s, reading_s = cpu_s / self.options.num_workers(), num_images * sample_read_s / len(sample)
        return Forecast(
            config=config,
            num_examples=num_examples,
            num_images=num_images,
            num_bytes=round(num_uses * mean + total * trial.overhead_bytes),
            error_bytes=round(num_uses * _Z * error),
            num_bank_bytes=round(num_images * trial.bank_bytes),
            cpu_s=cpu_s,
            wall_s=max(cores_s, reading_s),
            limited_by="cores" if cores_s >= reading_s else "reading",
            num_sampled=len(sample),
            num_unreadable=trial.num_unreadable,
        )

    def _warm_up(self, config: LandmarkBuilderConfig) -> Trial:
        """Returns a trial of a few images: what is done for the first time in a process takes longer."""
        dataset = config.kind.dataset
        if dataset not in self._warm_ups:
            image_ids = self.table(config).image_ids
            few = image_ids[choose_rows(image_ids, _NUM_WARM_UP, self._seed)]
            self._warm_ups[dataset] = self._try(config, few)
        return self._warm_ups[dataset]

    def _try(self, config: LandmarkBuilderConfig, image_ids: Any) -> Trial:
        with tempfile.TemporaryDirectory(prefix="landmark_triplets.") as folder:
            return run_trial(config, self.source, image_ids, self.options, pathlib.Path(folder))

    def _read_all(self, image_ids: Any) -> float:
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
