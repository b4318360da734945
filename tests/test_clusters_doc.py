"""The recipes of docs/clusters.md: Beam knows their options, and sends the package's wheel to workers."""

import re
import shutil
import sys

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.runners.portability.stager import Stager
import pytest

from tests.support.competition import REPOSITORY, run

PAGE = (REPOSITORY / "docs" / "clusters.md").read_text()

# Options of Flink's job server, which is written in Java: Beam's Python side asks it for them when it submits.
JOB_SERVER_OPTIONS = {"environment_cache_millis", "flink_conf_dir"}

RECIPES = [options.replace("\\\n", "").split(",") for options in re.findall(r'--beam_pipeline_options="([^"]+)"', PAGE)]


@pytest.mark.parametrize("options", RECIPES, ids=lambda options: options[0])
def test_beam_knows_every_option(options):
    known = PipelineOptions([f"--{option}" for option in options]).get_all_options(drop_default=True)
    assert {option.partition("=")[0] for option in options} - set(known) <= JOB_SERVER_OPTIONS | {"extra_package"}


def test_every_engine_has_a_recipe():
    engines = {options[0].rpartition(".")[2].removeprefix("runner=") for options in RECIPES}
    assert {"DataflowRunner", "FlinkRunner", "FnApiRunner", "SparkRunner"} <= engines


@pytest.mark.slow
def test_the_wheel_is_sent_to_workers(tmp_path):
    sources = tmp_path / "sources"
    shutil.copytree(
        REPOSITORY, sources, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info", ".*cache", "__pycache__")
    )
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", sources)
    (wheel,) = (tmp_path / "dist").iterdir()
    options = PipelineOptions([f"--extra_package={wheel}"])
    assert options.view_as(SetupOptions).extra_packages == [str(wheel)]
    artifacts = Stager.create_job_resources(options, str(tmp_path))
    assert wheel.name in str(artifacts)
