"""What is measured on: folders with the layout of the competition, and tables of any size.

    python -m benchmarks.corpus CORPUS --photos PHOTOS

makes one and measures nothing: views of your own photographs, from which figures should be quoted, or else of drawn
scenes. The same photographs give the same corpus.

What a JPEG costs depends on how much detail it holds, so smooth or random pictures would measure something else. Drawn
scenes have what natural pictures have: a spectrum that falls as 1/f, edges where things hide each other (the "dead
leaves" model: Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001) and, added per view, the noise
of a camera's sensor.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
import functools
import io
import itertools
import multiprocessing
import os
from pathlib import Path
from typing import Any

import loky
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

# The competition's own figures.
NUM_COMPETITION_LANDMARKS = 81_313
NUM_COMPETITION_IMAGES = 1_580_470

_IMAGES_PER_LANDMARK = 6.5  # on average, in corpora of pictures; the competition has 19.4

_NUM_DISTINCT_TINY = 512  # at 1.58 million rows, each file has 3,100 links; ext4 allows 65,000

_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
_MIN_PHOTO_BYTES = 200_000  # smaller files are previews and icons
_MAX_PHOTO_SIDE = 3200

_VIEW_SIZES = ((800, 600), (600, 800))
_SENSOR_NOISE = 2.0  # standard deviation, in levels of 0..255

# Regions of a scene looked at for one landmark, and the detail below which a scene (a plain background) is passed over.
_NUM_REGIONS_TRIED = 4
_MIN_DETAIL = 1.5

# Drawn scenes. The strengths give views of 50 to 65 kB, as the competition's photographs have.
_SCENE_SIZE = (1536, 1152)
_NUM_LARGE_LEAVES, _NUM_LEAVES, _LEAF_RADII = 30, 400, (10, 400)
_LIGHT, _TINT = 7.0, 3.0


# --- Tables


def image_path(folder: Path | str, image_id: str) -> str:
    return f"{folder}/train/{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"


def random_table(
    num_images: int, rng: np.random.Generator, num_landmarks: int | None = None
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Makes up a table with a long tail: landmarks have at least 2 images, a few have very many.

    Returns image ids uint64[n] and landmark ids int64[n], which have gaps, in a random order. Without ``num_landmarks``
    there are as many as the competition has for so many images.
    """
    if num_landmarks is None:
        num_landmarks = max(2, round(num_images * NUM_COMPETITION_LANDMARKS / NUM_COMPETITION_IMAGES))
    weights = 0.5 + np.minimum(rng.pareto(1.1, num_landmarks), 0.02 * num_landmarks + 10)
    sizes = 2 + rng.multinomial(num_images - 2 * num_landmarks, weights / weights.sum())
    image_ids = rng.permutation(np.unique(rng.integers(0, 2**64, num_images + 8, dtype=np.uint64)))[:num_images]
    landmark_ids = np.repeat(np.cumsum(rng.integers(1, 6, num_landmarks)), sizes)
    return image_ids, rng.permutation(landmark_ids)


# --- Pictures


def find_photos(folder: Path) -> list[Path]:
    """Returns the photographs below a folder, in the order of their names; raises ValueError if there are none."""
    photos = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _PHOTO_SUFFIXES and path.is_file() and path.stat().st_size >= _MIN_PHOTO_BYTES
    )
    if not photos:
        raise ValueError(f"no {', '.join(_PHOTO_SUFFIXES)} of at least {_MIN_PHOTO_BYTES // 1000} kB below {folder}.")
    return photos


def _load_photo(path: Path) -> Image.Image:
    """Reads a photograph, no side longer than 3,200 px."""
    with Image.open(path) as photo:
        photo.draft("RGB", (_MAX_PHOTO_SIDE, _MAX_PHOTO_SIDE))  # JPEGs are decoded at a smaller scale where possible
        image = photo.convert("RGB")
    image.thumbnail((_MAX_PHOTO_SIDE, _MAX_PHOTO_SIDE))
    return image


def _draw_scene(rng: np.random.Generator) -> Image.Image:
    """Draws a scene, 1536 x 1152 px: leaves that hide each other under a 1/f texture."""
    width, height = _SCENE_SIZE
    leaves = Image.new("RGB", _SCENE_SIZE, _random_color(rng))
    pen = ImageDraw.Draw(leaves)
    # Radii fall off as r**-3, which gives equal detail at all scales. The largest leaves lie at the bottom.
    smallest, largest = _LEAF_RADII
    radii = 1 / np.sqrt(rng.uniform(1 / largest**2, 1 / smallest**2, _NUM_LEAVES))
    for radius in np.concatenate([np.full(_NUM_LARGE_LEAVES, float(largest)), radii]):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        corners = int(rng.integers(3, 9))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.6, 1.2, corners)
        outline = [(x + r * np.cos(a), y + r * np.sin(a)) for r, a in zip(reach, angles, strict=True)]
        pen.polygon(outline, fill=_random_color(rng))
    pixels = np.asarray(leaves.filter(ImageFilter.GaussianBlur(1.0)), dtype=np.float32)
    texture = _LIGHT * _one_over_f(rng, height, width)[..., None]
    for channel in range(3):  # colour changes more slowly than light
        tint = Image.fromarray(_one_over_f(rng, height // 4, width // 4)).resize(_SCENE_SIZE)
        texture = texture + _TINT * np.asarray(tint)[..., None] * np.eye(3, dtype=np.float32)[channel]
    return Image.fromarray(np.clip(pixels + texture, 0, 255).astype(np.uint8))


def _random_color(rng: np.random.Generator) -> tuple[int, int, int]:
    """Returns a muted colour: photographs differ more in light than in hue."""
    light = rng.uniform(30, 220)
    red, green, blue = np.clip(light + rng.normal(0, 22, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _one_over_f(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Returns noise float32[height, width] of mean 0 and deviation 1 whose amplitude falls as 1/frequency."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width), dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)).astype(np.float32)
    frequency[0, 0] = np.inf
    noise: npt.NDArray[np.float32] = np.fft.irfft2(spectrum / frequency, s=(height, width)).astype(np.float32)
    noise /= noise.std()
    return noise


class _Landmark:
    """A region of a picture, seen from here and there.

    Its `detail` is the mean difference of neighbouring pixels at a width of 400 px, in levels of 0..255.
    """

    def __init__(self, scene: Image.Image, rng: np.random.Generator):
        self._scene = scene
        self._rng = rng
        self._extent = rng.uniform(0.4, 0.7)  # of the scene that a view takes
        centers = rng.uniform(self._extent / 2, 1 - self._extent / 2, (_NUM_REGIONS_TRIED, 2))
        details = [self._detail_at(center) for center in centers]
        # The first region with something to see, or else the one with most.
        best = int(np.argmax(np.minimum(details, _MIN_DETAIL)))
        self.detail, self._center = details[best], centers[best]

    def _look(self, center: npt.NDArray[np.float64], extent: float, size: tuple[int, int], how: Any) -> Image.Image:
        """Returns a part of the scene with the aspect ratio of ``size``, resized to it."""
        whole = np.array(self._scene.size)
        part = extent * np.min(whole / size) * np.array(size)
        start = np.clip(center * whole - part / 2, 0, whole - part)
        return self._scene.resize(size, how, box=(*start.tolist(), *(start + part).tolist()))

    def _detail_at(self, center: npt.NDArray[np.float64]) -> float:
        grey = self._look(center, self._extent, (400, 300), Image.Resampling.BOX).convert("L")
        return float(np.abs(np.diff(np.asarray(grey, dtype=np.float32), axis=1)).mean())

    def view(self) -> bytes:
        """Returns a JPEG of 800 x 600 or 600 x 800 px and quality 70 to 85: another shift, zoom and light each time."""
        rng = self._rng
        size = _VIEW_SIZES[0] if rng.random() < 0.7 else _VIEW_SIZES[1]
        center, extent = self._center + rng.uniform(-0.1, 0.1, 2), self._extent * rng.uniform(0.8, 1.2)
        image = self._look(center, extent, size, Image.Resampling.BICUBIC)
        if rng.random() < 0.2:  # out of focus
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
        pixels = np.asarray(image, dtype=np.float32) * np.float32(rng.uniform(0.75, 1.25))
        pixels += _SENSOR_NOISE * rng.standard_normal(pixels.shape, dtype=np.float32)
        return _as_jpeg(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), int(rng.integers(70, 86)))


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


# --- Corpora


def make_tiny_corpus(folder: Path, num_images: int) -> None:
    """Makes a corpus of 16 x 16 px pictures, 19.4 per landmark: 512 different files, the others links to them."""
    rng = np.random.default_rng(0)
    landmark_of = _make_folders(folder, *random_table(num_images, rng))
    paths = [image_path(folder, name) for name in landmark_of]
    originals, links = paths[:_NUM_DISTINCT_TINY], paths[_NUM_DISTINCT_TINY:]
    for path in originals:
        corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        Path(path).write_bytes(_as_jpeg(corners.resize((16, 16), Image.Resampling.BICUBIC), 75))
    for path, original in zip(links, itertools.cycle(originals), strict=False):
        os.link(original, path)
    _write_table(folder, landmark_of)


def make_picture_corpus(folder: Path, photos: Path | None, num_landmarks: int) -> None:
    """Makes a corpus of views of photographs, or of drawn scenes if ``photos`` is None, on all usable cores."""
    num_images = round(_IMAGES_PER_LANDMARK * num_landmarks)
    landmark_of = _make_folders(folder, *random_table(num_images, np.random.default_rng(0), num_landmarks))
    by_landmark = itertools.groupby(sorted(landmark_of, key=landmark_of.__getitem__), landmark_of.__getitem__)
    names_of = [list(names) for _, names in by_landmark]
    work = functools.partial(_make_landmark, folder, find_photos(photos) if photos else [])
    # Processes that start afresh: forking one that has imported TensorFlow may deadlock.
    with ProcessPoolExecutor(loky.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for _ in pool.map(work, range(num_landmarks), names_of, chunksize=4):
            pass
    _write_table(folder, landmark_of)


def multiply_corpus(corpus: Path, times: int, folder: Path) -> None:
    """Makes a corpus in which each picture of another one is there several times, under other ids: links to it."""
    originals = [line.split(",") for line in (corpus / "train.csv").read_text().split()[1:]]
    landmark_of = {}
    for number, (name, landmark) in itertools.product(range(times), originals):
        other_name = f"{int(name, 16) ^ number * 0x9E3779B97F4A7C15 % 2**64:016x}"
        landmark_of[other_name] = int(landmark) * times + number
        path = Path(image_path(folder, other_name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(image_path(corpus, name))
    _write_table(folder, landmark_of)


def _make_landmark(folder: Path, photos: Sequence[Path], number: int, names: Sequence[str]) -> None:
    rng = np.random.default_rng([0, number])
    if not photos:
        landmark = _Landmark(_draw_scene(rng), rng)
    # Every photograph gets its turn; instead of a plain one, of which folders may hold some, any other is taken.
    for i in [number % len(photos), *rng.permutation(len(photos))] if photos else ():
        landmark = _Landmark(_load_photo(photos[i]), rng)
        if landmark.detail >= _MIN_DETAIL:
            break
    for name in names:
        Path(image_path(folder, name)).write_bytes(landmark.view())


def _make_folders(
    folder: Path, image_ids: npt.NDArray[np.uint64], landmark_ids: npt.NDArray[np.int64]
) -> dict[str, int]:
    """Makes the folders of all images; returns the landmark of each image, by the image's name."""
    landmark_of = {f"{i:016x}": landmark for i, landmark in zip(image_ids.tolist(), landmark_ids.tolist(), strict=True)}
    for name in {name[:3]: name for name in landmark_of}.values():
        Path(image_path(folder, name)).parent.mkdir(parents=True, exist_ok=True)
    return landmark_of


def _write_table(folder: Path, landmark_of: dict[str, int]) -> None:
    """Writes train.csv, last of all: a folder that has it is complete."""
    with (folder / "train.csv").open("w", encoding="utf-8", newline="\n") as file:
        file.write("id,landmark_id\n")
        file.writelines(f"{name},{landmark_id}\n" for name, landmark_id in landmark_of.items())


def main() -> None:
    """Makes a corpus of pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, metavar="CORPUS", help="where to make it")
    add("--photos", type=Path, metavar="DIR", help="photographs to take views of (default: drawn scenes)")
    add("--landmarks", type=int, default=400, metavar="N", help="with 6.5 images each (default: %(default)s)")
    args = parser.parse_args()
    if (args.folder / "train.csv").exists():
        parser.error(f"{args.folder} holds a corpus already.")
    args.folder.mkdir(parents=True, exist_ok=True)
    make_picture_corpus(args.folder, args.photos, args.landmarks)


if __name__ == "__main__":
    main()
