"""How results are shown: ratios against targets, tables, the machine, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import statistics
from typing import Any, Literal

import loky

from benchmarks.harness import Results

_VERSIONS_SHOWN = ("tensorflow", "tensorflow-datasets", "numpy", "pandas", "simplejpeg", "imagecodecs")


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A quotient of two cases, one value per round, and the project's target for its median."""

    label: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def verdict(self) -> str:
        if self.at_least is not None:
            return "met" if self.median >= self.at_least else "missed"
        if self.at_most is not None:
            return "met" if self.median <= self.at_most else "missed"
        return ""

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "median": self.median,
            "values": self.values,
            "target": self.target,
            "verdict": self.verdict,
        }


def ratio(
    results: Results,
    label: str,
    over: str,
    under: str,
    what: Literal["per_second", "wall_s", "cpu_s"],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    factor: float = 1.0,
) -> list[Ratio]:
    """Returns the ratio of a figure of two cases, round by round, times ``factor``; [] if one was not measured."""
    pairs = zip(results.measurements.get(over, []), results.measurements.get(under, []), strict=False)
    values = [factor * getattr(a, what) / getattr(b, what) for a, b in pairs]
    return [Ratio(label, values, at_least, at_most)] if values else []


def print_ratios(ratios: Sequence[Ratio]) -> None:
    rows = [
        (r.label, f"{min(r.values):.2f}", f"{r.median:.2f}", f"{max(r.values):.2f}", r.target, r.verdict)
        for r in ratios
    ]
    print_table(("ratio, round by round", "min", "median", "max", "target", ""), rows)


def print_measurements(results: Results, units: Mapping[str, str]) -> None:
    """Prints wall and CPU time (medians) and speed (min, median, max) of every case, and what was skipped."""
    rows = []
    for name, runs in results.measurements.items():
        speeds = [run.per_second for run in runs]
        rows.append(
            (
                name,
                f"{runs[0].count:,} {units[name]}",
                f"{statistics.median(run.wall_s for run in runs):.2f}",
                f"{statistics.median(run.cpu_s for run in runs):.2f}",
                f"{min(speeds):,.0f}",
                f"{statistics.median(speeds):,.0f}",
                f"{max(speeds):,.0f}",
            )
        )
    print_table(("case", "of", "wall s", "CPU s", "a second: min", "median", "max"), rows)
    for name, reason in results.skipped.items():
        print(f"skipped {name}: {reason}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a Markdown table; all columns but the first are right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "| " + " | ".join(padded) + " |"

    print()
    print(line(header))
    print("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")
    for row in rows:
        print(line(row))


def describe_machine() -> dict[str, Any]:
    """Returns what a reader needs to judge figures by: processor, usable cores, memory, load, versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "usable_cores": loky.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_SHOWN},
    }


def print_machine(machine: Mapping[str, Any]) -> None:
    print(
        f"{machine['processor']}, {machine['usable_cores']} usable cores, {machine['memory_gib']} GiB,"
        f" load before {machine['load_before']}; Python {machine['python']},"
        f" {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}"
    )


def write_json(path: Path | None, benchmark: str, **parts: Any) -> None:
    """Writes the result of a benchmark; dataclasses within become objects."""
    if path is None:
        return

    def encode(value: Any) -> Any:
        if isinstance(value, Ratio):
            return value.as_json()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    path.write_text(json.dumps({"benchmark": benchmark, **parts}, indent=2, default=encode) + "\n", encoding="utf-8")
    print(f"\nWritten to {path}")
