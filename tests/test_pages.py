"""Everything that a reader of README.md and docs/ is told to type, typed."""

import os
import re
import shutil
import sys

import pytest

from landmark_triplets_tfds import LandmarkTriplets
from tests.support import pages
from tests.support.competition import DUMMY_DATA, REPOSITORY, run

ALL_PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))]


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
    if page == "README.md":
        assert sum(block.language == "python" for block in runnable) >= 3
        assert any("model.fit" in block.code for block in runnable)
        assert "(128, 128, 3)" in result.stdout


@pytest.mark.parametrize("page", pages.find_pages())
def test_what_is_to_be_typed_says_so(page):
    """Else it would not be run."""
    unmarked = [b.code for b in pages.find_blocks(REPOSITORY / page) if b.looks_typed and b.language == ""]
    assert unmarked == []


def test_the_two_commands_are_two_lines():
    """.ci/run reads them from there."""
    commands = [line for line in (REPOSITORY / "README.md").read_text().splitlines() if line.startswith("pip install ")]
    assert len(commands) == 2
    assert "tfds build" in commands[0]
    assert commands[1].endswith("&& pytest")


def test_the_number_of_configs():
    assert f"builds all {len(LandmarkTriplets.BUILDER_CONFIGS)} of them" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("page", ALL_PAGES)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (REPOSITORY / page).read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not ((REPOSITORY / page).parent / target).exists()] == []


def test_every_page_is_linked_from_the_readme():
    readme = (REPOSITORY / "README.md").read_text()
    assert [page for page in ALL_PAGES[1:] if f"]({page}" not in readme] == []
