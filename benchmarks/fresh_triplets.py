"""Triplets drawn while training beside stored ones: disk, time to be ready, memory, and reading through each framework.

    python -m benchmarks.fresh_triplets --corpus CORPUS --runs 3

It carries "What it takes" in docs/reading.md.

Reading is in images a second, decoded, 128 x 128 px, in batches of 64 triplets (192 images) or of 16 landmarks with 4
images each, on all usable cores. As many epochs follow each other as it takes for --images; timing starts after the
first batches, so that starting worker processes is no part of it. PyTorch, Grain and Hugging Face's `datasets` (``pip
install datasets``) are left out where they are missing. What the last one reads are the same records, JPEG bytes and
ids, as many of them at random, and simplejpeg decodes them in a transform. Beside it, CPU time counts: of all
processes, an image.

Being ready is reading `index.npz` and drawing the first epoch, for a made-up table with the numbers of the competition,
in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import gc
import importlib.util
import itertools
from pathlib import Path
import time
from typing import Any

from absl import flags
from etils import epath
import loky
import numpy as np
import simplejpeg

from benchmarks import builds
from benchmarks.builds import IMAGES
from benchmarks.corpus import NUM_COMPETITION_IMAGES, random_table
from benchmarks.harness import Case, Figures, PeakMemory, Program, in_fresh_process, print_figures, ratio
from benchmarks.read_speed import BATCH_SIZE, NUM_BATCHES_AHEAD, measure_batches, open_dataset
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
FRESH = f"fresh triplets, torch, {WORKERS} workers"
PEER = f"images at random, Hugging Face datasets, torch, {WORKERS} workers"


# --- Reading


def _decode_pictures(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {"image": [simplejpeg.decode_jpeg(each, "RGB", fastdct=True) for each in batch["image"]]}


def _measure(batches: Any, names: tuple[str, ...] = IMAGES) -> Figures:
    return measure_batches(batches, names, NUM_BATCHES_BEFORE)


class Reading:
    """What is read, and every way to read it; each method is one."""

    def __init__(self, stored: Any, images: Any, num_images: int):
        """Takes the builders of the stored triplets and of the images, and how many images to read at least."""
        self._stored, self._images, self._num_images = stored, images, num_images

    def _num_epochs(self, images_per_epoch: int) -> int:
        return -(-self._num_images // images_per_epoch)

    def _source(self, *, own_decoder: bool = True) -> Any:
        decoders = {"image": TensorFlowPixels()} if own_decoder else None
        return self._images.as_data_source(split="train", decoders=decoders)

    def _batches(self, source: Any) -> Any:
        index = read_image_index(self._images.data_dir)
        num_landmarks = min(NUM_LANDMARKS, len(np.unique(index.landmark_ids)))  # small corpora have fewer
        return LandmarkBatches(source, num_landmarks, IMAGES_PER_LANDMARK, min_images=1, index=index)

    def stored(self) -> Figures:
        """Reads stored triplets through ``tfds.load``, with the options that read fast."""
        num_epochs = self._num_epochs(3 * self._stored.info.splits["train"].num_examples)
        dataset = open_dataset(self._stored).repeat(num_epochs)
        return _measure(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))

    def tf_data(self) -> Figures:
        triplets = FreshTriplets(self._source())
        dataset = triplets_as_tf_dataset(triplets, num_epochs=self._num_epochs(3 * len(triplets)))
        return _measure(dataset.batch(BATCH_SIZE).prefetch(NUM_BATCHES_AHEAD))

    def tf_data_batches(self) -> Figures:
        source = self._source()
        batches = self._batches(source)
        num_epochs = self._num_epochs(len(batches) * batches.batch_size)
        dataset = batches_as_tf_dataset(source, batches, num_epochs=num_epochs).prefetch(NUM_BATCHES_AHEAD)
        return _measure(({"image": images} for images, _ in dataset), ("image",))

    def torch(self, workers: int, *, own_decoder: bool = True) -> Figures:
        triplets = FreshTriplets(self._source(own_decoder=own_decoder))
        options = {"batch_size": BATCH_SIZE, "sampler": EpochSampler(triplets)}
        return self._read_torch(triplets, workers, 3 * len(triplets), IMAGES, **options)

    def torch_batches(self, workers: int) -> Figures:
        source = self._source()
        batches = self._batches(source)
        return self._read_torch(source, workers, len(batches) * batches.batch_size, batch_sampler=batches)

    def _read_torch(
        self, dataset: Any, workers: int, per_epoch: int, names: tuple[str, ...] = ("image",), **options: Any
    ) -> Figures:
        import torch

        if workers:
            options |= {"num_workers": workers, "persistent_workers": True, "prefetch_factor": NUM_BATCHES_AHEAD}
            options["multiprocessing_context"] = "forkserver"
        loader = torch.utils.data.DataLoader(dataset, **options)
        epochs = range(self._num_epochs(per_epoch))
        return _measure(itertools.chain.from_iterable(loader for _ in epochs), names)

    @functools.cached_property
    def _hugging_face(self) -> Any:
        """The same records as `datasets` keeps them, in a memory-mapped file, and as it finds them again."""
        import datasets

        tfds = builds.tfds()
        records = self._images.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
        columns = {name: [record[name] for record in records] for name in ("image", "landmark_id")}
        columns["image_id"] = [record["image_id"].decode() for record in records]
        binary = datasets.Features(
            image=datasets.Value("binary"), landmark_id=datasets.Value("int64"), image_id=datasets.Value("string")
        )
        folder = str(Path(self._images.data_dir).parent / "hugging_face")
        datasets.disable_progress_bars()
        datasets.Dataset.from_dict(columns, features=binary).save_to_disk(folder)
        return datasets.load_from_disk(folder).with_transform(_decode_pictures)

    def hugging_face(self, workers: int) -> Figures:
        import torch

        dataset = self._hugging_face
        count = 3 * len(FreshTriplets(self._source()))
        sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=count)
        return self._read_torch(dataset, workers, count, batch_size=3 * BATCH_SIZE, sampler=sampler)

    def grain(self, workers: int) -> Figures:
        import grain

        triplets = FreshTriplets(self._source())
        size = len(triplets)
        dataset = grain.MapDataset.range(size).shuffle(seed=0).repeat(self._num_epochs(3 * size))
        dataset = dataset.map_with_index(lambda index, number: triplets[index // size, number]).batch(BATCH_SIZE)
        threads = 1 if workers else 2 * loky.cpu_count()
        dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        if workers:
            flags.FLAGS.mark_as_parsed()  # which Grain's worker processes demand
            processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=NUM_BATCHES_AHEAD)
            dataset = dataset.mp_prefetch(processes)
        return _measure(dataset)

    def cases(self) -> dict[str, Case]:
        cases: dict[str, Case] = {
            STORED: self.stored,
            "fresh triplets, tf.data": self.tf_data,
            "fresh triplets, torch, 0 workers, OpenCV": lambda: self.torch(0, own_decoder=False),
            "fresh triplets, torch, 0 workers": lambda: self.torch(0),
            FRESH: lambda: self.torch(WORKERS),
            PEER: lambda: self.hugging_face(WORKERS),
            "fresh triplets, Grain, threads": lambda: self.grain(0),
            f"fresh triplets, Grain, {WORKERS} workers": lambda: self.grain(WORKERS),
            "P x K, tf.data": self.tf_data_batches,
            "P x K, torch, 0 workers": lambda: self.torch_batches(0),
            f"P x K, torch, {WORKERS} workers": lambda: self.torch_batches(WORKERS),
        }
        missing = [each for each in ("torch", "Grain", "datasets") if not importlib.util.find_spec(each.lower())]
        if missing:
            print(f"Left out, for it is not installed: {', '.join(missing)}.")
        return {name: case for name, case in cases.items() if not any(each in name for each in missing)}


# --- On disk, and being ready


def size_on_disk(builder: Any, num_images: float) -> Figures:
    files = [path for path in Path(builder.data_dir).iterdir() if "-of-" in path.name or path.suffix == ".npz"]
    bytes_each = sum(path.stat().st_size for path in files) / num_images
    return {"bytes each": bytes_each, "GB of the competition": bytes_each * NUM_COMPETITION_IMAGES / 1e9}


_MAKERS: dict[str, Callable[[Any, ImageIndex], Any]] = {
    "FreshTriplets": lambda source, index: FreshTriplets(source, index=index),
    "LandmarkBatches": lambda source, index: next(
        iter(LandmarkBatches(source, NUM_LANDMARKS, IMAGES_PER_LANDMARK, index=index))
    ),
}


def measure_ready(folder: Path, what: str) -> Figures:
    """Reads the index and draws; of the records, only how many there are is asked."""
    with PeakMemory() as memory:
        start = time.perf_counter()
        index = read_image_index(folder)
        made = _MAKERS[what](range(len(index)), index)
        seconds = time.perf_counter() - start
        gc.collect()
        held_bytes = memory.now_bytes() - memory.before_bytes
    del made
    added_bytes = memory.peak_bytes - memory.before_bytes
    return {"seconds": seconds, "MB held": held_bytes / 1e6, "peak MB": added_bytes / 1e6}


def main() -> None:
    """Prints the tables."""
    program = Program(__doc__)
    add = program.parser.add_argument
    add("--images", type=int, default=20_000, help="at least so many are read (default: %(default)s)")
    add("--indexed", type=int, default=NUM_COMPETITION_IMAGES, help="images of the index (default: %(default)s)")
    with program:
        args, corpus, work = program.args, program.corpus, program.work
        build = functools.partial(builds.build, CONFIG, corpus, work / "data", bank=work / "bank")
        made, stored = build()
        _, images = build(dataset="landmark_images", file_format="array_record")
        sizes = {"stored triplets": stored, "single images": images}
        print_figures("on disk", {name: [size_on_disk(it, made["number"])] for name, it in sizes.items()})

        image_ids, landmark_ids = random_table(args.indexed, np.random.default_rng(0))
        index = ImageIndex(image_ids, landmark_ids.astype(np.int32))
        write_image_index(epath.Path(work / INDEX_NAME), {"train": index})
        makers = {name: functools.partial(in_fresh_process, measure_ready, work, name) for name in _MAKERS}
        print_figures(f"ready, {args.indexed:,} images", program.alternate(makers, warm_up=False))

        results = program.alternate(Reading(stored, images, args.images).cases())
        others = [name for name in results if name != STORED]
        ratios = [(f"{name} / stored", ratio(results, "a second", name, STORED), "") for name in others]
        each = {name: [{"CPU s": run["CPU s"] / run["number"]} for run in runs] for name, runs in results.items()}
        ratios.append(("CPU an image, fresh triplets / Hugging Face", ratio(each, "CPU s", FRESH, PEER), "<= 1.1"))
        print_figures("images", results, ratios)


if __name__ == "__main__":
    main()
