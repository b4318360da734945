"""Copies of a competition as archives, packed from a folder that holds train.csv and train/."""

import hashlib
import io
import pathlib
import tarfile
import zipfile

from landmark_triplets_tfds.landmarks import format_image_id
from landmark_triplets_tfds.layout import ZIP_NAME


def image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted((folder / "train").glob("?/?/?/*.jpg"))


def pack_zip(folder: pathlib.Path, target: pathlib.Path, compression=zipfile.ZIP_DEFLATED, prefix="") -> pathlib.Path:
    """Packs a copy as Kaggle does, with members that are no training images around it; returns the zip's path."""
    target.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target / ZIP_NAME, "w", compression) as archive:
        archive.writestr("index/0/0/0/0000000000000000.jpg", b"of the index")
        archive.writestr("sample_submission.csv", "id,images\n")
        archive.write(folder / "train.csv", f"{prefix}train.csv")
        for path in image_files(folder):
            archive.write(path, prefix + str(path.relative_to(folder)))
    return target / ZIP_NAME


def pack_tars(folder: pathlib.Path, target: pathlib.Path, num_tars=3, tar_format=tarfile.USTAR_FORMAT, md5=True):
    """Packs the images as the public dataset has them, with MD5 lists; returns the folder with train/."""
    (target / "train").mkdir(parents=True, exist_ok=True)
    images = image_files(folder)
    for number in range(num_tars):
        path = target / "train" / f"images_{number:03d}.tar"
        with tarfile.open(path, "w", format=tar_format) as archive:
            for image in images[number::num_tars]:
                archive.add(image, str(image.relative_to(folder / "train")))
        if md5:
            digest = hashlib.md5(path.read_bytes()).hexdigest()
            (target / "train" / f"md5.images_{number:03d}.txt").write_text(f"{digest}  {path.name}\n")
    (target / "train.csv").write_bytes((folder / "train.csv").read_bytes())
    return target


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
