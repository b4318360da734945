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

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands.datasets import ConfigChoice
from landmark_triplets_tfds.commands.forecast.trial import Trial, run_trial
from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import CommandError, UnreadableImageError
from landmark_triplets_tfds.triplets.draws import choose_rows
from landmark_triplets_tfds.triplets.plan import ExamplePlan, SplitSpec, plan_in_chunks

_NUM_WARM_UP = 20  # images

_Z = 1.96  # 95 % of a normal distribution lies within so many standard deviations


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a build will make and take.

    Attributes:
      choice: of the config.
      num_examples: planned, by split.
      num_images: distinct ones.
      num_bytes: of the dataset.
      error_bytes: half of a 95 % interval around it, for the luck of the sample.
      num_bank_bytes: of the bank of thumbnails.
      cpu_s: CPU time of a build with an empty bank, without the start of TFDS and TensorFlow.
      wall_s: what that means on this machine.
      limited_by: 'cores', 'writing' (the one thread that feeds TFDS's writer) or 'reading' (of the files).
      num_sampled: images built for trial.
      num_unreadable: of these.
    """

    choice: ConfigChoice
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
            "dataset": self.choice.dataset,
            "config": self.choice.as_json(),
            f"num_{self.choice.config.kind.count_name}": self.total_examples,
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

    def table(self, choice: ConfigChoice) -> LandmarkTable:
        """Returns the images that a config draws from."""
        return self._select(choice)[0].images.table

    def _select(self, choice: ConfigChoice) -> tuple[Selection, float]:
        """Returns what the config selects, and the CPU time of that."""
        key = (choice.config.exclude_landmarks, choice.config.missing_images)
        if key not in self._selections:
            started = time.process_time()
            with _naming(choice):
                selection = select_images_of(choice.config, self.source, self.options)
            self._selections[key] = selection, time.process_time() - started
        return self._selections[key]

    def _plans(self, choice: ConfigChoice) -> Iterator[tuple[str, ExamplePlan]]:
        """Yields the splits and their plans, one after the other: that of a whole competition takes 100 MB."""
        with _naming(choice):
            planner = SplitPlanner(self._select(choice)[0], choice.config)
            for split in choice.config.splits():
                yield split, planner.plan_split(split).plan

    def num_examples(self, choice: ConfigChoice) -> int:
        """Returns how many examples a config plans, without drawing them.

        Raises:
          NoExampleError: if it makes none of this table.
        """
        specs = tuple(choice.config.example_spec(split) for split in choice.config.splits())
        key = (self.table(choice).fingerprint, specs)
        if key not in self._num_examples:
            self._num_examples[key] = sum(plan.num_examples for _, plan in self._plans(choice))
        return self._num_examples[key]

    def forecast(self, choice: ConfigChoice) -> Forecast:
        """Forecasts a build with an empty bank of thumbnails.

        Raises:
          NoExampleError: if the config makes no example of this table.
        """
        selection, selection_cpu_s = self._select(choice)
        table = selection.images.table
        started = time.process_time()
        uses = np.zeros(table.num_images, dtype=np.int64)  # of each image, before redraws
        num_examples = {}
        for split, plan in self._plans(choice):
            num_examples[split] = plan.num_examples
            for _, rows in plan_in_chunks(plan, plan.num_examples):
                np.add.at(uses, rows.ravel(), 1)
        plan_cpu_s = time.process_time() - started
        used = np.flatnonzero(uses)
        sample = used[choose_rows(table.image_ids[used], self._num_sampled, self._seed)]
        warm_up = self._warm_up(choice)
        read_s = self._read_all(table.image_ids[sample])
        trial = self._try(choice, table.image_ids[sample])
        known = trial.thumbnail_bytes > 0
        mean, error = _weighted_mean(trial.thumbnail_bytes[known], uses[sample[known]], len(used))
        num_uses, num_images, total = int(uses.sum()), len(used), sum(num_examples.values())
        # What a build does once is in both; so are a few examples, of which there may be no more here.
        num_more = max(1, trial.num_examples - warm_up.num_examples)
        example_cpu_s = max(0.0, trial.examples_cpu_s - warm_up.examples_cpu_s) / num_more
        example_thread_s = max(0.0, trial.examples_thread_s - warm_up.examples_thread_s) / num_more
        cpu_s = selection_cpu_s + plan_cpu_s + num_images * trial.image_cpu_s + total * example_cpu_s
        limits = {
            "cores": cpu_s / self.options.num_workers(),
            "writing": total * example_thread_s,
            "reading": num_images * read_s / len(sample),
        }
        limited_by = max(limits, key=lambda name: limits[name])
        return Forecast(
            choice=choice,
            num_examples=num_examples,
            num_images=num_images,
            num_bytes=round(num_uses * mean + total * trial.overhead_bytes),
            error_bytes=round(num_uses * _Z * error),
            num_bank_bytes=round(num_images * trial.bank_bytes),
            cpu_s=cpu_s,
            wall_s=limits[limited_by],
            limited_by=limited_by,
            num_sampled=len(sample),
            num_unreadable=trial.num_unreadable,
        )

    def overhead_bytes(self, choice: ConfigChoice) -> float:
        """Returns the bytes of a record beyond its thumbnails, from a few real ones of the same dataset."""
        return self._warm_up(choice).overhead_bytes

    def _warm_up(self, choice: ConfigChoice) -> Trial:
        """Returns a trial of a few images: what is done for the first time in a process takes longer."""
        if choice.dataset not in self._warm_ups:
            image_ids = self.table(choice).image_ids
            few = image_ids[choose_rows(image_ids, _NUM_WARM_UP, self._seed)]
            self._warm_ups[choice.dataset] = self._try(choice, few)
        return self._warm_ups[choice.dataset]

    def _try(self, choice: ConfigChoice, image_ids: Any) -> Trial:
        with tempfile.TemporaryDirectory(prefix="landmark_triplets.") as folder:
            return run_trial(choice, self.source, image_ids, self.options, pathlib.Path(folder))

    def _read_all(self, image_ids: Any) -> float:
        """Returns how long reading files takes here, as many at a time as in a build; then they are in memory."""

        def read(image_id: int) -> None:
            with contextlib.suppress(UnreadableImageError):
                self.source.read(image_id)

        started = time.perf_counter()
        with ThreadPoolExecutor(self.options.num_readers(self.source.is_remote)) as pool:
            list(pool.map(read, image_ids.tolist()))
        return time.perf_counter() - started


@contextlib.contextmanager
def _naming(choice: ConfigChoice) -> Iterator[None]:
    """Says of which config a file is missing."""
    try:
        yield
    except FileNotFoundError as error:
        raise CommandError(f"{choice.full_name}: {error}") from None


def _weighted_mean(values: Any, weights: Any, num_all: int) -> tuple[float, float]:
    """Returns the weighted mean of a sample out of ``num_all`` values, and its standard error.

    The ratio estimator of sampling theory (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    mean = float((weights * values).sum() / weights.sum())
    share_left = max(0.0, 1 - len(values) / num_all)
    error = float(np.sqrt(share_left * ((weights * (values - mean)) ** 2).sum()) / weights.sum())
    return mean, error
