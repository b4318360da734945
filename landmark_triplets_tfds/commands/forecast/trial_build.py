"""A small build of sampled images, through everything a real one goes through: what an image and an example cost here.

The images are taken for those of landmarks, four each, so that there are as many examples as images. They are built
twice: with an empty bank of thumbnails, and with the bank that the first time filled. What the second build takes is
per example (drawing thumbnails from the bank, TFDS's encoding, shuffling and writing), and what it takes less than the
first is per image (reading, decoding, encoding, the bank's commits). Nothing is assumed of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import gc
import os
import pathlib
import sys
import time
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.build import SplitJob
from landmark_triplets_tfds.build.local import LocalSplit
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.build.report import BuildReport
from landmark_triplets_tfds.build.splits import PlannedSplit
from landmark_triplets_tfds.commands.datasets import ConfigChoice
from landmark_triplets_tfds.common.tensorflow_ops import import_tensorflow
from landmark_triplets_tfds.competition.selection import ImageSet, Selection
from landmark_triplets_tfds.competition.source import ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id
from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.triplets import plan as assembly
from landmark_triplets_tfds.triplets.draws import TRAIN
from landmark_triplets_tfds.triplets.plan import ExampleSpec, SplitSpec, make_plan
from landmark_triplets_tfds.triplets.sampling import SamplingSpec
from landmark_triplets_tfds.triplets.triplets_file import TripletsFileSpec

_IMAGE_FEATURES = {"anchor_id": "anchor_img", "positive_id": "positive_img", "negative_id": "negative_img"}


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
      thumbnail_bytes: int64[num_images], in the order of the images; 0 where one is unreadable or in no example.
      num_unreadable: images.
      overhead_bytes: of a record in its shard, beyond its thumbnails.
      bank_bytes: that an image takes in the bank's file.
      image_cpu_s: CPU time of an image, user and system, of all threads.
      example_cpu_s: CPU time of an example.
      example_thread_s: of that, what the thread takes that feeds TFDS's writer.
    """

    thumbnail_bytes: npt.NDArray[np.int64]
    num_unreadable: int
    overhead_bytes: float
    bank_bytes: float
    image_cpu_s: float
    example_cpu_s: float
    example_thread_s: float


@dataclasses.dataclass(frozen=True)
class _Run:
    """One of the two builds."""

    cpu_s: float
    thread_s: float
    num_examples: int
    num_bytes: int
    size_of_id: dict[str, int]
    used_bytes: int
    num_unreadable: int


def run_trial(
    choice: ConfigChoice,
    source: ImageSource,
    image_ids: npt.NDArray[np.uint64],
    options: BuildOptions,
    folder: pathlib.Path,
) -> Trial:
    """Builds a dataset of some images twice, in an empty folder.

    Args:
      choice: of the config.
      source: of the images.
      image_ids: uint64[num_images], at least two.
      options: how many threads there are.
      folder: where to.

    Raises:
      CommandError: if no example could be made, because images are unreadable.
    """
    import_tensorflow()
    options = dataclasses.replace(options, bank=os.fspath(folder / "bank"), max_unreadable=1.0, triplets_csv=False)
    table = LandmarkTable(image_ids=image_ids, landmark_ids=np.arange(len(image_ids)) % max(2, len(image_ids) // 4))
    images = ImageSet(table, source)
    spec = _spec_of_all(choice.config.example_spec(TRAIN))
    with _messages_to_standard_error():
        first = _build(choice, images, spec, options, folder / "first")
        bank_bytes = sum(path.stat().st_size for path in (folder / "bank").iterdir())
        second = _build(choice, images, spec, options, folder / "second")
    sizes = np.array([first.size_of_id.get(format_image_id(image_id), 0) for image_id in image_ids.tolist()])
    num_examples = first.num_examples
    return Trial(
        thumbnail_bytes=sizes,
        num_unreadable=first.num_unreadable,
        overhead_bytes=(first.num_bytes - first.used_bytes) / num_examples,
        bank_bytes=bank_bytes / len(image_ids),
        image_cpu_s=max(0.0, first.cpu_s - second.cpu_s) / len(image_ids),
        example_cpu_s=second.cpu_s / num_examples,
        example_thread_s=second.thread_s / num_examples,
    )


def _spec_of_all(spec: SplitSpec) -> ExampleSpec:
    """Returns a spec that takes all images of a table once."""
    if isinstance(spec, TripletsFileSpec):
        return SamplingSpec(images_per_landmark=None)
    spec = dataclasses.replace(spec, images_per_landmark=None, validation_percent=0)
    return dataclasses.replace(spec, triplets_per_anchor=1) if isinstance(spec, SamplingSpec) else spec


def _build(
    choice: ConfigChoice, images: ImageSet, spec: ExampleSpec, options: BuildOptions, folder: pathlib.Path
) -> _Run:
    folder.mkdir()
    plan = make_plan(images.table, spec)
    rows = assembly.find_distinct_images(plan, plan.num_examples, images.table.num_images)
    job = SplitJob(PlannedSplit(TRAIN, images, spec, plan), plan.num_examples, rows, len(rows))
    report = BuildReport(Selection(images, images.table, images.table), choice.config.kind)
    size_of_id: dict[str, int] = {}
    used_bytes = num_examples = 0

    def watched(examples: Iterator[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal used_bytes, num_examples
        for key, example in examples:
            num_examples += 1
            for id_feature, image_feature in _features_of(example):
                size = len(example[image_feature])
                used_bytes += size
                size_of_id[example[id_feature]] = size
            yield key, example
        if not num_examples:
            raise CommandError("Too few of the sampled images are readable to forecast anything: run inspect first.")

    write = _prepare_writer(choice, folder)
    gc.collect()
    cpu_s, thread_s = time.process_time(), time.thread_time()
    split = LocalSplit(job, choice.config.thumbnail_spec(), options, epath.Path(folder))
    try:
        write(watched(split.examples()))
        split.finish(report)
    finally:
        split.close()
    cpu_s, thread_s = time.process_time() - cpu_s, time.thread_time() - thread_s
    num_bytes = sum(path.stat().st_size for path in folder.rglob(f"*-{TRAIN}.*"))
    return _Run(cpu_s, thread_s, num_examples, num_bytes, size_of_id, used_bytes, len(report.unreadable))


def _features_of(example: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the names of the ids and images in an example."""
    return iter(_IMAGE_FEATURES.items() if "anchor_id" in example else [("image_id", "image")])


def _prepare_writer(choice: ConfigChoice, folder: pathlib.Path) -> Any:
    """Returns a function that writes keyed examples as TFDS does in a build."""
    from tensorflow_datasets.core import download, naming, split_builder

    builder = choice.builder_class(config=choice.config, data_dir=os.fspath(folder))
    splits = split_builder.SplitBuilder(
        split_dict=builder.info.splits,
        features=builder.info.features,
        dataset_size=builder.info.dataset_size,
        max_examples_per_split=None,
        beam_options=None,
        beam_runner=None,
        shard_config=download.DownloadConfig().get_shard_config(),
        example_writer=builder._example_writer(),
        ignore_duplicates=False,
    )
    template = naming.ShardedFileTemplate(
        split=TRAIN,
        dataset_name=choice.dataset,
        data_dir=epath.Path(folder),
        filetype_suffix=builder.info.file_format.file_suffix,
    )

    def write(examples: Iterator[tuple[str, dict[str, Any]]]) -> None:
        with splits.maybe_beam_pipeline():
            splits.submit_split_generation(
                split_name=TRAIN,
                generator=examples,
                filename_template=template,
                disable_shuffling=False,
                nondeterministic_order=False,
            ).result()

    return write


@contextlib.contextmanager
def _messages_to_standard_error() -> Iterator[None]:
    """Keeps standard output for results, and hides the bars of a build."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):
        yield
