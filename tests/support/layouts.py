"""Folders that are, or are nearly, a copy of the competition."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import shutil

IMAGE_ID = 0x0A1B000000000001
IMAGE_PATH = "train/0/a/1/0a1b000000000001.jpg"


def write_competition(root: pathlib.Path, image: bytes = b"\xff\xd8\xff image") -> pathlib.Path:
    path = root / IMAGE_PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(image)
    (root / "train.csv").write_text("id,landmark_id\n0a1b000000000001,1\n")
    return root


def write_tars(root: pathlib.Path, *names: str, table: str = "train.csv") -> pathlib.Path:
    (root / "train").mkdir(parents=True, exist_ok=True)
    for name in names or ("images_000.tar", "images_001.tar"):
        (root / "train" / name).touch()
    (root / table).touch()
    return root


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
        r"{manual_dir}/train holds tars .*, but {manual_dir} holds neither train_clean.csv nor train.csv",
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
        r"{manual_dir} holds index, test, but neither train/ nor train.csv",
    ),
    "other parts and the table": (
        lambda data: [(data / "index").mkdir(), (data / "train.csv").touch()],
        "data",
        r"{manual_dir} holds train.csv but no folder train/ with its images, only index",
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
    "a packed table beside the images": (
        lambda data: [write_competition(data), (data / "train.csv").rename(data / "train.csv.zip")],
        "data",
        "{manual_dir} holds train.csv.zip: the table is still packed. .* -m zipfile -e {data}/train.csv.zip {data}",
    ),
    "a packed table beside tars": (
        lambda data: [write_tars(data), (data / "train.csv").rename(data / "train_clean.csv.zip")],
        "data",
        "{manual_dir} holds train_clean.csv.zip: the table is still packed. To unpack it",
    ),
    "a packed table within": (
        lambda data: [
            write_competition(data / "landmark-retrieval-2020"),
            (data / "landmark-retrieval-2020/train.csv").rename(data / "landmark-retrieval-2020/train.csv.zip"),
        ],
        "data",
        "{manual_dir}/landmark-retrieval-2020 holds train.csv.zip: the table is still packed",
    ),
    "a packed table alone": (
        lambda data: [(data / name).touch() for name in ("train.csv.zip", "sample_submission.csv.zip")],
        "data",
        "{manual_dir} holds train.csv.zip: the table is still packed",
    ),
    "a table packed otherwise": (
        lambda data: [write_competition(data), (data / "train.csv").rename(data / "train.csv.gz")],
        "data",
        "{manual_dir} holds train.csv.gz: the table is still packed. Unpack it there",
    ),
    "other files": (
        lambda data: [(data / f"{i}.txt").touch() for i in range(7)],
        "data",
        r"{manual_dir} does not hold .*: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, \.\.\.",
    ),
}
