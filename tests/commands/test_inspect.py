"""The command `inspect`, on copies of every kind, whole and broken."""

import hashlib
import json

from etils import epath
import pytest

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.commands.inspect import inspect_copy
from tests.support.archives import pack_tars, pack_zip
from tests.support.competition import DUMMY_DATA, Competition
from tests.support.layouts import WRONG_LAYOUTS


@pytest.fixture
def competition(tmp_path):
    return Competition(tmp_path / "copy")


def run_inspect(capsys, folder, *arguments):
    """Returns the exit status and the JSON object."""
    status = cli.main(["inspect", "--manual_dir", str(folder), "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def inspect(folder, num_images=1000, seed=0):
    return inspect_copy(epath.Path(folder), BuildOptions(bank="off"), num_images=num_images, seed=seed)


# --- What is there


@pytest.mark.parametrize("kind", ["folder", "zip", "tars"])
def test_a_usable_copy(kind, tmp_path, capsys):
    folder = tmp_path / "copy"
    if kind == "folder":
        folder = DUMMY_DATA
    elif kind == "zip":
        pack_zip(DUMMY_DATA, folder)
    else:
        pack_tars(DUMMY_DATA, folder)
    status, found = run_inspect(capsys, folder)
    assert status == 0
    assert set(found) == {"schema_version", "usable", "manual_dir", "source", "table", "images", "problems", "notes"}
    assert (found["schema_version"], found["usable"], found["problems"]) == (1, True, [])
    assert [note["kind"] for note in found["notes"]] == ["single_images"]
    assert found["source"]["kind"] == kind
    assert found["source"]["num_archives"] == {"folder": None, "zip": 1, "tars": 3}[kind]
    table, images = found["table"], found["images"]
    assert (table["num_images"], table["num_landmarks"], table["num_landmarks_with_single_image"]) == (45, 12, 2)
    assert (table["min_images_per_landmark"], table["max_images_per_landmark"]) == (1, 9)
    assert sum(count for _, _, count in table["histogram"]) == 12
    assert (images["num_missing"], images["num_looked_at"], images["num_unreadable"]) == (0, 45, {})
    # 45 images, of which one each is grey, progressive and a PNG (tests/make_dummy_data.py).
    for share in ("grey_share", "progressive_share", "not_jpeg_share"):
        assert images[share] == pytest.approx(1 / 45, abs=1e-4), share
    assert images["short_side_below_px"]["512"] == 1
    assert images["common_sizes"][0] == [192, 144, pytest.approx(43 / 45, abs=1e-4)]
    assert images["estimated_total_bytes"] == sum(p.stat().st_size for p in DUMMY_DATA.glob("train/*/*/*/*"))


def test_text(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    assert cli.main(["inspect", "--manual_dir", str(DUMMY_DATA)]) == 0
    text = capsys.readouterr().out
    assert "45 images of 12 landmarks" in text
    assert "all 45: none unreadable" in text
    assert "\x1b[" not in text  # colours are for terminals
    assert "Usable." in text
    assert max(len(line) for line in text.splitlines() if str(DUMMY_DATA) not in line) <= 90


# --- What is wrong


@pytest.mark.parametrize(("prepare", "manual_dir", "message"), WRONG_LAYOUTS.values(), ids=WRONG_LAYOUTS)
def test_each_wrong_layout_has_its_message(tmp_path, capsys, prepare, manual_dir, message):
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    status = cli.main(["inspect", "--manual_dir", str(tmp_path / manual_dir), "--json"])
    output = capsys.readouterr()
    if not (tmp_path / manual_dir).is_dir():  # nothing to look at
        assert (status, output.out) == (2, "")
        return
    found = json.loads(output.out)
    assert (status, found["usable"], found["source"]) == (1, False, None)
    (problem,) = found["problems"]
    assert problem["kind"] == "layout"
    assert "kaggle competitions download" in problem["advice"]
    assert str(tmp_path) in problem["message"]


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "archive", "cut off or damaged"),
        (lambda path: path.write_bytes(b"<!DOCTYPE html>"), "archive", "is no zip"),
        (lambda path: path.write_bytes(b""), "archive", "cut off or damaged"),
    ],
)
def test_a_damaged_zip(tmp_path, capsys, damage, kind, message):
    damage(pack_zip(DUMMY_DATA, tmp_path / "copy"))
    status, found = run_inspect(capsys, tmp_path / "copy")
    assert status == 1
    assert found["problems"][0]["kind"] == kind
    assert message in found["problems"][0]["message"]


def test_a_damaged_tar(tmp_path, capsys):
    path = pack_tars(DUMMY_DATA, tmp_path / "copy", md5=False) / "train" / "images_001.tar"
    path.write_bytes(path.read_bytes()[:1000])
    status, found = run_inspect(capsys, tmp_path / "copy")
    assert status == 1
    assert "images_001.tar" in found["problems"][0]["message"]


@pytest.mark.parametrize(
    ("lines", "num_verified", "note"),
    [
        (["MD5 ({0}) = {1}"] * 3, 3, None),
        (
            ["{1}  {0}", "MD5({0})= {1}"],
            2,
            "2 of the 3 tars in {train} are verified. No MD5 list names the others",
        ),
        ([], 0, "0 of the 3 tars in {train} are verified. No MD5 list names the others"),
        (["sha {1}  {0}"], 0, "{train}/md5.txt has 1 lines that are not understood"),
    ],
)
def test_verified_and_not_verified_are_told_apart(tmp_path, capsys, lines, num_verified, note):
    train = pack_tars(DUMMY_DATA, tmp_path / "copy", md5=False) / "train"
    hashes = [hashlib.md5((train / f"images_00{n}.tar").read_bytes()).hexdigest() for n in range(len(lines))]
    if lines:
        listed = (line.format(f"images_00{n}.tar", hashes[n]) for n, line in enumerate(lines))
        (train / "md5.txt").write_text("\n".join(listed))
    status, found = run_inspect(capsys, tmp_path / "copy")
    assert (status, found["source"]["num_verified"]) == (0, num_verified)
    messages = [each["message"] for each in found["notes"] if each["kind"] == "verification"]
    assert any(note.format(train=train) in message for message in messages) if note else not messages
    assert cli.main(["inspect", "--manual_dir", str(tmp_path / "copy")]) == 0
    assert f"{num_verified} of 3 tars verified by MD5 lists" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{md5}  {name}", "MD5 ({name}) = {md5}", "MD5(train/{name})= {md5}"])
def test_a_tar_with_another_hash(tmp_path, capsys, line):
    train = pack_tars(DUMMY_DATA, tmp_path / "copy", md5=False) / "train"
    (train / "md5.txt").write_text(line.format(md5="0" * 32, name="images_001.tar"), encoding="utf-16")
    status, found = run_inspect(capsys, tmp_path / "copy")
    assert (status, found["problems"][0]["kind"]) == (1, "archive")
    assert "images_001.tar has the MD5" in found["problems"][0]["message"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id;landmark_id\n", "the header must have"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("<html>", "HTML page"),
        ("", "is empty"),
    ],
)
def test_a_wrong_table(competition, capsys, content, message):
    (competition.folder / "train.csv").write_text(content)
    status, found = run_inspect(capsys, competition.folder)
    assert status == 1
    assert found["problems"][0]["kind"] == "table"
    assert message in found["problems"][0]["message"]
    assert found["source"]["kind"] == "folder"


@pytest.mark.parametrize(
    ("table", "message"),
    [("1\n", "a single landmark"), ("unique", "a single image for every landmark")],
)
def test_a_table_without_triplets(competition, capsys, table, message):
    lines = [f"{image_id},{number if table == 'unique' else 1}" for number, image_id in enumerate(competition.ids())]
    (competition.folder / "train.csv").write_text("id,landmark_id\n" + "\n".join(lines) + "\n")
    status, found = run_inspect(capsys, competition.folder)
    assert status == 1
    assert [problem["kind"] for problem in found["problems"]] == ["no_triplets"]
    assert message in found["problems"][0]["message"]


BROKEN = {
    "empty file": b"",
    "not a JPEG, PNG or GIF file": b"<html>sign in</html>",
    "damaged or truncated": None,  # cut
}


def test_a_few_broken_images_are_noted(competition, capsys):
    for image_id, content in zip(competition.ids(), BROKEN.values(), strict=False):
        path = competition.path(image_id)
        path.write_bytes(path.read_bytes()[:200] if content is None else content)
    competition.path(competition.ids()[5]).unlink()
    status, found = run_inspect(capsys, competition.folder)
    assert status == 0  # up to 10 may be unreadable
    assert found["images"]["num_unreadable"] == dict.fromkeys(BROKEN, 1)
    assert (found["images"]["num_missing"], found["images"]["num_looked_at"]) == (1, 44)
    notes = {note["kind"]: note for note in found["notes"]}
    assert "3 of 44 images looked at" in notes["unreadable"]["message"]
    assert str(competition.path(competition.ids()[0])) in notes["unreadable"]["message"]
    assert "error or login page" in notes["unreadable"]["advice"]
    assert "1 of the 45 images have no file" in notes["missing"]["message"]


def test_many_broken_images_are_a_problem(competition, capsys):
    for image_id in competition.ids()[:11]:
        competition.path(image_id).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    status, found = run_inspect(capsys, competition.folder)
    assert status == 1
    (problem,) = found["problems"]
    assert problem["kind"] == "unreadable"
    assert "git lfs pull" in problem["advice"]


def test_a_small_sample_tells_of_a_large_share(competition, capsys):
    """Half of the images are broken; 8 looked at, of which some are: a build would meet more than 10."""
    for image_id in competition.ids()[::2]:
        competition.path(image_id).write_bytes(b"")
    status, found = run_inspect(capsys, competition.folder, "--images", "8")
    assert found["images"]["num_looked_at"] == 8
    assert 2 <= found["images"]["num_unreadable"]["empty file"] < 8
    assert status == 1


def test_many_missing_images_are_a_problem(competition, capsys):
    for image_id in competition.ids()[:11]:
        competition.path(image_id).unlink()
    status, found = run_inspect(capsys, competition.folder)
    assert status == 1
    (problem,) = found["problems"]
    assert problem["kind"] == "missing"
    assert "11 of the 45 images have no file (24.4%)" in problem["message"]
    assert "missing_images" in problem["advice"]


def test_no_image_of_the_table_is_there(competition, capsys):
    """Files of another name: the message shows what is where the first one should be."""
    for image_id in competition.ids():
        path = competition.path(image_id)
        path.rename(path.with_suffix(".jpeg"))
    status, found = run_inspect(capsys, competition.folder)
    assert status == 1
    first = competition.path(competition.ids()[0])
    assert str(first) in found["problems"][0]["message"]
    assert f"{first.parent} holds {first.stem}.jpeg" in found["problems"][0]["advice"]


def test_problems_as_text(competition, capsys):
    for image_id in competition.ids()[:11]:
        competition.path(image_id).unlink()
    assert cli.main(["inspect", "--manual_dir", str(competition.folder)]) == 1
    text = capsys.readouterr().out
    assert "\nProblem: 11 of the 45" in text
    assert text.endswith("Not usable as it is.\n")


@pytest.mark.parametrize("arguments", [["--images", "-1"], ["--seed", "-1"]])
def test_wrong_values(arguments, capsys):
    assert cli.main(["inspect", "--manual_dir", str(DUMMY_DATA), *arguments]) == 2
    assert "it must be a whole number between 0 and 2**64 - 1, got -1." in capsys.readouterr().err


def test_a_wrong_build_option(monkeypatch, capsys):
    monkeypatch.setenv("LANDMARK_TRIPLETS_WORKERS", "many")
    assert cli.main(["inspect", "--manual_dir", str(DUMMY_DATA)]) == 2
    assert "LANDMARK_TRIPLETS_WORKERS" in capsys.readouterr().err


# --- The sample


def test_the_sample_is_the_same_each_time():
    assert inspect(DUMMY_DATA, 10) == inspect(DUMMY_DATA, 10)
    assert inspect(DUMMY_DATA, 10)["images"] != inspect(DUMMY_DATA, 10, seed=1)["images"]
    assert inspect(DUMMY_DATA, 0)["images"]["num_looked_at"] == 0
