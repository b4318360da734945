"""How fast datasets are read: triplets a second, decoded, in batches of 64, on all usable cores.

The same triplets are read through ``tfds.load`` with its defaults and with the options that suit three small pictures
a record, by the notebook's own reader from the very same TFRecord files, through ``tfds.data_source`` (from an
ArrayRecord build), and from the raw JPEG files with decoding and resizing on the fly. Timing starts after the first
batches: setting up a pipeline is no part of an epoch's speed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
import importlib.util
from pathlib import Path
from typing import Any
import warnings

import loky
import numpy as np

from benchmarks import builds, harness, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Case, Measurement, NotAvailableError, add_common_arguments, alternate
from benchmarks.notebook import IMAGES, RESOLUTION

BATCH_SIZE = 64
NUM_BATCHES_BEFORE = 4  # the timing starts
NUM_BATCHES_AHEAD = 4  # prefetched

# What makes tfds.load as fast as a reader written for these records: decode nothing that is not used; a fixed number
# of parallel calls (TensorFlow's own tuning starts with one core), twice that of cores (results are handed on in
# order, so that with fewer calls one slow record keeps a core waiting); and no threads that interleave files, for they
# gain nothing where decoding is the work. (TensorFlow then warns of an argument without effect.)
READ_OPTIONS = """\
tfds.load(..., decoders=tfds.decode.PartialDecoding({'anchor_img': True, 'positive_img': True, 'negative_img': True}),
          read_config=tfds.ReadConfig(num_parallel_calls_for_decode=2 * <cores>, interleave_cycle_length=1,
                                      num_parallel_calls_for_interleave_files=None))"""


def measure_batches(batches: Iterable[Any]) -> Measurement:
    """Reads all batches (dicts with arrays under `IMAGES`); counts the triplets after the first batches."""
    return harness.measure_batches(batches, IMAGES[:1], NUM_BATCHES_BEFORE)


def with_tfds_load(config: Any, data_dir: Path, *, tuned: bool) -> Measurement:
    """Reads through ``tfds.load``, with its defaults or with `READ_OPTIONS`."""
    tfds = builds.tfds()
    # Small datasets would be kept in memory, decoded, during the first pass; the competition is not small.
    options: dict[str, Any] = {"try_autocache": False}
    decoders = None
    if tuned:
        options |= {
            "num_parallel_calls_for_decode": 2 * loky.cpu_count(),
            "interleave_cycle_length": 1,
            "num_parallel_calls_for_interleave_files": None,
        }
        decoders = tfds.decode.PartialDecoding(dict.fromkeys(IMAGES, True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dataset = tfds.load(
            builds.DATASET,
            builder_kwargs={"config": config},
            data_dir=data_dir,
            split="train",
            read_config=tfds.ReadConfig(**options),
            decoders=decoders,
            download=False,
        )
    return measure_batches(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))


def with_notebook_reader(files: list[str]) -> Measurement:
    """Reads the same files as the notebook's training code does."""
    import tensorflow as tf

    def parse(record: Any) -> dict[str, Any]:
        example = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string) for name in IMAGES})
        return {name: tf.image.decode_jpeg(example[name], channels=3) for name in IMAGES}

    dataset = tf.data.TFRecordDataset(files).map(parse, num_parallel_calls=2 * loky.cpu_count())
    return measure_batches(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))


def with_data_source(config: Any, data_dir: Path, threads: int) -> Measurement:
    """Reads through ``tfds.data_source``, record by record in some threads."""
    tfds = builds.tfds()
    if not importlib.util.find_spec("array_record"):
        raise NotAvailableError("array_record is not installed")
    source = tfds.data_source(
        builds.DATASET,
        builder_kwargs={"config": config, "file_format": "array_record"},
        data_dir=data_dir,
        split="train",
        download=False,
    )

    def batches(pool: ThreadPoolExecutor) -> Iterator[dict[str, Any]]:
        for start in range(0, len(source), BATCH_SIZE):
            examples = list(pool.map(source.__getitem__, range(start, min(start + BATCH_SIZE, len(source)))))
            yield {name: np.stack([example[name] for example in examples]) for name in IMAGES}

    with ThreadPoolExecutor(threads) as pool:
        return measure_batches(batches(pool))


def with_raw_folder(files: list[str]) -> Measurement:
    """Reads the competition's own files, three per triplet."""
    import tensorflow as tf

    def make(paths: Any) -> dict[str, Any]:
        images = []
        for i in range(len(IMAGES)):
            image = tf.io.decode_jpeg(tf.io.read_file(paths[i]), channels=3)
            images.append(tf.image.resize(image, (RESOLUTION, RESOLUTION), method="nearest"))
        return dict(zip(IMAGES, images, strict=True))

    triplets = np.reshape(files, (-1, len(IMAGES)))
    dataset = tf.data.Dataset.from_tensor_slices(triplets).map(make, num_parallel_calls=2 * loky.cpu_count())
    return measure_batches(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))


def make_cases(corpus: Path, folder: Path, args: argparse.Namespace) -> dict[str, Case]:
    """Builds what is read, and returns what is measured, by name."""
    from landmark_triplets_tfds import LandmarkTripletsConfig

    num_images = len(builds.plan("128px_all", corpus)[1])
    draws = -(-args.triplets // num_images)
    config = LandmarkTripletsConfig(
        name="read_speed", resolution=RESOLUTION, images_per_landmark=None, triplets_per_anchor=draws
    )
    bank = folder / "bank"
    _, builder = builds.build(config, corpus, folder / "tfrecord", bank=bank)
    builds.build(config, corpus, folder / "array_record", bank=bank, file_format="array_record")
    shards = sorted(str(path) for path in Path(builder.data_dir).glob("*.tfrecord*"))
    table, plan = builds.plan(config, corpus)
    raw_files = builds.paths_of(table, plan[:: max(1, len(plan) // args.raw_triplets)], corpus)
    return {
        "tfds.load": lambda: with_tfds_load(config, folder / "tfrecord", tuned=False),
        "tfds.load, options": lambda: with_tfds_load(config, folder / "tfrecord", tuned=True),
        "notebook's reader": lambda: with_notebook_reader(shards),
        "tfds.data_source, 1 thread": lambda: with_data_source(config, folder / "array_record", 1),
        "tfds.data_source, threads": lambda: with_data_source(config, folder / "array_record", loky.cpu_count()),
        "raw JPEG folder": lambda: with_raw_folder(raw_files),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--triplets", type=int, default=10_000, help="at least so many are read (default: %(default)s)")
    parser.add_argument("--raw-triplets", type=int, default=700, help="from the raw folder (default: %(default)s)")
    args = parser.parse_args()
    if min(args.triplets, args.raw_triplets) <= NUM_BATCHES_BEFORE * BATCH_SIZE:
        parser.error(f"more than {NUM_BATCHES_BEFORE * BATCH_SIZE} triplets are needed: timing starts after these.")
    machine = report.describe_machine()
    with open_corpus(args) as corpus, builds.temporary_folder(args.work) as folder:
        builds.read_all(corpus)
        cases = make_cases(corpus, folder, args)
        results = alternate(cases, args.runs)
    report.print_machine(machine)
    report.print_measurements(results, dict.fromkeys(cases, "triplets"))

    def against(name: str, at_least: float | None = None) -> list[report.Ratio]:
        label = f"tfds.load, options / {name}"
        return report.ratio(results, label, "tfds.load, options", name, "per_second", at_least=at_least)

    ratios = [
        *against("notebook's reader", 1.0),
        *against("raw JPEG folder", 10),
        *against("tfds.load"),
        *against("tfds.data_source, threads"),
    ]
    report.print_ratios(ratios)
    print(f"\nThe options are\n{READ_OPTIONS}")
    report.write_json(args.json, "read_speed", machine=machine, results=results, ratios=ratios)


if __name__ == "__main__":
    main()
