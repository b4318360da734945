"""Which images are left of a table, and which others are found; builds of what is selected are tested with builds."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

from etils import epath
import numpy as np
import pytest

from landmark_triplets_tfds.competition.selection import Selection, select_images
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.errors import LandmarkTableError, SourceLayoutError
from tests.support.archives import image_files
from tests.support.competition import DUMMY_DATA, Competition


def select(folder: pathlib.Path = pathlib.Path(DUMMY_DATA), **changes: Any) -> Selection:
    fields = {
        "excluded_landmarks": np.zeros(0, dtype=np.int64),
        "missing_images": "error",
        "unlabeled_folders": (),
        "index_folder": "off",
        "num_threads": 2,
    }
    return select_images(find_source(epath.Path(folder)), **(fields | changes))


def test_everything() -> None:
    selection = select()
    assert selection.images.table is selection.not_excluded is selection.whole
    assert selection.unlabeled == {}
    assert selection.fingerprints() == {"table_sha256": selection.whole.fingerprint}
    dropped = select(missing_images="drop")
    assert dropped.images.table is dropped.whole


def test_excluded_landmarks() -> None:
    whole = select().whole
    excluded = whole.landmark_ids[:1]
    selection = select(excluded_landmarks=excluded)
    assert selection.whole.fingerprint == whole.fingerprint
    assert selection.images.table is selection.not_excluded
    assert selection.not_excluded.fingerprint == whole.restrict(whole.landmark_ids != excluded[0]).fingerprint
    with pytest.raises(LandmarkTableError, match=r"excludes all 12 landmarks of .*train\.csv"):
        select(excluded_landmarks=np.unique(whole.landmark_ids))


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
    selection = select(unlabeled_folders=("index", "test"))
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
        select(competition.folder, unlabeled_folders=("index", "test"))
