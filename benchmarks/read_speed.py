"""How fast datasets are read: triplets a second, decoded, in batches of 64, on all usable cores.

    python -m benchmarks.read_speed --corpus CORPUS

It carries the ratios under "`tfds.load`" in docs/reading.md.

The same triplets are read through ``tfds.load`` with the options that suit three small pictures a record, by the
notebook's own reader from the very same TFRecord files, and from the raw JPEG files with decoding and resizing on the
fly. Timing starts after the first batches: setting up a pipeline is no part of an epoch's speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import itertools
from pathlib import Path
from typing import Any
import warnings

import loky
import numpy as np

from benchmarks import builds
from benchmarks.builds import IMAGES
from benchmarks.harness import Case, Figures, Program, Stopwatch, print_figures, ratio
from benchmarks.yardsticks import decode_with_tensorflow
from landmark_triplets_tfds import LandmarkTripletsConfig

TFDS, NOTEBOOK, RAW = "tfds.load, options", "notebook's reader", "raw JPEG folder"
BATCH_SIZE = 64
NUM_BATCHES_AHEAD = 4  # prefetched
_NUM_BATCHES_BEFORE = 4  # the timing starts
_NUM_TRIPLETS, _NUM_RAW_TRIPLETS = 10_000, 700  # read in a round at least, and from the raw folder about

# What makes tfds.load as fast as a reader written for these records. Twice as many calls as cores, for results are
# handed on in order, so that with fewer one slow record keeps a core waiting; and no threads that interleave files,
# which gain nothing where decoding is the work. (TensorFlow then warns of an argument without effect.)
_READ_OPTIONS = {
    "num_parallel_calls_for_decode": 2 * loky.cpu_count(),
    "interleave_cycle_length": 1,
    "num_parallel_calls_for_interleave_files": None,
}


def open_dataset(builder: Any) -> Any:
    """Returns the train split of a prepared dataset as ``tfds.load`` does, with the options."""
    tfds = builds.tfds()
    # Small datasets would be kept in memory, decoded, during the first pass; the competition is not small.
    options = tfds.ReadConfig(try_autocache=False, **_READ_OPTIONS)
    decoders = tfds.decode.PartialDecoding(dict.fromkeys(IMAGES, True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return builder.as_dataset(split="train", read_config=options, decoders=decoders)


def measure_batches(batches: Iterable[Any], names: Sequence[str], num_before: int) -> Figures:
    """Reads all batches, dicts with arrays; counts what is under ``names`` in those after the first ``num_before``."""
    iterator = iter(batches)
    for _ in itertools.islice(iterator, num_before):
        pass
    with Stopwatch() as watch:
        count = sum(len(batch[name]) for batch in iterator for name in names)
    if hasattr(iterator, "close"):
        iterator.close()  # ends Grain's worker processes
    if not count:
        raise RuntimeError(f"There is nothing to time after the first {num_before} batches: more has to be read.")
    return watch.figures(count)


def _measure(dataset: Any) -> Figures:
    """Reads a tf.data dataset of triplets, and counts them."""
    batches = dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD)
    return measure_batches(batches, IMAGES[:1], _NUM_BATCHES_BEFORE)


def with_notebook_reader(files: list[str]) -> Figures:
    """Reads the same files as the notebook's training code does."""
    import tensorflow as tf

    def parse(record: Any) -> dict[str, Any]:
        example = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string) for name in IMAGES})
        return {name: tf.image.decode_jpeg(example[name], channels=3) for name in IMAGES}

    return _measure(tf.data.TFRecordDataset(files).map(parse, num_parallel_calls=2 * loky.cpu_count()))


def with_raw_folder(files: list[str]) -> Figures:
    """Reads the competition's own files, three per triplet."""
    import tensorflow as tf

    def make(paths: Any) -> dict[str, Any]:
        return {name: decode_with_tensorflow(paths[i]) for i, name in enumerate(IMAGES)}

    dataset = tf.data.Dataset.from_tensor_slices(np.reshape(files, (-1, len(IMAGES))))
    return _measure(dataset.map(make, num_parallel_calls=2 * loky.cpu_count()))


def make_cases(corpus: Path, folder: Path) -> dict[str, Case]:
    """Builds what is read, and returns what is measured, by name."""
    table, plan = builds.plan("128px_all", corpus)
    config = LandmarkTripletsConfig(
        name="read_speed", images_per_landmark=None, triplets_per_anchor=-(-_NUM_TRIPLETS // len(plan))
    )
    _, records = builds.build(config, corpus, folder / "data", bank=folder / "bank")
    shards = sorted(str(path) for path in Path(records.data_dir).glob("*.tfrecord*"))
    raw_files = builds.paths_of(table, plan[:: max(1, len(plan) // _NUM_RAW_TRIPLETS)], corpus)
    return {
        TFDS: lambda: _measure(open_dataset(records)),
        NOTEBOOK: lambda: with_notebook_reader(shards),
        RAW: lambda: with_raw_folder(raw_files),
    }


def main() -> None:
    """Prints the table."""
    with Program(__doc__) as program:
        results = program.alternate(make_cases(program.corpus, program.work))
        targets = {NOTEBOOK: ">= 1", RAW: ">= 10"}
        ratios = ((f"{TFDS} / {it}", ratio(results, "a second", TFDS, it), targets[it]) for it in targets)
        print_figures("triplets", results, ratios)


if __name__ == "__main__":
    main()
