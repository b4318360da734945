"""What pictures cost and how exact they are: `area`, the decoders of the frameworks, and the sizes of datasets.

    python -m benchmarks.pixels area --corpus CORPUS

Each case carries a table of a page:

* area: how far `resize_method='area'` is from averaging the whole picture, and bytes and time of both methods and of
  another encoder, on one thread, in CPU time ("Pixels" in docs/performance.md).
* decoders: how far apart the decoders of the frameworks are; what ``tfds.load`` gives is what the others are compared
  to (docs/reading.md).
* sizes: how large the datasets of the whole competition get: the mean size of a triplet times the competition's number
  of triplets ("Names" in docs/configs.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import io
import time
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
import simplejpeg

from benchmarks import builds
from benchmarks.corpus import NUM_COMPETITION_IMAGES, NUM_COMPETITION_LANDMARKS
from benchmarks.harness import Program, print_table
from landmark_triplets_tfds import TensorFlowPixels
from landmark_triplets_tfds.thumbnails.resizing import FITS
from landmark_triplets_tfds.thumbnails.thumbnail import RESIZE_METHODS, ThumbnailSpec, make_thumbnail

RESOLUTIONS = (64, 128, 256, 512)
QUALITY = 94
SIZED_CONFIGS = ("64px", "128px", "256px", "512px", "128px_area", "256px_area", "512px_area")

Pixels = npt.NDArray[np.uint8]


# --- Area


def average_whole_picture(file: bytes, resolution: int, fit: str) -> Pixels:
    """Returns the reference: TensorFlow's area resizing of the picture decoded at its full size, rounded."""
    import tensorflow as tf

    image = tf.io.decode_jpeg(file, channels=3)
    size = (resolution, resolution)
    if fit == "pad":
        resized = tf.image.resize_with_pad(image, *size, method="area")
    else:
        if fit == "crop":
            side = min(image.shape[:2])
            image = tf.image.resize_with_crop_or_pad(image, side, side)
        resized = tf.image.resize(image, size, method="area")
    averaged: Pixels = np.clip(np.rint(resized.numpy()), 0, 255).astype(np.uint8)
    return averaged


def format_psnr(mean_squared_error: float) -> str:
    """Returns the peak signal-to-noise ratio as text."""
    return f"{10 * np.log10(255**2 / mean_squared_error):.1f} dB" if mean_squared_error else "equal pixels"


def measure_exactness(files: Sequence[bytes], resolution: int, fit: str) -> list[str]:
    """Returns how far thumbnails are from the reference, both encoded at quality 100."""
    import tensorflow as tf

    spec = ThumbnailSpec(resolution=resolution, resize_method="area", fit=fit, jpeg_quality=100)
    absolute, squared = [], []
    for file in files:
        averaged = average_whole_picture(file, resolution, fit)
        expected = tf.io.decode_jpeg(tf.io.encode_jpeg(averaged, quality=100)).numpy().astype(np.float64)
        error = tf.io.decode_jpeg(make_thumbnail(file, spec), channels=3).numpy() - expected
        absolute.append(np.abs(error).mean())
        squared.append(np.square(error).mean())
    noise = map(format_psnr, (np.mean(squared), np.max(squared)))
    return [f"{np.mean(absolute):.2f}", f"{np.max(absolute):.2f}", *noise]


def measure_cost(make: Callable[[Any], bytes], inputs: Sequence[Any]) -> list[str]:
    """Returns bytes of an output, and CPU time of a call from the best of five rounds."""
    size = np.mean([len(make(each)) for each in inputs])
    rounds = []
    for _ in range(5):
        started = time.thread_time()
        for each in inputs:
            make(each)
        rounds.append(time.thread_time() - started)
    milliseconds = 1000 * min(rounds) / len(inputs)
    return [f"{size:,.0f}", f"{milliseconds:.3f}", f"{1000 / milliseconds:,.0f}"]


def encode(pixels: Pixels, optimize: bool) -> bytes:
    encoded = imagecodecs.jpeg8_encode(
        pixels, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420", optimize=optimize
    )
    return bytes(encoded)


def area(program: Program) -> None:
    paths = sorted(program.corpus.glob("train/*/*/*/*.jpg"))
    chosen = np.linspace(0, len(paths) - 1, program.args.images).astype(int)
    files = [paths[i].read_bytes() for i in chosen]
    rows = [
        [f"{resolution} px", fit, *measure_exactness(files, resolution, fit)]
        for resolution in RESOLUTIONS
        for fit in FITS
    ]
    header = ("resolution", "fit", "mean absolute difference", "largest of an image", "PSNR", "lowest of an image")
    print_table(header, rows)
    rows = []
    for resolution in RESOLUTIONS:
        for method in RESIZE_METHODS:
            spec = ThumbnailSpec(resolution=resolution, resize_method=method, jpeg_quality=QUALITY)
            rows.append(
                [f"{resolution} px", method, *measure_cost(functools.partial(make_thumbnail, spec=spec), files)]
            )
        size = (resolution, resolution)
        averaged = [cv2.resize(simplejpeg.decode_jpeg(file), size, interpolation=cv2.INTER_AREA) for file in files]
        for tables, optimize in (("optimized", True), ("standard", False)):
            cost = measure_cost(functools.partial(encode, optimize=optimize), averaged)
            rows.append([f"{resolution} px", f"only encoding, {tables} tables", *cost])
    print_table(("resolution", "method", "bytes per image", "CPU ms per image", "images/s of one core"), rows)


# --- Decoders


def with_opencv(encoded: bytes) -> Pixels:
    """Decodes as ``tfds.data_source`` does where OpenCV is installed."""
    decoded: Any = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)
    pixels: Pixels = decoded[..., ::-1]  # from BGR
    return pixels


def with_pillow(encoded: bytes) -> Pixels:
    """Decodes as ``tfds.data_source`` does elsewhere."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "OpenCV": with_opencv,
    "Pillow": with_pillow,
    "TensorFlowPixels": TensorFlowPixels().decode_example_np,
}


def decoders(program: Program) -> None:
    tfds = builds.tfds()
    rows = []
    for config in ("128px_all", "128px_area_all"):
        _, builder = builds.build(config, program.corpus, program.folder(), dataset="landmark_images")
        encoded = builder.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
        decoded = builder.as_dataset(split="train")
        histograms: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in DECODERS}
        for stored, record in zip(tfds.as_numpy(encoded), tfds.as_numpy(decoded), strict=True):
            for name, decode in DECODERS.items():
                difference = np.abs(decode(stored["image"]).astype(np.int64) - record["image"])
                histograms[name].append(np.bincount(difference.ravel(), minlength=256))
        for name, each in histograms.items():
            counts = np.stack(each)
            levels, num_values = counts.sum(axis=0), counts.sum()
            mean = counts @ np.arange(256) / counts.sum(axis=1)
            shares = (f"{levels[0] / num_values:.1%}", f"{levels[3:].sum() / num_values:.2%}")
            rows.append(
                (config, name, *shares, np.flatnonzero(levels).max(), f"{mean.mean():.3f}", f"{mean.max():.3f}")
            )
    print_table(
        ("config", "decoder", "equal", "more than 2 levels", "at most", "mean", "mean of the worst image"), rows
    )


# --- Sizes


def sizes(program: Program) -> None:
    counts = {
        "1 per landmark": NUM_COMPETITION_LANDMARKS,
        "2 per landmark": 2 * NUM_COMPETITION_LANDMARKS,
        "all": NUM_COMPETITION_IMAGES,
    }
    rows = []
    for config in SIZED_CONFIGS:
        split = builds.build(config, program.corpus, program.folder())[1].info.splits["train"]
        size = split.num_bytes / split.num_examples
        rows.append((config, f"{size:,.0f}", *(f"{size * count / 1e9:.1f} GB" for count in counts.values())))
    print_table(("images", "bytes per triplet", *counts), rows)


CASES = {"area": area, "decoders": decoders, "sizes": sizes}


def main() -> None:
    """Prints the tables that were asked for."""
    program = Program(__doc__)
    add = program.parser.add_argument
    add("cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    add("--images", type=int, default=200, help="that area is measured on (default: %(default)s)")
    with program:
        for case in program.args.cases:
            CASES[case](program)


if __name__ == "__main__":
    main()
