"""Makes the two pictures of the documentation from a folder of photographs.

Run from the top of the repository, with the package and Pillow installed:

    python docs/make_pictures.py PHOTOS

PHOTOS holds JPEG files named after the landmark they show, such as ``eiffel_tower.jpg``. Photographs of the same
landmark have the same name up to a hyphen: ``great_wall-1.jpg`` and ``great_wall-2.jpg``. docs/images/CREDITS.md names
the photographs that were used, their authors and where they are.

``triplets.png`` shows triplets as the builder makes and stores them: the photographs become a small competition, which
is built and read back. A landmark with one photograph gets two views cut from it. ``renderings.png`` shows what
``resize_method`` and ``fit`` do, each stored pixel enlarged to a block.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
import hashlib
import io
from pathlib import Path
import tempfile

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkTriplets, LandmarkTripletsConfig
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

GAP, LABEL_HEIGHT, LABEL_SIZE = 4, 22, 15  # px

TRIPLETS_OF = ("great_wall", "eiffel_tower", "hawa_mahal", "colosseum")
RENDERINGS_OF = ("summer_palace", "eiffel_tower", "charminar")
RENDERINGS = (("nearest", "squash"), ("area", "squash"), ("area", "crop"), ("area", "pad"))

# Two views of one photograph: left, top, right, bottom as shares of it, and brightness.
VIEWS = (((0.0, 0.05, 0.86, 0.95), 1.0), ((0.14, 0.12, 1.0, 1.0), 0.82))


def find_views(photos: Path, landmark: str) -> list[bytes]:
    """Returns JPEG files of a landmark: its photographs, or two views if there is only one.

    Raises:
      ValueError: if there is none.
    """
    paths = sorted(path for path in photos.glob("*.jpg") if path.stem.partition("-")[0] == landmark)
    if not paths:
        raise ValueError(f"{photos} holds no {landmark}.jpg.")
    if len(paths) > 1:
        return [path.read_bytes() for path in paths]
    views = []
    with Image.open(paths[0]) as photo:
        for (left, top, right, bottom), brightness in VIEWS:
            box = (left * photo.width, top * photo.height, right * photo.width, bottom * photo.height)
            view = ImageEnhance.Brightness(photo.crop(tuple(map(round, box)))).enhance(brightness)
            file = io.BytesIO()
            view.save(file, "JPEG", quality=92)
            views.append(file.getvalue())
    return views


def build_triplets(photos: Path, landmarks: Sequence[str], resolution: int, seed: int) -> list[list[Image.Image]]:
    """Builds a dataset of one triplet per landmark and returns the pictures of each: anchor, positive, negative."""
    with tempfile.TemporaryDirectory() as scratch:
        competition, data_dir = Path(scratch, "competition"), Path(scratch, "data")
        rows = defaultdict(list)
        for number, landmark in enumerate(landmarks):
            for file in find_views(photos, landmark):
                image_id = hashlib.sha256(file).hexdigest()[:16]
                folder = competition / "train" / image_id[0] / image_id[1] / image_id[2]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{image_id}.jpg").write_bytes(file)
                rows[number].append(f"{image_id},{number}\n")
        lines = [line for images in rows.values() for line in images]
        (competition / "train.csv").write_text("id,landmark_id\n" + "".join(lines), encoding="utf-8")
        config = LandmarkTripletsConfig(
            name="picture", resolution=resolution, resize_method="area", images_per_landmark=1, seed=seed
        )
        builder = LandmarkTriplets(config=config, data_dir=data_dir)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=competition))
        examples = sorted(tfds.as_numpy(builder.as_dataset(split="train")), key=lambda example: example["landmark_id"])
    roles = ("anchor_img", "positive_img", "negative_img")
    return [[Image.fromarray(example[role]) for role in roles] for example in examples]


def render(photos: Path, landmarks: Sequence[str], resolution: int, enlarge: int) -> list[list[Image.Image]]:
    """Returns a row for each of `RENDERINGS`: it applied to each photograph, every pixel enlarged to a square block."""
    rows = []
    for method, fit in RENDERINGS:
        spec = ThumbnailSpec(resolution=resolution, resize_method=method, fit=fit)
        row = []
        for landmark in landmarks:
            file = (photos / f"{landmark}.jpg").read_bytes()
            with Image.open(io.BytesIO(make_thumbnail(file, spec))) as thumbnail:
                pixels = np.asarray(thumbnail.convert("RGB"))
            row.append(Image.fromarray(pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1)))
        rows.append(row)
    return rows


def compose(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Puts pictures of one size into a grid, white between them."""
    side = rows[0][0].width
    sheet = Image.new("RGB", (len(rows[0]) * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP), "white")
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * (side + GAP), row * (side + GAP)))
    return sheet


def label_above(sheet: Image.Image, labels: Sequence[str]) -> Image.Image:
    """Returns the sheet with a label above each of as many equal columns."""
    labelled = Image.new("RGB", (sheet.width, LABEL_HEIGHT + sheet.height), "white")
    labelled.paste(sheet, (0, LABEL_HEIGHT))
    draw, font = ImageDraw.Draw(labelled), ImageFont.load_default(LABEL_SIZE)
    for i, label in enumerate(labels):
        center = ((i + 0.5) * sheet.width / len(labels), LABEL_HEIGHT / 2)
        draw.text(center, label, fill="black", font=font, anchor="mm")
    return labelled


def label_left(sheet: Image.Image, labels: Sequence[str]) -> Image.Image:
    """Returns the sheet with a label, read upwards, to the left of each of as many equal rows."""
    turned = sheet.transpose(Image.Transpose.ROTATE_270)
    return label_above(turned, labels[::-1]).transpose(Image.Transpose.ROTATE_90)


def main() -> None:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of JPEG files named after landmarks")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="(default: %(default)s)")
    parser.add_argument("--triplets", nargs="+", default=TRIPLETS_OF, metavar="LANDMARK", help="rows of triplets.png")
    parser.add_argument(
        "--renderings", nargs="+", default=RENDERINGS_OF, metavar="LANDMARK", help="columns of renderings.png"
    )
    parser.add_argument("--seed", type=int, default=18, help="of the negatives (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    tfds.disable_progress_bar()
    triplets = compose(build_triplets(args.photos, args.triplets, 128, args.seed))
    renderings = compose(render(args.photos, args.renderings, 128, 2))
    triplets = label_above(triplets, ("anchor", "positive", "negative"))
    renderings = label_left(renderings, [f"{method}, {fit}" for method, fit in RENDERINGS])
    for name, picture in (("triplets.png", triplets), ("renderings.png", renderings)):
        picture.save(args.out / name, optimize=True)
        print(f"{args.out / name}: {picture.width} x {picture.height} px, {(args.out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
