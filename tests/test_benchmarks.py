"""The programs in benchmarks/, on a scale at which their figures mean nothing: they run, and say what they measured."""

import json
import re
import sys

import pytest

from benchmarks import forecast, harness, training
from benchmarks.corpus import make_picture_corpus
from tests.support.competition import REPOSITORY, run

TABLE = (REPOSITORY / "benchmarks" / "README.md").read_text()

SMALL = {
    "build_speed": ["--notebook-triplets=10"],
    "fresh_triplets": ["--images=1600", "--indexed=2000"],
    "large_inputs": [
        *("plan", "zip", "tars", "triplets", "mine", "evaluate", "worker", "verify"),
        "--images=4000",
    ],
    "scaling": ["--small=200", "--large=400"],
    "where_time_goes": ["--images=20"],
}
ELSEWHERE = {
    "cluster": "builds through Beam's engines, which tests/build/ and tests/cluster/ run, take a minute",
    "corpus": "the fixture here makes one",
    "kill_resume": "tests/build/test_local.py lets it kill builds",
    "forecast": "below, with one of its configs",
    "read_speed": "needs more triplets than a small corpus gives; tests/test_frameworks.py reads in the same ways",
    "training": "it runs the example that tests/test_examples.py runs; its tables are below",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_picture_corpus(folder, None, 4)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("program", SMALL)
def test_program(program, corpus, tmp_path):
    command = [sys.executable, "-m", f"benchmarks.{program}", *SMALL[program], "--work", tmp_path]
    command += ["--runs=1", "--no-warm-up"]
    if program != "scaling":
        command += ["--corpus", corpus]
    printed = run(*command, cwd=REPOSITORY).stdout
    assert re.search(r"^\|.*\d.*\|$", printed, flags=re.MULTILINE)


def test_every_program_of_the_table_is_run():
    programs = re.findall(r"^\| `benchmarks\.(\w+)[` ]", TABLE, flags=re.MULTILINE)
    assert sorted(programs) == sorted([*SMALL, *ELSEWHERE])
    modules = {path.stem for path in (REPOSITORY / "benchmarks").glob("[a-z]*.py")}
    assert modules - {"harness", "builds", "yardsticks"} == set(programs)


@pytest.mark.slow
def test_forecasts_are_compared_with_builds(corpus, tmp_path):
    compared = forecast.compare("64px_all", corpus, tmp_path, seed=0)
    assert compared["examples"] == compared["images"] == 1
    assert compared["bytes"] == pytest.approx(1, abs=0.1)
    assert 0.2 < compared["CPU"] < 5


def test_a_figure_that_a_case_does_not_have_is_an_empty_cell(capsys):
    harness.print_figures(
        "build", {"local": [{"a": 1.5, "b": float("nan")}] * 2, "other": [{"a": 150.2, "b": 2.0}] * 2}
    )
    assert [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        [" local ", " 1.5 ", "   "],
        [" other ", " 150 ", " 2 "],
    ]


# --- The tables of the training experiment


def test_arms_are_compared_seed_by_seed(capsys):
    values = {"stored": (0.40, 0.50, 0.45), "fresh": (0.42, 0.50, 0.52)}
    results = {arm: [{"map_at_100": it, "recall_at_1": it / 2} for it in each] for arm, each in values.items()}
    training.print_results(results)
    arms, differences = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in [*arms[2:], *differences[2:]]]
    assert cells == [
        ["stored", "0.450 (0.400 to 0.500)", "0.225 (0.200 to 0.250)"],
        ["fresh", "0.480 (0.420 to 0.520)", "0.240 (0.210 to 0.260)"],
        ["fresh - stored", "+0.030 (+0.000 to +0.070)", "+0.015 (+0.000 to +0.035)"],
    ]


def test_a_training_that_has_ended_is_not_run_again(tmp_path):
    folder = training.folder_of(tmp_path, "stored", 1)
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"map_at_100": 0.5, "recall_at_1": 0.25}))
    measures = training.measures_of("stored", 1, tmp_path / "no corpus", tmp_path)
    assert measures == {"map_at_100": 0.5, "recall_at_1": 0.25}


def test_every_arm_is_compared_with_another():
    compared = {arm: each.against for arm, each in training.ARMS.items() if each.against}
    assert set(compared.values()) <= set(training.ARMS)


@pytest.mark.parametrize("arm", [arm for arm in training.ARMS if arm != training.MINED])
def test_configs(arm):
    images = training.images_config(arm)
    triplets = training.triplets_config(arm, 7)
    for field in ("resolution", "resize_method", "images_per_landmark", "validation_percent"):
        assert getattr(images, field) == getattr(triplets, field)
    assert triplets.seed == 7
    assert triplets.positive_may_be_anchor == (arm == "stored-notebook")
