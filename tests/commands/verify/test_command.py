"""The command `verify`: what is right is called right; what is printed, lists of hashes, exit statuses.

And records compared with each other and with the files beside them.
"""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.commands.verify import records
from tests.support.competition import DUMMY_DATA, build, custom_config, run
from tests.support.prepared_builds import (
    assert_all_well,
    assert_forgery_is_found,
    copy_of,
    dummy_source,
    edit_json,
    forge,
    problems_of,
    read_examples,
    set_value,
    shards_of,
    value,
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
    assert verification.all_well is True


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


# --- Records together, and the files beside them


def swap_images(examples):
    anchor, negative = (value(examples[4], name) for name in ("anchor_img", "negative_img"))
    anchor[0], negative[0] = negative[0], anchor[0]


FORGERIES = {
    "key twice": (lambda examples: examples.__setitem__(5, examples[2]), records.REPEATED, 5, "record 2 is its key"),
    "images swapped": (swap_images, records.IMAGE, 4, "differs from the image stored under the same id"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    assert_forgery_is_found(copy, *FORGERIES[what])


def test_a_landmark_that_other_records_contradict(copy):
    """A negative that lies about its landmark is given away by the records in which it is an anchor."""
    number, lie = 3, 999
    shard = forge(copy, set_value(number, "negative_landmark_id", lie))
    (problem,) = problems_of(verified(copy), records.RULE)
    assert (problem.file, problem.record) == (shard, number)
    assert f"shows landmark {lie}, and landmark " in problem.message


def test_more_anchors_than_the_config_allows(copy):
    edit_json(copy / "metadata.json", lambda metadata: metadata["config"].update(images_per_landmark=3))
    found = problems_of(verified(copy), records.RULE)
    assert found
    assert all("images_per_landmark=3" in p.message for p in found)


def test_landmarks_in_the_wrong_split(copy_of_images):
    train, *_, validation = shards_of(copy_of_images)
    moved = read_examples(validation)[0]
    forge(copy_of_images, lambda examples: examples.__setitem__(1, moved))
    found = problems_of(verified(copy_of_images), records.RULE)
    assert [(p.file, p.record) for p in found] == [(train.name, 1)]
    assert "belongs to the other split than train" in found[0].message


def test_sides_are_not_guessed(copy_of_images):
    edit_json(copy_of_images / "metadata.json", lambda metadata: metadata["config"].pop("validation_percent"))
    assert problems_of(verified(copy_of_images), records.RULE) == []


def test_an_image_that_is_there_twice(copy_of_images):
    forge(copy_of_images, lambda examples: examples.__setitem__(4, examples[2]))
    (problem,) = problems_of(verified(copy_of_images), records.REPEATED)
    assert problem.record == 4


def test_the_index_of_images(copy_of_images):
    path = copy_of_images / "index.npz"
    content = dict(np.load(path))
    shard = next(s for s in shards_of(copy_of_images) if "validation" in s.name)
    at = int(content["split_lengths"][0]) + 1
    content["image_id"][at] += np.uint64(1)
    content["landmark_id"][0] += 1
    np.savez(path, **content)
    found = {(p.file, p.record) for p in problems_of(verified(copy_of_images), records.INDEX)}
    assert found == {(shards_of(copy_of_images)[0].name, 0), (shard.name, 1)}
    np.savez(path, **(content | {"split_lengths": content["split_lengths"][::-1]}))
    assert [p.file for p in problems_of(verified(copy_of_images), records.INDEX)] == ["index.npz"] * 2
    path.write_bytes(path.read_bytes()[:100])
    assert "is damaged" in problems_of(verified(copy_of_images), records.INDEX)[0].message
    path.unlink()
    verification = verified(copy_of_images)
    assert verification.problems == []
    assert "no index.npz" in verification.notes[0]


@pytest.mark.parametrize(
    ("change", "file"),
    [
        (lambda report: report.update(dataset="landmark_triplets/other/1.0.0"), "build_report.json"),
        (lambda report: report["config"].update(seed=1), "build_report.json"),
        (lambda report: report.update(table_sha256="0"), "build_report.json"),
        (lambda report: report["counts"].update(num_triplets=1), "build_report.json"),
    ],
)
def test_a_report_of_another_build(copy, change, file):
    edit_json(copy / "build_report.json", change)
    assert [p.file for p in problems_of(verified(copy), records.INFO)] == [file]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("metadata.json", lambda counts: counts.update(num_triplets=1), "num_triplets is 1, and the shards hold"),
        (
            "build_report.json",
            lambda counts: counts.update(num_images_unreadable=77),
            "unreadable images, and counts 77",
        ),
    ],
)
def test_counts_that_what_is_counted_contradicts(copy, name, change, message):
    edit_json(copy / name, lambda content: change(content["counts"]))
    (problem,) = problems_of(verified(copy), records.COUNT)
    assert problem.file == name
    assert message in problem.message
