from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import loky
import pytest

from landmark_triplets_tfds.build.options import BuildOptions

WORKERS, READERS = "LANDMARK_TRIPLETS_WORKERS", "LANDMARK_TRIPLETS_READERS"
BANK = "LANDMARK_TRIPLETS_BANK"
MAX_UNREADABLE, TRIPLETS_CSV = "LANDMARK_TRIPLETS_MAX_UNREADABLE", "LANDMARK_TRIPLETS_TRIPLETS_CSV"


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loky, "cpu_count", lambda: 3)
    options = BuildOptions()
    assert (options.workers, options.readers) == (None, None)
    assert (options.max_unreadable, options.triplets_csv, options.bank) == (0.01, False, None)
    assert options.num_workers() == 3
    assert options == BuildOptions.from_environment({})


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, BuildOptions()),
        ({WORKERS: "5"}, BuildOptions(workers=5)),
        ({READERS: "64"}, BuildOptions(readers=64)),
        ({WORKERS: " 1 ", READERS: "1024"}, BuildOptions(workers=1, readers=1024)),
        ({WORKERS: "", READERS: "", MAX_UNREADABLE: "", TRIPLETS_CSV: ""}, BuildOptions()),
        ({MAX_UNREADABLE: "0.05"}, BuildOptions(max_unreadable=0.05)),
        ({MAX_UNREADABLE: " 5% "}, BuildOptions(max_unreadable=0.05)),
        ({MAX_UNREADABLE: "12.5 %"}, BuildOptions(max_unreadable=0.125)),
        ({MAX_UNREADABLE: "0"}, BuildOptions(max_unreadable=0)),
        ({MAX_UNREADABLE: "100%"}, BuildOptions(max_unreadable=1)),
        *(({BANK: text}, BuildOptions(bank=text)) for text in ("off", "/somewhere/else", "relative folder")),
        *(({TRIPLETS_CSV: text}, BuildOptions(triplets_csv=True)) for text in ("1", "on", " TRUE ", "Yes")),
        *(({TRIPLETS_CSV: text}, BuildOptions(triplets_csv=False)) for text in ("0", "off", "False", " no ")),
        ({"PATH": "/bin", "LANDMARK": "x", "TRIPLETS_WORKERS": "x", "landmark_triplets_workers": "x"}, BuildOptions()),
    ],
)
def test_from_environment(environment: dict[str, str], options: BuildOptions) -> None:
    assert BuildOptions.from_environment(environment) == options


@pytest.mark.parametrize("bank", [b"/bank", 1, True, ["/bank"], "a\0b"])
def test_refuses_what_is_no_folder(bank: Any) -> None:
    with pytest.raises(ValueError, match="LANDMARK_TRIPLETS_BANK must be a folder or 'off', got "):
        BuildOptions(bank=bank)


def test_a_folder_may_be_a_path() -> None:
    assert BuildOptions(bank=Path("/bank")) == BuildOptions(bank="/bank")  # type: ignore[arg-type]


def test_reads_the_environment_of_the_process_when_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "7")
    assert BuildOptions.from_environment().num_workers() == 7
    monkeypatch.setenv(WORKERS, "8")
    assert BuildOptions.from_environment().num_workers() == 8


@pytest.mark.parametrize(
    ("variable", "kind", "texts"),
    [
        (WORKERS, "a whole number", ["two", "1.5", "4x", "0x4", "-", "-1", " ", "1_0", "1e2"]),
        (READERS, "a whole number", ["two", "1.5", "-1"]),
        (MAX_UNREADABLE, "a share such as 0.05 or 5%", ["x", "%", "5%%", "1/2", "0,5", " "]),
        (TRIPLETS_CSV, "on or off", ["2", "x", "on off", " ", "triplets.csv"]),
    ],
)
def test_refuses_what_is_no_value(variable: str, kind: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"{variable} must be {kind}, got ") as caught:
            BuildOptions.from_environment({variable: text})
        assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "value", "message"),
    [
        (variable, str(number), number, f"must be a whole number between 1 and 1024, got {number}")
        for variable in (WORKERS, READERS)
        for number in (0, 1025, 10**30)
    ]
    + [
        (MAX_UNREADABLE, "1.01", 1.01, "must be a number between 0 and 1, got 1.01"),
        (MAX_UNREADABLE, "101%", 1.01, "must be a number between 0 and 1, got 1.01"),
        (MAX_UNREADABLE, "5", 5.0, "must be a number between 0 and 1, got 5.0"),
        (MAX_UNREADABLE, "-0.1", -0.1, "must be a number between 0 and 1, got -0.1"),
        (MAX_UNREADABLE, "nan", float("nan"), "must be a number between 0 and 1, got nan"),
    ],
)
def test_refuses_what_is_out_of_range(variable: str, text: str, value: float, message: str) -> None:
    field = variable.removeprefix("LANDMARK_TRIPLETS_").lower()
    with pytest.raises(ValueError, match=f"{variable} {message}"):
        BuildOptions.from_environment({variable: text})
    with pytest.raises(ValueError, match=f"{variable} {message}"):
        BuildOptions(**{field: value})


@pytest.mark.parametrize(
    ("share", "num_images", "allowed"),
    [
        *((0.01, 0, 10), (0.01, 1000, 10), (0.01, 1099, 10), (0.01, 1100, 11), (0.01, 1_580_470, 15_804)),
        *((0, 10**6, 10), (1, 500, 500), (1, 5, 10), (0.5, 25, 12)),
    ],
)
def test_how_many_may_be_unreadable(share: float, num_images: int, allowed: int) -> None:
    assert BuildOptions(max_unreadable=share).max_num_unreadable(num_images) == allowed


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("LANDMARK_TRIPLETS_WORKER", f" Did you mean {WORKERS}?"),
        ("LANDMARK_TRIPLETS_READRES", f" Did you mean {READERS}?"),
        ("LANDMARK_TRIPLETS_", None),
        ("LANDMARK_TRIPLETS_ZZZZZZZZZZZZZZZZZZZZZZZZ", ""),
    ],
)
def test_refuses_an_unknown_variable(variable: str, hint: str | None) -> None:
    with pytest.raises(ValueError, match=f"{variable} is not a build option") as caught:
        BuildOptions.from_environment({WORKERS: "2", variable: "2"})
    message = str(caught.value)
    assert [name for name in (BANK, MAX_UNREADABLE, READERS, TRIPLETS_CSV, WORKERS) if name not in message] == []
    if hint is not None:
        assert message.endswith(f".{hint}")


@pytest.mark.parametrize(
    ("options", "num_local", "num_remote"),
    [
        (BuildOptions(workers=1), 8, 32),
        (BuildOptions(workers=2), 8, 32),
        (BuildOptions(workers=3), 12, 32),
        (BuildOptions(workers=10), 40, 40),
        (BuildOptions(workers=100), 64, 64),
        (BuildOptions(workers=2, readers=1), 1, 1),
        (BuildOptions(workers=2, readers=200), 200, 200),
    ],
)
def test_readers_follow_the_workers_and_the_kind_of_source(
    options: BuildOptions, num_local: int, num_remote: int
) -> None:
    assert options.num_readers(is_remote=False) == num_local
    assert options.num_readers(is_remote=True) == num_remote


def test_options_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BuildOptions().workers = 2  # type: ignore[misc]
