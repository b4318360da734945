"""The procedure of the notebook that this package replaces, written anew from its description.

Anchors are the first images of every landmark. Each gets a random positive of the same landmark, from all images (it
may be the anchor itself), and a random negative of another landmark, from the sample: pandas, groupby and one function
call per row. Then, triplet by triplet in one thread, TensorFlow reads, decodes, resizes and encodes the three images
and writes them to TFRecord files.

It is a yardstick, so it must not be slower than it has to: the program compares it with a bare loop of its own
TensorFlow calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Hashable, Iterable
import dataclasses
from pathlib import Path
import random

import pandas as pd

from benchmarks import builds, report
from benchmarks.corpus import add_corpus_arguments, image_path, open_corpus
from benchmarks.harness import Measurement, Stopwatch, add_common_arguments, alternate

RESOLUTION = 128
QUALITY = 94
NUM_SHARDS = 15

IMAGES = ("anchor_img", "positive_img", "negative_img")


def read_table(corpus: Path) -> pd.DataFrame:
    return pd.read_csv(corpus / "train.csv")


def take_sample(table: pd.DataFrame, images_per_landmark: int | None) -> pd.DataFrame:
    """Returns the first images of every landmark, in the order of the table; None: all images."""
    if images_per_landmark is None:
        return table.copy()
    return table.groupby("landmark_id").head(images_per_landmark)


@dataclasses.dataclass(frozen=True)
class Pools:
    """What positives and negatives are drawn from.

    Attributes:
      images_of: ids of all images, by landmark.
      sample_ids: ids of the sampled images.
      sample_landmarks: the landmark of each.
    """

    images_of: dict[Hashable, list[str]]
    sample_ids: list[str]
    sample_landmarks: list[int]


def group_images(table: pd.DataFrame, sample: pd.DataFrame) -> Pools:
    images_of = table.groupby("landmark_id")["id"].apply(list).to_dict()
    return Pools(images_of, sample["id"].tolist(), sample["landmark_id"].tolist())


def draw_triplets(anchors: pd.DataFrame, pools: Pools, seed: int = 0) -> pd.DataFrame:
    """Returns ``anchors`` with the columns positive and negative: one function call per row for each.

    The draws are from Python's generator, which costs a tenth of NumPy's for one number at a time.
    """
    rng = random.Random(seed)

    def draw_positive(row: pd.Series) -> str:
        return rng.choice(pools.images_of[row["landmark_id"]])

    def draw_negative(row: pd.Series) -> str:
        while True:
            place = rng.randrange(len(pools.sample_ids))
            if pools.sample_landmarks[place] != row["landmark_id"]:
                return pools.sample_ids[place]

    return anchors.assign(
        positive=anchors.apply(draw_positive, axis=1),
        negative=anchors.apply(draw_negative, axis=1),
    )


def make_thumbnail(path: str) -> bytes:
    """Reads, decodes, resizes and encodes an image with TensorFlow, eagerly."""
    import tensorflow as tf

    image = tf.io.decode_jpeg(tf.io.read_file(path))
    image = tf.image.resize(image, size=(RESOLUTION, RESOLUTION), method="nearest")
    encoded: bytes = tf.io.encode_jpeg(image, quality=QUALITY, optimize_size=True).numpy()
    return encoded


def write_triplets(triplets: pd.DataFrame, corpus: Path, folder: Path) -> None:
    """Writes TFRecord files with the three images of every triplet, one file after the other."""
    import tensorflow as tf

    per_shard = -(-len(triplets) // NUM_SHARDS)
    rows = list(triplets[["id", "positive", "negative"]].itertuples(index=False))
    for shard, start in enumerate(range(0, len(rows), per_shard)):
        with tf.io.TFRecordWriter(str(folder / f"train_{shard:02d}.tfrec")) as writer:
            for ids in rows[start : start + per_shard]:
                images = [make_thumbnail(image_path(corpus, image_id)) for image_id in ids]
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
                    for name, image in zip(IMAGES, images, strict=True)
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())


def every_nth(rows: pd.DataFrame, num_wanted: int) -> pd.DataFrame:
    """Returns about ``num_wanted`` rows, evenly spread; all if there are fewer."""
    return rows.iloc[:: max(1, len(rows) // num_wanted)]


class Notebook:
    """The notebook's procedure on a corpus, timed on some of its triplets: what it costs, it costs per triplet."""

    def __init__(self, corpus: Path, images_per_landmark: int | None, num_timed: int, work: Path | None):
        self._corpus = corpus
        self._images_per_landmark = images_per_landmark
        self._num_timed = num_timed
        self._work = work
        self.triplets = every_nth(self._plan(), num_timed)

    def _plan(self) -> pd.DataFrame:
        table = read_table(self._corpus)
        sample = take_sample(table, self._images_per_landmark)
        return draw_triplets(sample, group_images(table, sample))

    def files(self) -> list[str]:
        """Returns the files of the timed triplets, three each, with repetitions."""
        ids = self.triplets[["id", "positive", "negative"]].to_numpy().ravel().tolist()
        return [image_path(self._corpus, image_id) for image_id in ids]

    def __call__(self) -> Measurement:
        """Plans all triplets, writes some; returns the time of writing these and their share of the planning."""
        with Stopwatch() as planning:
            planned = self._plan()
        with builds.temporary_folder(self._work) as folder, Stopwatch() as writing:
            write_triplets(self.triplets, self._corpus, folder)
        share = len(self.triplets) / len(planned)
        return writing.measurement(len(self.triplets)).plus(planning.measurement(len(planned)), share)


def bare_loop(files: Iterable[str]) -> Measurement:
    """Runs the notebook's TensorFlow calls and nothing else; counts images."""
    count = 0
    with Stopwatch() as watch:
        for path in files:
            make_thumbnail(path)
            count += 1
    return watch.measurement(count)


def main() -> None:
    """Compares the notebook's procedure with the bare loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--triplets", type=int, default=300, help="how many are written (default: %(default)s)")
    args = parser.parse_args()
    machine = report.describe_machine()
    with open_corpus(args) as corpus:
        builds.read_all(corpus)
        notebook = Notebook(corpus, 2, args.triplets, args.work)
        results = alternate({"notebook": notebook, "bare loop": lambda: bare_loop(notebook.files())}, args.runs)
    report.print_machine(machine)
    report.print_measurements(results, {"notebook": "triplets", "bare loop": "images"})
    ratios = report.ratio(
        results,
        "speed of the notebook / of the bare loop of its TensorFlow calls, 3 images a triplet",
        "notebook",
        "bare loop",
        "per_second",
        factor=3,
        at_least=0.85,
    )
    report.print_ratios(ratios)
    report.write_json(args.json, "notebook", machine=machine, results=results, ratios=ratios)


if __name__ == "__main__":
    main()
