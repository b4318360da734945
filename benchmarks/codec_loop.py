"""The bare codec loop: the fewest CPU seconds in which this project knows how to make the thumbnails, byte for byte.

Read the file, decode it (libjpeg-turbo through simplejpeg, fast integer DCT), pick pixels with NumPy, encode (through
imagecodecs) and patch the density into the header: one thread, no bookkeeping, no checks. What a build takes beyond
that is its own. The loop first compares its bytes with those of TensorFlow's operations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import functools
import struct
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import simplejpeg

from benchmarks import builds, notebook, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Measurement, NotAvailableError, Stopwatch, add_common_arguments, alternate
from landmark_triplets_tfds.thumbnails import thumbnail as thumbnails

_DENSITY = struct.pack(">BHH", 1, 300, 300)  # as TensorFlow writes it: 300 dots per inch

_NUM_FILES_CHECKED = 50


@functools.lru_cache(maxsize=256)
def nearest_indices(size: int) -> npt.NDArray[np.int64]:
    """Returns the places among ``size`` pixels that TensorFlow's nearest-neighbour resize reads."""
    scale = np.float32(size) / np.float32(notebook.RESOLUTION)
    centers = (np.arange(notebook.RESOLUTION, dtype=np.float32) + np.float32(0.5)) * scale
    indices: npt.NDArray[np.int64] = np.minimum(np.floor(centers).astype(np.int64), size - 1)
    return indices


def read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def decode(data: bytes) -> Any:
    return simplejpeg.decode_jpeg(data, "RGB", fastdct=True)


def resize(pixels: Any) -> Any:
    height, width = pixels.shape[:2]
    return pixels.take(nearest_indices(height), axis=0).take(nearest_indices(width), axis=1)


def encode(pixels: Any) -> bytes:
    encoded = imagecodecs.jpeg8_encode(
        pixels, level=notebook.QUALITY, colorspace="rgb", outcolorspace="ycbcr", subsampling="420", optimize=True
    )
    return bytes(encoded[:13] + _DENSITY + encoded[18:])


def run(files: Sequence[str]) -> Measurement:
    """Makes the thumbnails of these files, which must be RGB JPEGs."""
    with Stopwatch() as watch:
        for path in files:
            encode(resize(decode(read(path))))
    return watch.measurement(len(files))


def run_package(files: Sequence[str], resize_method: str = "nearest") -> Measurement:
    """Does the same through the package's one function for it, which also looks at headers and copes with any file.

    Raises:
      NotAvailableError: if the installed package does not resize this way.
    """
    if resize_method not in thumbnails.RESIZE_METHODS:
        raise NotAvailableError(f"the installed package does not resize by {resize_method}")
    spec = thumbnails.ThumbnailSpec(
        resolution=notebook.RESOLUTION, jpeg_quality=notebook.QUALITY, resize_method=resize_method
    )
    with Stopwatch() as watch:
        for path in files:
            thumbnails.make_thumbnail(read(path), spec)
    return watch.measurement(len(files))


def check(files: Sequence[str]) -> None:
    """Compares the loop's bytes with TensorFlow's, on some of the files.

    Raises:
      RuntimeError: if they differ: then the loop is no yardstick.
    """
    for path in files[:: max(1, len(files) // _NUM_FILES_CHECKED)]:
        if encode(resize(decode(read(path)))) != notebook.make_thumbnail(path):
            raise RuntimeError(f"the codec loop's thumbnail of {path} is not TensorFlow's.")


def main() -> None:
    """Times the loop beside the package's function and TensorFlow's operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--images", type=int, default=1000, help="how many (default: %(default)s)")
    args = parser.parse_args()
    machine = report.describe_machine()
    with open_corpus(args) as corpus:
        builds.read_all(corpus)
        files = builds.distinct_files("128px_all", corpus)[: args.images]
        check(files)
        cases = {
            "codec loop": lambda: run(files),
            "make_thumbnail": lambda: run_package(files),
            "make_thumbnail, area": lambda: run_package(files, "area"),
            "TensorFlow": lambda: notebook.bare_loop(files),
        }
        results = alternate(cases, args.runs)
    report.print_machine(machine)
    report.print_measurements(results, dict.fromkeys(cases, "images"))
    ratios = [
        *report.ratio(results, "CPU of make_thumbnail / codec loop", "make_thumbnail", "codec loop", "cpu_s"),
        *report.ratio(results, "CPU of area / codec loop", "make_thumbnail, area", "codec loop", "cpu_s"),
        *report.ratio(results, "CPU of TensorFlow / codec loop", "TensorFlow", "codec loop", "cpu_s"),
    ]
    report.print_ratios(ratios)
    report.write_json(args.json, "codec_loop", machine=machine, results=results, ratios=ratios)


if __name__ == "__main__":
    main()
