"""Copies of a competition, as archives too, made of a folder that holds train.csv, train/ and perhaps others."""

import hashlib
import io
import pathlib
import tarfile
import zipfile

from landmark_triplets_tfds.competition.layout import FOLDER_NAMES, ZIP_NAME
from landmark_triplets_tfds.competition.tables import format_image_id
from tests.support.competition import Competition


def image_files(folder: pathlib.Path, name: str = "train") -> list[pathlib.Path]:
    return sorted((folder / name).glob("?/?/?/*.jpg"))


def pack_zip(folder: pathlib.Path, target: pathlib.Path, compression=zipfile.ZIP_DEFLATED, prefix="") -> pathlib.Path:
    """Packs a copy as Kaggle does, with members that are no images among them; returns the zip's path."""
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target / ZIP_NAME, "w", compression) as archive:
        archive.writestr("sample_submission.csv", "id,images\n")
        archive.write(folder / "train.csv", f"{prefix}train.csv")
        for path in [path for name in sorted(FOLDER_NAMES) for path in image_files(folder, name)]:
            archive.write(path, prefix + str(path.relative_to(folder)))
    return target / ZIP_NAME


def pack_tars(folder: pathlib.Path, target: pathlib.Path, num_tars=3, tar_format=tarfile.USTAR_FORMAT, md5=True):
    """Packs the images as the public dataset has them, with MD5 lists; returns the folder with train/."""
    for name in FOLDER_NAMES:
        if images := image_files(folder, name):
            pack_folder_as_tars(folder / name, images, target / name, num_tars, tar_format, md5)
    (target / "train.csv").write_bytes((folder / "train.csv").read_bytes())
    return target


def pack_folder_as_tars(folder, images, target, num_tars=3, tar_format=tarfile.USTAR_FORMAT, md5=True) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for number in range(num_tars):
        path = target / f"images_{number:03d}.tar"
        with tarfile.open(path, "w", format=tar_format) as archive:
            for image in images[number::num_tars]:
                archive.add(image, str(image.relative_to(folder)))
        if md5:
            digest = hashlib.md5(path.read_bytes()).hexdigest()
            (target / f"md5.images_{number:03d}.txt").write_text(f"{digest}  {path.name}\n")


# Ways to make a copy of a folder in another one.
COPIES = {
    "folder": lambda folder, target: Competition(target, folder).folder,
    "zip, deflated": lambda folder, target: pack_zip(folder, target).parent,
    "zip, stored": lambda folder, target: pack_zip(folder, target, zipfile.ZIP_STORED).parent,
    "zip, within a folder": lambda folder, target: pack_zip(folder, target, prefix="landmark-retrieval-2020/").parent,
    "tars": pack_tars,
    "tars, GNU, one": lambda folder, target: pack_tars(folder, target, 1, tarfile.GNU_FORMAT),
    "tars, PAX, without MD5": lambda folder, target: pack_tars(folder, target, 5, tarfile.PAX_FORMAT, md5=False),
}


def write_clean_table(table, path: pathlib.Path) -> None:
    """Writes a table as train_clean.csv: a line per landmark, in the order in which landmarks first occur."""
    images_of = {}
    for image_id, landmark_id in zip(table.image_ids, table.landmark_ids.tolist(), strict=True):
        images_of.setdefault(landmark_id, []).append(format_image_id(image_id))
    lines = [f"{landmark_id},{' '.join(images)}\n" for landmark_id, images in images_of.items()]
    path.write_text("landmark_id,images\n" + "".join(lines))


def make_tar(members, tar_format=tarfile.USTAR_FORMAT) -> bytes:
    """Returns a tar of (name or TarInfo, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
