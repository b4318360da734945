"""Triplets drawn while training beside stored ones: disk, time to be ready, memory, and reading through each framework.

    python -m benchmarks.fresh_triplets --corpus CORPUS --runs 3

It carries "What it takes" in docs/reading.md.

Reading is in images a second, decoded, 128 x 128 px, in batches of 64 triplets (192 images) or of 16 landmarks with 4
images each, on all usable cores. The same photographs are read as stored triplets and from `landmark_images`. As many
epochs follow each other as it takes for --images; timing starts after the first batches, so that starting worker
processes is no part of it. PyTorch and Grain are left out where they are missing.

Being ready is reading `index.npz` and drawing the first epoch, for a made-up table with the numbers of the competition,
in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import gc
import importlib
import importlib.util
import itertools
from pathlib import Path
import statistics
import time
from typing import Any

from absl import flags
from etils import epath
import loky
import numpy as np

from benchmarks import builds, harness
from benchmarks.builds import IMAGES
from benchmarks.corpus import NUM_COMPETITION_IMAGES, random_table
from benchmarks.harness import Case, Measurement, NotAvailableError, PeakMemory, Program, print_table, ratios
from benchmarks.read_speed import BATCH_SIZE, NUM_BATCHES_AHEAD, open_dataset
from landmark_triplets_tfds import (
    EpochSampler,
    FreshTriplets,
    ImageIndex,
    LandmarkBatches,
    TensorFlowPixels,
    batches_as_tf_dataset,
    read_image_index,
    triplets_as_tf_dataset,
)
from landmark_triplets_tfds.training.records import INDEX_NAME, write_image_index

CONFIG = "128px_all"
STORED = "stored triplets, tfds.load"
NUM_BATCHES_BEFORE = 8  # the timing starts: each of the worker processes has then handed over some
NUM_LANDMARKS, IMAGES_PER_LANDMARK = 16, 4
WORKERS = 2

MAX_SECONDS = 2.0
MAX_BYTES = 100_000_000


def _import(name: str) -> Any:
    if not importlib.util.find_spec(name):
        raise NotAvailableError(f"{name} is not installed")
    return importlib.import_module(name)


# --- Reading


class Reading:
    """What is read, and every way to read it; each method is one."""

    def __init__(self, stored: Any, images: Any, num_images: int):
        """Takes the builders of the stored triplets and of the images, and how many images to read at least."""
        self._stored = stored
        self._images = images
        self._num_images = num_images

    def _measure(self, batches: Iterable[Any], names: tuple[str, ...] = IMAGES) -> Measurement:
        return harness.measure_batches(batches, names, NUM_BATCHES_BEFORE)

    def _num_epochs(self, images_per_epoch: int) -> int:
        return -(-self._num_images // images_per_epoch)

    def _source(self, *, own_decoder: bool = True) -> Any:
        decoders = {"image": TensorFlowPixels()} if own_decoder else None
        return self._images.as_data_source(split="train", decoders=decoders)

    def _batches(self, source: Any) -> Any:
        index = read_image_index(self._images.data_dir)
        num_landmarks = min(NUM_LANDMARKS, len(np.unique(index.landmark_ids)))  # small corpora have fewer
        return LandmarkBatches(source, num_landmarks, IMAGES_PER_LANDMARK, min_images=1, index=index)

    def stored(self) -> Measurement:
        """Reads stored triplets through ``tfds.load``, with the options that read fast."""
        num_epochs = self._num_epochs(3 * self._stored.info.splits["train"].num_examples)
        dataset = open_dataset(self._stored, tuned=True).repeat(num_epochs)
        return self._measure(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))

    def tf_data(self) -> Measurement:
        triplets = FreshTriplets(self._source())
        dataset = triplets_as_tf_dataset(triplets, num_epochs=self._num_epochs(3 * len(triplets)))
        return self._measure(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))

    def tf_data_batches(self) -> Measurement:
        source = self._source()
        batches = self._batches(source)
        num_epochs = self._num_epochs(len(batches) * batches.batch_size)
        dataset = batches_as_tf_dataset(source, batches, num_epochs=num_epochs).prefetch(NUM_BATCHES_AHEAD)
        return self._measure(({"image": images} for images, _ in dataset), ("image",))

    def torch(self, workers: int, *, own_decoder: bool = True) -> Measurement:
        triplets = FreshTriplets(self._source(own_decoder=own_decoder))
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
        epochs = range(self._num_epochs(images_per_epoch))
        return self._measure(itertools.chain.from_iterable(loader for _ in epochs), names)

    def grain(self, workers: int) -> Measurement:
        grain = _import("grain")
        triplets = FreshTriplets(self._source())
        size = len(triplets)
        dataset = grain.MapDataset.range(size).shuffle(seed=0).repeat(self._num_epochs(3 * size))
        dataset = dataset.map_with_index(lambda index, number: triplets[index // size, number])
        dataset = dataset.batch(BATCH_SIZE)
        threads = 1 if workers else 2 * loky.cpu_count()
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        if workers:
            flags.FLAGS.mark_as_parsed()  # which Grain's worker processes demand
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=NUM_BATCHES_AHEAD)
            )
        return self._measure(dataset)

    def cases(self) -> dict[str, Case]:
        return {
            STORED: self.stored,
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


def build_all(corpus: Path, folder: Path) -> dict[tuple[str, str], Any]:
    """Builds both datasets in both file formats; returns the builders by name and format."""
    return {
        (dataset, file_format): builds.build(
            CONFIG, corpus, folder / file_format, dataset=dataset, bank=folder / "bank", file_format=file_format
        )[1]
        for file_format in ("tfrecord", "array_record")
        for dataset in ("landmark_triplets", "landmark_images")
    }


def print_sizes(builders: dict[tuple[str, str], Any], num_images: int) -> dict[str, int]:
    """Prints and returns what the datasets take on disk, in bytes."""
    sizes = {}
    for name, builder in builders.items():
        files = [path for path in Path(builder.data_dir).iterdir() if "-of-" in path.name or path.suffix == ".npz"]
        sizes[", ".join(name)] = sum(path.stat().st_size for path in files)
    rows = [
        (name, f"{size / num_images:,.0f}", f"{size / num_images * NUM_COMPETITION_IMAGES / 1e9:.1f}")
        for name, size in sizes.items()
    ]
    print_table(("on disk, with index.npz", "bytes per image or triplet", "GB for 1,580,470"), rows)
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


_MAKERS: dict[str, Callable[[Any, ImageIndex], Any]] = {
    "FreshTriplets": lambda source, index: FreshTriplets(source, index=index),
    "LandmarkBatches": lambda source, index: next(
        iter(LandmarkBatches(source, NUM_LANDMARKS, IMAGES_PER_LANDMARK, index=index))
    ),
}


def measure_ready(folder: Path, what: str) -> tuple[float, int, int]:
    """Reads the index and draws; returns seconds, and bytes held and at the peak."""
    with PeakMemory() as memory:
        start = time.perf_counter()
        index = read_image_index(folder)
        made = _MAKERS[what](_NoRecords(len(index)), index)
        seconds = time.perf_counter() - start
        gc.collect()
        held = memory.now_bytes() - memory.before_bytes
    del made
    return seconds, held, memory.added_bytes


def write_index(folder: Path, num_images: int) -> None:
    """Writes an index like the competition's, in random order."""
    image_ids, landmark_ids = random_table(num_images, np.random.default_rng(0))
    index = ImageIndex(image_ids.astype(np.uint64), landmark_ids.astype(np.int32))
    write_image_index(epath.Path(folder / INDEX_NAME), {"train": index})


def print_ready(folder: Path, num_images: int, num_runs: int) -> dict[str, list[tuple[float, int, int]]]:
    """Measures, prints and returns how soon each is ready."""
    write_index(folder, num_images)
    runs: dict[str, list[tuple[float, int, int]]] = {what: [] for what in _MAKERS}
    for _ in range(num_runs):
        for what, own in runs.items():
            own.append(harness.in_fresh_process(measure_ready, folder, what))
    rows = []
    for what, own in runs.items():
        seconds = statistics.median(run[0] for run in own)
        held, peak = (max(run[i] for run in own) for i in (1, 2))
        met = "met" if seconds <= MAX_SECONDS and held <= MAX_BYTES else "missed"
        rows.append((what, f"{seconds:.2f}", f"{held / 1e6:,.0f}", f"{peak / 1e6:,.0f}", met))
    header = (f"ready, {num_images:,} images", "s", "MB held", "MB at peak", "target: 2 s, 100 MB held")
    print_table(header, rows)
    return runs


def main() -> None:
    """Prints the tables."""
    program = Program(__doc__)
    add = program.parser.add_argument
    add("--images", type=int, default=20_000, help="at least so many are read (default: %(default)s)")
    add("--indexed", type=int, default=NUM_COMPETITION_IMAGES, help="images of the index (default: %(default)s)")
    add("--only", default="", help="read only in ways whose name holds this")
    with program:
        args, corpus = program.args, program.corpus
        if args.images <= NUM_BATCHES_BEFORE * BATCH_SIZE * 3:
            program.parser.error(f"more than {NUM_BATCHES_BEFORE * BATCH_SIZE * 3} images are needed to be timed.")
        builders = build_all(corpus, program.work)
        program.record["sizes"] = print_sizes(builders, program.record["corpus"]["num_images"])
        program.record["ready"] = print_ready(program.folder(), args.indexed, args.runs)
        stored = builders["landmark_triplets", "tfrecord"]
        cases = Reading(stored, builders["landmark_images", "array_record"], args.images).cases()
        results = program.alternate({name: case for name, case in cases.items() if args.only in name})
        program.print_measurements(results, "images")
        others = [name for name in cases if name != STORED]
        program.print_ratios([it for name in others for it in ratios(results, f"{name} / stored", name, STORED)])


if __name__ == "__main__":
    main()
