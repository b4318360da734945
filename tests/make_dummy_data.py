"""Makes dummy_data/: a tiny made-up competition, for the TFDS test harness and the README's first command.

Run from the top of the repository: python tests/make_dummy_data.py
The pictures are drawn, not photographed: each landmark is a building of its own colours and shape under a sky, seen
from a little to the left, right, near or far. Among them are grey, tall and wide pictures, and a PNG named .jpg.
Beside train/ are index/ and test/, as in the competition: further views of some of the landmarks, without labels.
"""

import hashlib
import pathlib
import random
import shutil

from PIL import Image, ImageDraw, ImageFilter

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "dummy_data"
IMAGES_PER_LANDMARK = (1, 2, 3, 9, 2, 5, 1, 4, 2, 6, 3, 7)
FIRST_LANDMARK_ID, LANDMARK_ID_STEP = 7, 11  # ids have gaps, as the competition's do
LANDMARKS_WITHOUT_LABELS = {"index": (3, 3, 5, 7, 11, 12), "test": (3, 5, 12)}  # 12 is not in train/


def draw_landmark(landmark: int, view: int | str) -> Image.Image:
    """Draws one view of a landmark, 192 x 144 px."""
    building, camera = random.Random(f"building {landmark}"), random.Random(f"camera {landmark} {view}")
    sky = tuple(camera.randint(120, 230) for _ in range(3))
    image = Image.new("RGB", (192, 144), sky)
    pen = ImageDraw.Draw(image)
    zoom, shift = camera.uniform(0.8, 1.2), camera.uniform(-25, 25)
    pen.rectangle((0, 110, 192, 144), fill=tuple(c // 2 for c in sky))
    width, height = building.randint(40, 90) * zoom, building.randint(40, 80) * zoom
    left, top = 96 + shift - width / 2, 115 - height
    wall, roof, door = (tuple(building.randint(0, 255) for _ in range(3)) for _ in range(3))
    pen.rectangle((left, top, left + width, 115), fill=wall)
    if building.random() < 0.5:
        pen.polygon(((left - 6, top), (left + width / 2, top - 30 * zoom), (left + width + 6, top)), fill=roof)
    else:
        pen.ellipse((left, top - 25 * zoom, left + width, top + 25 * zoom), fill=roof)
    for column in range(building.randint(2, 5)):
        x = left + (column + 0.5) * width / 5
        pen.rectangle((x, top + 15, x + width / 12, 112), fill=door)
    return image.filter(ImageFilter.GaussianBlur(camera.uniform(0.2, 0.8)))


def make_place(folder: str, image_id: str) -> pathlib.Path:
    """Makes the folders of an image and returns its path."""
    path = FOLDER / folder / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg"
    path.parent.mkdir(parents=True)
    return path


def unlabeled_ids(folder: str) -> list[str]:
    """Returns the ids of the images in index/ or test/."""
    numbers = range(len(LANDMARKS_WITHOUT_LABELS[folder]))
    return [hashlib.sha256(f"dummy {folder} {number}".encode()).hexdigest()[:16] for number in numbers]


def solve() -> list[str]:
    """Returns the lines of the solution: which index images show the landmark of each test image."""
    lines = ["id,images,Usage"]
    for image_id, landmark in zip(unlabeled_ids("test"), LANDMARKS_WITHOUT_LABELS["test"], strict=True):
        index = zip(unlabeled_ids("index"), LANDMARKS_WITHOUT_LABELS["index"], strict=True)
        right = [other for other, its_landmark in index if its_landmark == landmark]
        lines.append(f"{image_id},{' '.join(right) or None},{'Private' if right else 'Ignored'}")
    return lines


def write_lines(name: str, lines: list[str]) -> None:
    """Writes a file of the competition."""
    (FOLDER / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Writes train.csv, the images and the solution."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    rows = []
    for landmark, num_images in enumerate(IMAGES_PER_LANDMARK):
        for view in range(num_images):
            image_id = hashlib.sha256(f"dummy {landmark} {view}".encode()).hexdigest()[:16]
            rows.append((image_id, FIRST_LANDMARK_ID + landmark * LANDMARK_ID_STEP))
            path = make_place("train", image_id)
            image = draw_landmark(landmark, view)
            match (landmark, view):
                case (3, 0):
                    image.convert("L").save(path, quality=80)
                case (3, 1):
                    image.resize((60, 200)).save(path, quality=80)
                case (3, 2):
                    image.resize((301, 67)).save(path, quality=80, subsampling="4:4:4")
                case (3, 3):
                    image.save(path, "PNG", optimize=True)
                case (3, 4):
                    image.save(path, quality=80, progressive=True)
                case _:
                    image.save(path, quality=75)
    for folder, landmarks in LANDMARKS_WITHOUT_LABELS.items():
        for number, (image_id, landmark) in enumerate(zip(unlabeled_ids(folder), landmarks, strict=True)):
            draw_landmark(landmark, f"{folder} {number}").save(make_place(folder, image_id), quality=75)
    random.Random(0).shuffle(rows)
    write_lines("train.csv", ["id,landmark_id", *(f"{image_id},{landmark_id}" for image_id, landmark_id in rows)])
    write_lines("retrieval_solution_v2.1.csv", solve())


if __name__ == "__main__":
    main()
