"""The README's code, run as it stands there."""

import re
import shutil
import sys

from competition import DUMMY_DATA, REPOSITORY, build, build_images, run
import pytest

from landmark_triplets_tfds import LandmarkTriplets

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_two_lines():
    """.ci/run reads them from there."""
    commands = [line for line in README.splitlines() if line.startswith("pip install ")]
    assert commands == [block.strip() for block in blocks("bash") if block.startswith("pip install ")]
    assert len(commands) == 2
    assert "tfds build" in commands[0]
    assert commands[1].endswith("&& pytest")


@pytest.mark.slow
def test_python_blocks_run(tmp_path):
    """In the order of the page, in a folder with dummy_data and what the first command builds."""
    shutil.copytree(DUMMY_DATA, tmp_path / "dummy_data")
    build(tmp_path / "build" / "demo", "128px")
    build_images(tmp_path / "build" / "demo", "64px_all")  # as the page's command for single images does
    runnable = [block for block in blocks("python") if "<your dataset>" not in block]
    assert len(runnable) >= 4
    assert any("model.fit" in block for block in runnable)
    program = "\n".join(runnable)
    result = run(sys.executable, "-c", program, cwd=tmp_path)
    assert "(128, 128, 3)" in result.stdout


def test_the_number_of_configs():
    assert f"builds all {len(LandmarkTriplets.BUILDER_CONFIGS)} of them" in README


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (REPOSITORY / target).exists()] == []
