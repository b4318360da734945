"""The command `forecast`: what builds will make and take, and which dataset fits a number of bytes.

There are many ways to spend bytes: more images per landmark, larger ones, better quality. For each number of images per
landmark there is a largest resolution (a multiple of 16 px at quality 90 or better), and quality takes what is left.
Of these, the best is the one with most images per landmark that still has 128 px, the resolution this package builds
by default; where nothing has, the one with the largest images.

Sizes of thumbnails are measured on a few images. Their mean grows smoothly with the resolution, so that it is measured
at powers of two and, on logarithmic scales, interpolated; what another quality takes is about the same factor at each
resolution. What is recommended is then forecast like any config, and has to fit with the whole of its error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
import itertools
import json
import os
import re
from typing import Any

import numpy as np

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.datasets import BUILDERS, build_command, fields_as_json, find_config, full_name
from landmark_triplets_tfds.commands.forecaster import TOO_FEW_READABLE, Forecaster
from landmark_triplets_tfds.common.file_access import OFF
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.errors import CommandError, NoExampleError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.header import read_header
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.draws import choose_rows

# What is shown where no config is asked for.
_DEFAULT_CONFIGS = {
    "landmark_triplets": ("64px", "128px", "128px_8per", "128px_all", "128px_area_all", "256px", "512px_1per"),
    "landmark_images": ("64px_all", "128px_all", "128px_area_all", "256px_area_all", "512px"),
}

_SIZE_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgt])(i?))?b?\s*", re.IGNORECASE)

# Custom configs. Resolutions are measured at the lowest quality, qualities at the resolution that is good enough.
_PER_LANDMARK = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, None)
_STEP_PX, _MIN_PX, _GOOD_PX, _MAX_PX = 16, 32, 128, 1024
_QUALITIES = (95, 94, 93, 92, 91, 90)
_NUM_TRIED = 5

_NUM_MEASURED = 150  # images; their mean is off by some 3 %
_GRID_PX = (32, 64, 128, 256, 512)


def run(arguments: argparse.Namespace) -> int:
    """Forecasts builds and shows what they will make and take."""
    budget = parse_size(arguments.budget) if arguments.budget else None
    names = arguments.config or ([] if budget else _DEFAULT_CONFIGS[arguments.dataset])
    configs = [find_config(name, arguments.dataset) for name in names]
    options = console.build_options()
    manual_dir = os.fspath(arguments.manual_dir)
    source = open_copy(arguments.manual_dir, options.bank, options.num_readers_of(manual_dir))
    forecaster = Forecaster(source, options, num_sampled=arguments.images, seed=arguments.seed)
    found: dict[str, Any] = {
        "schema_version": 1,
        "manual_dir": manual_dir,
        "cores": options.num_workers(),
        "forecasts": [],
    }
    with progress_bar(len(configs) if budget is None else None, "Trial builds", " configs") as bar:
        for config in configs:
            try:
                found["forecasts"].append(forecaster.forecast(config))
            except FileNotFoundError as error:  # one that the config names
                raise CommandError(f"{full_name(config)}: {error}") from None
            bar.update()
        if budget is not None:
            found["budget"] = find_fitting(forecaster, arguments.dataset, budget, manual_dir, bar.update)
    console.show_found(found, _lines(found, has_bank=options.bank != OFF), as_json=arguments.json)
    answer = found.get("budget")
    nothing_fits = answer and not answer["largest_named"] and not answer["best_custom"]
    return console.FOUND_WRONG if nothing_fits else console.OK


# --- What fits


def parse_size(text: str) -> int:
    """Returns the bytes that ``4.9GB``, ``500 MB``, ``20GiB`` or ``1000000`` is; raises CommandError if it is none."""
    match = _SIZE_PATTERN.fullmatch(text)
    num_bytes = 0.0
    if match:
        num_bytes = float(match[1]) * (1024 if match[3] else 1000) ** " kmgt".index((match[2] or " ").lower())
    if num_bytes < 1:
        raise CommandError(f"--budget must be a size such as 4.9GB, 500MB or 20GiB, got {text!r}.")
    return round(num_bytes)


def find_fitting(
    forecaster: Forecaster, dataset: str, budget: int, manual_dir: str, on_forecast: Callable[[], object]
) -> dict[str, Any]:
    """Returns what fits a budget, as `--json` prints it; calls ``on_forecast`` after each config looked at closely.

    Raises:
      NoExampleError: if no config makes an example of the copy.
      CommandError: if none of a few images is readable.
    """
    configs = BUILDERS[dataset].BUILDER_CONFIGS
    sizes = _ThumbnailSizes(forecaster, configs[0])

    def estimate(config: LandmarkBuilderConfig, mean_bytes: float) -> float:
        """Returns the bytes of a dataset, given the mean size of its thumbnails."""
        record_bytes = config.kind.num_images * mean_bytes + forecaster.warm_up(config).overhead_bytes
        return forecaster.num_examples(config) * record_bytes

    def customs(per_landmark: int | None) -> Iterator[tuple[float, LandmarkBuilderConfig]]:
        """Yields custom configs and their estimates, those with the best images first."""
        for resolution, quality in itertools.product(range(sizes.max_px, _MIN_PX - 1, -_STEP_PX), _QUALITIES):
            name = f"{resolution}px_{f'{per_landmark}per' if per_landmark else 'all'}_q{quality}"
            config = type(configs[0])(
                name=name, resolution=resolution, images_per_landmark=per_landmark, jpeg_quality=quality
            )
            yield estimate(config, sizes.estimate(resolution, quality)), config

    def forecast(config: LandmarkBuilderConfig) -> dict[str, Any]:
        made = forecaster.forecast(config) | {"command": build_command(config, manual_dir)}
        on_forecast()
        return made

    def first_that_fits(
        candidates: Iterable[tuple[float, LandmarkBuilderConfig]], limit: float, num_tried: int
    ) -> dict[str, Any] | None:
        """Forecasts at most so many configs, in their order, of those that by their estimates are not too large."""
        for estimated, config in candidates:
            if estimated <= limit and num_tried:
                made = forecast(config)
                if made["peak_bytes"] <= budget:
                    return made
                limit, num_tried = 0.99 * estimated * budget / made["peak_bytes"], num_tried - 1
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
    largest = first_that_fits(named, 1.1 * budget, len(named))
    all_fit = largest is not None and largest["config"]["name"] == named[0][1].name

    custom = None
    alternatives: dict[int, tuple[float, LandmarkBuilderConfig]] = {}  # by number of examples
    for per_landmark in () if all_fit else _PER_LANDMARK:
        fitting = next((pair for pair in customs(per_landmark) if pair[0] <= budget), None)
        if fitting is None:
            break  # more images fit even less
        alternatives.setdefault(forecaster.num_examples(fitting[1]), fitting)  # else no landmark has more images
    if alternatives:
        fitting_configs = [config for _, config in alternatives.values()]
        good = [config for config in fitting_configs if config.resolution >= _GOOD_PX] or fitting_configs[:1]
        custom = first_that_fits(customs(good[-1].images_per_landmark), budget, _NUM_TRIED)
    if custom and largest and custom["dataset_bytes"] <= largest["dataset_bytes"]:
        custom = None
    return {
        "bytes": budget,
        "all_named_fit": all_fit,
        "largest_named": largest,
        "smallest_named": None if largest else forecast(named[-1][1]),
        "best_custom": custom,
        "alternatives": [
            {"config": fields_as_json(config), "num_examples": num_examples, "estimated_bytes": round(num_bytes)}
            for num_examples, (num_bytes, config) in alternatives.items()
        ],
    }


class _ThumbnailSizes:
    """Mean sizes of the thumbnails of a few images.

    Attributes:
      max_px: the largest resolution that about half of the images have.
    """

    def __init__(self, forecaster: Forecaster, config: LandmarkBuilderConfig):
        """Reads the images, of those that the config draws from; raises CommandError if none of them is readable."""
        self._files: list[bytes] = []
        short_sides = []
        image_ids = forecaster.table(config).image_ids
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
        self._means: dict[ThumbnailSpec, float] = {}
        self.max_px = max(_GOOD_PX, min(_MAX_PX, int(np.median(short_sides)) // _STEP_PX * _STEP_PX))

    def measure(self, spec: ThumbnailSpec) -> float:
        if spec not in self._means:
            with ThreadPoolExecutor(self._num_workers) as pool:
                sizes = list(pool.map(lambda content: len(make_thumbnail(content, spec)), self._files))
            self._means[spec] = float(np.mean(sizes))
        return self._means[spec]

    def estimate(self, resolution: int, quality: int) -> float:
        def measure(resolution: int, quality: int) -> float:
            return self.measure(ThumbnailSpec(resolution=resolution, jpeg_quality=quality))

        lowest = _QUALITIES[-1]
        grid = [px for px in _GRID_PX if px < self.max_px] + [self.max_px]
        size = np.exp(np.interp(np.log(resolution), np.log(grid), np.log([measure(px, lowest) for px in grid])))
        return float(size) * measure(_GOOD_PX, quality) / measure(_GOOD_PX, lowest)


# --- How it is shown


def _lines(found: dict[str, Any], *, has_bank: bool) -> Iterator[str]:
    budget = found.get("budget")
    if found["forecasts"]:
        yield from _forecast_lines(found["forecasts"], found["cores"], budget and budget["bytes"])
    if found["forecasts"] and budget:
        yield ""
    if budget:
        yield from _budget_lines(budget, has_bank=has_bank)


def _forecast_lines(forecasts: list[dict[str, Any]], num_cores: int, budget: int | None) -> Iterator[str]:
    wall = f"on {num_cores} core{'s' * (num_cores > 1)}"
    rows = [["config", "examples", "images", "dataset", "bank", "CPU time", wall, *["fits"] * (budget is not None)]]
    several = len({each["dataset"] for each in forecasts}) > 1
    for each in forecasts:
        rows.append(
            [
                f"{each['dataset']}/{each['config']['name']}" if several else each["config"]["name"],
                f"{sum(each['splits'].values()):,}",
                f"{each['num_distinct_images']:,}",
                console.format_bytes(each["dataset_bytes"]),
                console.format_bytes(each["bank_bytes"]),
                console.format_seconds(each["cpu_seconds"]),
                console.format_seconds(each["seconds"]),
            ]
        )
        if budget is not None:
            rows[-1].append("yes" if each["peak_bytes"] <= budget else "no")
    yield from console.format_table(rows, indent=0)
    yield ""
    error = max(each["dataset_error_bytes"] / each["dataset_bytes"] for each in forecasts)
    sure = "" if error == 0 else f" Bytes: give or take {max(error, 0.001):.1%}."
    yield console.fill(
        f"Numbers of examples and of distinct images are exact.{sure} Times are those of a first build, beside 5 to"
        " 10 s to start; a second one finds its thumbnails in the bank, which is kept in the cache folder"
        " (LANDMARK_TRIPLETS_BANK moves it).",
        indent=0,
    )
    reading = [each["config"]["name"] for each in forecasts if each["limited_by"] == "reading"]
    if reading:
        yield console.fill(f"Reading the files, not the cores, takes the time of {', '.join(reading)}.", indent=0)
    num_unreadable, num_sampled = (
        sum(each[f"num_images_{what}"] for each in forecasts) for what in ("unreadable", "sampled")
    )
    if num_unreadable:
        yield console.fill(
            f"{num_unreadable:,} of {num_sampled:,} sampled images are unreadable: triplets draw others in their place,"
            " where there are any. landmark-triplets inspect says more.",
            indent=0,
        )


def _budget_lines(answer: dict[str, Any], *, has_bank: bool) -> Iterator[str]:
    yield console.styled(f"Within {console.format_bytes(answer['bytes'])}", "bold")
    yield ""
    largest, smallest, custom = answer["largest_named"], answer["smallest_named"], answer["best_custom"]
    if largest:
        all_fit = answer["all_named_fit"]
        what = "All configs with names fit; the largest is" if all_fit else "The largest config with a name is"
        yield from _describe(what, largest)
    else:
        yield console.fill(
            f"No config with a name fits: the smallest, {smallest['dataset']}/{smallest['config']['name']}, has"
            f" {console.format_bytes(smallest['dataset_bytes'])}."
        )
        if not custom:
            yield console.fill("No custom config does either: with one image per landmark of 32 px it would be larger.")
            return
    if custom:
        yield ""
        yield from _describe("A custom config makes more of it:", custom)
        yield ""
        yield console.fill("The same bytes can hold more images or larger ones:")
        rows = [["images_per_landmark", "resolution", "jpeg_quality", _noun(custom), "dataset"]]
        for each in answer["alternatives"]:
            config = find_config(json.dumps(each["config"]), custom["dataset"])
            fields = [config.images_per_landmark or "all (null)", config.resolution, config.jpeg_quality]
            numbers = [f"{each['num_examples']:,}", console.format_bytes(each["estimated_bytes"])]
            rows.append([*map(str, fields), *numbers])
        yield from console.format_table(rows, indent=4)
    yield ""
    thumbnails = console.format_bytes((custom or largest)["bank_bytes"])
    if has_bank:
        yield console.fill(
            f"Beside the dataset, the bank of thumbnails takes {thumbnails} in the cache folder. With"
            " LANDMARK_TRIPLETS_BANK=off they are in --data_dir until the build ends, and have to fit there too."
        )
    else:
        yield console.fill(f"Until the build ends, thumbnails take {thumbnails} beside it, which is counted in.")


def _noun(forecast: dict[str, Any]) -> str:
    return "triplets" if "num_triplets" in forecast else "images"


def _describe(what: str, forecast: dict[str, Any]) -> Iterator[str]:
    error = forecast["dataset_error_bytes"]
    sure = f" (give or take {console.format_bytes(error)})" if error else ""
    yield console.fill(
        f"{what} {forecast['config']['name']}: {sum(forecast['splits'].values()):,} {_noun(forecast)},"
        f" {console.format_bytes(forecast['dataset_bytes'])}{sure}, {console.format_seconds(forecast['seconds'])} to"
        " build."
    )
    yield ""
    yield "    " + forecast["command"]
