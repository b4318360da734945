"""The programs in benchmarks/, on a scale at which their figures mean nothing: they run, and say what they measured."""

import json
import re
import sys

from PIL import Image
import pytest

from benchmarks import forecast, harness, training
from benchmarks.corpus import make_picture_corpus
from tests.support.competition import DUMMY_DATA, REPOSITORY, run

TABLE = (REPOSITORY / "benchmarks" / "README.md").read_text()

SMALL = {
    "build_speed": ["--runs=1", "--notebook-triplets=10"],
    "fresh_triplets": ["--runs=1", "--images=1600", "--indexed=2000"],
    "large_inputs": [
        *("plan", "zip", "tars", "triplets", "mine", "evaluate", "worker", "verify"),
        *("--images=4000", "--tars=1", "--triplets=5000", "--embeddings=2000"),
    ],
    "scaling": ["--runs=1", "--small=200", "--large=400"],
    "where_time_goes": ["--runs=1", "--images=20"],
}
ELSEWHERE = {
    "cluster": "builds through Beam's engines, which tests/build/ and tests/cluster/ run, take a minute",
    "corpus": "the fixture here makes one",
    "kill_resume": "tests/build/test_local.py lets it kill builds",
    "forecast": "below; on a small scale it would find that forecasts do not come true",
    "pictures": "below",
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
    compared = forecast.compare("64px_all", corpus, tmp_path, num_sampled=100, seed=0)
    assert compared["examples"] == compared["images"] == 1
    assert compared["bytes"] == pytest.approx(1, abs=0.1)
    assert 0.2 < compared["CPU"] < 5


@pytest.mark.slow
def test_pictures(tmp_path):
    names = ("great_wall-1", "great_wall-2", "eiffel_tower", "hawa_mahal", "colosseum", "summer_palace", "charminar")
    for name, path in zip(names, sorted(DUMMY_DATA.glob("train/*/*/*/*.jpg")), strict=False):
        (tmp_path / f"{name}.jpg").write_bytes(path.read_bytes())
    run(sys.executable, "-m", "benchmarks.pictures", tmp_path, "--out", tmp_path, cwd=REPOSITORY)
    sizes = {name: Image.open(tmp_path / f"{name}.png").size for name in ("triplets", "renderings")}
    assert sizes == {"triplets": (3 * 132 - 4, 22 + 4 * 132 - 4), "renderings": (22 + 3 * 260 - 4, 4 * 260 - 4)}


def test_a_figure_that_a_case_does_not_have_is_an_empty_cell(capsys):
    harness.print_figures(
        "build", {"local": [{"a": 1.5, "b": float("nan")}] * 2, "other": [{"a": 150.2, "b": 2.0}] * 2}
    )
    assert [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        [" local ", " 1.5 ", "   "],
        [" other ", " 150 ", " 2 "],
    ]


# --- The tables of the training experiment, from results that are there


@pytest.fixture
def work(tmp_path):
    results = {("stored", 0): 0.40, ("stored", 1): 0.50, ("stored", 2): 0.45, ("fresh", 0): 0.42, ("fresh", 2): 0.50}
    for (arm, seed), value in results.items():
        folder = training.folder_of(tmp_path, arm, seed)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps({"map_at_100": value, "recall_at_1": value / 2}))
    return tmp_path


def test_arms_are_compared_seed_by_seed(work, capsys):
    training.print_results(training.read_results(work, [0, 1, 2, 3]))
    arms, differences = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in [*arms[2:], *differences[2:]]]
    assert cells == [
        ["stored", "3", "0.450 (0.400 to 0.500)", "0.225 (0.200 to 0.250)"],
        ["fresh", "2", "0.460 (0.420 to 0.500)", "0.230 (0.210 to 0.250)"],
        ["fresh - stored", "2", "+0.035 (+0.020 to +0.050)", "+0.017 (+0.010 to +0.025)"],
    ]


def test_results_of_other_seeds_are_left_out(work):
    assert training.read_results(work, [1]) == {"stored": {1: {"map_at_100": 0.5, "recall_at_1": 0.25}}}


def test_every_arm_is_compared_with_another():
    compared = {arm: each.against for arm, each in training.ARMS.items() if each.against}
    assert set(compared.values()) <= set(training.ARMS)


@pytest.mark.parametrize("arm", [arm for arm in training.ARMS if arm != training.MINED])
def test_configs(arm, tmp_path):
    images = training.images_config(arm)
    triplets = training.triplets_config(arm, 7, tmp_path)
    for field in ("resolution", "resize_method", "images_per_landmark", "validation_percent"):
        assert getattr(images, field) == getattr(triplets, field)
    assert triplets.seed == 7
    assert triplets.positive_may_be_anchor == (arm == "stored-notebook")
