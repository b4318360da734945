"""The frame of the command: help, exit statuses, errors, signals."""

import signal
import subprocess
import sys

import pytest

from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.errors import NoExampleError
from tests.support.competition import DUMMY_DATA, REPOSITORY, run

COMMAND = (sys.executable, "-m", "landmark_triplets_tfds")


@pytest.mark.parametrize("arguments", [[], ["--help"], *([name, "--help"] for name in cli.COMMANDS)])
def test_help_is_plain_and_fits_the_terminal(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert "usage: landmark-triplets" in text
    assert "%(" not in text
    assert "==SUPPRESS==" not in text
    options = text.partition("options:")[2]
    assert max(map(len, options.splitlines())) <= 80


def test_help_lists_each_command_with_a_sentence(capsys):
    cli.main([])
    listed = capsys.readouterr().out.partition("commands:\n")[2].splitlines()
    words = {line.split()[0]: line.split(maxsplit=1)[1] for line in listed}
    assert list(words) == list(cli.COMMANDS)
    assert all(sentence.endswith(".") for sentence in words.values())


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("landmark-triplets ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspct"], "invalid choice: 'inspct'"),
        (["inspect"], "the following arguments are required: --manual_dir"),
        (["inspect", "--manual_dir", "x", "--images", "many"], "argument --images: "),
        (["inspect", "--manual_dir", "x", "--nothing"], "unrecognized arguments: --nothing"),
        (["inspect", "--manual_dir"], "argument --manual_dir: expected one argument"),
        (
            ["mine", "--embeddings", "e", "--out", "o", "--positive", "best"],
            "argument --positive: invalid choice: 'best'",
        ),
        (["inspect", "--manual", "x"], "--manual_dir"),  # abbreviations would change meaning with new options
    ],
)
def test_wrong_arguments_end_with_status_2_and_say_where_help_is(arguments, message, capsys):
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert "Try: landmark-triplets" in output.err


def test_hyphens_do_as_well_as_underscores(capsys):
    assert cli.main(["inspect", "--manual-dir", str(DUMMY_DATA)]) == 0
    assert cli.main(["inspect", f"--manual-dir={DUMMY_DATA}"]) == 0
    assert "12 landmarks" in capsys.readouterr().out


def test_an_error_is_a_message_on_standard_error(tmp_path, capsys):
    assert cli.main(["inspect", "--manual_dir", str(tmp_path / "nowhere")]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"landmark-triplets: The folder {tmp_path}/nowhere does not exist.")
    assert "Traceback" not in output.err


@pytest.fixture
def failing(monkeypatch):
    """Makes a command fail with an error."""

    def fail_with(error):
        def run(arguments):
            raise error

        monkeypatch.setattr("landmark_triplets_tfds.commands.inspect.run", run)

    return fail_with


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (PermissionError(13, "Permission denied", "train.csv"), 2, "Permission denied: 'train.csv'"),
        (NoExampleError("There is nothing."), 2, "landmark-triplets: There is nothing.\n"),
        (KeyboardInterrupt(), 130, "landmark-triplets: interrupted\n"),
    ],
)
def test_what_ends_a_command(error, status, message, capsys, failing):
    failing(error)
    assert cli.main(["inspect", "--manual_dir", "x"]) == status
    assert message in capsys.readouterr().err


def test_a_bug_is_not_hidden(failing):
    failing(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", "--manual_dir", "x"])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a POSIX shell")
def test_a_reader_that_goes_away_is_no_error():
    script = f"{' '.join(COMMAND)} --help | exec true; echo ${{PIPESTATUS[0]}}"  # which ends before there is any text
    result = run("bash", "-c", script, cwd=REPOSITORY, environment={"PYTHONUNBUFFERED": ""})
    assert result.stderr == ""
    assert result.stdout.strip() == "141"


WAITING = """
import sys
import time

from landmark_triplets_tfds.commands import cli, inspect


def wait(arguments):
    print("waits", flush=True)
    time.sleep(60)


inspect.run = wait
sys.exit(cli.main(["inspect", "--manual_dir", "."]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to another process")
@pytest.mark.slow
def test_ctrl_c():
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start what runs in the background with SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "waits\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.endswith("landmark-triplets: interrupted\n")
    assert output == ""


HELP = """
import runpy, sys

sys.argv = ["landmark-triplets", "--help"]
try:
    runpy.run_module("landmark_triplets_tfds", run_name="__main__")
except SystemExit:
    slow = [name for name in ("tensorflow", "pandas", "apache_beam") if name in sys.modules]
    print("slow:", slow)
"""


def test_help_is_there_at_once():
    """Within half a second, since it imports nothing that takes longer."""
    assert run(sys.executable, "-c", HELP, cwd=REPOSITORY).stdout.splitlines()[-1] == "slow: []"
