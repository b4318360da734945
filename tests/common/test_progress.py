import io
import sys

import pytest
import tensorflow_datasets as tfds

from landmark_triplets_tfds.common import progress
from landmark_triplets_tfds.common.progress import progress_bar, say


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("utf-8", "café \u2588", b"caf\xc3\xa9 \xe2\x96\x88\n"),
        ("utf-8", "caf\udce9", b"caf\\udce9\n"),  # how Python has a path that is not UTF-8
        ("cp1252", "café \u2588", b"caf\xe9 \\u2588\n"),
        ("ascii", "café", b"caf\\xe9\n"),
        ("utf-16-le", "caf\udce9", "caf\\udce9\n".encode("utf-16-le")),
    ],
)
def test_a_line_that_a_terminal_cannot_show_is_escaped(monkeypatch, encoding, text, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    say(text)
    stream.flush()
    assert stream.buffer.getvalue() == shown


def test_a_line_that_nobody_reads_ends_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (closed, None, open("/dev/full", "w", buffering=1)):  # noqa: SIM115
        monkeypatch.setattr(sys, "stdout", stream)
        say("a line")


@pytest.fixture
def terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(progress, "_DELAY_S", 0)


@pytest.fixture
def bars_are_disabled():
    tfds.disable_progress_bar()
    yield
    tfds.enable_progress_bar()


def list_three_things():
    with progress_bar(3, "Listing", " things") as bar:
        for num_done in (1, 2):
            bar.update(num_done)


@pytest.mark.usefixtures("terminal", "no_delay")
def test_a_bar_shows_what_is_done(capsys):
    with progress_bar(3, "Making", " things") as bar:
        bar.update(2)
        bar.refresh()
    assert "Making:  67%" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal")
def test_quick_work_shows_no_bar(capsys):
    list_three_things()
    assert "Listing" not in capsys.readouterr().err


@pytest.mark.usefixtures("no_delay")
def test_a_log_is_left_alone_for_a_while(capsys):
    list_three_things()
    assert "Listing" not in capsys.readouterr().err


@pytest.mark.usefixtures("no_delay")
def test_a_log_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    list_three_things()
    assert "Listing: 100%" in capsys.readouterr().err


@pytest.mark.usefixtures("terminal", "no_delay", "bars_are_disabled")
def test_no_bar_where_tfds_has_disabled_them(capsys):
    list_three_things()
    assert capsys.readouterr().err == ""
