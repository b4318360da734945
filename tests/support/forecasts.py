"""A corpus of images of many sizes, and forecasts of builds from it, for the tests of `forecast`."""

from etils import epath
import numpy as np

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands.datasets import find_config
from landmark_triplets_tfds.commands.forecaster import Forecaster
from landmark_triplets_tfds.competition.selection import find_source
from tests.support.helpers import encode_image, smooth_pixels


def make_corpus(folder):
    """Writes 130 images of 26 landmarks, of different detail and so of different sizes."""
    random = np.random.RandomState(0)
    lines = ["id,landmark_id"]
    for number in range(130):
        image_id = f"{(number + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"
        pixels = smooth_pixels(240, 320, number)
        noise = random.randint(-3 * (number % 9) - 1, 3 * (number % 9) + 2, pixels.shape)
        path = folder / "train" / image_id[0] / image_id[1] / image_id[2] / f"{image_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(np.clip(pixels + noise, 0, 255).astype(np.uint8), quality=85))
        lines.append(f"{image_id},{number // 5}")
    (folder / "train.csv").write_text("\n".join(lines) + "\n")


def make_forecaster(folder, num_sampled=60, seed=0, **options):
    source = find_source(epath.Path(folder), "off")
    return Forecaster(source, BuildOptions(**options), num_sampled=num_sampled, seed=seed)


def forecast(folder, name, **settings):
    return make_forecaster(folder, **settings).forecast(find_config(name, "landmark_triplets"))
