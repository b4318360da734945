"""Which copy of the competition a folder holds, and which of its images are selected."""

from __future__ import annotations

import pathlib

from etils import epath
import pytest

from landmark_triplets_tfds.competition.selection import find_source
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.competition.zip_archive import ZipSource
from tests.support.layouts import IMAGE_ID, IMAGE_PATH, write_competition, write_tars

# --- Finding the files


@pytest.mark.parametrize("below", [".", "landmark-retrieval-2020"])
@pytest.mark.parametrize("others", [(), ("test.csv", "landmark-retrieval-2020.zip", "other.zip"), ("train.csv.part",)])
def test_finds_the_competition(tmp_path: pathlib.Path, below: str, others: tuple[str, ...]) -> None:
    root = write_competition(tmp_path / below)
    for name in others:
        (tmp_path / name).write_bytes(b"")
    source = find_source(epath.Path(tmp_path))
    assert source.table_path == str(root / "train.csv")
    assert source.read(IMAGE_ID) == b"\xff\xd8\xff image"
    assert not source.is_remote


def test_prefers_the_folder_named_to_the_one_within(tmp_path: pathlib.Path) -> None:
    write_competition(tmp_path, b"outer")
    write_competition(tmp_path / "landmark-retrieval-2020", b"inner")
    assert find_source(epath.Path(tmp_path)).read(IMAGE_ID) == b"outer"


def test_a_half_layout_outside_does_not_hide_a_whole_one_within(tmp_path: pathlib.Path) -> None:
    (tmp_path / "train.csv").write_text("id,landmark_id\n")
    write_competition(tmp_path / "landmark-retrieval-2020", b"inner")
    assert find_source(epath.Path(tmp_path)).read(IMAGE_ID) == b"inner"


# --- Which copy counts


@pytest.mark.parametrize("below", [".", "landmark-retrieval-2020"])
@pytest.mark.parametrize("name", ["landmark-retrieval-2020.zip", "landmark-recognition-2020.zip"])
def test_finds_a_zip(tmp_path: pathlib.Path, below: str, name: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    (tmp_path / below / name).touch()
    source = find_source(epath.Path(tmp_path))  # which opens nothing: the file is empty
    assert isinstance(source, ZipSource)
    assert source.archive == str(tmp_path / below / name)


def test_a_packed_table_is_no_copy(tmp_path: pathlib.Path) -> None:
    for name in ("mine.zip", "train.csv.zip", "sample_submission.csv.zip"):
        (tmp_path / name).touch()
    source = find_source(epath.Path(tmp_path))
    assert isinstance(source, ZipSource)
    assert source.archive == str(tmp_path / "mine.zip")


def test_of_several_zips_the_one_with_the_name_counts(tmp_path: pathlib.Path) -> None:
    for name in ("a.zip", "landmark-retrieval-2020.zip", "z.zip"):
        (tmp_path / name).touch()
    source = find_source(epath.Path(tmp_path))
    assert isinstance(source, ZipSource)
    assert source.archive == str(tmp_path / "landmark-retrieval-2020.zip")


@pytest.mark.parametrize("below", [".", "landmark-retrieval-2020"])
@pytest.mark.parametrize("table", ["train.csv", "train_clean.csv"])
def test_finds_tars(tmp_path: pathlib.Path, below: str, table: str) -> None:
    root = write_tars(tmp_path / below, table=table)
    source = find_source(epath.Path(tmp_path))
    assert isinstance(source, TarSource)
    assert (source.archive, source.table_path) == (str(root / "train"), str(root / table))


def test_the_clean_table_counts_before_the_whole_one(tmp_path: pathlib.Path) -> None:
    (write_competition(tmp_path) / "train_clean.csv").touch()
    assert find_source(epath.Path(tmp_path)).table_path == str(tmp_path / "train_clean.csv")


def test_folders_count_before_tars_and_tars_before_a_zip(tmp_path: pathlib.Path) -> None:
    (tmp_path / "landmark-retrieval-2020.zip").touch()
    write_tars(tmp_path)
    assert isinstance(find_source(epath.Path(tmp_path)), TarSource)
    within = tmp_path / "landmark-retrieval-2020"
    write_competition(within)
    source = find_source(epath.Path(tmp_path))
    assert isinstance(source, FolderSource)
    write_competition(tmp_path)  # beside the tars
    assert find_source(epath.Path(tmp_path)).locate(IMAGE_ID) == f"{tmp_path}/{IMAGE_PATH}"
