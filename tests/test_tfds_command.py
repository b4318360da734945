"""The whole way as a user goes it: the `tfds` command, the built wheel, loading without this package."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from landmark_triplets_tfds.errors import PreparedDataMismatchError
from tests.support.competition import DUMMY_DATA, REPOSITORY, build, read_examples, run, shard_hashes
from tests.support.pages import run_here
from tests.support.sources import copy_sources

pytestmark = pytest.mark.slow

LOAD_WITHOUT_PACKAGE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "landmark_triplets_tfds":
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import tensorflow_datasets as tfds

data_dir, config = sys.argv[1:]
ds = tfds.load(f"landmark_triplets/{config}", split="train", data_dir=data_dir)
ids = sorted(e["anchor_id"].decode() for e in tfds.as_numpy(ds))
builder = tfds.builder_from_directory(f"{data_dir}/landmark_triplets/{config}/1.0.0")
assert ids == sorted(e["anchor_id"].decode() for e in tfds.as_numpy(builder.as_dataset(split="train")))
images, landmark_id = next(iter(builder.as_dataset(split="train", as_supervised=True)))
assert len(images) == 3
print("\\n".join(ids))
"""


def tfds_build(*arguments, **kwargs):
    return run("tfds", "build", *arguments, "--imports", "landmark_triplets_tfds", "--manual_dir", DUMMY_DATA, **kwargs)


def load_without_package(data_dir, config) -> list[str]:
    return run(sys.executable, "-c", LOAD_WITHOUT_PACKAGE, data_dir, config).stdout.split()


def test_build_then_load_without_the_package_from_a_read_only_folder(tmp_path):
    result = tfds_build("landmark_triplets/64px_all", "--data_dir", tmp_path / "data", "--num_shards", "3")
    assert "Built landmark_triplets/64px_all/1.0.0: 43 triplets from 44 distinct images" in result.stdout
    published = tmp_path / "published"
    shutil.copytree(tmp_path / "data", published)
    for path in (published, *published.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    here = build(tmp_path / "here", "64px_all", num_shards=3)
    assert load_without_package(published, "64px_all") == [e["anchor_id"].decode() for e in read_examples(here)]
    folder = published / "landmark_triplets" / "64px_all" / "1.0.0"
    built = {p.name: p.read_bytes() for p in folder.iterdir() if "-of-" in p.name}
    assert built == {p.name: p.read_bytes() for p in pathlib.Path(here.data_dir).iterdir() if "-of-" in p.name}
    assert len(shard_hashes(here)) == 3


def test_the_result_is_the_last_that_is_shown_whatever_shows_it(tmp_path):
    """Also of a path that the terminal lacks the characters of, and of data that is there already."""
    data_dir = tmp_path / "caf\u00e9"
    environment = {"PYTHONIOENCODING": "ascii"}
    command = ("landmark_triplets/64px_1per", "--data_dir", data_dir)
    lines = tfds_build(*command, environment=environment).stdout.rstrip().splitlines()
    folder = f"{tmp_path}/caf\\xe9/landmark_triplets/64px_1per/1.0.0"
    summary = next(number for number, line in enumerate(lines) if line.startswith("Built landmark_triplets/64px_1per"))
    assert lines[summary + 1] == f"  in {folder}"
    assert len(lines) - summary < 8
    assert lines[-1].startswith("<landmark_triplets/64px_1per/1.0.0: train 10, ")
    assert lines[-1].endswith(f", in {folder}>")
    again = tfds_build(*command, environment=environment).stdout.rstrip().splitlines()
    assert again[-1] == lines[-1]


def test_a_reader_that_goes_away_does_not_end_a_build(tmp_path):
    build = f"tfds build landmark_triplets/64px_1per --imports landmark_triplets_tfds --manual_dir '{DUMMY_DATA}'"
    script = f"{build} --data_dir '{tmp_path}' 2>/dev/null | exec true; echo ${{PIPESTATUS[0]}}"
    assert run("bash", "-c", script, environment={"PYTHONUNBUFFERED": "1"}).stdout.strip() == "0"
    assert len(load_without_package(tmp_path, "64px_1per")) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("landmark_triplets/128pix",), "has no config '128pix'; it has 64px, 64px_1per,"),
        (("landmark_triplets", "--config", '{"name": "a", "fti": "pad"}'), "no field 'fti'. Did you mean 'fit'? There"),
    ],
)
def test_what_is_misspelt_is_said(tmp_path, arguments, message):
    result = tfds_build(*arguments, "--data_dir", tmp_path, "--overwrite", check=False)
    assert result.returncode != 0
    assert message in result.stderr


def build_here(*arguments):
    """Builds as the command does, without the seconds that a process takes to import it."""
    words = ["tfds", "build", *map(str, arguments), "--imports", "landmark_triplets_tfds", "--manual_dir"]
    run_here([*words, str(DUMMY_DATA)])


def test_a_misspelt_option_does_not_overwrite(tmp_path, monkeypatch):
    command = ("landmark_triplets/64px_1per", "--data_dir", tmp_path)
    build_here(*command)
    monkeypatch.setenv("LANDMARK_TRIPLETS_WROKERS", "2")
    with pytest.raises(ValueError, match="LANDMARK_TRIPLETS_WROKERS is not a build option"):
        build_here(*command, "--overwrite")
    assert len(load_without_package(tmp_path, "64px_1per")) == 10


def test_custom_config_from_the_command_line(tmp_path, capfd):
    config = {"name": "16px_4per", "resolution": 16, "images_per_landmark": 4}
    command = ("landmark_triplets", "--config", json.dumps(config), "--data_dir", tmp_path)
    build_here(*command)
    assert "Built" in capfd.readouterr().out
    assert len(load_without_package(tmp_path, "16px_4per")) == 32
    build_here(*command)
    assert "Built" not in capfd.readouterr().out  # what is there is what is asked for
    changed = ("landmark_triplets", "--config", json.dumps(config | {"resolution": 24}), "--data_dir", tmp_path)
    with pytest.raises(PreparedDataMismatchError, match="resolution is 16 there, 24 asked for"):
        build_here(*changed)
    build_here(*changed, "--overwrite")
    assert "Built" in capfd.readouterr().out


def test_build_from_a_checkout_by_path(tmp_path):
    """Without --imports, TFDS loads the module by its path."""
    path = "landmark_triplets_tfds/landmark_triplets"
    options = ("--config", "64px_1per", "--data_dir", tmp_path, "--manual_dir", DUMMY_DATA)
    run("tfds", "build", path, *options, cwd=REPOSITORY)
    assert len(load_without_package(tmp_path, "64px_1per")) == 10


def test_wheel_installed_elsewhere(tmp_path):
    checkout = tmp_path / "checkout"
    copy_sources(REPOSITORY, checkout)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", checkout)
    (wheel,) = (tmp_path / "dist").iterdir()
    target = tmp_path / "elsewhere"
    run(*pip, "install", "--no-deps", "--target", target, wheel)
    shutil.rmtree(checkout)
    environment = {"PYTHONPATH": str(target)}
    script = """
import landmark_triplets_tfds as package
builder = package.LandmarkTriplets(data_dir="data")
metadata = builder.get_metadata()
assert "anchor" in metadata.description and "Weyand" in metadata.citation and metadata.tags
print(package.__file__)
print(builder._checksums_path)
print(builder.url_infos)
"""
    lines = run(sys.executable, "-c", script, environment=environment, cwd=tmp_path).stdout.splitlines()
    assert lines[0].startswith(str(target))
    assert lines[1] == str(target / "landmark_triplets_tfds" / "checksums.tsv")
    assert pathlib.Path(lines[1]).read_text() == (REPOSITORY / "checksums.tsv").read_text()
    assert lines[2] == "{}"
    tfds_build("landmark_triplets/64px_1per", "--data_dir", tmp_path / "data", environment=environment, cwd=tmp_path)
    assert len(load_without_package(tmp_path / "data", "64px_1per")) == 10


def test_killed_build_publishes_nothing(tmp_path):
    command = ["tfds", "build", "landmark_triplets/512px_all", "--imports", "landmark_triplets_tfds"]
    command += ["--manual_dir", str(DUMMY_DATA), "--data_dir", str(tmp_path)]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    process = subprocess.Popen(
        command, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    folder = tmp_path / "landmark_triplets" / "512px_all"
    while process.poll() is None and not (folder.exists() and list(folder.iterdir())):
        pass
    process.kill()
    assert process.wait() != 0
    assert not (folder / "1.0.0").exists()
    assert len(read_examples(build(tmp_path, "512px_all"))) == 43


def test_importing_the_package_loads_neither_tensorflow_nor_beam():
    script = "import sys, landmark_triplets_tfds; print([m for m in ('tensorflow', 'apache_beam') if m in sys.modules])"
    assert run(sys.executable, "-c", script, cwd=REPOSITORY).stdout.strip() == "[]"
