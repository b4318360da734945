"""The command `forecast`: its arguments, and what it shows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from etils import epath

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.datasets import find_config
from landmark_triplets_tfds.commands.forecast.budget import BudgetAnswer, find_fitting, parse_size
from landmark_triplets_tfds.commands.forecast.forecast import Forecast, Forecaster
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.source import open_copy

# What is shown where no config is asked for.
_DEFAULT_CONFIGS = {
    "landmark_triplets": ("64px", "128px", "128px_8per", "128px_all", "128px_area_all", "256px", "512px_1per"),
    "landmark_images": ("64px_all", "128px_all", "128px_area_all", "256px_area_all", "512px"),
}


def run(arguments: argparse.Namespace) -> int:
    """Forecasts builds and shows what they will make and take."""
    console.check_at_least("--images", arguments.images, 10)
    console.check_at_least("--seed", arguments.seed, 0)
    num_bytes = parse_size(arguments.budget) if arguments.budget else None
    names = arguments.config or ([] if num_bytes else _DEFAULT_CONFIGS[arguments.dataset])
    choices = [find_config(name, arguments.dataset) for name in names]
    options = console.build_options()
    manual_dir = epath.Path(arguments.manual_dir).expanduser()
    source = open_copy(manual_dir, options.bank, options.num_readers_of(arguments.manual_dir))
    forecaster = Forecaster(source, options, num_sampled=arguments.images, seed=arguments.seed)
    forecasts = []
    with progress_bar(len(choices) or None, "Trial builds", " configs") as bar:
        for choice in choices:
            forecasts.append(forecaster.forecast(choice))
            bar.update()
        answer = None
        if num_bytes is not None:
            bar.total = None
            answer = find_fitting(forecaster, arguments.dataset, num_bytes, arguments.seed, bar.update)
    if arguments.json:
        console.print_json(_as_json(arguments.manual_dir, forecaster, forecasts, answer))
    else:
        print("\n".join(_lines(arguments.manual_dir, forecaster, forecasts, answer)))
    return console.OK if answer is None or answer.named or answer.custom else console.FOUND_WRONG


def _as_json(
    manual_dir: str, forecaster: Forecaster, forecasts: list[Forecast], answer: BudgetAnswer | None
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "schema_version": 1,
        "manual_dir": manual_dir,
        "cores": forecaster.options.num_workers(),
        "forecasts": [each.as_json() for each in forecasts],
    }
    if answer is None:
        return content

    def describe(forecast: Forecast | None) -> dict[str, Any] | None:
        if forecast is None:
            return None
        return forecast.as_json() | {"command": forecast.choice.build_command(manual_dir)}

    content["budget"] = {
        "bytes": answer.budget,
        "all_named_fit": answer.all_fit,
        "largest_named": describe(answer.named),
        "smallest_named": describe(answer.smallest_named),
        "best_custom": describe(answer.custom),
        "alternatives": [
            {"config": choice.as_json(), "num_examples": num_examples, "estimated_bytes": num_bytes}
            for choice, num_examples, num_bytes in answer.alternatives
        ],
    }
    return content


def _lines(
    manual_dir: str, forecaster: Forecaster, forecasts: list[Forecast], answer: BudgetAnswer | None
) -> Iterator[str]:
    budget = None if answer is None else answer.budget
    if forecasts:
        yield from _forecast_lines(forecaster, forecasts, budget)
    if answer is not None:
        if forecasts:
            yield ""
        yield from _budget_lines(manual_dir, forecaster, answer)


def _forecast_lines(forecaster: Forecaster, forecasts: list[Forecast], budget: int | None) -> Iterator[str]:
    cores = forecaster.options.num_workers()
    header = ["config", "examples", "images", "dataset", "bank", "CPU time", f"on {cores} core{'s' * (cores > 1)}"]
    rows = [header + ["fits"] * (budget is not None)]
    several = len({each.choice.dataset for each in forecasts}) > 1
    for each in forecasts:
        rows.append(
            [
                each.choice.full_name if several else each.choice.config.name,
                f"{each.total_examples:,}",
                f"{each.num_images:,}",
                console.format_bytes(each.num_bytes),
                console.format_bytes(each.num_bank_bytes),
                console.format_seconds(each.cpu_s),
                console.format_seconds(each.wall_s),
            ]
        )
        if budget is not None:
            rows[-1].append("yes" if each.fits(budget) else "no")
    yield from console.format_table(rows, indent=0)
    yield ""
    yield from _explain(forecasts)


def _explain(forecasts: list[Forecast]) -> Iterator[str]:
    """Yields what the columns mean, and how sure they are."""
    error = max(each.error_bytes / each.num_bytes for each in forecasts)
    sure = "" if error == 0 else f" Bytes: give or take {max(error, 0.001):.1%}."
    yield console.fill(
        f"Numbers of examples and of distinct images are exact.{sure} Times are those of a first build, beside 5 to"
        " 10 s to start; a second one finds its thumbnails in the bank, which is kept in the cache folder"
        " (LANDMARK_TRIPLETS_BANK moves it).",
        indent=0,
    )
    reading = [each.choice.config.name for each in forecasts if each.limited_by == "reading"]
    if reading:
        yield console.fill(f"Reading the files, not the cores, takes the time of {', '.join(reading)}.", indent=0)
    num_unreadable = sum(each.num_unreadable for each in forecasts)
    if num_unreadable:
        num_sampled = sum(each.num_sampled for each in forecasts)
        yield console.fill(
            f"{num_unreadable:,} of {num_sampled:,} sampled images are unreadable: triplets draw others in their place,"
            " where there are any. landmark-triplets inspect says more.",
            indent=0,
        )


def _budget_lines(manual_dir: str, forecaster: Forecaster, answer: BudgetAnswer) -> Iterator[str]:
    budget = console.format_bytes(answer.budget)
    yield console.styled(f"Within {budget}", "bold")
    yield ""
    if answer.named is None:
        assert answer.smallest_named is not None  # noqa: S101 - for the type checker
        smallest = answer.smallest_named
        yield console.fill(
            f"No config with a name fits: the smallest, {smallest.choice.full_name}, has"
            f" {console.format_bytes(smallest.num_bytes)}."
        )
    else:
        what = "All configs with names fit; the largest is" if answer.all_fit else "The largest config with a name is"
        yield from _describe(what, answer.named, manual_dir)
    if answer.custom is not None:
        yield ""
        yield from _describe("A custom config makes more of it:", answer.custom, manual_dir)
        yield ""
        yield from _alternative_lines(answer)
    elif answer.named is None:
        yield console.fill("No custom config does either: with one image per landmark of 32 px it would be larger.")
    best = answer.custom or answer.named
    if best is not None:
        yield ""
        yield console.fill(
            f"Beside the dataset, the bank of thumbnails takes {console.format_bytes(best.num_bank_bytes)} in the cache"
            " folder. LANDMARK_TRIPLETS_BANK=off builds without it: thumbnails then wait beside the dataset and are"
            " gone at the end."
        )


def _describe(what: str, forecast: Forecast, manual_dir: str) -> Iterator[str]:
    config, error = forecast.choice.config, forecast.error_bytes
    sure = f" (give or take {console.format_bytes(error)})" if error else ""
    yield console.fill(
        f"{what} {config.name}: {forecast.total_examples:,} {config.kind.noun},"
        f" {console.format_bytes(forecast.num_bytes)}{sure}, {console.format_seconds(forecast.wall_s)} to build."
    )
    yield ""
    yield "    " + forecast.choice.build_command(manual_dir)


def _alternative_lines(answer: BudgetAnswer) -> Iterator[str]:
    """Yields what else the same bytes can hold."""
    if answer.custom is None:
        return
    noun = answer.custom.choice.config.kind.noun
    yield console.fill("The same bytes can hold more images or larger ones:")
    rows = [["images_per_landmark", "resolution", "jpeg_quality", noun, "dataset"]]
    for choice, num_examples, num_bytes in answer.alternatives:
        config = choice.config
        rows.append(
            [
                "all (null)" if config.images_per_landmark is None else str(config.images_per_landmark),
                str(config.resolution),
                str(config.jpeg_quality),
                f"{num_examples:,}",
                console.format_bytes(num_bytes),
            ]
        )
    yield from console.format_table(rows, indent=4)
