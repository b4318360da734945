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
import itertools
import re

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.commands.datasets import BUILDERS
from landmark_triplets_tfds.commands.forecaster import TOO_FEW_READABLE, Forecast, Forecaster
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
class Answer:
    """What fits a budget.

    Attributes:
      named: the largest config with a name that fits; where none does, the smallest.
      named_fits: whether it does.
      all_named_fit: whether all configs with names fit.
      custom: the best custom config; None if none fits, or none is larger than the named one.
      alternatives: custom configs, with their numbers of examples and the estimated bytes of their datasets.
    """

    named: Forecast
    named_fits: bool
    all_named_fit: bool
    custom: Forecast | None
    alternatives: list[tuple[LandmarkBuilderConfig, int, int]]


def find_fitting(forecaster: Forecaster, dataset: str, budget: int, on_forecast: Callable[[], object]) -> Answer:
    """Finds what fits a budget.

    Args:
      forecaster: of the copy.
      dataset: its name.
      budget: bytes.
      on_forecast: called with each config that was looked at closely.

    Raises:
      NoExampleError: if no config makes an example of the copy.
      CommandError: if none of a few images is readable.
    """
    configs = BUILDERS[dataset].BUILDER_CONFIGS
    sizes = _ThumbnailSizes(forecaster, forecaster.table(configs[0]).image_ids)

    def estimate(config: LandmarkBuilderConfig, mean_bytes: float) -> float:
        """Returns the bytes of a dataset, given the mean size of its thumbnails."""
        record_bytes = config.kind.num_images * mean_bytes + forecaster.warm_up(config).overhead_bytes
        return forecaster.num_examples(config) * record_bytes

    def forecast(config: LandmarkBuilderConfig) -> Forecast:
        made = forecaster.forecast(config)
        on_forecast()
        return made

    def fit(per_landmark: int | None, num_bytes: float) -> tuple[LandmarkBuilderConfig, float] | None:
        """Returns the custom config with the best images that are estimated to fit, and its estimate."""
        for resolution, quality in sizes.best_first():
            name = f"{resolution}px_{f'{per_landmark}per' if per_landmark else 'all'}_q{quality}"
            config = type(configs[0])(
                name=name, resolution=resolution, images_per_landmark=per_landmark, jpeg_quality=quality
            )
            estimated = estimate(config, sizes.estimate(resolution, quality))
            if estimated <= num_bytes:
                return config, estimated
        return None

    # Configs with landmarks held out are as large as those without.
    named = [
        (estimate(config, sizes.measure(config.thumbnail_spec())), config)
        for config in configs
        if not config.validation_percent and forecaster.num_examples(config)
    ]
    if not named:
        raise NoExampleError("No config makes an example of this table: it is too small.")
    named.sort(key=lambda pair: pair[0], reverse=True)
    likely = [config for num_bytes, config in named if num_bytes <= _LIKELY * budget]
    largest = next((each for each in map(forecast, likely) if each.fits(budget)), None)
    if largest is not None and largest.config is named[0][1]:
        return Answer(largest, True, True, None, [])

    alternatives: list[tuple[LandmarkBuilderConfig, int, int]] = []
    last_num_examples = 0
    for per_landmark in _PER_LANDMARK:
        fitting = fit(per_landmark, budget)
        if fitting is None:
            break  # more images fit even less
        config, num_bytes = fitting
        num_examples = forecaster.num_examples(config)
        if num_examples > last_num_examples:  # else no landmark has more images
            alternatives.append((config, num_examples, round(num_bytes)))
            last_num_examples = num_examples
    custom = None
    if alternatives:
        good = [config for config, _, _ in alternatives if config.resolution >= _GOOD_PX]
        per_landmark = (good[-1] if good else alternatives[0][0]).images_per_landmark
        custom = _forecast_best(lambda num_bytes: fit(per_landmark, num_bytes), forecast, budget)
    if custom is not None and largest is not None and custom.num_bytes <= largest.num_bytes:
        custom = None
    return Answer(largest or forecast(named[-1][1]), largest is not None, False, custom, alternatives)


def _forecast_best(
    fit: Callable[[float], tuple[LandmarkBuilderConfig, float] | None],
    forecast: Callable[[LandmarkBuilderConfig], Forecast],
    budget: int,
) -> Forecast | None:
    """Forecasts the largest config that does fit: where one is larger than estimated, a smaller one is tried."""
    limit: float = budget
    for _ in range(_NUM_TRIED):
        fitting = fit(limit)
        if fitting is None:
            return None
        config, estimated = fitting
        made = forecast(config)
        if made.fits(budget):
            return made
        limit = 0.99 * estimated * budget / made.peak_bytes
    return None


class _ThumbnailSizes:
    """Mean sizes of thumbnails."""

    def __init__(self, forecaster: Forecaster, image_ids: npt.NDArray[np.uint64]):
        """Reads a few of the images; raises CommandError if none of them is readable."""
        self._files: list[bytes] = []
        short_sides = []
        for image_id in image_ids[choose_rows(image_ids, _NUM_MEASURED, forecaster.seed)].tolist():
            try:
                content = forecaster.source.read(image_id)
                make_thumbnail(content, ThumbnailSpec())
                header = read_header(content)
            except UnreadableImageError:
                continue
            self._files.append(content)
            short_sides.append(min(header.height, header.width))
        if not self._files:
            raise CommandError(TOO_FEW_READABLE)
        self._num_workers = forecaster.options.num_workers()
        self._max_px = max(_GOOD_PX, min(_MAX_PX, int(np.median(short_sides)) // _STEP_PX * _STEP_PX))
        self._grid = [px for px in _GRID_PX if px < self._max_px] + [self._max_px]
        self._means: dict[ThumbnailSpec, float] = {}

    def best_first(self) -> Iterator[tuple[int, int]]:
        """Yields resolutions and qualities, up to what the images themselves have."""
        return itertools.product(range(self._max_px, _MIN_PX - 1, -_STEP_PX), range(_MAX_QUALITY, _MIN_QUALITY - 1, -1))

    def measure(self, spec: ThumbnailSpec) -> float:
        """Returns the mean size of thumbnails."""
        if spec not in self._means:
            with ThreadPoolExecutor(self._num_workers) as pool:
                sizes = list(pool.map(lambda content: len(make_thumbnail(content, spec)), self._files))
            self._means[spec] = float(np.mean(sizes))
        return self._means[spec]

    def estimate(self, resolution: int, quality: int) -> float:
        """Returns the mean size of thumbnails, estimated."""
        sizes = [self.measure(ThumbnailSpec(resolution=px, jpeg_quality=_MIN_QUALITY)) for px in self._grid]
        size = float(np.exp(np.interp(np.log(resolution), np.log(self._grid), np.log(sizes))))
        wanted, lowest = (
            self.measure(ThumbnailSpec(resolution=_GOOD_PX, jpeg_quality=each)) for each in (quality, _MIN_QUALITY)
        )
        return size * wanted / lowest
