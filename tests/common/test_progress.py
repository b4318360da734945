"""Whatever standard output and standard error are, lines and bars raise nothing, and what can be shown is shown."""

import ast
import errno
import io
import os
import pathlib
import sys

import pytest
import tensorflow_datasets as tfds

import landmark_triplets_tfds
from landmark_triplets_tfds.common import progress
from landmark_triplets_tfds.common.progress import UnfailingStream, progress_bar, say, showable
from tests.support.competition import REPOSITORY, run

TEXT = "caf\u00e9 \u20ac \u2588 \udce9"  # the last one stands for a byte of a path that is not UTF-8


class Failing(io.TextIOBase):
    """Raises an error at each writing, or only when it is flushed."""

    def __init__(self, error, is_buffered):
        self.error, self.is_buffered = error, is_buffered

    def write(self, text):
        if not self.is_buffered:
            raise self.error
        return len(text)

    def flush(self):
        raise self.error


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "caf\u00e9 \u20ac \u2588 \\udce9"),
        ("cp1252", "caf\u00e9 \u20ac \\u2588 \\udce9"),
        ("latin-1", "caf\u00e9 \\u20ac \\u2588 \\udce9"),
        ("ascii", "caf\\xe9 \\u20ac \\u2588 \\udce9"),
        ("utf-16-le", "caf\u00e9 \u20ac \u2588 \\udce9"),
        ("cp437", "caf\u00e9 \\u20ac \u2588 \\udce9"),
    ],
)
def test_what_an_encoding_lacks_is_escaped(encoding, shown, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    say(TEXT)
    assert stream.buffer.getvalue().decode(encoding) == shown + "\n"
    assert showable(TEXT) == shown
    print(TEXT, file=UnfailingStream(stream), flush=True)
    assert stream.buffer.getvalue().decode(encoding) == 2 * (shown + "\n")


ERRORS = [
    BrokenPipeError(errno.EPIPE, "gone"),
    OSError(errno.EIO, "the terminal has hung up"),
    OSError(errno.ENOSPC, "the log's disk is full"),
    OSError(errno.EBADF, "closed below"),
    BlockingIOError(errno.EAGAIN, "the pipe is full", 0),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("is_buffered", [False, True])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}: {error}")
def test_an_output_that_fails_is_no_error(error, is_buffered, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(error, is_buffered))
    say(TEXT)


@pytest.mark.parametrize("make_stream", [lambda: None, closed_stream, lambda: Failing(OSError("x"), False)])
def test_no_output_is_no_error(make_stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", make_stream())
    say(TEXT)
    assert showable("text") == "text"


def test_a_file_that_fails_stays_what_it_is(tmp_path, monkeypatch):
    """Only standard streams are led nowhere: what a program has opened itself it may write to again."""
    with (tmp_path / "log").open("w") as file:
        failing = Failing(OSError(errno.ENOSPC, "full"), False)
        failing.fileno = file.fileno
        monkeypatch.setattr(sys, "stdout", failing)
        say("lost")
        file.write("kept")
    assert (tmp_path / "log").read_text() == "kept"


SAY = """
import runpy, sys
say = runpy.run_path(sys.argv[1])["say"]
for _ in range(3):
    say("x" * 100_000 + "caf\\u00e9 \\udce9")
print("what is still buffered when the process ends")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252:strict"])
@pytest.mark.parametrize(
    "where", ["| head -c 0", "| exec true", "> /dev/full", ">&-", "2>&- | exec true", "> /dev/null"]
)
def test_the_process_ends_well(where, encoding, unbuffered):
    script = f"{sys.executable} -c '{SAY}' {progress.__file__} {where}; echo ${{PIPESTATUS[0]}} >&3"
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": unbuffered}
    result = run("bash", "-c", f"exec 3>&1; {script}", cwd=REPOSITORY, environment=environment)
    assert result.stdout.split()[-1] == "0"
    assert result.stderr == ""


def test_nothing_prints_by_other_means():
    package = pathlib.Path(landmark_triplets_tfds.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert found == {"common/progress.py", "commands/console.py"}


# --- Bars


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


@pytest.mark.usefixtures("no_delay")
@pytest.mark.parametrize("stream", [None, io.StringIO(), "gone"], ids=["none", "closed", "gone"])
def test_a_bar_that_cannot_be_shown_ends_nothing(stream, monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    if stream == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w", buffering=1)
    elif stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(3, "Listing", " things") as bar:
        bar.update(1)
        bar.refresh()


def test_what_is_said_can_leave_standard_output_alone(capsys):
    with progress.saying_on_stderr():
        progress.say("about the work")
    progress.say("to all")
    assert capsys.readouterr() == ("to all\n", "about the work\n")
