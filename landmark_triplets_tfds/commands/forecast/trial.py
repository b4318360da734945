"""A build of sampled images for trial: what an image and an example cost here.

It is a build like any other, of a small competition in a temporary folder: the sampled images, as if four each showed a
landmark, so that there are as many examples as images. They are built twice, with an empty bank of thumbnails and with
the bank that the first time filled. What the first build takes longer than the second is per image: reading, decoding,
encoding, the bank's commits. What the second takes is per example (thumbnails from the bank, TFDS's encoding, shuffling
and writing), but for what every build takes once, which a trial of few images shows. Nothing is assumed of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import gc
import io
import itertools
import json
import os
import pathlib
import time

from etils import epath
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands.datasets import BUILDERS
from landmark_triplets_tfds.commands.prepared import TFRECORD, read_records
from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, image_path
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import ID_COLUMN, LANDMARK_COLUMN, format_image_id
from landmark_triplets_tfds.errors import CommandError, TooManyUnreadableError, UnreadableImageError
from landmark_triplets_tfds.triplets.draws import TRAIN
from landmark_triplets_tfds.triplets.examples import ExampleKind

TOO_FEW_READABLE = "Too few of the sampled images are readable to forecast anything: run inspect first."

_IMAGES_PER_LANDMARK = 4


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
      thumbnail_bytes: int64[num_images], in the order of the images; 0 where one is unreadable or in no example.
      num_unreadable: images.
      overhead_bytes: of a record in its shard, beyond its thumbnails.
      bank_bytes: that an image takes in the bank's file.
      num_examples: that were made.
      image_cpu_s: CPU time of an image, user and system, of all threads.
      examples_cpu_s: CPU time of all examples, and of what a build does once.
    """

    thumbnail_bytes: npt.NDArray[np.int64]
    num_unreadable: int
    overhead_bytes: float
    bank_bytes: float
    num_examples: int
    image_cpu_s: float
    examples_cpu_s: float


def run_trial(
    config: LandmarkBuilderConfig,
    source: ImageSource,
    image_ids: npt.NDArray[np.uint64],
    options: BuildOptions,
    folder: pathlib.Path,
) -> Trial:
    """Builds a dataset of some images twice, in an empty folder.

    Args:
      config: of the dataset.
      source: of the images.
      image_ids: uint64[num_images], at least two.
      options: of the build.
      folder: where to.

    Raises:
      CommandError: if no example could be made, because images are unreadable, or the folder has no room for a bank.
    """
    import_tensorflow()
    copy = folder / "copy"
    unpacking_cpu_s = _write_copy(copy, source, image_ids)
    # What a config has beside these says which images there are, and here all of them are wanted.
    pixels = dataclasses.asdict(config.thumbnail_spec())
    small_config = type(config)(name="trial", images_per_landmark=None, **pixels)
    options = dataclasses.replace(options, bank=os.fspath(folder / "bank"), max_unreadable=1.0, triplets_csv=False)
    made, first_cpu_s = _build(small_config, options, copy, folder / "first")
    _, second_cpu_s = _build(small_config, options, copy, folder / "second")
    report = json.loads((made / REPORT_NAME).read_text())
    if report["bank"] is None:
        raise CommandError(f"{folder.parent} has no room for a trial. TMPDIR=<folder> names another place.")
    shards = list(made.glob(f"*-{TRAIN}.*"))
    sizes, num_examples, used_bytes = _measure_thumbnails(shards, config.kind)
    return Trial(
        thumbnail_bytes=np.array([sizes.get(format_image_id(image_id), 0) for image_id in image_ids.tolist()]),
        num_unreadable=report["counts"]["num_images_unreadable"],
        overhead_bytes=(sum(path.stat().length for path in shards) - used_bytes) / num_examples,
        bank_bytes=report["num_bank_bytes"] / len(image_ids),
        num_examples=num_examples,
        image_cpu_s=(max(0.0, first_cpu_s - second_cpu_s) + unpacking_cpu_s) / len(image_ids),
        examples_cpu_s=second_cpu_s,
    )


def _write_copy(folder: pathlib.Path, source: ImageSource, image_ids: npt.NDArray[np.uint64]) -> float:
    """Writes a small competition; an image that cannot be had is missing from it too.

    Returns:
      The CPU time by which images take longer to read from the source, where that unpacks them, than from the copy.
    """
    (folder / IMAGES_NAME / "0").mkdir(parents=True)  # as there is in any copy, even without a readable image
    num_landmarks = max(2, len(image_ids) // _IMAGES_PER_LANDMARK)
    lines = [f"{ID_COLUMN},{LANDMARK_COLUMN}"]
    unpacking_cpu_s = 0.0
    for number, image_id in enumerate(image_ids.tolist()):
        lines.append(f"{format_image_id(image_id)},{number % num_landmarks}")
        path = folder / IMAGES_NAME / image_path(image_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.thread_time()
        try:
            content = source.read(image_id)
        except UnreadableImageError:
            continue
        read = time.thread_time()
        path.write_bytes(content)
        written = time.thread_time()
        path.read_bytes()
        unpacking_cpu_s += (read - started) - (time.thread_time() - written)
    (folder / TABLE_NAME).write_text("\n".join(lines) + "\n")
    return max(0.0, unpacking_cpu_s)


def _build(
    config: LandmarkBuilderConfig, options: BuildOptions, copy: pathlib.Path, folder: pathlib.Path
) -> tuple[epath.Path, float]:
    """Builds a dataset; returns its folder and the CPU time of this process, user and system, of all threads."""
    builder = BUILDERS[config.kind.dataset](config=config, data_dir=os.fspath(folder))
    builder.build_options = options
    gc.collect()
    started = time.process_time()
    nowhere = io.StringIO()  # for what a build says, and its bars, which nobody has asked for
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=copy))
    except TooManyUnreadableError as error:
        raise CommandError(TOO_FEW_READABLE) from error
    return builder.data_path, time.process_time() - started


def _measure_thumbnails(shards: Sequence[epath.Path], kind: ExampleKind) -> tuple[dict[str, int], int, int]:
    """Returns the size of the thumbnail of each image id, the number of examples, and the bytes of all their images."""
    sizes: dict[str, int] = {}
    num_examples = num_bytes = 0
    for record, _ in itertools.chain.from_iterable(read_records(path, TFRECORD) for path in shards):
        features = tf_example_pb2.Example.FromString(record).features.feature
        num_examples += 1
        for id_feature, image_feature in zip(kind.id_features, kind.image_features, strict=True):
            (image_id,), (image,) = features[id_feature].bytes_list.value, features[image_feature].bytes_list.value
            sizes[image_id.decode()] = len(image)
            num_bytes += len(image)
    return sizes, num_examples, num_bytes
