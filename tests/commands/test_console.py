import io
import sys

import pytest

from landmark_triplets_tfds.commands import console


class Stream(io.StringIO):
    def __init__(self, encoding="utf-8", is_terminal=False):
        super().__init__()
        self._encoding, self._is_terminal = encoding, is_terminal

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return self._is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals(is_terminal, environment, coloured, monkeypatch):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Stream(is_terminal=is_terminal))
    assert console.styled("text", "red") == ("\x1b[31mtext\x1b[0m" if coloured else "text")


@pytest.mark.parametrize(
    ("encoding", "share", "expected"),
    [
        ("utf-8", 0.5, "\u2588" * 5),
        ("utf-8", 0.55, "\u2588" * 5 + "\u258c"),
        ("utf-8", 1, "\u2588" * 10),
        ("utf-8", 0, ""),
        ("utf-8", 0.0001, "\u258f"),
        ("ascii", 0.5, "#####"),
        ("ascii", 0.0001, "#"),
        ("ascii", 0, ""),
    ],
)
def test_bars(encoding, share, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream(encoding))
    assert console.bar(share, 10) == expected


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (532, "532 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_960, "10 kB"),
        (53_400_000, "53 MB"),
        (999_600_000, "1.0 GB"),
        (4.9e9, "4.9 GB"),
        (101e9, "101 GB"),
        (2.5e12, "2.5 TB"),
        (7e15, "7,000 TB"),
    ],
)
def test_bytes(num_bytes, text):
    assert console.format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (42, "42 s"),
        (59.6, "1.0 min"),
        (720, "12 min"),
        (7140, "119 min"),
        (7200, "2.0 h"),
    ],
)
def test_seconds(seconds, text):
    assert console.format_seconds(seconds) == text


def test_tables_are_aligned():
    lines = console.format_table([["name", "count"], ["a", "1"], ["longer", "1,000"]], indent=2, gap=1)
    assert lines == ["  name   count", "  a          1", "  longer 1,000"]


def test_filling_keeps_commands_and_quantities_in_one_piece(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    text = "A dataset of 4.9 GB is made.\n  tfds build something that is long"
    assert console.fill(text, indent=0).split("\n") == [
        "A dataset of 4.9 GB",
        "is made.",
        "  tfds build something that is long",
    ]
    assert console.fill("It has about 12 345 MB", indent=0) == "It has about 12\n345 MB"
