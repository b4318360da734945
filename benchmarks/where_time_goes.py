"""Where the time of a build goes: each stage measured by itself, over the same files, in one thread.

The stages on an image happen once per distinct image, those on a triplet once per triplet; the sum is set beside the
CPU time of a real build of the same triplets. What the sum lacks is the handing over between threads, bookkeeping,
and what cores lose by sharing caches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
import statistics
import tempfile
from typing import Any

import numpy as np

from benchmarks import builds, codec_loop, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Case, Measurement, Stopwatch, add_common_arguments, alternate

CONFIG = "128px_all"
BUILD, BUILD_WITH_BANK = "build, no bank", "build, empty bank"

_PER_IMAGE = ("read", "decode", "resize", "encode", "spill: write")
_PER_TRIPLET = ("spill: read", "TFDS encode", "serialize", "shuffle", "write")


def measure_each(items: Iterable[Any], do: Callable[[Any], object], count: int) -> Measurement:
    with Stopwatch() as watch:
        for item in items:
            do(item)
    return watch.measurement(count)


class Stages:
    """The inputs of every stage, made once; each method measures one stage.

    Stages on images use up to ``num_images`` files, evenly spread, so that their pixels fit in memory.
    """

    def __init__(self, corpus: Path, work: Path | None, num_images: int):
        table, self._plan = builds.plan(CONFIG, corpus)
        distinct = np.unique(self._plan)
        self.num_distinct = len(distinct)
        files = builds.paths_of(table, distinct, corpus)
        self._files = files[:: -(-len(files) // num_images)]
        self._work = work
        self._data = [codec_loop.read(path) for path in self._files]
        self._pixels = [codec_loop.decode(data) for data in self._data]
        self._small = [codec_loop.resize(pixels) for pixels in self._pixels]
        self._thumbnails = [codec_loop.encode(small) for small in self._small]
        self._builder = builds.tfds().builder(builds.DATASET, config=CONFIG, data_dir=work or tempfile.gettempdir())
        self._examples = self._make_examples(table)
        self._encoded = [self._builder.info.features.encode_example(example) for example in self._examples]
        self._serializer = self._make_serializer()
        self._serialized = [self._serializer.serialize_example(example) for example in self._encoded]

    def _make_examples(self, table: Any) -> list[dict[str, Any]]:
        """Returns an example per triplet; thumbnails stand in for others, as their sizes alone matter here."""
        thumbnails = self._thumbnails
        ids = [f"{image_id:016x}" for image_id in table.image_ids.tolist()]
        examples = []
        for anchor, positive, negative in self._plan.tolist():
            example: dict[str, Any] = {}
            for role, row in (("anchor", anchor), ("positive", positive), ("negative", negative)):
                example[f"{role}_img"] = thumbnails[row % len(thumbnails)]
                example[f"{role}_id"] = ids[row]
            example["landmark_id"] = table.landmark_ids[anchor]
            example["negative_landmark_id"] = table.landmark_ids[negative]
            examples.append(example)
        return examples

    def _make_serializer(self) -> Any:
        from tensorflow_datasets.core import example_serializer

        return example_serializer.ExampleSerializer(self._builder.info.features.get_serialized_info())

    @property
    def num_triplets(self) -> int:
        return len(self._plan)

    def cases(self) -> dict[str, Case]:
        """Returns the stages by name."""
        return {
            "read": lambda: measure_each(self._files, codec_loop.read, len(self._files)),
            "decode": lambda: measure_each(self._data, codec_loop.decode, len(self._data)),
            "resize": lambda: measure_each(self._pixels, codec_loop.resize, len(self._pixels)),
            "encode": lambda: measure_each(self._small, codec_loop.encode, len(self._small)),
            "spill: write": self._spill_write,
            "spill: read": self._spill_read,
            "TFDS encode": self._tfds_encode,
            "serialize": self._serialize,
            "shuffle": self._shuffle,
            "write": self._write,
        }

    def _spill_write(self) -> Measurement:
        """Writes thumbnails to an unlinked file, where they wait for their triplets when there is no bank."""
        with tempfile.TemporaryFile(dir=self._work, buffering=0) as file:
            return measure_each(self._thumbnails, file.write, len(self._thumbnails))

    def _spill_read(self) -> Measurement:
        """Reads the three thumbnails of every triplet back, from anywhere in the file."""
        sizes = [len(thumbnail) for thumbnail in self._thumbnails]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        with tempfile.TemporaryFile(dir=self._work, buffering=0) as file:
            file.write(b"".join(self._thumbnails))
            places = [row % len(sizes) for row in self._plan.ravel().tolist()]

            def fetch(place: int) -> None:
                file.seek(starts[place])
                file.read(sizes[place])

            return measure_each(places, fetch, self.num_triplets)

    def _tfds_encode(self) -> Measurement:
        return measure_each(self._examples, self._builder.info.features.encode_example, self.num_triplets)

    def _serialize(self) -> Measurement:
        return measure_each(self._encoded, self._serializer.serialize_example, self.num_triplets)

    def _shuffle(self) -> Measurement:
        """Takes records into TFDS's shuffler, hashing their keys, and sorts them."""
        from tensorflow_datasets.core import shuffle

        keys = [example["anchor_id"] for example in self._examples]
        with builds.temporary_folder(self._work) as folder:
            shuffler = shuffle.Shuffler(folder, "train")
            with Stopwatch() as watch:
                for key, record in zip(keys, self._serialized, strict=True):
                    shuffler.add(key, record)
                for _ in shuffler:
                    pass
        return watch.measurement(self.num_triplets)

    def _write(self) -> Measurement:
        """Writes records through the builder's own writer, which also puts their features in order."""
        with builds.temporary_folder(self._work) as folder, Stopwatch() as watch:
            self._builder._example_writer().write(str(folder / "x.tfrecord"), enumerate(self._serialized))
        return watch.measurement(self.num_triplets)


def _microseconds(runs: Sequence[Measurement]) -> float:
    return statistics.median(run.cpu_s / run.count for run in runs) * 1e6


def main() -> None:
    """Prints the stages and their sum beside a build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--images", type=int, default=600, help="for the stages on images (default: %(default)s)")
    args = parser.parse_args()
    machine = report.describe_machine()
    with open_corpus(args) as corpus, builds.temporary_folder(args.work) as folder:
        builds.read_all(corpus)
        stages = Stages(corpus, folder, args.images)
        cases = stages.cases()

        def build_without_bank() -> Measurement:
            with builds.temporary_folder(folder) as data_dir:
                return builds.build(CONFIG, corpus, data_dir)[0]

        cases[BUILD] = build_without_bank
        if builds.has_bank():
            cases[BUILD_WITH_BANK] = lambda: builds.timed_build(CONFIG, corpus, folder)
        results = alternate(cases, args.runs)

    measured = results.measurements
    build_s = statistics.median(run.cpu_s for run in measured[BUILD])
    rows, total_s = [], 0.0
    for name in _PER_IMAGE + _PER_TRIPLET:
        count, unit = (stages.num_distinct, "image") if name in _PER_IMAGE else (stages.num_triplets, "triplet")
        seconds = _microseconds(measured[name]) * count / 1e6
        total_s += seconds
        rows.append(
            (name, f"{_microseconds(measured[name]):.0f} / {unit}", f"{seconds:.2f}", f"{seconds / build_s:.0%}")
        )
    rows.append(("sum of the stages", "", f"{total_s:.2f}", f"{total_s / build_s:.0%}"))
    for name in (BUILD, BUILD_WITH_BANK):
        if name in measured:
            seconds = statistics.median(run.cpu_s for run in measured[name])
            wall = statistics.median(run.wall_s for run in measured[name])
            rows.append((f"{name} (wall {wall:.2f} s)", "", f"{seconds:.2f}", f"{seconds / build_s:.0%}"))
    report.print_machine(machine)
    print(f"{CONFIG}: {stages.num_triplets:,} triplets from {stages.num_distinct:,} distinct images; medians, CPU time")
    report.print_table(("stage", "microseconds", "s in all", "of the build"), rows)
    report.write_json(args.json, "where_time_goes", machine=machine, results=results)


if __name__ == "__main__":
    main()
