"""Triplets drawn while training beside stored ones: disk, time to be ready, memory, and reading through each framework.

Reading is in images a second, decoded, 128 x 128 px, in batches of 64 triplets (192 images) or of 16 landmarks with 4
images each, on all usable cores. The same photographs are read as stored triplets and from `landmark_images`. As many
epochs follow each other as it takes for --images; timing starts after the first batches, so that starting worker
processes is no part of it. PyTorch and Grain are left out where they are missing.

Being ready is reading `index.npz` and drawing the first epoch, for a made-up table with the numbers of the competition,
in a process of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
import gc
import importlib
import importlib.util
import itertools
import json
from pathlib import Path
import statistics
import time
from typing import Any
import warnings

from absl import flags
import loky
import numpy as np

from benchmarks import builds, corpus, harness, processes, report
from benchmarks.harness import Case, Measurement, NotAvailableError, add_common_arguments, alternate
from benchmarks.notebook import IMAGES
from benchmarks.read_speed import NUM_BATCHES_AHEAD

CONFIG = "128px_all"
BATCH_SIZE = 64
NUM_BATCHES_BEFORE = 8  # the timing starts: each of the worker processes has then handed over some
NUM_LANDMARKS, IMAGES_PER_LANDMARK = 16, 4
WORKERS = 2

MAX_SECONDS = 2.0
MAX_BYTES = 100_000_000

_MODULE = "benchmarks.fresh_triplets"


def measure_batches(batches: Iterable[Any], names: tuple[str, ...]) -> Measurement:
    """Reads all batches (dicts with pictures under ``names``); counts the images after the first batches."""
    return harness.measure_batches(batches, names, NUM_BATCHES_BEFORE)


class Reading:
    """What is read, and every way to read it; each method is one."""

    def __init__(self, folder: Path, num_images: int):
        """Takes the folder of both datasets and how many images to read at least."""
        self._folder = folder
        self._num_images = num_images

    def _epochs(self, images_per_epoch: int) -> int:
        return -(-self._num_images // images_per_epoch)

    def _source(self, *, own_decoder: bool = True) -> Any:
        from landmark_triplets_tfds.training.decoder import TensorFlowPixels

        (version,) = (self._folder / "array_record" / "landmark_images" / CONFIG).iterdir()
        decoders = {"image": TensorFlowPixels()} if own_decoder else None
        return builds.tfds().builder_from_directory(version).as_data_source(split="train", decoders=decoders)

    def _triplets(self, **options: Any) -> Any:
        from landmark_triplets_tfds.training.fresh_triplets import FreshTriplets

        return FreshTriplets(self._source(**options))

    def _batches(self, source: Any) -> Any:
        from landmark_triplets_tfds.training.landmark_batches import LandmarkBatches
        from landmark_triplets_tfds.training.records import read_image_index

        index = read_image_index(source.dataset_info.data_dir)
        num_landmarks = min(NUM_LANDMARKS, len(np.unique(index.landmark_ids)))  # small corpora have fewer
        return LandmarkBatches(source, num_landmarks, IMAGES_PER_LANDMARK, min_images=1, index=index)

    def stored(self) -> Measurement:
        """Stored triplets through ``tfds.load``, with the options that read fast."""
        tfds = builds.tfds()
        (version,) = (self._folder / "tfrecord" / "landmark_triplets" / CONFIG).iterdir()
        builder = tfds.builder_from_directory(version)
        options = tfds.ReadConfig(
            try_autocache=False,
            num_parallel_calls_for_decode=2 * loky.cpu_count(),
            interleave_cycle_length=1,
            num_parallel_calls_for_interleave_files=None,
        )
        decoders = tfds.decode.PartialDecoding(dict.fromkeys(IMAGES, True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dataset = builder.as_dataset(split="train", read_config=options, decoders=decoders)
        dataset = dataset.repeat(self._epochs(3 * builder.info.splits["train"].num_examples))
        return measure_batches(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD), IMAGES)

    def tf_data(self) -> Measurement:
        from landmark_triplets_tfds.training.tf_data import triplets_as_tf_dataset

        triplets = self._triplets()
        dataset = triplets_as_tf_dataset(triplets, num_epochs=self._epochs(3 * len(triplets)))
        return measure_batches(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD), IMAGES)

    def tf_data_batches(self) -> Measurement:
        from landmark_triplets_tfds.training.tf_data import batches_as_tf_dataset

        source = self._source()
        batches = self._batches(source)
        num_epochs = self._epochs(len(batches) * batches.batch_size)
        dataset = batches_as_tf_dataset(source, batches, num_epochs=num_epochs).prefetch(NUM_BATCHES_AHEAD)
        return measure_batches(({"image": images} for images, _ in dataset), ("image",))

    def torch(self, workers: int, *, own_decoder: bool = True) -> Measurement:
        from landmark_triplets_tfds.training.fresh_triplets import EpochSampler

        triplets = self._triplets(own_decoder=own_decoder)
        options = {"batch_size": BATCH_SIZE, "sampler": EpochSampler(triplets)}
        return self._read_torch(triplets, workers, 3 * len(triplets), IMAGES, options)

    def torch_batches(self, workers: int) -> Measurement:
        source = self._source()
        batches = self._batches(source)
        images_per_epoch = len(batches) * batches.batch_size
        return self._read_torch(source, workers, images_per_epoch, ("image",), {"batch_sampler": batches})

    def _read_torch(
        self, dataset: Any, workers: int, images_per_epoch: int, names: tuple[str, ...], options: dict[str, Any]
    ) -> Measurement:
        torch = _import("torch")
        if workers:
            options |= {
                "num_workers": workers,
                "persistent_workers": True,
                "multiprocessing_context": "forkserver",
                "prefetch_factor": NUM_BATCHES_AHEAD,
            }
        loader = torch.utils.data.DataLoader(dataset, **options)
        epochs = range(self._epochs(images_per_epoch))
        return measure_batches(itertools.chain.from_iterable(loader for _ in epochs), names)

    def grain(self, workers: int) -> Measurement:
        grain = _import("grain")
        triplets = self._triplets()
        size = len(triplets)
        dataset = grain.MapDataset.range(size).shuffle(seed=0).repeat(self._epochs(3 * size))
        dataset = dataset.map_with_index(lambda index, number: triplets[index // size, number])
        dataset = dataset.batch(BATCH_SIZE)
        threads = 1 if workers else 2 * loky.cpu_count()
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        if workers:
            flags.FLAGS.mark_as_parsed()  # which Grain's worker processes demand
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=NUM_BATCHES_AHEAD)
            )
        return measure_batches(dataset, IMAGES)

    def cases(self) -> dict[str, Case]:
        return {
            "stored triplets, tfds.load": self.stored,
            "fresh triplets, tf.data": self.tf_data,
            "fresh triplets, torch, 0 workers, OpenCV": lambda: self.torch(0, own_decoder=False),
            "fresh triplets, torch, 0 workers": lambda: self.torch(0),
            f"fresh triplets, torch, {WORKERS} workers": lambda: self.torch(WORKERS),
            "fresh triplets, Grain, threads": lambda: self.grain(0),
            f"fresh triplets, Grain, {WORKERS} workers": lambda: self.grain(WORKERS),
            "P x K, tf.data": self.tf_data_batches,
            "P x K, torch, 0 workers": lambda: self.torch_batches(0),
            f"P x K, torch, {WORKERS} workers": lambda: self.torch_batches(WORKERS),
        }


def _import(name: str) -> Any:
    if not importlib.util.find_spec(name):
        raise NotAvailableError(f"{name} is not installed")
    return importlib.import_module(name)


def build_all(corpus_folder: Path, folder: Path) -> dict[str, int]:
    """Builds both datasets in both file formats, and returns what they take on disk, in bytes."""
    from landmark_triplets_tfds import LandmarkImages, LandmarkTriplets

    tfds = builds.tfds()
    sizes = {}
    for file_format in ("tfrecord", "array_record"):
        for builder_class in (LandmarkTriplets, LandmarkImages):
            builder = builder_class(config=CONFIG, data_dir=folder / file_format, file_format=file_format)
            with builds.environment(LANDMARK_TRIPLETS_BANK=str(folder / "bank")), builds.quiet():
                builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=corpus_folder))
            files = [path for path in Path(builder.data_dir).iterdir() if "-of-" in path.name or path.suffix == ".npz"]
            sizes[f"{builder.name}, {file_format}"] = sum(path.stat().st_size for path in files)
    return sizes


# --- Being ready


class _NoRecords:
    """As many records as the index lists, which nobody reads."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Any:
        raise AssertionError("Nothing is to be read.")


def measure_ready(folder: Path, what: str) -> dict[str, Any]:
    """Reads the index and draws; to be called in a fresh process."""
    from landmark_triplets_tfds.training.fresh_triplets import FreshTriplets
    from landmark_triplets_tfds.training.landmark_batches import LandmarkBatches
    from landmark_triplets_tfds.training.records import read_image_index

    makers: dict[str, Callable[[Any, Any], Any]] = {
        "FreshTriplets": lambda source, index: FreshTriplets(source, index=index),
        "LandmarkBatches": lambda source, index: next(iter(LandmarkBatches(source, 16, 4, index=index))),
    }
    with processes.PeakMemory() as memory:
        before = processes.resident_bytes()
        start = time.perf_counter()
        index = read_image_index(folder)
        made = makers[what](_NoRecords(len(index)), index)
        seconds = time.perf_counter() - start
        gc.collect()
        held = processes.resident_bytes() - before
    del made
    return {"what": what, "seconds": seconds, "held_bytes": held, "peak_bytes": memory.peak_bytes - before}


def write_index(folder: Path, num_images: int) -> int:
    """Writes an index like the competition's, in random order; returns its size in bytes."""
    from etils import epath

    from landmark_triplets_tfds.training.records import INDEX_NAME, ImageIndex, write_image_index

    rng = np.random.default_rng(0)
    num_landmarks = max(2, round(num_images * corpus.NUM_COMPETITION_LANDMARKS / corpus.NUM_COMPETITION_IMAGES))
    image_ids, landmark_ids = corpus.random_table(corpus.long_tail_sizes(num_landmarks, num_images, rng), rng)
    order = rng.permutation(num_images)
    index = ImageIndex(image_ids[order].astype(np.uint64), landmark_ids[order].astype(np.int32))
    write_image_index(epath.Path(folder / INDEX_NAME), {"train": index})
    return (folder / INDEX_NAME).stat().st_size


def print_ready(runs: list[dict[str, Any]], num_images: int) -> None:
    rows = []
    for what in dict.fromkeys(run["what"] for run in runs):
        own = [run for run in runs if run["what"] == what]
        seconds = statistics.median(run["seconds"] for run in own)
        held, peak = (max(run[name] for run in own) for name in ("held_bytes", "peak_bytes"))
        met = "met" if seconds <= MAX_SECONDS and held <= MAX_BYTES else "missed"
        rows.append((what, f"{seconds:.2f}", f"{held / 1e6:,.0f}", f"{peak / 1e6:,.0f}", met))
    header = (f"ready, {num_images:,} images", "s", "MB held", "MB at peak", "target: 2 s, 100 MB held")
    report.print_table(header, rows)


def print_sizes(sizes: dict[str, int], num_images: int) -> None:
    rows = [
        (name, f"{size / num_images:,.0f}", f"{size / num_images * corpus.NUM_COMPETITION_IMAGES / 1e9:.1f}")
        for name, size in sizes.items()
    ]
    report.print_table(("on disk, with index.npz", "bytes per image or triplet", "GB for 1,580,470"), rows)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--images", type=int, default=20_000, help="at least so many are read (default: %(default)s)")
    parser.add_argument(
        "--indexed", type=int, default=corpus.NUM_COMPETITION_IMAGES, help="images of the index (default: %(default)s)"
    )
    parser.add_argument("--only", help="read only in ways whose name holds this")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure_ready(Path(args.child[0]), args.child[1])))
        return
    if args.images <= NUM_BATCHES_BEFORE * BATCH_SIZE * 3:
        parser.error(f"more than {NUM_BATCHES_BEFORE * BATCH_SIZE * 3} images are needed: timing starts after these.")
    machine = report.describe_machine()
    with corpus.open_corpus(args) as corpus_folder, builds.temporary_folder(args.work) as folder:
        write_index(folder, args.indexed)
        makers = ("FreshTriplets", "LandmarkBatches")
        ready = [
            processes.run_child(_MODULE, "--child", str(folder), what) for _ in range(args.runs) for what in makers
        ]
        sizes = build_all(corpus_folder, folder)
        num_images = len(builds.plan(CONFIG, corpus_folder)[0].image_ids)
        cases = Reading(folder, args.images).cases()
        cases = {name: case for name, case in cases.items() if not args.only or args.only in name}
        results = alternate(cases, args.runs)
    report.print_machine(machine)
    print_sizes(sizes, num_images)
    print_ready(ready, args.indexed)
    report.print_measurements(results, dict.fromkeys(cases, "images"))
    stored = "stored triplets, tfds.load"
    ratios = [
        ratio
        for name in cases
        if name != stored and stored in cases
        for ratio in report.ratio(results, f"{name} / stored", name, stored, "per_second")
    ]
    if ratios:
        report.print_ratios(ratios)
    report.write_json(
        args.json, "fresh_triplets", machine=machine, sizes=sizes, ready=ready, results=results, ratios=ratios
    )


if __name__ == "__main__":
    main()
