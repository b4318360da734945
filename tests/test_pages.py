"""Everything that a reader of README.md and docs/ is told to type, typed; and that links lead somewhere."""

import os
import re
import shutil
import sys

from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.runners.portability.stager import Stager
import pytest

from tests.support import pages
from tests.support.competition import DUMMY_DATA, REPOSITORY, run

DOCS = sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))
LINKING = ["README.md", "benchmarks/README.md", "docs/images/CREDITS.md", *DOCS]

# Options of Flink's job server, which is written in Java: Beam's Python side asks it for them when it submits.
JOB_SERVER_OPTIONS = {"environment_cache_millis", "flink_conf_dir"}


def read(page):
    return (REPOSITORY / page).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in pages.find_pages() if page != "benchmarks/README.md"])
def test_page(page, tmp_path):
    """In a folder with what a checkout has, and with the competition's files, here dummy_data, in `landmarks`."""
    shutil.copytree(DUMMY_DATA, tmp_path / "dummy_data")
    (tmp_path / "landmarks").symlink_to("dummy_data")
    for name in ("docs", "benchmarks", "examples"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "TFDS_DATA_DIR": str(tmp_path / "tensorflow_datasets")}
    result = run(
        sys.executable, REPOSITORY / "tests/support/pages.py", REPOSITORY / page, cwd=tmp_path, environment=environment
    )
    runnable = [b for b in pages.find_blocks(REPOSITORY / page) if b.language in pages.RUNNABLE and not b.not_run]
    assert result.stdout.count("\n--- ") + result.stdout.startswith("--- ") >= len(runnable)
    for code, printed in re.findall(r"print\((.+)\)  # (.+)", "".join(block.code for block in runnable)):
        assert printed in result.stdout, code


@pytest.mark.parametrize("page", pages.find_pages())
def test_what_is_to_be_typed_says_so(page):
    """Else it would not be run."""
    unmarked = [b.code for b in pages.find_blocks(REPOSITORY / page) if b.looks_typed and b.language == ""]
    assert unmarked == []


def test_the_two_commands_are_two_lines():
    """.ci/run reads them from there."""
    commands = [line for line in read("README.md").splitlines() if line.startswith("pip install ")]
    assert len(commands) == 2
    assert "tfds build" in commands[0]
    assert commands[1].endswith("&& pytest")


@pytest.mark.parametrize("page", LINKING)
def test_programs_that_a_page_cites_are_there(page):
    """Also those that are not run, such as the ones that measured its figures."""
    modules = re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", read(page))
    files = [module.replace(".", "/") + ".py" for module in modules] + re.findall(r"python ([\w/]+\.py)", read(page))
    assert [program for program in files if not (REPOSITORY / program).exists()] == []


# --- Links


def find_anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page):
    wrong = []
    for target in re.findall(r"\]\(([^)]+)\)", read(page)):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        if not linked.exists() or (anchor and anchor not in find_anchors(linked)):
            wrong.append(target)
    assert wrong == []


def test_every_page_is_linked_from_the_readme():
    assert [page for page in DOCS if f"]({page}" not in read("README.md")] == []


# --- Options for Beam: they are for clusters, so they are compared with Beam in place of being run

RECIPES = [
    options.replace("\\\n", "").split(",")
    for options in re.findall(r'--beam_pipeline_options="([^"]+)"', read("docs/clusters.md"))
]


@pytest.mark.parametrize("options", RECIPES, ids=lambda options: options[0])
def test_beam_knows_every_option(options):
    known = PipelineOptions([f"--{option}" for option in options]).get_all_options(drop_default=True)
    assert {option.partition("=")[0] for option in options} - set(known) <= JOB_SERVER_OPTIONS | {"extra_package"}


@pytest.mark.slow
def test_the_wheel_is_sent_to_workers(tmp_path):
    """By the option extra_package."""
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
