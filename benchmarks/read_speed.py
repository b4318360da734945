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
from benchmarks.harness import Case, Measurement, Program, Stopwatch, divide, print_measurements, print_ratios, speeds
from benchmarks.yardsticks import RESOLUTION

TFDS, NOTEBOOK, RAW = "tfds.load, options", "notebook's reader", "raw JPEG folder"
BATCH_SIZE = 64
NUM_BATCHES_AHEAD = 4  # prefetched
_NUM_BATCHES_BEFORE = 4  # the timing starts

# What makes tfds.load as fast as a reader written for these records: decode nothing that is not used; a fixed number
# of parallel calls (TensorFlow's own tuning starts with one core), twice that of cores (results are handed on in
# order, so that with fewer calls one slow record keeps a core waiting); and no threads that interleave files, for they
# gain nothing where decoding is the work. (TensorFlow then warns of an argument without effect.)
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


def measure_batches(batches: Iterable[Any], names: Sequence[str], num_before: int) -> Measurement:
    """Reads all batches, dicts with arrays; counts what is under ``names`` in those after the first ``num_before``."""
    iterator = iter(batches)
    for _ in itertools.islice(iterator, num_before):
        pass
    count = 0
    with Stopwatch() as watch:
        for batch in iterator:
            count += sum(len(batch[name]) for name in names)
    if hasattr(iterator, "close"):
        iterator.close()  # ends Grain's worker processes
    return watch.measurement(count)


def _measure(dataset: Any) -> Measurement:
    """Reads a tf.data dataset of triplets, and counts them."""
    batches = dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD)
    return measure_batches(batches, IMAGES[:1], _NUM_BATCHES_BEFORE)


def with_notebook_reader(files: list[str]) -> Measurement:
    """Reads the same files as the notebook's training code does."""
    import tensorflow as tf

    def parse(record: Any) -> dict[str, Any]:
        example = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string) for name in IMAGES})
        return {name: tf.image.decode_jpeg(example[name], channels=3) for name in IMAGES}

    return _measure(tf.data.TFRecordDataset(files).map(parse, num_parallel_calls=2 * loky.cpu_count()))


def with_raw_folder(files: list[str]) -> Measurement:
    """Reads the competition's own files, three per triplet."""
    import tensorflow as tf

    def make(paths: Any) -> dict[str, Any]:
        images = []
        for i in range(len(IMAGES)):
            image = tf.io.decode_jpeg(tf.io.read_file(paths[i]), channels=3)
            images.append(tf.image.resize(image, (RESOLUTION, RESOLUTION), method="nearest"))
        return dict(zip(IMAGES, images, strict=True))

    dataset = tf.data.Dataset.from_tensor_slices(np.reshape(files, (-1, len(IMAGES))))
    return _measure(dataset.map(make, num_parallel_calls=2 * loky.cpu_count()))


def make_cases(corpus: Path, folder: Path, num_triplets: int, num_raw: int) -> dict[str, Case]:
    """Builds what is read, and returns what is measured, by name."""
    from landmark_triplets_tfds import LandmarkTripletsConfig

    draws = -(-num_triplets // len(builds.plan("128px_all", corpus)[1]))
    config = LandmarkTripletsConfig(
        name="read_speed", resolution=RESOLUTION, images_per_landmark=None, triplets_per_anchor=draws
    )
    bank = folder / "bank"
    _, records = builds.build(config, corpus, folder / "tfrecord", bank=bank)
    shards = sorted(str(path) for path in Path(records.data_dir).glob("*.tfrecord*"))
    table, plan = builds.plan(config, corpus)
    raw_files = builds.paths_of(table, plan[:: max(1, len(plan) // num_raw)], corpus)
    return {
        TFDS: lambda: _measure(open_dataset(records)),
        NOTEBOOK: lambda: with_notebook_reader(shards),
        RAW: lambda: with_raw_folder(raw_files),
    }


def main() -> None:
    """Prints the table."""
    program = Program(__doc__)
    add = program.parser.add_argument
    add("--triplets", type=int, default=10_000, help="at least so many are read (default: %(default)s)")
    add("--raw-triplets", type=int, default=700, help="from the raw folder (default: %(default)s)")
    with program:
        args = program.args
        if min(args.triplets, args.raw_triplets) <= _NUM_BATCHES_BEFORE * BATCH_SIZE:
            program.parser.error(f"more than {_NUM_BATCHES_BEFORE * BATCH_SIZE} triplets are needed to be timed.")
        results = program.alternate(make_cases(program.corpus, program.work, args.triplets, args.raw_triplets))
        print_measurements("triplets", results)
        own = speeds(results, TFDS)
        targets = {NOTEBOOK: ">= 1", RAW: ">= 10"}
        print_ratios((f"{TFDS} / {it}", divide(own, speeds(results, it)), target) for it, target in targets.items())


if __name__ == "__main__":
    main()
