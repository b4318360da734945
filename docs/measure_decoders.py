"""Measures how far apart the decoders of the frameworks are: the table of pixels in docs/reading.md.

Run from the top of the repository: python docs/measure_decoders.py COMPETITION [CONFIG ...]

COMPETITION is a folder with the competition's layout, such as `python -m benchmarks.corpus` makes from photographs. All
its images are built, stored, and decoded by every decoder; what ``tfds.load`` gives is what the others are compared to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import io
import os
from pathlib import Path
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["LANDMARK_TRIPLETS_BANK"] = "off"

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
import tensorflow_datasets as tfds

from landmark_triplets_tfds import LandmarkImages
from landmark_triplets_tfds.training.decoder import TensorFlowPixels

Pixels = npt.NDArray[np.uint8]


def with_opencv(encoded: bytes) -> Pixels:
    """Decodes as ``tfds.data_source`` does where OpenCV is installed."""
    return cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_COLOR)[..., ::-1]  # from BGR


def with_pillow(encoded: bytes) -> Pixels:
    """Decodes as ``tfds.data_source`` does elsewhere."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


DECODERS: dict[str, Callable[[bytes], Pixels]] = {
    "OpenCV (tfds.data_source, where it is installed)": with_opencv,
    "Pillow (tfds.data_source otherwise)": with_pillow,
    "TensorFlowPixels": TensorFlowPixels().decode_example_np,
}


def compare(builder: tfds.core.DatasetBuilder) -> dict[str, list[npt.NDArray[np.int64]]]:
    """Returns the histograms of absolute differences, int64[256] for each image, by decoder."""
    encoded = builder.as_dataset(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    decoded = builder.as_dataset(split="train")
    histograms: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in DECODERS}
    for stored, record in zip(tfds.as_numpy(encoded), tfds.as_numpy(decoded), strict=True):
        for name, decode in DECODERS.items():
            difference = np.abs(decode(stored["image"]).astype(np.int64) - record["image"])
            histograms[name].append(np.bincount(difference.ravel(), minlength=256))
    return histograms


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("competition", type=Path, help="folder that holds train.csv and train/")
    parser.add_argument("configs", nargs="*", default=["128px_all", "128px_area_all"], help="of landmark_images")
    args = parser.parse_args()
    tfds.disable_progress_bar()
    rows = []
    for config in args.configs:
        with tempfile.TemporaryDirectory() as data_dir:
            builder = LandmarkImages(config=config, data_dir=data_dir)
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=args.competition))
            for name, histograms in compare(builder).items():
                counts = np.stack(histograms)
                values = counts.sum()
                mean = (counts @ np.arange(256)) / counts.sum(axis=1)
                largest = np.flatnonzero(counts.sum(axis=0)).max()
                equal, above_2 = counts[:, 0].sum() / values, counts[:, 3:].sum() / values
                rows.append(
                    f"| `{config}` | {name} | {equal:.1%} | {above_2:.2%} | {largest} | {mean.mean():.3f} |"
                    f" {mean.max():.3f} |"
                )
    print("\n| config | decoder | equal | more than 2 levels | at most | mean | mean of the worst image |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
