"""What pictures cost and how exact they are: `area`, and the decoders of the frameworks.

    python -m benchmarks.pixels area --corpus CORPUS

Each case carries a table of a page:

* area: how far `resize_method='area'` is from averaging the whole picture, and bytes and time of both methods and of
  another encoder, on one thread, in CPU time ("Pixels" in docs/performance.md).
* decoders: how far apart the decoders of the frameworks are; what ``tfds.load`` gives is what the others are compared
  to (docs/reading.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
import simplejpeg

from benchmarks import builds, yardsticks
from benchmarks.harness import Figures, Program, measure_each, print_figures
from landmark_triplets_tfds import TensorFlowPixels
from landmark_triplets_tfds.thumbnails.resizing import FITS
from landmark_triplets_tfds.thumbnails.thumbnail import RESIZE_METHODS, ThumbnailSpec, make_thumbnail

RESOLUTIONS = (64, 128, 256, 512)

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


def compare_with_average(files: Sequence[bytes], resolution: int, fit: str) -> Figures:
    """Returns how far thumbnails are from the reference, in levels of 0 to 255, both encoded at quality 100."""
    import tensorflow as tf

    spec = ThumbnailSpec(resolution=resolution, resize_method="area", fit=fit, jpeg_quality=100)
    absolute, squared = [], []
    for file in files:
        averaged = average_whole_picture(file, resolution, fit)
        expected = tf.io.decode_jpeg(tf.io.encode_jpeg(averaged, quality=100)).numpy().astype(np.float64)
        error = tf.io.decode_jpeg(make_thumbnail(file, spec), channels=3).numpy() - expected
        absolute.append(np.abs(error).mean())
        squared.append(np.square(error).mean())
    with np.errstate(divide="ignore"):  # equal pixels: infinitely many decibels
        of_mean, of_worst = (float(10 * np.log10(255**2 / value)) for value in (np.mean(squared), np.max(squared)))
    return {
        "mean absolute difference": float(np.mean(absolute)),
        "largest of an image": float(np.max(absolute)),
        "PSNR, dB": of_mean,
        "lowest of an image": of_worst,
    }


def area(program: Program) -> None:
    paths = sorted(program.corpus.glob("train/*/*/*/*.jpg"))
    chosen = np.linspace(0, len(paths) - 1, program.args.images).astype(int)
    files = [paths[i].read_bytes() for i in chosen]
    kinds = {f"{resolution} px, {fit}": (resolution, fit) for resolution in RESOLUTIONS for fit in FITS}
    print_figures("area", {name: [compare_with_average(files, *kind)] for name, kind in kinds.items()})

    ways: dict[str, tuple[Callable[[Any], bytes], Sequence[Any]]] = {}
    for resolution in RESOLUTIONS:
        for method in RESIZE_METHODS:
            spec = ThumbnailSpec(resolution=resolution, resize_method=method)
            ways[f"{resolution} px, {method}"] = functools.partial(make_thumbnail, spec=spec), files
        size = (resolution, resolution)
        averaged = [
            cv2.resize(simplejpeg.decode_jpeg(file, "BGR"), size, interpolation=cv2.INTER_AREA) for file in files
        ]
        for tables in ("optimized", "standard"):
            do = functools.partial(yardsticks.encode, optimize=tables == "optimized")
            ways[f"{resolution} px, only encoding, {tables} tables"] = do, averaged
    times = program.alternate({name: functools.partial(measure_each, *way) for name, way in ways.items()})
    figures = {
        name: {
            "bytes per image": float(np.mean([len(do(each)) for each in inputs])),
            "CPU ms per image, best round": min(run.cpu_s for run in times[name]) / len(inputs) * 1000,
        }
        for name, (do, inputs) in ways.items()
    }
    print_figures("thumbnails", {name: [each] for name, each in figures.items()})


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
    figures = {}
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
            figures[f"{config}, {name}"] = {
                "equal, %": 100 * levels[0] / num_values,
                "more than 2 levels, %": 100 * levels[3:].sum() / num_values,
                "at most": float(np.flatnonzero(levels).max()),
                "mean": float(mean.mean()),
                "mean of the worst image": float(mean.max()),
            }
    print_figures("decoders", {name: [each] for name, each in figures.items()})


CASES = {"area": area, "decoders": decoders}


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
