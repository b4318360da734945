"""The programs in benchmarks/, on a scale at which their figures mean nothing: they run, and say what they measured."""

import json
import re
import sys

import pytest

from benchmarks.corpus import make_picture_corpus
from tests.support.competition import REPOSITORY, run

TABLE = (REPOSITORY / "benchmarks" / "README.md").read_text()

SMALL = {
    "beam_designs": ["--runs=1", "--resolution=32", "--workers=1"],
    "build_speed": ["--runs=1", "--notebook-triplets=10"],
    "codec_loop": ["--runs=1"],
    "mine_triplets": ["--images=2000", "--landmarks", "50", "100"],
    "fresh_triplets": ["--runs=1", "--images=1600", "--indexed=2000"],
    "naive_builder": ["--runs=1", "--triplets=10"],
    "notebook": ["--runs=1", "--triplets=10"],
    "open_archives": ["--members=3000", "--tars=3", "--members-per-tar=20"],
    "plan_speed": ["--runs=1", "--images=20000", "--draws=200"],
    "scaling": ["--runs=1", "--small=200", "--large=400"],
    "triplets_files": ["--runs=1", "--images=20000", "--triplets=50000"],
    "where_time_goes": ["--runs=1", "--images=20"],
}
ELSEWHERE = {
    "kill_resume": "tests/test_resume.py kills builds",
    "training": "it runs the example that tests/test_examples.py runs; tests/test_training_benchmark.py has its tables",
    "fuzz": "tests/test_fuzz.py is a short run of it",
    "forecast": "tests/test_forecast.py compares a forecast with a build",
    "verify_speed": "tests/test_verify_command.py lets it read a small dataset",
    "read_speed": "needs more triplets than a small corpus gives; tests/test_frameworks.py reads in the same ways",
    "cluster": "builds through Beam's engines, which tests/test_beam_pipeline.py and tests/cluster/ run, take a minute",
}
WITHOUT_CORPUS = ("mine_triplets", "open_archives", "plan_speed", "scaling", "triplets_files")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_picture_corpus(folder, None, 4)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("program", SMALL)
def test_program(program, corpus, tmp_path):
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", f"benchmarks.{program}", *SMALL[program], "--work", tmp_path]
    if program not in WITHOUT_CORPUS:
        command += ["--corpus", corpus]
    if program != "open_archives":
        command += ["--json", result]
    printed = run(*command, cwd=REPOSITORY).stdout
    assert re.search(r"^\|.*\d.*\|$", printed, flags=re.MULTILINE) or "MB" in printed
    if program != "open_archives":
        assert json.loads(result.read_text())


def test_every_program_of_the_table_is_run():
    programs = set(re.findall(r"^\| `benchmarks\.(\w+)[` ]", TABLE, flags=re.MULTILINE)) - {"corpus"}
    assert programs == {*SMALL, *ELSEWHERE}
