"""Measures what docs/performance.md says of resize_method='area': exactness, bytes, speed, and the choice of encoder.

Run from the top of the repository: python docs/measure_area.py COMPETITION

COMPETITION is a folder with the competition's layout. Everything runs on one thread, and times are
CPU time, so that other programs disturb them little.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import functools
import os
from pathlib import Path
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg
import tensorflow as tf

from landmark_triplets_tfds.thumbnails.resizing import FITS
from landmark_triplets_tfds.thumbnails.thumbnail import RESIZE_METHODS, ThumbnailSpec, make_thumbnail

RESOLUTIONS = (64, 128, 256, 512)
QUALITY = 94

Pixels = npt.NDArray[np.uint8]


def average_whole_picture(file: bytes, resolution: int, fit: str) -> Pixels:
    """Returns the reference: TensorFlow's area resizing of the picture decoded at its full size, rounded."""
    image = tf.io.decode_jpeg(file, channels=3)
    size = (resolution, resolution)
    if fit == "pad":
        resized = tf.image.resize_with_pad(image, *size, method="area")
    else:
        if fit == "crop":
            side = min(image.shape[:2])
            image = tf.image.resize_with_crop_or_pad(image, side, side)
        resized = tf.image.resize(image, size, method="area")
    return np.clip(np.rint(resized.numpy()), 0, 255).astype(np.uint8)


def print_exactness(files: Sequence[bytes]) -> None:
    """Prints how far thumbnails are from the reference, both encoded at quality 100."""
    print("| resolution | fit | mean absolute difference | largest of an image | PSNR | lowest of an image |")
    print("|---|---|---|---|---|---|")
    for resolution in RESOLUTIONS:
        for fit in FITS:
            spec = ThumbnailSpec(resolution=resolution, resize_method="area", fit=fit, jpeg_quality=100)
            absolute, squared = [], []
            for file in files:
                averaged = average_whole_picture(file, resolution, fit)
                expected = tf.io.decode_jpeg(tf.io.encode_jpeg(averaged, quality=100)).numpy().astype(np.float64)
                error = tf.io.decode_jpeg(make_thumbnail(file, spec), channels=3).numpy() - expected
                absolute.append(np.abs(error).mean())
                squared.append(np.square(error).mean())
            print(
                f"| {resolution} px | {fit} | {np.mean(absolute):.2f} | {np.max(absolute):.2f}"
                f" | {format_psnr(np.mean(squared))} | {format_psnr(np.max(squared))} |"
            )


def format_psnr(mean_squared_error: float) -> str:
    """Returns the peak signal-to-noise ratio as text."""
    return f"{10 * np.log10(255**2 / mean_squared_error):.1f} dB" if mean_squared_error else "equal pixels"


def mean_milliseconds(run: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Returns the CPU time of one call, from the best of five rounds over the arguments."""
    rounds = []
    for _ in range(5):
        started = time.thread_time()
        for argument in arguments:
            run(argument)
        rounds.append(time.thread_time() - started)
    return 1000 * min(rounds) / len(arguments)


def print_cost(files: Sequence[bytes]) -> None:
    """Prints bytes and speed of both methods."""
    print("| resolution | method | bytes per image | CPU ms per image | images/s of one core |")
    print("|---|---|---|---|---|")
    for resolution in RESOLUTIONS:
        for method in RESIZE_METHODS:
            spec = ThumbnailSpec(resolution=resolution, resize_method=method, jpeg_quality=QUALITY)
            size = np.mean([len(make_thumbnail(file, spec)) for file in files])
            duration = mean_milliseconds(functools.partial(make_thumbnail, spec=spec), files)
            print(f"| {resolution} px | {method} | {size:,.0f} | {duration:.2f} | {1000 / duration:,.0f} |")


def print_encoders(files: Sequence[bytes]) -> None:
    """Prints bytes and speed of three ways to encode the same pixels, those of 'area' and 'squash'."""

    def encode_with_imagecodecs(pixels: Pixels, optimize: bool) -> bytes:
        return imagecodecs.jpeg8_encode(
            pixels, level=QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420", optimize=optimize
        )

    encoders: dict[str, Callable[[Pixels], bytes]] = {
        "imagecodecs, optimized Huffman tables": lambda pixels: encode_with_imagecodecs(pixels, True),
        "imagecodecs, standard tables": lambda pixels: encode_with_imagecodecs(pixels, False),
        "simplejpeg, standard tables": lambda pixels: simplejpeg.encode_jpeg(
            pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420"
        ),
    }
    print("| resolution | encoder | bytes per image | CPU ms per image |")
    print("|---|---|---|---|")
    for resolution in RESOLUTIONS:
        size = (resolution, resolution)
        pictures = [cv2.resize(simplejpeg.decode_jpeg(file), size, interpolation=cv2.INTER_AREA) for file in files]
        for name, encode in encoders.items():
            encoded = np.mean([len(encode(picture)) for picture in pictures])
            duration = mean_milliseconds(encode, pictures)
            print(f"| {resolution} px | {name} | {encoded:,.0f} | {duration:.3f} |")


def main() -> None:
    """Prints the tables of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("competition", type=Path, help="folder that holds train/")
    parser.add_argument("--images", type=int, default=200, help="how many to measure on (default: %(default)s)")
    args = parser.parse_args()
    paths = sorted(args.competition.glob("train/*/*/*/*.jpg"))
    files = [paths[i].read_bytes() for i in np.linspace(0, len(paths) - 1, args.images).astype(int)]
    print(f"{len(files)} images of {np.mean([len(file) for file in files]) / 1000:.1f} kB on average\n")
    for print_table in (print_exactness, print_cost, print_encoders):
        print_table(files)
        print()


if __name__ == "__main__":
    main()
