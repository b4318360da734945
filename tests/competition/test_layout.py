"""Names of images in each kind of copy, and what is said of a folder that is none."""

from __future__ import annotations

from collections.abc import Callable
import pathlib

from etils import epath
from hypothesis import given
from hypothesis import strategies as st
import pytest

from landmark_triplets_tfds.competition.layout import (
    FOLDER_NAMES,
    image_path,
    mark_stamp,
    parse_file_name,
    parse_tar_name,
    parse_zip_name,
    parse_zip_table_name,
)
from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.errors import SourceLayoutError
from tests.support.layouts import WRONG_LAYOUTS


@given(st.integers(0, 2**64 - 1), st.sampled_from(FOLDER_NAMES))
def test_names_are_parsed_back(image_id: int, folder: str) -> None:
    path = image_path(image_id)
    assert parse_file_name(path.split("/")[-1]) == image_id
    for lead in ("", "./", "/", ".//./"):
        for root in ("", "landmark-retrieval-2020/", "train/", "C:/", ".../"):
            assert parse_zip_name(f"{lead}{root}{folder}/{path}") == (root, folder, image_id)
            assert parse_zip_table_name(f"{lead}{root}train.csv") == root
        for inner in ("", f"{folder}/"):
            assert parse_tar_name(lead + inner + path, folder) == image_id


@pytest.mark.parametrize(
    "path",
    [
        "0/a/1/0b1b000000000001.jpg",
        "0/a/1/0A1b000000000001.jpg",
        "0/a/1/0a1b00000000001.jpg",
        "0/a/1/0a1b000000000001.JPG",
        "0/a/1/0a1b000000000001.jpg\n",
        "0/a/1/../1/0a1b000000000001.jpg",
        "0a1b000000000001.jpg",
    ],
)
@pytest.mark.parametrize("before", ["", "/", "../", "./", "train/", "../train/", "a/b/train/", "train_clean/"])
def test_other_names_are_no_images(before: str, path: str) -> None:
    assert parse_zip_name(before + path) is None
    assert parse_tar_name(before + path) is None


@pytest.mark.parametrize(
    "before",
    ["../train/", "/../train/", "./../train/", "../../train/", "a/../train/", "a/b/train/", "train/x/"],
)
def test_nothing_leads_out_of_an_archive(before: str) -> None:
    assert parse_zip_name(f"{before}{image_path(1)}") is None
    assert parse_tar_name(f"{before}{image_path(1)}") is None
    assert parse_zip_table_name(before.replace("train/", "") + "../train.csv") is None


def test_tars_of_another_folder() -> None:
    assert parse_tar_name(f"index/{image_path(1)}") is None
    assert parse_tar_name(f"index/{image_path(1)}", "index") == 1


def test_stamps_tell_folders_apart() -> None:
    assert len({mark_stamp((5, 1_600_000_000 * 10**9), folder) for folder in FOLDER_NAMES}) == 3


@pytest.mark.parametrize(("prepare", "manual_dir", "message"), WRONG_LAYOUTS.values(), ids=WRONG_LAYOUTS)
def test_a_wrong_layout_is_described(
    tmp_path: pathlib.Path, prepare: Callable[[pathlib.Path], object], manual_dir: str, message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    expected = message.format(manual_dir=tmp_path / manual_dir, data=data)
    with pytest.raises(SourceLayoutError, match=expected) as caught:
        find_source(epath.Path(tmp_path / manual_dir))
    assert isinstance(caught.value, FileNotFoundError)
    text = str(caught.value)
    for help_text in (
        "<manual_dir>/train.csv",
        "<manual_dir>/train/a/b/c/<id>.jpg",
        "<manual_dir>/landmark-retrieval-2020.zip",
        "<manual_dir>/train/images_000.tar",
        "kaggle competitions download -c landmark-retrieval-2020",
        "https://s3.amazonaws.com/google-landmark/train/images_",
        "--manual_dir",
    ):
        assert help_text in text
