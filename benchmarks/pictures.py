"""Draws the pictures triplets.png and renderings.png of the pages, from a folder of photographs.

    python -m benchmarks.pictures PHOTOS

PHOTOS holds JPEG files named after the landmark they show, such as ``eiffel_tower.jpg``. Photographs of the same
landmark have the same name up to a hyphen: ``great_wall-1.jpg`` and ``great_wall-2.jpg``. docs/images/CREDITS.md names
the photographs that were used, their authors and where they are.

``triplets.png`` shows triplets as the builder makes and stores them: the photographs become a small competition, which
is built and read back. A landmark with one photograph gets two views cut from it. ``renderings.png`` shows what
``resize_method`` and ``fit`` do, each stored pixel enlarged to a block.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import hashlib
import io
from pathlib import Path
import tempfile

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from benchmarks import builds
from benchmarks.corpus import image_path
from landmark_triplets_tfds import LandmarkTripletsConfig
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

RESOLUTION = 128
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
            width, height = photo.size
            view = photo.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
            file = io.BytesIO()
            ImageEnhance.Brightness(view).enhance(brightness).save(file, "JPEG", quality=92)
            views.append(file.getvalue())
    return views


def build_triplets(photos: Path, landmarks: Sequence[str], seed: int, scratch: Path) -> list[list[Image.Image]]:
    """Builds a dataset of one triplet per landmark and returns the pictures of each: anchor, positive, negative."""
    lines = []
    for number, landmark in enumerate(landmarks):
        for file in find_views(photos, landmark):
            image_id = hashlib.sha256(file).hexdigest()[:16]
            path = Path(image_path(scratch, image_id))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file)
            lines.append(f"{image_id},{number}\n")
    (scratch / "train.csv").write_text("id,landmark_id\n" + "".join(lines), encoding="utf-8")
    config = LandmarkTripletsConfig(
        name="picture", resolution=RESOLUTION, resize_method="area", images_per_landmark=1, seed=seed
    )
    _, builder = builds.build(config, scratch, scratch / "data")
    dataset = builds.tfds().as_numpy(builder.as_dataset(split="train"))
    examples = sorted(dataset, key=lambda example: int(example["landmark_id"]))
    return [[Image.fromarray(example[name]) for name in builds.IMAGES] for example in examples]


def render(file: bytes, method: str, fit: str, enlarge: int = 2) -> Image.Image:
    """Returns a photograph as it is stored, every pixel enlarged to a square block."""
    spec = ThumbnailSpec(resolution=RESOLUTION, resize_method=method, fit=fit)
    with Image.open(io.BytesIO(make_thumbnail(file, spec))) as thumbnail:
        pixels = np.asarray(thumbnail.convert("RGB"))
    return Image.fromarray(pixels.repeat(enlarge, axis=0).repeat(enlarge, axis=1))


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
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of JPEG files named after landmarks")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="(default: %(default)s)")
    parser.add_argument("--triplets", nargs="+", default=TRIPLETS_OF, metavar="LANDMARK", help="rows of triplets.png")
    columns = "columns of renderings.png"
    parser.add_argument("--renderings", nargs="+", default=RENDERINGS_OF, metavar="LANDMARK", help=columns)
    parser.add_argument("--seed", type=int, default=18, help="of the negatives (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        triplets = compose(build_triplets(args.photos, args.triplets, args.seed, Path(scratch)))
    files = [(args.photos / f"{landmark}.jpg").read_bytes() for landmark in args.renderings]
    renderings = compose([[render(file, *rendering) for file in files] for rendering in RENDERINGS])
    label_above(triplets, ("anchor", "positive", "negative")).save(args.out / "triplets.png", optimize=True)
    label_left(renderings, [", ".join(it) for it in RENDERINGS]).save(args.out / "renderings.png", optimize=True)
    print(f"Written to {args.out}: triplets.png and renderings.png")


if __name__ == "__main__":
    main()
