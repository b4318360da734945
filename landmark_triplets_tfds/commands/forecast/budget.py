"""Which dataset fits a number of bytes: the largest config with a name, and the custom one that makes most of them.

There are many ways to spend bytes: more images per landmark, larger ones, better quality. For each number of images per
landmark there is a largest resolution (a multiple of 16 px at quality 90 or better), and quality takes what is left.
Of these, the best is the one with most images per landmark that still has 128 px, the resolution this package builds
by default; where nothing has, the one with the largest images.

Sizes of thumbnails are measured on a few images. Their mean grows smoothly with the resolution, so that it is measured
at powers of two and, on logarithmic scales, interpolated; what another quality takes is about the same factor at each
resolution. What is recommended is then forecast like any config, and has to fit with the whole of its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import re

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.commands.datasets import ConfigChoice, named_choices
from landmark_triplets_tfds.commands.forecast.forecast import Forecast, Forecaster
from landmark_triplets_tfds.commands.forecast.trial import TOO_FEW_READABLE
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.errors import CommandError, NoExampleError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.header import read_header
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.draws import choose_rows

_SIZE_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?\s*", re.IGNORECASE)
_POWERS: dict[str, int] = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_LIKELY = 1.1  # what is estimated to be larger than so many budgets is not looked at

# Custom configs. Resolutions are measured at the lowest quality, qualities at the resolution that is good enough.
_PER_LANDMARK = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, None)
_STEP_PX, _MIN_PX, _GOOD_PX, _MAX_PX = 16, 32, 128, 1024
_MIN_QUALITY, _MAX_QUALITY = 90, 95
_NUM_TRIED = 5

_NUM_MEASURED = 150  # images; their mean is off by some 3 %
_GRID_PX = (32, 64, 128, 256, 512)


def parse_size(text: str) -> int:
    """Returns the number of bytes that ``4.9GB``, ``500 MB``, ``20GiB`` or ``1000000`` means.

    Raises:
      CommandError: if it means none.
    """
    match = _SIZE_PATTERN.fullmatch(text)
    if not match or (match[3] and not match[2]):
        raise CommandError(f"--budget must be a size such as 4.9GB, 500MB or 20GiB, got {text!r}.")
    num_bytes: float = float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()]
    if num_bytes < 1:
        raise CommandError(f"--budget must be more than nothing, got {text!r}.")
    return round(num_bytes)


@dataclasses.dataclass(frozen=True)
class BudgetAnswer:
    """What fits.

    Attributes:
      budget: bytes.
      named: the largest config with a name that fits; None if none does.
      smallest_named: where none fits, the one that comes closest.
      all_fit: whether all configs with names fit.
      custom: the best custom config; None if none fits, or none is larger than the named one.
      alternatives: custom configs, with their numbers of examples and the estimated bytes of their datasets.
    """

    budget: int
    named: Forecast | None
    smallest_named: Forecast | None
    all_fit: bool
    custom: Forecast | None
    alternatives: list[tuple[ConfigChoice, int, int]]


def find_fitting(
    forecaster: Forecaster, dataset: str, budget: int, seed: int, on_forecast: Callable[[], object]
) -> BudgetAnswer:
    """Finds what fits a budget.

    Args:
      forecaster: of the copy.
      dataset: its name.
      budget: bytes.
      seed: of the sample on which sizes are measured.
      on_forecast: called with each config that was looked at closely.

    Raises:
      NoExampleError: if no config makes an example of the copy.
      CommandError: if none of a few images is readable.
    """
    table = forecaster.table(named_choices(dataset)[0])
    sizes = ThumbnailSizes(forecaster.source, table.image_ids, forecaster.options.num_workers(), seed)
    return _Search(forecaster, sizes, dataset, budget, on_forecast).answer()


class _Search:
    def __init__(
        self,
        forecaster: Forecaster,
        sizes: ThumbnailSizes,
        dataset: str,
        budget: int,
        on_forecast: Callable[[], object],
    ):
        self._forecaster = forecaster
        self._sizes = sizes
        self._dataset = dataset
        self._budget = budget
        self._on_forecast = on_forecast
        self._config_class = type(named_choices(dataset)[0].config)

    def answer(self) -> BudgetAnswer:
        named = sorted(self._named_sizes(), key=lambda pair: pair[0])
        if not named:
            raise NoExampleError("No config makes an example of this table: it is too small.")
        largest = self._largest_fitting(named)
        smallest = self._forecast(named[0][1]) if largest is None else None
        all_fit = largest is not None and largest.choice is named[-1][1]
        options = [] if all_fit else list(self._custom_options())
        custom = self._best_of(options)
        if custom is not None and largest is not None and custom.num_bytes <= largest.num_bytes:
            custom = None
        return BudgetAnswer(self._budget, largest, smallest, all_fit, custom, options)

    def _forecast(self, choice: ConfigChoice) -> Forecast:
        forecast = self._forecaster.forecast(choice)
        self._on_forecast()
        return forecast

    def _num_examples(self, choice: ConfigChoice) -> int:
        try:
            return self._forecaster.num_examples(choice)
        except NoExampleError:
            return 0

    def _dataset_bytes(self, choice: ConfigChoice, num_examples: int, mean_bytes: float) -> float:
        overhead = self._forecaster.overhead_bytes(choice)
        return num_examples * (choice.config.kind.num_images * mean_bytes + overhead)

    # --- Configs with names

    def _named_sizes(self) -> Iterator[tuple[float, ConfigChoice]]:
        """Yields the estimated bytes of the configs; those with landmarks held out are as large as those without."""
        for choice in named_choices(self._dataset):
            if not choice.config.validation_percent and (num_examples := self._num_examples(choice)):
                mean = self._sizes.mean_bytes(choice.config.thumbnail_spec())
                yield self._dataset_bytes(choice, num_examples, mean), choice

    def _largest_fitting(self, named: list[tuple[float, ConfigChoice]]) -> Forecast | None:
        for num_bytes, choice in reversed(named):
            if num_bytes <= _LIKELY * self._budget:
                forecast = self._forecast(choice)
                if forecast.fits(self._budget):
                    return forecast
        return None

    # --- Custom configs

    def _custom_options(self) -> Iterator[tuple[ConfigChoice, int, int]]:
        """Yields, for each number of images per landmark, the best images that fit: config, examples, bytes."""
        last_num_examples = 0
        for per_landmark in _PER_LANDMARK:
            num_examples = self._num_examples(self._custom(_GOOD_PX, per_landmark, _MAX_QUALITY))
            if num_examples == last_num_examples:  # no landmark has more images
                continue
            last_num_examples = num_examples
            choice = self._fit(per_landmark, num_examples, self._budget)
            if choice is None:
                return  # more images fit even less
            yield choice, num_examples, round(self._estimate(choice, num_examples))

    def _estimate(self, choice: ConfigChoice, num_examples: int) -> float:
        """Returns the estimated bytes of a custom config."""
        mean = self._sizes.estimate(choice.config.resolution, choice.config.jpeg_quality)
        return self._dataset_bytes(choice, num_examples, mean)

    def _fit(self, per_landmark: int | None, num_examples: int, num_bytes: float) -> ConfigChoice | None:
        """Returns the config with the best images that are estimated to fit; None if even the smallest do not."""

        def fitting(resolution: int, quality: int) -> ConfigChoice | None:
            choice = self._custom(resolution, per_landmark, quality)
            return choice if self._estimate(choice, num_examples) <= num_bytes else None

        resolutions = range(_MIN_PX, self._sizes.max_px + 1, _STEP_PX)
        largest = next(filter(None, (fitting(px, _MIN_QUALITY) for px in reversed(resolutions))), None)
        if largest is None:
            return None
        qualities = range(_MAX_QUALITY, _MIN_QUALITY, -1)
        return next(filter(None, (fitting(largest.config.resolution, each) for each in qualities)), largest)

    def _best_of(self, options: list[tuple[ConfigChoice, int, int]]) -> Forecast | None:
        """Forecasts the best option; with what that teaches about the estimates, it is chosen anew a few times."""
        if not options:
            return None
        good = [option for option in options if option[0].config.resolution >= _GOOD_PX]
        choice, num_examples, _ = good[-1] if good else options[0]
        tried: ConfigChoice | None = choice
        best: Forecast | None = None
        names: set[str] = set()
        limit = float(self._budget)
        while tried is not None and tried.config.name not in names and len(names) < _NUM_TRIED:
            names.add(tried.config.name)
            forecast = self._forecast(tried)
            corrected = self._budget * self._estimate(tried, num_examples) / (forecast.num_bytes + forecast.error_bytes)
            if forecast.fits(self._budget):
                best = forecast if best is None or forecast.num_bytes > best.num_bytes else best
                limit = corrected
            else:
                limit = min(0.99 * limit, corrected)
            tried = self._fit(choice.config.images_per_landmark, num_examples, limit)
        return best

    def _custom(self, resolution: int, per_landmark: int | None, quality: int) -> ConfigChoice:
        name = f"{resolution}px_{f'{per_landmark}per' if per_landmark else 'all'}_q{quality}"
        config = self._config_class(
            name=name, resolution=resolution, images_per_landmark=per_landmark, jpeg_quality=quality
        )
        return ConfigChoice(self._dataset, config)


class ThumbnailSizes:
    """Mean sizes of thumbnails.

    Attributes:
      max_px: the resolution up to which sizes are estimated: what the images themselves have.
    """

    def __init__(self, source: ImageSource, image_ids: npt.NDArray[np.uint64], num_workers: int, seed: int):
        """Reads a few images.

        Args:
          source: of the images.
          image_ids: uint64[num_images] to choose from.
          num_workers: threads.
          seed: of the choice.

        Raises:
          CommandError: if none of them is readable.
        """
        self._files: list[bytes] = []
        short_sides = []
        for image_id in image_ids[choose_rows(image_ids, _NUM_MEASURED, seed)].tolist():
            try:
                content = source.read(image_id)
                make_thumbnail(content, ThumbnailSpec())
                header = read_header(content)
            except UnreadableImageError:
                continue
            self._files.append(content)
            short_sides.append(min(header.height, header.width))
        if not self._files:
            raise CommandError(TOO_FEW_READABLE)
        self._num_workers = num_workers
        self.max_px = max(_GOOD_PX, min(_MAX_PX, int(np.median(short_sides)) // _STEP_PX * _STEP_PX))
        self._grid = [px for px in _GRID_PX if px < self.max_px] + [self.max_px]
        self._means: dict[ThumbnailSpec, float] = {}

    def mean_bytes(self, spec: ThumbnailSpec) -> float:
        """Returns the mean size of thumbnails, measured."""
        if spec not in self._means:
            with ThreadPoolExecutor(self._num_workers) as pool:
                sizes = list(pool.map(lambda content: len(make_thumbnail(content, spec)), self._files))
            self._means[spec] = float(np.mean(sizes))
        return self._means[spec]

    def estimate(self, resolution: int, quality: int) -> float:
        """Returns the mean size of thumbnails of up to `max_px`, estimated."""
        sizes = [self.mean_bytes(ThumbnailSpec(resolution=px, jpeg_quality=_MIN_QUALITY)) for px in self._grid]
        size = float(np.exp(np.interp(np.log(resolution), np.log(self._grid), np.log(sizes))))
        wanted, measured = (
            self.mean_bytes(ThumbnailSpec(resolution=_GOOD_PX, jpeg_quality=each)) for each in (quality, _MIN_QUALITY)
        )
        return size * wanted / measured
