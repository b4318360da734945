"""Records compared with each other and with the files beside them."""

import numpy as np
import pytest

from landmark_triplets_tfds.commands.verify import findings
from tests.support.prepared_builds import (
    assert_forgery_is_found,
    edit_json,
    forge,
    problems_of,
    read_examples,
    set_value,
    shards_of,
    value,
    verified,
)


def swap_images(examples):
    anchor, negative = (value(examples[4], name) for name in ("anchor_img", "negative_img"))
    anchor[0], negative[0] = negative[0], anchor[0]


FORGERIES = {
    "key twice": (lambda examples: examples.__setitem__(5, examples[2]), findings.REPEATED, 5, "record 2 is its key"),
    "images swapped": (swap_images, findings.IMAGE, 4, "differs from the image stored under the same id"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGERIES)
def test_forged_records(copy, what):
    assert_forgery_is_found(copy, *FORGERIES[what])


def test_a_landmark_that_other_records_contradict(copy):
    """A negative that lies about its landmark is given away by the records in which it is an anchor."""
    number, lie = 3, 999
    shard = forge(copy, set_value(number, "negative_landmark_id", lie))
    (problem,) = problems_of(verified(copy), findings.RULE)
    assert (problem.file, problem.record) == (shard, number)
    assert f"shows landmark {lie}, and landmark " in problem.message


def test_more_anchors_than_the_config_allows(copy):
    edit_json(copy / "metadata.json", lambda metadata: metadata["config"].update(images_per_landmark=3))
    found = problems_of(verified(copy), findings.RULE)
    assert found
    assert all("images_per_landmark=3" in p.message for p in found)


def test_landmarks_in_the_wrong_split(copy_of_images):
    train, *_, validation = shards_of(copy_of_images)
    moved = read_examples(validation)[0]
    forge(copy_of_images, lambda examples: examples.__setitem__(1, moved))
    found = problems_of(verified(copy_of_images), findings.RULE)
    assert [(p.file, p.record) for p in found] == [(train.name, 1)]
    assert "belongs to the other split than train" in found[0].message


def test_sides_are_not_guessed(copy_of_images):
    edit_json(copy_of_images / "metadata.json", lambda metadata: metadata["config"].pop("validation_percent"))
    assert problems_of(verified(copy_of_images), findings.RULE) == []


def test_an_image_that_is_there_twice(copy_of_images):
    forge(copy_of_images, lambda examples: examples.__setitem__(4, examples[2]))
    (problem,) = problems_of(verified(copy_of_images), findings.REPEATED)
    assert problem.record == 4


def test_the_index_of_images(copy_of_images):
    path = copy_of_images / "index.npz"
    content = dict(np.load(path))
    shard = next(s for s in shards_of(copy_of_images) if "validation" in s.name)
    at = int(content["split_lengths"][0]) + 1
    content["image_id"][at] += np.uint64(1)
    content["landmark_id"][0] += 1
    np.savez(path, **content)
    found = {(p.file, p.record) for p in problems_of(verified(copy_of_images), findings.INDEX)}
    assert found == {(shards_of(copy_of_images)[0].name, 0), (shard.name, 1)}
    np.savez(path, **(content | {"split_lengths": content["split_lengths"][::-1]}))
    assert [p.file for p in problems_of(verified(copy_of_images), findings.INDEX)] == ["index.npz"] * 2
    path.write_bytes(path.read_bytes()[:100])
    assert "is damaged" in problems_of(verified(copy_of_images), findings.INDEX)[0].message
    path.unlink()
    verification = verified(copy_of_images)
    assert verification.findings.problems == []
    assert "no index.npz" in verification.findings.notes[0]


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
    assert [p.file for p in problems_of(verified(copy), findings.INFO)] == [file]


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
    (problem,) = problems_of(verified(copy), findings.COUNT)
    assert problem.file == name
    assert message in problem.message
