"""Pictures for a made-up competition: views of photographs, or of drawn scenes with the statistics of photographs.

What a JPEG costs depends on how much detail it holds, so smooth or random pictures would measure something else. Drawn
scenes have what natural pictures have: a spectrum that falls as 1/f, edges where things hide each other (the "dead
leaves" model: Lee, Mumford and Huang, "Occlusion Models for Natural Images", IJCV 2001) and, added per view, the noise
of a camera's sensor.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Box = tuple[float, float, float, float]  # left, top, right, bottom

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
MIN_PHOTO_BYTES = 200_000  # smaller files are previews and icons

VIEW_SIZES = ((800, 600), (600, 800))

_MAX_PHOTO_SIDE = 3200
_SENSOR_NOISE = 2.0  # standard deviation, in levels of 0..255

# Regions of a scene looked at for one landmark, and the detail below which a scene (a plain background) is passed over.
_NUM_REGIONS_TRIED = 4
MIN_DETAIL = 1.5

# Drawn scenes. The strengths give views of 50 to 65 kB, as the competition's photographs have.
_SCENE_SIZE = (1536, 1152)
_NUM_LARGE_LEAVES, _NUM_LEAVES, _LEAF_RADII = 30, 400, (10, 400)
_LIGHT, _TINT = 7.0, 3.0


def find_photos(folder: Path) -> list[Path]:
    """Returns the photographs below a folder, in the order of their names.

    Raises:
      ValueError: if there are none.
    """
    photos = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file() and path.stat().st_size >= MIN_PHOTO_BYTES
    )
    if not photos:
        kinds = ", ".join(PHOTO_SUFFIXES)
        raise ValueError(f"no photographs ({kinds} of at least {MIN_PHOTO_BYTES // 1000} kB) below {folder}.")
    return photos


def load_photo(path: Path) -> Image.Image:
    """Reads a photograph, no side longer than 3,200 px."""
    with Image.open(path) as photo:
        photo.draft("RGB", (_MAX_PHOTO_SIDE, _MAX_PHOTO_SIDE))  # JPEGs are decoded at a smaller scale where possible
        image = photo.convert("RGB")
    image.thumbnail((_MAX_PHOTO_SIDE, _MAX_PHOTO_SIDE))
    return image


def draw_scene(rng: np.random.Generator) -> Image.Image:
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
    noise = np.fft.irfft2(spectrum / frequency, s=(height, width)).astype(np.float32)
    scaled: npt.NDArray[np.float32] = noise / noise.std()
    return scaled


class Landmark:
    """A region of a picture, seen from here and there.

    Attributes:
      detail: mean difference of neighbouring pixels of the region at a width of 400 px, in levels of 0..255.
    """

    def __init__(self, scene: Image.Image, rng: np.random.Generator):
        self._scene = scene
        self._rng = rng
        self._extent = rng.uniform(0.4, 0.7)  # of the scene that a view takes
        # The first region with something to see, or else the one with most.
        self.detail = -1.0
        for center in rng.uniform(self._extent / 2, 1 - self._extent / 2, (_NUM_REGIONS_TRIED, 2)):
            detail = self._detail_at(center)
            if detail > self.detail:
                self.detail, self._center = detail, center
            if detail >= MIN_DETAIL:
                break

    def _box(self, center: npt.NDArray[np.float64], extent: float, size: tuple[int, int]) -> Box:
        """Returns a part of the scene with the aspect ratio of ``size``."""
        scale = extent * min(self._scene.width / size[0], self._scene.height / size[1])
        box_width, box_height = scale * size[0], scale * size[1]
        left = np.clip(center[0] * self._scene.width - box_width / 2, 0, self._scene.width - box_width)
        top = np.clip(center[1] * self._scene.height - box_height / 2, 0, self._scene.height - box_height)
        return left, top, left + box_width, top + box_height

    def _detail_at(self, center: npt.NDArray[np.float64]) -> float:
        box = self._box(center, self._extent, (400, 300))
        grey = self._scene.resize((400, 300), Image.Resampling.BOX, box=box).convert("L")
        return float(np.abs(np.diff(np.asarray(grey, dtype=np.float32), axis=1)).mean())

    def view(self) -> bytes:
        """Returns a JPEG of 800 x 600 or 600 x 800 px and quality 70 to 85: another shift, zoom and light each time."""
        rng = self._rng
        size = VIEW_SIZES[0] if rng.random() < 0.7 else VIEW_SIZES[1]
        box = self._box(self._center + rng.uniform(-0.1, 0.1, 2), self._extent * rng.uniform(0.8, 1.2), size)
        image = self._scene.resize(size, Image.Resampling.BICUBIC, box=box)
        if rng.random() < 0.2:  # out of focus
            image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
        image = ImageEnhance.Color(image).enhance(rng.uniform(0.6, 1.4))
        pixels = np.asarray(image, dtype=np.float32) * np.float32(rng.uniform(0.75, 1.25))
        pixels += _SENSOR_NOISE * rng.standard_normal(pixels.shape, dtype=np.float32)
        buffer = io.BytesIO()
        quality = int(rng.integers(70, 86))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()


def draw_tiny(rng: np.random.Generator) -> bytes:
    """Returns a JPEG of 16 x 16 px, about 700 bytes, nearly all of them headers."""
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    corners.resize((16, 16), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()
