"""Records compared with each other and with the files beside them."""

import functools
import random

import numpy as np
import pytest

from landmark_triplets_tfds.commands.verify.records import Kind
from tests.support.competition import build, custom_config
from tests.support.prepared_builds import (
    FIELDS,
    assert_all_well,
    assert_forgery_is_found,
    copy_of,
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
def datasets(with_list, tmp_path_factory):
    """Folders of datasets by the fields of their configs, each built when it is first asked for."""

    @functools.cache
    def folder_with(fields):
        fields = FIELDS | dict(fields)
        if "triplets_file" in fields:  # which has three of an anchor
            path = folder_with((("triplets_per_anchor", 3),)) / "triplets.csv"
            fields = {"resolution": 16, "triplets_file": str(path)}
        with without_bank(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("LANDMARK_TRIPLETS_TRIPLETS_CSV", "on")
            return build(tmp_path_factory.mktemp("data"), custom_config(**fields)).data_path

    return folder_with


@pytest.fixture
def data_with(datasets, tmp_path):
    return lambda fields: copy_of(datasets(tuple(fields.items())), tmp_path / "with" / "custom" / "1.0.0")


def swap_images(examples):
    anchor, negative = (value(examples[4], name) for name in ("anchor_img", "negative_img"))
    anchor[0], negative[0] = negative[0], anchor[0]


FORGERIES = {
    "key twice": (lambda examples: examples.__setitem__(5, examples[2]), Kind.REPEATED, 5, "record 2 is its key"),
    "images swapped": (swap_images, Kind.IMAGE, 4, "differs from the image stored under the same id"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    assert_forgery_is_found(copy, *FORGERIES[what])


def test_a_landmark_that_other_records_contradict(copy):
    """A negative that lies about its landmark is given away by the records in which it is an anchor."""
    number, lie = 3, 999
    shard = forge(copy, set_value(number, "negative_landmark_id", lie))
    (problem,) = problems_of(verified(copy), Kind.RULE)
    assert (problem.file, problem.record) == (shard, number)
    assert f"shows landmark {lie}, and landmark " in problem.message


def test_more_anchors_than_the_config_allows(copy):
    edit_json(copy / "metadata.json", lambda metadata: metadata["config"].update(images_per_landmark=3))
    found = problems_of(verified(copy), Kind.RULE)
    assert found
    assert all("images_per_landmark=3" in p.message for p in found)


def test_landmarks_in_the_wrong_split(copy_of_images):
    train, *_, validation = shards_of(copy_of_images)
    moved = read_examples(validation)[0]
    forge(copy_of_images, lambda examples: examples.__setitem__(1, moved))
    found = problems_of(verified(copy_of_images), Kind.RULE)
    assert [(p.file, p.record) for p in found] == [(train.name, 1)]
    assert "belongs to the other split than train" in found[0].message


def test_sides_are_not_guessed(copy_of_images):
    edit_json(copy_of_images / "metadata.json", lambda metadata: metadata["config"].pop("validation_percent"))
    assert problems_of(verified(copy_of_images), Kind.RULE) == []


def test_an_image_that_is_there_twice(copy_of_images):
    forge(copy_of_images, lambda examples: examples.__setitem__(4, examples[2]))
    (problem,) = problems_of(verified(copy_of_images), Kind.REPEATED)
    assert problem.record == 4


def test_the_index_of_images(copy_of_images):
    path = copy_of_images / "index.npz"
    content = dict(np.load(path))
    shard = next(s for s in shards_of(copy_of_images) if "validation" in s.name)
    at = int(content["split_lengths"][0]) + 1
    content["image_id"][at] += np.uint64(1)
    content["landmark_id"][0] += 1
    np.savez(path, **content)
    found = {(p.file, p.record) for p in problems_of(verified(copy_of_images), Kind.INDEX)}
    assert found == {(shards_of(copy_of_images)[0].name, 0), (shard.name, 1)}
    np.savez(path, **(content | {"split_lengths": content["split_lengths"][::-1]}))
    assert [p.file for p in problems_of(verified(copy_of_images), Kind.INDEX)] == ["index.npz"] * 2
    path.write_bytes(path.read_bytes()[:100])
    assert "is damaged" in problems_of(verified(copy_of_images), Kind.INDEX)[0].message
    np.savez(
        path, **{name: content[name] for name in ("image_id", "landmark_id")}, split_names=["a"], split_lengths=[45]
    )
    (problem,) = problems_of(verified(copy_of_images), Kind.INDEX)
    assert problem.message == "it has the splits a, and the dataset train, validation"


def move(examples, at, to):
    examples.insert(to, examples.pop(at))


@pytest.mark.parametrize(
    "change",
    [
        lambda examples: examples.reverse(),
        lambda examples: move(examples, 3, 4),
        lambda examples: move(examples, 0, -1),
        lambda examples: move(examples, -1, 0),
        lambda examples: examples.sort(key=lambda example: value(example, "anchor_id")[0]),
        lambda examples: random.Random(0).shuffle(examples),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"triplets_per_anchor": 3}, {"triplets_file": "triplets.csv"}])
def test_another_order_than_that_of_builds(data_with, fields, change):
    """Also where an anchor has several triplets, and without the competition's files."""
    folder = data_with(fields)
    assert_all_well(verified(folder))
    forge(folder, change)
    assert {problem.kind for problem in verified(folder).problems} == {Kind.ORDER}


def test_shards_that_took_each_others_place(copy):
    first, second = shards_of(copy)
    content = first.read_bytes(), second.read_bytes()
    second.write_bytes(content[0])
    first.write_bytes(content[1])
    edit_json(copy / "dataset_info.json", lambda info: info["splits"][0]["shardLengths"].reverse())
    (problem,) = verified(copy).problems
    assert (problem.kind, problem.file, problem.record) == (Kind.ORDER, second.name, 0)


def test_an_order_that_is_not_known(data_with):
    """Of triplets from a file that were left out, keys of others are not known."""
    folder = data_with({"triplets_file": "triplets.csv"})
    for name in ("metadata.json", "build_report.json"):
        edit_json(folder / name, lambda content: content["counts"].update(num_triplets_left_out=1))
    verification = verified(folder)
    assert_all_well(verification)
    assert "the order of train not checked" in verification.notes[0]


def change_line(number, change):
    def change_lines(lines):
        lines[number] = change(lines[number])

    return change_lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines.pop(3), "it lacks 1 records of train"),
        (lambda lines: lines.insert(3, lines[3]), "line 5 is of no record"),
        (change_line(0, lambda line: line[1:]), "it does not begin with key,anchor_id"),
        (change_line(2, lambda line: line[:-1]), "line 3 is of no record"),
        (change_line(2, lambda line: "0" + line[1:]), "line 3 is of no record"),
        (change_line(2, lambda line: line.replace(",", "/1,", 1)), "line 3: there is no triplet"),
        (change_line(2, lambda line: line.replace(",", "/x,", 1)), "line 3 is of no record"),
        (change_line(2, lambda line: line[:20] + "\udcff" + line[21:]), "line 3 is of no record"),
        (change_line(-1, lambda line: "0"), "or is cut off"),
        (lambda lines: lines.clear(), "it does not begin with"),
    ],
)
def test_a_list_of_triplets_that_does_not_fit(copy_with_list, change, message):
    assert_all_well(verified(copy_with_list))
    path = copy_with_list / "triplets.csv"
    lines = path.read_text().split("\n")
    change(lines)
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    found = verified(copy_with_list).problems
    assert {problem.kind for problem in found} == {Kind.LIST}
    assert any(message in problem.message for problem in found)


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
    assert [p.file for p in problems_of(verified(copy), Kind.INFO)] == [file]


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
    (problem,) = problems_of(verified(copy), Kind.COUNT)
    assert problem.file == name
    assert message in problem.message
