"""What a build will make and take, before it runs.

Numbers of examples and of distinct images come from the plan itself and are exact. Bytes and CPU time come from a trial
build (`trial_build`) of a random sample of the config's own images: a config of two images per landmark sees other
images than one of all. In a dataset of triplets an image counts as often as the plan uses it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import functools
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.commands.datasets import ConfigChoice
from landmark_triplets_tfds.commands.forecast.trial_build import Trial, run_trial
from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import CommandError, UnreadableImageError
from landmark_triplets_tfds.triplets import plan as assembly
from landmark_triplets_tfds.triplets.draws import Rows, choose_rows
from landmark_triplets_tfds.triplets.plan import ExamplePlan, SplitSpec

_NUM_WARM_UP = 20  # images

_Z = 1.96  # 95 % of a normal distribution lies within so many standard deviations


@dataclasses.dataclass(frozen=True)
class PlanFacts:
    """What a config plans, exactly.

    Attributes:
      num_examples: by split.
      uses: int64[num_images of the table], how often each image is used, before redraws.
      cpu_s: what planning took.
    """

    num_examples: dict[str, int]
    uses: Rows
    cpu_s: float

    @property
    def total_examples(self) -> int:
        return sum(self.num_examples.values())

    @property
    def num_uses(self) -> int:
        return int(self.uses.sum())

    @functools.cached_property
    def rows(self) -> Rows:
        """The distinct images, ascending."""
        return np.flatnonzero(self.uses)


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

    def __init__(self, source: ImageSource, options: BuildOptions, *, num_sampled: int, seed: int, table_cpu_s: float):
        """Takes the source of files, and how large a sample to build for trial.

        Args:
          source: prepared.
          options: how many threads there are.
          num_sampled: images per trial.
          seed: of the sample.
          table_cpu_s: CPU time that reading the table took.
        """
        self.source = source
        self.options = options
        self._num_sampled = num_sampled
        self._seed = seed
        self._table_cpu_s = table_cpu_s
        self._selections: dict[tuple[str | None, str], Selection] = {}
        self._num_examples: dict[tuple[str, SplitSpec], int] = {}
        self._overheads: dict[str, float] = {}

    def table(self, choice: ConfigChoice) -> LandmarkTable:
        """Returns the images that a config draws from."""
        return self._select(choice).images.table

    def _select(self, choice: ConfigChoice) -> Selection:
        key = (choice.config.exclude_landmarks, choice.config.missing_images)
        if key not in self._selections:
            try:
                self._selections[key] = select_images_of(choice.config, self.source, self.options)
            except FileNotFoundError as error:
                raise CommandError(f"{choice.full_name}: {error}") from None
        return self._selections[key]

    def _plan(self, choice: ConfigChoice, split: str) -> ExamplePlan:
        """Returns the plan of a split; raises NoExampleError if it holds no example."""
        try:
            return SplitPlanner(self._select(choice), choice.config).plan_split(split).plan
        except FileNotFoundError as error:
            raise CommandError(f"{choice.full_name}: {error}") from None

    def num_examples(self, choice: ConfigChoice) -> int:
        """Returns how many examples a config plans, without drawing them.

        Raises:
          NoExampleError: if it makes none of this table.
        """
        table = self.table(choice)
        specs = [choice.config.example_spec(split) for split in choice.config.splits()]
        for spec in specs:  # only the numbers are kept: the plan of a whole competition takes 100 MB
            if (table.fingerprint, spec) not in self._num_examples:
                self._num_examples[table.fingerprint, spec] = self._plan(choice, spec.split).num_examples
        return sum(self._num_examples[table.fingerprint, spec] for spec in specs)

    def plan_facts(self, choice: ConfigChoice) -> PlanFacts:
        """Draws the examples of a config and counts."""
        started = time.process_time()
        table = self.table(choice)
        uses = np.zeros(table.num_images, dtype=np.int64)
        num_examples = {}
        for split in choice.config.splits():
            plan = self._plan(choice, split)
            num_examples[split] = plan.num_examples
            for _, rows in assembly.plan_in_chunks(plan, plan.num_examples):
                np.add.at(uses, rows.ravel(), 1)
        return PlanFacts(num_examples, uses, time.process_time() - started)

    def forecast(self, choice: ConfigChoice) -> Forecast:
        """Forecasts a build with an empty bank of thumbnails.

        Raises:
          NoExampleError: if the config makes no example of this table.
        """
        facts = self.plan_facts(choice)
        table = self.table(choice)
        rows = facts.rows[choose_rows(table.image_ids[facts.rows], self._num_sampled, self._seed)]
        image_ids = table.image_ids[rows]
        self.overhead_bytes(choice)  # what is done for the first time in a process takes longer
        read_s = self._read_all(image_ids)
        trial = self._try(choice, image_ids)
        known = trial.thumbnail_bytes > 0
        mean, error = _weighted_mean(trial.thumbnail_bytes[known], facts.uses[rows[known]], len(facts.rows))
        num_images, num_examples = len(facts.rows), facts.total_examples
        cpu_s = self._table_cpu_s + facts.cpu_s + num_images * trial.image_cpu_s + num_examples * trial.example_cpu_s
        limits = {
            "cores": cpu_s / self.options.num_workers(),
            "writing": num_examples * trial.example_thread_s,
            "reading": num_images * read_s / len(rows),
        }
        limited_by = max(limits, key=lambda name: limits[name])
        return Forecast(
            choice=choice,
            num_examples=facts.num_examples,
            num_images=num_images,
            num_bytes=round(facts.num_uses * mean + num_examples * trial.overhead_bytes),
            error_bytes=round(facts.num_uses * _Z * error),
            num_bank_bytes=round(num_images * trial.bank_bytes),
            cpu_s=cpu_s,
            wall_s=limits[limited_by],
            limited_by=limited_by,
            num_sampled=len(rows),
            num_unreadable=trial.num_unreadable,
        )

    def overhead_bytes(self, choice: ConfigChoice) -> float:
        """Returns the bytes of a record beyond its thumbnails, from a few real ones of the same dataset."""
        if choice.dataset not in self._overheads:
            image_ids = self.table(choice).image_ids
            few = image_ids[choose_rows(image_ids, _NUM_WARM_UP, self._seed)]
            self._overheads[choice.dataset] = self._try(choice, few).overhead_bytes
        return self._overheads[choice.dataset]

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


def _weighted_mean(values: Any, weights: Any, num_all: int) -> tuple[float, float]:
    """Returns the weighted mean of a sample out of ``num_all`` values, and its standard error.

    The ratio estimator of sampling theory (Cochran, Sampling Techniques, 1977, chapter 6).
    """
    mean = float((weights * values).sum() / weights.sum())
    share_left = max(0.0, 1 - len(values) / num_all)
    error = float(np.sqrt(share_left * ((weights * (values - mean)) ** 2).sum()) / weights.sum())
    return mean, error
