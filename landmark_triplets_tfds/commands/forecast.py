"""The command `forecast`: what it shows of builds, and of what fits a budget."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import os
from typing import Any

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.budget import Answer, find_fitting, parse_size
from landmark_triplets_tfds.commands.datasets import build_command, fields_as_json, find_config, full_name
from landmark_triplets_tfds.commands.forecaster import Forecast, Forecaster
from landmark_triplets_tfds.common.file_access import OFF
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.errors import CommandError

# What is shown where no config is asked for.
_DEFAULT_CONFIGS = {
    "landmark_triplets": ("64px", "128px", "128px_8per", "128px_all", "128px_area_all", "256px", "512px_1per"),
    "landmark_images": ("64px_all", "128px_all", "128px_area_all", "256px_area_all", "512px"),
}


def run(arguments: argparse.Namespace) -> int:
    """Forecasts builds and shows what they will make and take."""
    budget = parse_size(arguments.budget) if arguments.budget else None
    names = arguments.config or ([] if budget else _DEFAULT_CONFIGS[arguments.dataset])
    configs = [find_config(name, arguments.dataset) for name in names]
    options = console.build_options()
    manual_dir = os.fspath(arguments.manual_dir)
    source = open_copy(arguments.manual_dir, options.bank, options.num_readers_of(manual_dir))
    forecaster = Forecaster(source, options, num_sampled=arguments.images, seed=arguments.seed)
    forecasts, answer = [], None
    with progress_bar(len(configs) if budget is None else None, "Trial builds", " configs") as bar:
        for config in configs:
            try:
                forecasts.append(forecaster.forecast(config))
            except FileNotFoundError as error:  # one that the config names
                raise CommandError(f"{full_name(config)}: {error}") from None
            bar.update()
        if budget is not None:
            answer = find_fitting(forecaster, arguments.dataset, budget, bar.update)
    num_cores = options.num_workers()
    if arguments.json:
        content: dict[str, Any] = {
            "schema_version": 1,
            "manual_dir": manual_dir,
            "cores": num_cores,
            "forecasts": [each.as_json() for each in forecasts],
        }
        if budget is not None and answer is not None:
            content["budget"] = _budget_as_json(manual_dir, budget, answer)
        console.print_json(content)
    else:
        blocks = []
        if forecasts:
            blocks.append(_forecast_lines(forecasts, num_cores, budget))
        if budget is not None and answer is not None:
            blocks.append(_budget_lines(manual_dir, budget, answer, has_bank=options.bank != OFF))
        console.show("\n\n".join("\n".join(lines) for lines in blocks))
    nothing_fits = answer is not None and not answer.custom and not answer.named_fits
    return console.FOUND_WRONG if nothing_fits else console.OK


def _budget_as_json(manual_dir: str, budget: int, answer: Answer) -> dict[str, Any]:
    def describe(forecast: Forecast) -> dict[str, Any]:
        return forecast.as_json() | {"command": build_command(forecast.config, manual_dir)}

    return {
        "bytes": budget,
        "all_named_fit": answer.all_named_fit,
        "largest_named": describe(answer.named) if answer.named_fits else None,
        "smallest_named": None if answer.named_fits else describe(answer.named),
        "best_custom": answer.custom and describe(answer.custom),
        "alternatives": [
            {"config": fields_as_json(config), "num_examples": num_examples, "estimated_bytes": num_bytes}
            for config, num_examples, num_bytes in answer.alternatives
        ],
    }


def _forecast_lines(forecasts: list[Forecast], num_cores: int, budget: int | None) -> Iterator[str]:
    wall = f"on {num_cores} core{'s' * (num_cores > 1)}"
    rows = [["config", "examples", "images", "dataset", "bank", "CPU time", wall, *["fits"] * (budget is not None)]]
    several = len({each.config.kind for each in forecasts}) > 1
    for each in forecasts:
        rows.append(
            [
                full_name(each.config) if several else each.config.name,
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
    error = max(each.error_bytes / each.num_bytes for each in forecasts)
    sure = "" if error == 0 else f" Bytes: give or take {max(error, 0.001):.1%}."
    yield console.fill(
        f"Numbers of examples and of distinct images are exact.{sure} Times are those of a first build, beside 5 to"
        " 10 s to start; a second one finds its thumbnails in the bank, which is kept in the cache folder"
        " (LANDMARK_TRIPLETS_BANK moves it).",
        indent=0,
    )
    reading = [each.config.name for each in forecasts if each.limited_by == "reading"]
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


def _budget_lines(manual_dir: str, budget: int, answer: Answer, *, has_bank: bool) -> Iterator[str]:
    yield console.styled(f"Within {console.format_bytes(budget)}", "bold")
    yield ""
    best = answer.custom or answer.named
    if answer.named_fits:
        what = (
            "All configs with names fit; the largest is"
            if answer.all_named_fit
            else "The largest config with a name is"
        )
        yield from _describe(what, answer.named, manual_dir)
    else:
        yield console.fill(
            f"No config with a name fits: the smallest, {full_name(answer.named.config)}, has"
            f" {console.format_bytes(answer.named.num_bytes)}."
        )
        if answer.custom is None:
            yield console.fill("No custom config does either: with one image per landmark of 32 px it would be larger.")
            return
    if answer.custom is not None:
        yield ""
        yield from _describe("A custom config makes more of it:", answer.custom, manual_dir)
        yield ""
        yield console.fill("The same bytes can hold more images or larger ones:")
        rows = [["images_per_landmark", "resolution", "jpeg_quality", best.config.kind.noun, "dataset"]]
        for config, num_examples, num_bytes in answer.alternatives:
            per_landmark = "all (null)" if config.images_per_landmark is None else str(config.images_per_landmark)
            pixels = [str(config.resolution), str(config.jpeg_quality)]
            rows.append([per_landmark, *pixels, f"{num_examples:,}", console.format_bytes(num_bytes)])
        yield from console.format_table(rows, indent=4)
    yield ""
    thumbnails = console.format_bytes(best.num_bank_bytes)
    if has_bank:
        yield console.fill(
            f"Beside the dataset, the bank of thumbnails takes {thumbnails} in the cache folder. With"
            " LANDMARK_TRIPLETS_BANK=off they are in --data_dir until the build ends, and have to fit there too."
        )
    else:
        yield console.fill(f"Until the build ends, thumbnails take {thumbnails} beside it, which is counted in.")


def _describe(what: str, forecast: Forecast, manual_dir: str) -> Iterator[str]:
    config, error = forecast.config, forecast.error_bytes
    sure = f" (give or take {console.format_bytes(error)})" if error else ""
    yield console.fill(
        f"{what} {config.name}: {forecast.total_examples:,} {config.kind.noun},"
        f" {console.format_bytes(forecast.num_bytes)}{sure}, {console.format_seconds(forecast.wall_s)} to build."
    )
    yield ""
    yield "    " + build_command(config, manual_dir)
