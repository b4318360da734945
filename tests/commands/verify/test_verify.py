"""The command `verify`: what is right is called right; what is printed, lists of hashes, exit statuses."""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from landmark_triplets_tfds.commands import cli
from tests.support.competition import DUMMY_DATA, build, custom_config, images_config, run
from tests.support.prepared_builds import (
    assert_all_well,
    copy_of,
    dummy_source,
    edit_json,
    shards_of,
    verified,
    without_bank,
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    with without_bank():
        folder = tmp_path_factory.mktemp("data")
        build(folder, custom_config(resolution=16), num_shards=2)
    return folder


@pytest.fixture
def data_dir(built, tmp_path):
    return copy_of(built, tmp_path / "data")


def verify(capsys, *arguments):
    """Returns the exit status and what was printed."""
    status = cli.main(["verify", *map(str, arguments)])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("with_source", [False, True])
@pytest.mark.parametrize("kind", ["triplets", "images"])
def test_what_a_build_made_is_well(kind, with_source, request):
    folder = request.getfixturevalue(kind)
    # Nothing is written: the folder may be read-only.
    before = {path: path.stat().st_mtime_ns for path in pathlib.Path(folder.parent).rglob("*")}
    verification = verified(folder, source=dummy_source() if with_source else None)
    assert_all_well(verification)
    assert sum(verification.num_records.values()) == {"triplets": 43, "images": 45}[kind]
    assert {path: path.stat().st_mtime_ns for path in pathlib.Path(folder.parent).rglob("*")} == before


def test_what_is_printed(data_dir, capsys):
    status, text = verify(capsys, "--data_dir", data_dir, "landmark_triplets/custom")
    assert status == 0
    folder = data_dir / "landmark_triplets" / "custom" / "1.0.0"
    lines = text.splitlines()
    assert lines[0] == f"landmark_triplets/custom/1.0.0 in {folder}"
    assert re.fullmatch(r"train 20 triplets in 2 tfrecord shards, 0\.\d MB, read in [\d.]+ s\.", lines[1])
    hashes = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in shards_of(folder)]
    assert lines[2:4] == hashes
    assert lines[4].startswith("All well; not compared with the competition's files")
    assert "\x1b" not in text
    status, text = verify(capsys, "--data_dir", data_dir, "landmark_triplets/custom", "--manual_dir", DUMMY_DATA)
    assert (status, text.splitlines()[-1]) == (0, "All well.")


def test_problems_are_grouped_and_counted(data_dir, capsys):
    folder = data_dir / "landmark_triplets" / "custom" / "1.0.0"
    first, second = shards_of(folder)
    first.write_bytes(bytes(byte ^ (at % 700 == 300) for at, byte in enumerate(first.read_bytes())))
    second.unlink()
    status, text = verify(capsys, folder)
    assert status == 1
    assert f"Files: 1 wrong\n  {second.name}: it is missing" in text
    assert re.search(rf"Record checksums: \d+ wrong\n  {first.name}, record 0: its [\d,]+ bytes, from byte", text)
    assert re.search(r"  \.\.\. and \d+ more\n", text)
    assert re.fullmatch(r"\d+ problems\.", text.splitlines()[-1])
    assert "... and" not in verify(capsys, folder, "--show_all")[1]


def test_json(data_dir, capsys):
    folder = data_dir / "landmark_triplets" / "custom" / "1.0.0"
    status, text = verify(capsys, folder, "--json", "--manual_dir", DUMMY_DATA)
    content = json.loads(text)
    assert status == 0
    assert (content["schema_version"], content["all_well"], content["num_records"]) == (1, True, {"train": 20})
    assert list(content["sha256"]) == [path.name for path in shards_of(folder)]
    shards_of(folder)[0].write_bytes(b"")
    status, text = verify(capsys, folder, "--json")
    content = json.loads(text)
    assert status == 1
    assert content["num_problems"] == sum(content["num_problems_by_kind"].values()) > 0
    assert {"kind", "message", "file", "record", "key"} == set(content["problems"][0])


def lose(name, *content):
    """Returns what deletes a file of a dataset, or puts something in its place."""

    def change(folder):
        (folder / name).unlink()
        if content:
            (folder / name).write_bytes(*content)

    return change


@pytest.mark.parametrize(
    ("config", "change", "status", "not_checked"),
    [
        (custom_config, lambda folder: None, 0, None),
        (custom_config, lose("build_report.json"), 1, "Which images were left out"),
        (custom_config, lose("build_report.json", b"{"), 1, "Which images were left out"),
        (custom_config, lose("metadata.json"), 1, "What the config asks for"),
        (custom_config, lose("features.json"), 1, "Which shards TFDS reads"),
        (custom_config, lose("dataset_info.json"), 1, "Which shards TFDS reads"),
        (custom_config, lose("triplets.csv"), 1, None),
        (custom_config, lose("triplets.csv", b"key"), 1, None),
        (images_config, lambda folder: None, 0, None),
        (images_config, lose("index.npz"), 1, "Whether index.npz lists the records"),
        (images_config, lose("index.npz", b""), 1, "Whether index.npz lists the records"),
        (images_config, lose("build_report.json"), 1, "Which images were left out"),
    ],
)
def test_what_is_lost_is_wrong_and_what_it_told_is_not_checked(
    copy_with_list, copy_of_images, capsys, config, change, status, not_checked
):
    """In the text, in JSON and in the exit status."""
    folder = copy_with_list if config is custom_config else copy_of_images
    change(folder)
    found, text = verify(capsys, folder)
    assert found == status
    assert ("All well" in text) is (status == 0)
    assert ("Not checked: " in text) is (not_checked is not None)
    found, text = verify(capsys, folder, "--json")
    content = json.loads(text)
    assert (found, content["all_well"], content["num_problems"] > 0) == (status, status == 0, status == 1)
    assert (not_checked or "") in " ".join(content["not_checked"])
    assert bool(content["not_checked"]) is (not_checked is not None)
    assert content["notes"] == ["not compared with the competition's files (--manual_dir)"]


def test_what_cannot_be_checked_is_not_well(copy, capsys):
    """Nothing is wrong, and not all was done that was asked for: standard error says why, as where nothing was done."""
    for name in ("metadata.json", "build_report.json"):
        edit_json(copy / name, lambda content: content["config"].update(of_the_future=1))
    assert verify(capsys, copy)[0] == 0
    assert cli.main(["verify", str(copy), "--manual_dir", str(DUMMY_DATA)]) == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1] == "No problems in what could be checked."
    assert "Not all could be checked. What a build would plan, and images made again." in printed.err
    status, text = verify(capsys, copy, "--json", "--manual_dir", DUMMY_DATA)
    content = json.loads(text)
    assert (status, content["all_well"], content["problems"]) == (2, False, [])
    assert "of_the_future" in content["not_checked"][0]


# --- Lists of hashes


def test_a_published_list(data_dir, tmp_path, capsys):
    folder = data_dir / "landmark_triplets" / "custom" / "1.0.0"
    published = tmp_path / "published.txt"
    published.write_text(verify(capsys, folder)[1])
    assert verify(capsys, folder, "--sha256", published)[0] == 0
    with published.open("a") as file:  # other files of the dataset, in other ways to write a line
        for name in ("features.json", "metadata.json"):
            file.write(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest().upper()} *some/where/{name}\n")
    assert verify(capsys, folder, "--sha256", published)[0] == 0
    first, second = shards_of(folder)
    published.write_text(f"{'0' * 64}  {first.name}\n{'1' * 64}  gone.txt\n")
    status, text = verify(capsys, folder, "--sha256", published)
    assert status == 1
    assert "Published sha256: 3 wrong" in text
    assert f"{first.name}: it is {hashlib.sha256(first.read_bytes()).hexdigest()}, and {'0' * 64} was published" in text
    assert "gone.txt: it is in the published list, and not here" in text
    assert f"{second.name}: it is not in the published list" in text


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_reads_what_is_printed(data_dir, tmp_path, capsys):
    folder = data_dir / "landmark_triplets" / "custom" / "1.0.0"
    printed = tmp_path / "printed.txt"
    printed.write_text(verify(capsys, folder)[1])
    subprocess.run(["sha256sum", "--check", "--quiet", printed], cwd=folder, check=True, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing\n", "holds no line of `sha256sum`"),
        (b"\xff\xfe", "holds no line of `sha256sum`"),
        (f"{'0' * 64}  a\n{'1' * 64}  b/a\n".encode(), "holds two hashes of a"),
        (None, "published.txt"),
    ],
)
def test_wrong_lists(data_dir, tmp_path, capsys, content, message):
    published = tmp_path / "published.txt"
    if content is not None:
        published.write_bytes(content)
    arguments = ["--data_dir", str(data_dir), "landmark_triplets/custom", "--sha256", str(published)]
    assert cli.main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "-1"], "--sample: it must be a whole number between 0 and 2**64 - 1, got -1."),
        (["--workers", "0"], "--workers: it must be a whole number between 1 and 1024, got 0."),
        (["--seed", "-1"], "--seed: it must be a whole number"),
        (["--exclude_landmarks", "x"], "is of use with --manual_dir only"),
        (["--manual_dir", "no_such_folder"], "no_such_folder does not exist"),
        (["--data_dir", "no_such_folder"], "There is no prepared dataset landmark_triplets/custom in no_such_folder"),
    ],
)
def test_wrong_arguments(data_dir, capsys, arguments, message):
    assert cli.main(["verify", "--data_dir", str(data_dir), "landmark_triplets/custom", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_of_its_own_without_tensorflow(data_dir):
    """Its import takes longer than all the rest, so nothing may cause it."""
    program = "import sys; from landmark_triplets_tfds.commands import cli; status = cli.main(sys.argv[1:]);"
    program += "sys.exit(status or 3 * ('tensorflow' in sys.modules))"
    run(sys.executable, "-c", program, "verify", "--data_dir", data_dir, "landmark_triplets/custom")
