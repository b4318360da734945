"""The planner of splits: the plan of each, a file of triplets read once, and what is noted of it."""

import contextlib
import pathlib
import shutil

from etils import epath
import numpy as np
import pytest

from landmark_triplets_tfds.build import splits as splits_module
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.splits import SplitPlanner, select_images_of
from landmark_triplets_tfds.competition.selection import Selection, find_source
from landmark_triplets_tfds.errors import LandmarkTableError, NoExampleError, SourceLayoutError, TripletsFileError
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS
from landmark_triplets_tfds.triplets.plan import make_plan
from tests.support.archives import image_files
from tests.support.competition import DUMMY_DATA, REPOSITORY, Competition, custom_config, images_config
from tests.support.helpers import time_limit

CHOSEN = REPOSITORY / "tests" / "chosen.csv"


def planner_of(config, **kwargs) -> SplitPlanner:
    source = find_source(epath.Path(DUMMY_DATA))
    return SplitPlanner(select_images_of(config, source, BuildOptions(bank="off")), config, **kwargs)


@pytest.mark.parametrize(("make", "kind"), [(custom_config, TRIPLETS), (images_config, IMAGES)])
def test_plans_are_those_of_the_specs(make, kind):
    config = make(validation_percent=50)
    planner = planner_of(config)
    assert planner.splits() == ["train", "validation"]
    for split in planner.splits():
        planned = planner.plan_split(split)
        expected = make_plan(planned.images.table, config.example_spec(split))
        assert (planned.split, planned.plan.kind) == (split, kind)
        assert planned.plan.num_examples == expected.num_examples > 0
        np.testing.assert_array_equal(
            planned.plan.rows(0, expected.num_examples), expected.rows(0, expected.num_examples)
        )
        assert not planned.left_out
    assert planner.file_hashes == {}


def test_images_without_labels_are_splits_of_their_own():
    planner = planner_of(images_config(unlabeled_splits=True))
    assert planner.splits() == ["train", "index", "test"]
    assert planner.images_of("index") is planner.plan_split("index").images is not planner.images_of("train")
    assert (planner.plan_split("test").images.table.landmark_ids == -1).all()


@pytest.mark.parametrize(
    ("landmark", "fields", "message"),
    [
        (lambda row: 7, {}, "all 200000 images show the same landmark, so there is no negative"),
        (lambda row: 7, {"images_per_landmark": None}, "show the same landmark, so there is no negative"),
        (lambda row: 7, {"positive_may_be_anchor": True}, "show the same landmark, so there is no negative"),
        (lambda row: 7, {"validation_percent": 10}, "leaves it 1 of the 1 landmarks, and two are needed"),
        (lambda row: row, {}, "each of the 200000 landmarks has a single image, so no anchor has a positive"),
        (lambda row: row % 2, {"exclude_landmarks": "1\n"}, "show the same landmark, so there is no negative"),
    ],
)
def test_a_table_without_triplets_is_refused_by_name_before_anything_is_drawn(tmp_path, landmark, fields, message):
    (tmp_path / "train/0").mkdir(parents=True)
    (tmp_path / "train.csv").write_text(
        "id,landmark_id\n" + "".join(f"{row:016x},{landmark(row)}\n" for row in range(200_000))
    )
    if "exclude_landmarks" in fields:
        (tmp_path / "excluded.txt").write_text(fields["exclude_landmarks"])
        fields = {"exclude_landmarks": str(tmp_path / "excluded.txt")}
    config = custom_config(**fields)
    with time_limit(20):
        selection = select_images_of(config, find_source(epath.Path(tmp_path)), BuildOptions(bank="off"))
        with pytest.raises(NoExampleError, match=rf"{tmp_path}/train\.csv: No triplet can be drawn.*{message}"):
            SplitPlanner(selection, config).plan_split("train")


def test_a_file_of_triplets_is_read_once_for_all_splits(tmp_path, monkeypatch):
    header, *lines = CHOSEN.read_text().splitlines(keepends=True)
    stages, reads = [], []
    read = splits_module.read_triplets_file
    monkeypatch.setattr(splits_module, "read_triplets_file", lambda path: (reads.append(path), read(path))[1])

    @contextlib.contextmanager
    def stage(name):
        stages.append(name)
        yield

    (tmp_path / "chosen.csv").write_text(header + "".join(lines[:3]))
    config = custom_config(triplets_file=str(tmp_path / "chosen.csv"))
    planner = planner_of(config, stage=stage)
    for _ in range(2):
        assert planner.plan_split("train").plan.num_examples == 3
    assert reads == [str(tmp_path / "chosen.csv")]
    assert stages == ["read_triplets_file", "plan"] * 2
    assert planner.file_hashes == {"triplets_file": config.dataset_fields()["triplets_file"]}


def test_what_a_config_leaves_out_is_counted(tmp_path):
    whole = planner_of(custom_config(triplets_file=str(CHOSEN))).plan_split("train")
    landmark = whole.images.table.landmark_ids[whole.plan.rows(0, 1)[0, 0]]
    (tmp_path / "excluded.txt").write_text(f"{landmark}\n")
    config = custom_config(triplets_file=str(CHOSEN), exclude_landmarks=str(tmp_path / "excluded.txt"))
    planned = planner_of(config).plan_split("train")
    assert planned.left_out["excluded landmark"] == whole.plan.num_examples - planned.plan.num_examples > 0


def test_what_cannot_be_planned(tmp_path):
    with pytest.raises(NoExampleError, match="'validation' would be empty"):
        planner_of(images_config(validation_percent=0.01)).plan_split("validation")
    (tmp_path / "chosen.csv").write_text("anchor_id,positive_id,negative_id\na,b,c\n")
    with pytest.raises(TripletsFileError, match="line 2"):
        planner_of(custom_config(triplets_file=str(tmp_path / "chosen.csv"))).plan_split("train")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        planner_of(custom_config(triplets_file=str(tmp_path / "nowhere.csv"))).plan_split("train")


# --- Which images are selected


def select(folder: pathlib.Path = DUMMY_DATA, make=custom_config, **fields) -> Selection:
    return select_images_of(make(**fields), find_source(epath.Path(folder)), BuildOptions(bank="off", readers=2))


def test_everything() -> None:
    selection = select()
    assert selection.images.table is selection.not_excluded is selection.whole
    assert selection.unlabeled == {}
    assert selection.fingerprints() == {"table_sha256": selection.whole.fingerprint}
    dropped = select(missing_images="drop")
    assert dropped.images.table is dropped.whole


def test_excluded_landmarks(tmp_path: pathlib.Path) -> None:
    list_path = tmp_path / "excluded.txt"
    whole = select().whole
    excluded = whole.landmark_ids[:1]
    list_path.write_text(f"{excluded[0]}\n")
    selection = select(exclude_landmarks=str(list_path))
    assert selection.whole.fingerprint == whole.fingerprint
    assert selection.images.table is selection.not_excluded
    assert selection.not_excluded.fingerprint == whole.restrict(whole.landmark_ids != excluded[0]).fingerprint
    list_path.write_text("\n".join(map(str, whole.landmark_ids.tolist())))
    with pytest.raises(LandmarkTableError, match=r"excludes all 12 landmarks of .*train\.csv"):
        select(exclude_landmarks=str(list_path))


def test_missing_images(tmp_path: pathlib.Path) -> None:
    competition = Competition(tmp_path / "competition")
    competition.path(competition.ids()[0]).unlink()
    assert select(competition.folder).images.table.num_images == 45
    dropped = select(competition.folder, missing_images="drop")
    assert dropped.images.table.image_ids.tolist() == competition.table.image_ids[1:].tolist()
    assert dropped.not_excluded.num_images == 45
    shutil.rmtree(competition.folder / "train")
    (competition.folder / "train/0").mkdir(parents=True)
    with pytest.raises(LandmarkTableError, match=r"None of the 45 images .* has a file; the first would be"):
        select(competition.folder, missing_images="drop")


def test_unlabeled_folders(tmp_path: pathlib.Path) -> None:
    selection = select(make=images_config, unlabeled_splits=True)
    assert list(selection.unlabeled) == ["index", "test"]
    for folder, images in selection.unlabeled.items():
        expected = sorted(int(path.stem, 16) for path in image_files(DUMMY_DATA, folder))
        assert images.table.image_ids.tolist() == expected
        assert images.source.exists(expected[0])
    assert set(selection.fingerprints()["unlabeled_sha256"]) == {"index", "test"}
    competition = Competition(tmp_path / "competition")
    for folder in ("index", "test"):
        shutil.rmtree(competition.folder / folder, ignore_errors=True)
    with pytest.raises(SourceLayoutError, match=r"unlabeled_splits=True, but there is no image in .*index or .*test"):
        select(competition.folder, images_config, unlabeled_splits=True)
