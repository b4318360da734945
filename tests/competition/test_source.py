from __future__ import annotations

from collections.abc import Callable
import pathlib
import shutil

from etils import epath
import pytest

from landmark_triplets_tfds.competition.folder import FolderSource
from landmark_triplets_tfds.competition.source import find_source
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.competition.zip_archive import ZipSource
from landmark_triplets_tfds.errors import SourceLayoutError

IMAGE_ID = 0x0A1B000000000001
IMAGE_PATH = "train/0/a/1/0a1b000000000001.jpg"


def write_competition(root: pathlib.Path, image: bytes = b"\xff\xd8\xff image") -> pathlib.Path:
    path = root / IMAGE_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(image)
    (root / "train.csv").write_text("id,landmark_id\n0a1b000000000001,1\n")
    return root


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


def write_tars(root: pathlib.Path, *names: str, table: str = "train.csv") -> pathlib.Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    for name in names or ("images_000.tar", "images_001.tar"):
        (root / "train" / name).touch()
    (root / table).touch()
    return root


@pytest.mark.parametrize("below", [".", "landmark-retrieval-2020"])
@pytest.mark.parametrize("name", ["landmark-retrieval-2020.zip", "landmark-recognition-2020.zip"])
def test_finds_a_zip(tmp_path: pathlib.Path, below: str, name: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    (tmp_path / below / name).touch()
    source = find_source(epath.Path(tmp_path))  # which opens nothing: the file is empty
    assert isinstance(source, ZipSource)
    assert source.archive == str(tmp_path / below / name)


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


# --- Wrong layouts


WRONG_LAYOUTS: dict[str, tuple[Callable[[pathlib.Path], object], str, str]] = {
    # What is done in an empty folder <tmp>/data, the manual_dir given below <tmp>, what the message says of it.
    "no such folder": (lambda data: None, "data/nowhere", "The folder {manual_dir} does not exist"),
    "a file": (lambda data: (data / "x.zip").write_bytes(b""), "data/x.zip", "{manual_dir} is a file, not a folder"),
    "an empty folder": (lambda data: None, "data", "{manual_dir} is an empty folder"),
    "no images": (
        lambda data: (data / "train.csv").write_text(""),
        "data",
        "{manual_dir} holds train.csv but no .*train/",
    ),
    "images are a file": (
        lambda data: [(data / name).write_text("") for name in ("train.csv", "train")],
        "data",
        "{manual_dir} holds train.csv but no folder train/",
    ),
    "no table": (lambda data: (data / "train").mkdir(), "data", "{manual_dir} holds train/ but no train.csv"),
    "no table within": (
        lambda data: (data / "landmark-retrieval-2020" / "train").mkdir(parents=True),
        "data",
        "{manual_dir}/landmark-retrieval-2020 holds train/ but no train.csv",
    ),
    "no images within": (
        lambda data: [(data / "landmark-retrieval-2020").mkdir(), (data / "landmark-retrieval-2020/train.csv").touch()],
        "data",
        "{manual_dir}/landmark-retrieval-2020 holds train.csv but no folder train/",
    ),
    "the folder of images": (write_competition, "data/train", "{manual_dir} holds no train.csv, but {data} holds"),
    "several zips": (
        lambda data: [(data / name).touch() for name in ("a.zip", "b.zip")],
        "data",
        r"{manual_dir} holds several zips \(a.zip, b.zip\), none of them called landmark-retrieval-2020.zip",
    ),
    "tars beside the table": (
        lambda data: [(data / name).touch() for name in ("images_000.tar", "train.csv")],
        "data",
        r"{manual_dir} holds images_000.tar. Tars are looked for in {manual_dir}/train, as images_000.tar and so on",
    ),
    "tars without a table": (
        lambda data: [write_tars(data), (data / "train.csv").unlink()],
        "data",
        r"{manual_dir}/train holds 2 tars, but {manual_dir} holds neither train_clean.csv nor train.csv",
    ),
    "compressed tars": (
        lambda data: [(data / "train").mkdir(), (data / "train/images_000.tar.gz").touch()],
        "data",
        "{manual_dir}/train holds images_000.tar.gz. Only plain tars",
    ),
    "the folder of tars": (write_tars, "data/train", "{manual_dir} holds no train.csv, but {data} holds train.csv"),
    "images flat in the folder": (
        lambda data: [
            write_competition(data),
            shutil.move(data / IMAGE_PATH, data / "train"),
            shutil.rmtree(data / "train/0"),
        ],
        "data",
        r"{manual_dir}/train holds images directly, such as 0a1b000000000001.jpg. .* is 0/a/1/0a1b000000000001.jpg",
    ),
    "an empty folder of images": (
        lambda data: [(data / "train").mkdir(), (data / "train.csv").touch()],
        "data",
        "{manual_dir}/train is an empty folder: the images are missing",
    ),
    "a folder of images with something else": (
        lambda data: [(data / "train/notes").mkdir(parents=True), (data / "train.csv").touch()],
        "data",
        "{manual_dir}/train holds neither folders 0 to f with images nor tars. Found there: notes",
    ),
    "train within train": (
        lambda data: [write_competition(data / "train"), (data / "train/train.csv").rename(data / "train.csv")],
        "data",
        "{manual_dir}/train holds another train/ with the images: move its content one level up",
    ),
    "a copy in a folder below": (
        lambda data: write_competition(data / "unpacked"),
        "data",
        "{manual_dir} holds no train.csv, but {manual_dir}/unpacked does: use that as manual_dir",
    ),
    "a zip in a folder below": (
        lambda data: [(data / "downloads").mkdir(), (data / "downloads/landmark-retrieval-2020.zip").touch()],
        "data",
        "{manual_dir} holds no zip, but {manual_dir}/downloads holds landmark-retrieval-2020.zip: use that",
    ),
    "folders of images alone": (
        lambda data: [write_competition(data), (data / "train.csv").unlink()],
        "data/train",
        "{manual_dir} holds folders of images, as train/ does, but no train.csv",
    ),
    "other parts of the competition": (
        lambda data: [(data / name).mkdir() for name in ("test", "index")],
        "data",
        r"{manual_dir} holds test/ and index/ but neither train/ nor train.csv",
    ),
    "other parts and the table": (
        lambda data: [(data / "index").mkdir(), (data / "train.csv").touch()],
        "data",
        r"{manual_dir} holds train.csv but no folder train/ .*\(index/ hold its other parts",
    ),
    "an unfinished download": (
        lambda data: (data / "landmark-retrieval-2020.zip.part").touch(),
        "data",
        "{manual_dir} holds landmark-retrieval-2020.zip.part, an unfinished download",
    ),
    "unfinished tars": (
        lambda data: [(data / "train").mkdir(), (data / "train/images_000.tar.part").touch()],
        "data",
        "{manual_dir}/train holds images_000.tar.part, an unfinished download",
    ),
    "a split zip": (
        lambda data: (data / "landmark-retrieval-2020.zip.001").touch(),
        "data",
        "{manual_dir} holds landmark-retrieval-2020.zip.001, a part of a zip that was split",
    ),
    "a compressed tar": (
        lambda data: (data / "landmarks.tar.gz").touch(),
        "data",
        "{manual_dir} holds landmarks.tar.gz, a kind of archive that is not read. Extract it",
    ),
    "tars in a folder of another name": (
        lambda data: [(data / "tars").mkdir(), (data / "tars/images_000.tar").touch()],
        "data",
        "{manual_dir}/tars holds tars. They are looked for in {manual_dir}/train",
    ),
    "tars of other names": (
        lambda data: [(data / "train").mkdir(), (data / "train/part1.tar").touch(), (data / "train.csv").touch()],
        "data",
        "{manual_dir}/train holds part1.tar. Tars are read by the names they are published by",
    ),
    "other files": (
        lambda data: [(data / f"{i}.txt").touch() for i in range(7)],
        "data",
        r"{manual_dir} does not hold .*: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, \.\.\.",
    ),
}


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
