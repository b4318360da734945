"""Where the time of a build goes: each stage measured by itself, over the same files, in one thread.

    python -m benchmarks.where_time_goes --corpus CORPUS

It carries the table under "What bounds it" in docs/performance.md. The stages on an image happen once per distinct
image, those on a triplet once per triplet. All else in a build of the same triplets, in one process, is bookkeeping;
workers cost some half a second each to start, and cores lose a little by sharing caches.
"""

from __future__ import annotations

from pathlib import Path
import statistics

import numpy as np

from benchmarks import builds, yardsticks
from benchmarks.harness import Case, Figures, Program, Stopwatch, measure_each, print_table, temporary_folder
from landmark_triplets_tfds.build.shards import make_record, write_shard
from landmark_triplets_tfds.thumbnails.header import read_header
from landmark_triplets_tfds.thumbnails.store import THUMBNAIL, StoreIndex, StoreReader, StoreWriter
from landmark_triplets_tfds.triplets.examples import TRIPLETS

CONFIG = "128px_all"

_PER_IMAGE = ("read", "header", "decode", "resize", "encode", "into the store")


class Stages:
    """The inputs of every stage, made once.

    Stages on images use up to ``num_images`` files, evenly spread, so that their pixels fit in memory.
    """

    def __init__(self, corpus: Path, work: Path, num_images: int):
        table, self._plan = builds.plan(CONFIG, corpus)
        distinct = np.unique(self._plan)
        self.num_distinct, self.num_triplets = len(distinct), len(self._plan)
        files = builds.paths_of(table, distinct, corpus)
        self._files = files[:: -(-len(files) // num_images)]
        self._work = work
        self._thumbnails = [yardsticks.run_codec(path) for path in self._files]
        self._table = table

    def cases(self) -> dict[str, Case]:
        """Returns the stages by name, those on images first."""
        data = [yardsticks.read(path) for path in self._files]
        pixels = [yardsticks.decode(each) for each in data]
        small = [yardsticks.resize(each) for each in pixels]
        triplets, thumbnails = self._plan.tolist(), self._thumbnails

        def serialize(rows: list[int]) -> bytes:  # any thumbnails will do, as their sizes alone matter here
            return make_record(TRIPLETS, self._table, rows, [thumbnails[row % len(thumbnails)] for row in rows])

        records = [serialize(rows) for rows in triplets]
        return {
            "read": lambda: measure_each(yardsticks.read, self._files),
            "header": lambda: measure_each(read_header, data),
            "decode": lambda: measure_each(yardsticks.decode, data),
            "resize": lambda: measure_each(yardsticks.resize, pixels),
            "encode": lambda: measure_each(yardsticks.encode, small),
            "into the store": lambda: self._store()[0],
            "from the store, three": lambda: self._store()[1],
            "serialize": lambda: measure_each(serialize, triplets),
            "write": lambda: self._write(records),
        }

    def _store(self) -> tuple[Figures, Figures]:
        """Adds as many thumbnails to a store as a build does, and reads those of each triplet."""
        with temporary_folder(self._work) as folder:
            store, ids = Path(folder), np.arange(self.num_distinct, dtype=np.uint64)
            writer = StoreWriter(store)

            def add(number: int) -> None:
                writer.add(number, (1, 1), THUMBNAIL, self._thumbnails[number % len(self._thumbnails)])
                if number % 64 == 0:  # as after each task
                    writer.take_places()

            written = measure_each(add, ids.tolist())
            writer.take_places()
            writer.close()
            index = StoreIndex.read(store, ids)
            reader = StoreReader(index.files)
            places = index.places[self._plan % self.num_distinct]
            read = measure_each(lambda triplet: [reader.read(place) for place in triplet], places.tolist())
        return written, read

    def _write(self, records: list[bytes]) -> Figures:
        with temporary_folder(self._work) as folder, Stopwatch() as watch:
            write_shard(f"{folder}/x.tfrecord", "tfrecord", records)
        return watch.figures(self.num_triplets)


def main() -> None:
    """Prints the stages, and what a build takes beside them."""
    program = Program(__doc__)
    images = "for the stages on images (default: %(default)s)"
    program.parser.add_argument("--images", type=int, default=600, help=images)
    with program:
        corpus, work = program.corpus, program.work
        stages = Stages(corpus, work, program.args.images)
        cases = stages.cases()
        results = program.alternate(cases | {"build": lambda: builds.first_build(CONFIG, corpus, work, workers=1)})
        all_else_s = statistics.median(run["CPU s"] for run in results["build"])
        rows = []
        for name in cases:
            count = stages.num_distinct if name in _PER_IMAGE else stages.num_triplets
            each_s = statistics.median(run["CPU s"] / run["number"] for run in results[name])
            all_else_s -= each_s * count
            rows.append((name, f"{each_s * 1e6:.0f}", "an image" if name in _PER_IMAGE else "a triplet"))
        rows.append(("all else in a build", f"{all_else_s / stages.num_triplets * 1e6:.0f}", "a triplet"))
        print(f"{CONFIG}: {stages.num_triplets:,} triplets from {stages.num_distinct:,} images; medians of CPU time")
        print_table(("stage", "microseconds", ""), rows)


if __name__ == "__main__":
    main()
