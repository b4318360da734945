"""Draws the pictures triplets.png and renderings.png of the pages, from a folder of photographs.

    python -m benchmarks.pictures PHOTOS

PHOTOS holds JPEG files named after the landmark they show, such as ``eiffel_tower.jpg``; photographs of the same
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

from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from benchmarks import builds
from benchmarks.corpus import image_path
from landmark_triplets_tfds import LandmarkTripletsConfig
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail

RESOLUTION = 128
GAP, LABEL_PX, LETTER_PX = 4, 22, 15

TRIPLETS_OF = ("great_wall", "eiffel_tower", "hawa_mahal", "colosseum")
RENDERINGS_OF = ("summer_palace", "eiffel_tower", "charminar")
RENDERINGS = (("nearest", "squash"), ("area", "squash"), ("area", "crop"), ("area", "pad"))
SEED = 18  # of the negatives

# Two views of one photograph: left, top, right, bottom as shares of it, and brightness.
VIEWS = (((0.0, 0.05, 0.86, 0.95), 1.0), ((0.14, 0.12, 1.0, 1.0), 0.82))


def find_views(photos: Path, landmark: str) -> list[bytes]:
    """Returns JPEG files of a landmark: its photographs, or two views if there is only one."""
    files = [path.read_bytes() for path in sorted(photos.glob(f"{landmark}-*.jpg"))]
    if files:
        return files
    with Image.open(photos / f"{landmark}.jpg") as photo:
        width, height = photo.size
        for (left, top, right, bottom), brightness in VIEWS:
            view = photo.crop((left * width, top * height, right * width, bottom * height))
            file = io.BytesIO()
            ImageEnhance.Brightness(view).enhance(brightness).save(file, "JPEG", quality=92)
            files.append(file.getvalue())
    return files


def build_triplets(photos: Path, landmarks: Sequence[str], scratch: Path) -> list[list[Image.Image]]:
    """Builds a dataset of one triplet per landmark and returns the pictures of each: anchor, positive, negative."""
    lines = ["id,landmark_id\n"]
    for number, landmark in enumerate(landmarks):
        for file in find_views(photos, landmark):
            image_id = hashlib.sha256(file).hexdigest()[:16]
            path = Path(image_path(scratch, image_id))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file)
            lines.append(f"{image_id},{number}\n")
    (scratch / "train.csv").write_text("".join(lines), encoding="utf-8")
    config = LandmarkTripletsConfig(
        name="picture", resolution=RESOLUTION, resize_method="area", images_per_landmark=1, seed=SEED
    )
    _, builder = builds.build(config, scratch, scratch / "data")
    dataset = builds.tfds().as_numpy(builder.as_dataset(split="train"))
    examples = sorted(dataset, key=lambda example: int(example["landmark_id"]))
    return [[Image.fromarray(example[name]) for name in builds.IMAGES] for example in examples]


def render(file: bytes, method: str, fit: str) -> Image.Image:
    """Returns a photograph as it is stored, every pixel enlarged to a block of 2 x 2."""
    spec = ThumbnailSpec(resolution=RESOLUTION, resize_method=method, fit=fit)
    with Image.open(io.BytesIO(make_thumbnail(file, spec))) as thumbnail:
        return thumbnail.convert("RGB").resize((2 * RESOLUTION, 2 * RESOLUTION), Image.Resampling.NEAREST)


def compose(columns: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> Image.Image:
    """Puts pictures of one size into a grid, white between them, with a label above each column."""
    step = columns[0][0].width + GAP
    sheet = Image.new("RGB", (len(columns) * step - GAP, LABEL_PX + len(columns[0]) * step - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTER_PX)
    for i, (column, label) in enumerate(zip(columns, labels, strict=True)):
        draw.text(((i + 0.5) * sheet.width / len(columns), LABEL_PX / 2), label, fill="black", font=font, anchor="mm")
        for j, picture in enumerate(column):
            sheet.paste(picture, (i * step, LABEL_PX + j * step))
    return sheet


def main() -> None:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of JPEG files named after landmarks")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="(default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        triplets = build_triplets(args.photos, TRIPLETS_OF, Path(scratch))
    columns = list(zip(*triplets, strict=True))
    compose(columns, ("anchor", "positive", "negative")).save(args.out / "triplets.png", optimize=True)
    # Labels are read upwards, to the left of the rows: above the columns of a sheet that is turned.
    files = [(args.photos / f"{landmark}.jpg").read_bytes() for landmark in RENDERINGS_OF]
    turned = [
        [render(file, *rendering).transpose(Image.Transpose.ROTATE_270) for file in files] for rendering in RENDERINGS
    ]
    sheet = compose(turned[::-1], [", ".join(rendering) for rendering in RENDERINGS][::-1])
    sheet.transpose(Image.Transpose.ROTATE_90).save(args.out / "renderings.png", optimize=True)


if __name__ == "__main__":
    main()
