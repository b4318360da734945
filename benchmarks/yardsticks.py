"""What builds are compared with: the notebook's procedure, two plain TFDS builders, the bare codecs.

*The notebook's procedure* is that of the notebook that this package replaces, written anew from its description.
Anchors are the first images of every landmark. Each gets a random positive of the same landmark (it may be the anchor
itself), and a random negative of another one, from the sample: pandas, groupby and one function call per row. Then,
triplet by triplet in one thread, TensorFlow reads, decodes, resizes and encodes the three images and writes them to
TFRecord files. It must not be slower than it has to, so it is compared with a bare loop of its TensorFlow calls.

*Two plain builders*: one that does the same work simply, as TFDS's guide has it, and one that writes the same record
again and again, which is the time that TFDS's own writer takes; no builder on top of it takes less.

*The codec loop* makes the thumbnails, byte for byte, in the fewest CPU seconds this project knows: read the file,
decode it (libjpeg-turbo through simplejpeg, fast integer DCT), pick pixels with NumPy, encode (through OpenCV) and
patch the density into the header. A process for each core, no bookkeeping, no checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
import functools
import multiprocessing
from pathlib import Path
import random
import struct
from typing import Any

import cv2
import loky
import numpy as np
import numpy.typing as npt
import pandas as pd
import simplejpeg
import tensorflow_datasets as tfds

from benchmarks import builds
from benchmarks.builds import IMAGES
from benchmarks.corpus import image_path
from benchmarks.harness import Figures, Stopwatch, temporary_folder
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.examples import TRIPLETS

RESOLUTION = 128
_QUALITY = 94
_NUM_SHARDS = 15

_DENSITY = struct.pack(">BHH", 1, 300, 300)  # as TensorFlow writes it: 300 dots per inch
_NUM_FILES_CHECKED = 50

_RECORD_OVERHEAD_BYTES = 245  # of a serialized record beside its images: names, ids, lengths


# --- The notebook's procedure


def decode_with_tensorflow(path: Any) -> Any:
    """Reads, decodes and resizes an image with TensorFlow; returns a tensor."""
    import tensorflow as tf

    image = tf.io.decode_jpeg(tf.io.read_file(path))
    return tf.image.resize(image, size=(RESOLUTION, RESOLUTION), method="nearest")


def make_with_tensorflow(path: Any) -> bytes:
    import tensorflow as tf

    image = decode_with_tensorflow(path)
    encoded: bytes = tf.io.encode_jpeg(image, quality=_QUALITY, optimize_size=True).numpy()
    return encoded


def path_as_written(corpus: Path, image_id: str) -> Any:
    """Returns the path of an image, a tensor, built from the characters of its id as the notebook does."""
    import tensorflow as tf

    characters = tf.strings.bytes_split(image_id)
    parts = [f"{corpus}/train", characters[0], characters[1], characters[2], image_id + ".jpg"]
    return tf.strings.join(parts, separator="/")


class Notebook:
    """The notebook's procedure on a corpus, timed on some of its triplets: what it costs, it costs per triplet.

    A draw is from Python's generator, which costs a tenth of NumPy's for one number at a time.
    """

    def __init__(
        self, corpus: Path, images_per_landmark: int | None, num_timed: int, work: Path, *, as_written: bool = False
    ):
        """Plans all triplets; ``as_written``: TensorFlow builds the paths too, which takes longer than the images."""
        self._find = functools.partial(path_as_written if as_written else image_path, corpus)
        self._corpus = corpus
        self._images_per_landmark = images_per_landmark
        self._work = work
        planned = self._plan()
        timed = planned.iloc[:: max(1, len(planned) // num_timed)]  # about so many, evenly spread
        self._triplets = timed[["id", "positive", "negative"]].to_numpy().tolist()

    def _plan(self) -> pd.DataFrame:
        """Returns the anchors with the columns positive and negative: one function call per row for each."""
        table, limit = pd.read_csv(self._corpus / "train.csv"), self._images_per_landmark
        sample = table if limit is None else table.groupby("landmark_id").head(limit)
        images_of: dict[Any, list[str]] = table.groupby("landmark_id")["id"].apply(list).to_dict()
        ids: list[str] = sample["id"].tolist()
        landmarks: list[int] = sample["landmark_id"].tolist()
        rng = random.Random(0)

        def draw_positive(row: pd.Series) -> str:
            return rng.choice(images_of[row["landmark_id"]])

        def draw_negative(row: pd.Series) -> str:
            while True:
                place = rng.randrange(len(ids))
                if landmarks[place] != row["landmark_id"]:
                    return ids[place]

        return sample.assign(positive=sample.apply(draw_positive, axis=1), negative=sample.apply(draw_negative, axis=1))

    def files(self) -> list[str]:
        """Returns the files of the timed triplets, three each, with repetitions."""
        return [image_path(self._corpus, image_id) for triplet in self._triplets for image_id in triplet]

    def __call__(self) -> Figures:
        """Plans all triplets, writes some; returns the time of writing these and their share of the planning."""
        with Stopwatch() as planning:
            planned = self._plan()
        with temporary_folder(self._work) as folder, Stopwatch() as writing:
            self._write(Path(folder))
        share = len(self._triplets) / len(planned)
        writing.wall_s += share * planning.wall_s
        writing.cpu_s += share * planning.cpu_s
        return writing.figures(len(self._triplets))

    def _write(self, folder: Path) -> None:
        """Writes TFRecord files with the three images of every triplet, one file after the other."""
        import tensorflow as tf

        per_shard = -(-len(self._triplets) // _NUM_SHARDS)
        for shard, start in enumerate(range(0, len(self._triplets), per_shard)):
            with tf.io.TFRecordWriter(str(folder / f"train_{shard:02d}.tfrec")) as writer:
                for ids in self._triplets[start : start + per_shard]:
                    images = [make_with_tensorflow(self._find(image_id)) for image_id in ids]
                    features = {
                        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
                        for name, image in zip(IMAGES, images, strict=True)
                    }
                    example = tf.train.Example(features=tf.train.Features(feature=features))
                    writer.write(example.SerializeToString())


# --- Plain builders


def _build_plainly(features: Any, examples: Iterator[dict[str, Any]], count: int, work: Path) -> Figures:
    """Writes what an iterator yields, under keys from 0."""

    class PlainBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
            return ((f"{number:016x}", example) for number, example in enumerate(examples))

    with temporary_folder(work) as folder:
        builder = PlainBuilder(data_dir=folder)
        with builds.quiet(), Stopwatch() as watch:
            builder.download_and_prepare()
    return watch.figures(count)


def build_plainly(files: Sequence[str], work: Path) -> Figures:
    """Builds the triplets of these files, three each, as TFDS's guide has it: decoded arrays, which TFDS encodes."""
    image = tfds.features.Image(shape=(RESOLUTION, RESOLUTION, 3), encoding_format="jpeg")
    triplets = [files[start : start + len(IMAGES)] for start in range(0, len(files), len(IMAGES))]
    examples = (
        {name: decode_with_tensorflow(path).numpy() for name, path in zip(IMAGES, paths, strict=True)}
        for paths in triplets
    )
    return _build_plainly(tfds.features.FeaturesDict(dict.fromkeys(IMAGES, image)), examples, len(triplets), work)


def build_constant(num_triplets: int, num_bytes: int, work: Path) -> Figures:
    """Writes the same record of this package's features ``num_triplets`` times, ``num_bytes`` in all."""
    features = builds.tfds().builder(builds.DATASET).info.features
    image = bytes(max(1, (num_bytes // num_triplets - _RECORD_OVERHEAD_BYTES) // len(IMAGES)))
    record = {
        **dict.fromkeys(IMAGES, image),
        **dict.fromkeys(TRIPLETS.id_features, "0123456789abcdef"),
        **dict.fromkeys(TRIPLETS.landmark_features, 123_456),
    }
    return _build_plainly(features, (record for _ in range(num_triplets)), num_triplets, work)


# --- The codec loop


@functools.lru_cache(maxsize=256)
def _nearest_indices(size: int) -> npt.NDArray[np.int64]:
    """Returns the places among ``size`` pixels that TensorFlow's nearest-neighbour resize reads."""
    scale = np.float32(size) / np.float32(RESOLUTION)
    centers = (np.arange(RESOLUTION, dtype=np.float32) + np.float32(0.5)) * scale
    indices: npt.NDArray[np.int64] = np.minimum(np.floor(centers).astype(np.int64), size - 1)
    return indices


def read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def decode(data: bytes) -> Any:
    return simplejpeg.decode_jpeg(data, "BGR", fastdct=True)


def resize(pixels: Any) -> Any:
    height, width = pixels.shape[:2]
    return pixels.take(_nearest_indices(height), axis=0).take(_nearest_indices(width), axis=1)


def encode(pixels: Any, optimize: bool = True) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize)]
    encoded = cv2.imencode(".jpg", pixels, settings)[1].tobytes()  # 4:2:0 by default
    return encoded[:13] + _DENSITY + encoded[18:]


def run_codec(path: str) -> bytes:
    """Makes the thumbnail of a file, which must be an RGB JPEG."""
    return encode(resize(decode(read(path))))


def run_package(path: str) -> bytes:
    """Makes the thumbnail of `area` through the package's one function for it, which copes with any file."""
    return make_thumbnail(read(path), ThumbnailSpec(resolution=RESOLUTION, jpeg_quality=_QUALITY, resize_method="area"))


def run_opencv(path: str, *, optimize: bool = False) -> bytes:
    """Makes a thumbnail about like those of `area` as a plain loop would: OpenCV's decoder that shrinks by 4."""
    flags = cv2.IMREAD_REDUCED_COLOR_4 | cv2.IMREAD_IGNORE_ORIENTATION
    pixels: Any = cv2.imdecode(np.frombuffer(read(path), dtype=np.uint8), flags)
    pixels = cv2.resize(pixels, (RESOLUTION, RESOLUTION), interpolation=cv2.INTER_AREA)
    settings = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimize)]
    return cv2.imencode(".jpg", pixels, settings)[1].tobytes()


class OnAllCores:
    """Runs a function of this module on files, a process for each core, which are there before the first run."""

    def __init__(self, function: Callable[[str], bytes], files: Sequence[str]):
        self._function = function
        self._num_cores, self._num_files = loky.cpu_count(), len(files)
        self._shares = [files[first :: self._num_cores] for first in range(self._num_cores)]
        self._pool = ProcessPoolExecutor(self._num_cores, mp_context=multiprocessing.get_context("spawn"))

    def __call__(self) -> Figures:
        with Stopwatch() as watch:
            list(self._pool.map(functools.partial(_run_each, self._function), self._shares))
        return watch.figures(self._num_files)


def _run_each(function: Callable[[str], bytes], files: Sequence[str]) -> None:
    for path in files:
        function(path)


def check_codecs(files: Sequence[str]) -> None:
    """Compares the loop's bytes with TensorFlow's on some of the files: if they differ, it is no yardstick."""
    for path in files[:: max(1, len(files) // _NUM_FILES_CHECKED)]:
        if run_codec(path) != make_with_tensorflow(path):
            raise RuntimeError(f"the codec loop's thumbnail of {path} is not TensorFlow's.")
