"""Two plain TFDS builders to compare with: one that does the same work simply, one that does no work at all.

`NaiveTriplets` is what following TFDS's guide gives: a generator that yields decoded arrays, which TFDS encodes.
`ConstantTriplets` yields the same record again and again: that is the time TFDS's own writer takes, and no builder on
top of it takes less.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from benchmarks import builds, report
from benchmarks.corpus import add_corpus_arguments, open_corpus
from benchmarks.harness import Measurement, Stopwatch, add_common_arguments, alternate
from benchmarks.notebook import IMAGES, RESOLUTION, Notebook

_RECORD_OVERHEAD_BYTES = 245  # of a serialized record beside its images: names, ids, lengths


class NaiveTriplets(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Triplets as TFDS's guide would have one write them."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, files: list[str], **kwargs: Any):
        """Takes the files of the triplets, three each."""
        self._files = files
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(RESOLUTION, RESOLUTION, 3), encoding_format="jpeg")
        features = tfds.features.FeaturesDict(dict.fromkeys(IMAGES, image))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        import tensorflow as tf

        for start in range(0, len(self._files), len(IMAGES)):
            arrays = []
            for path in self._files[start : start + len(IMAGES)]:
                image = tf.io.decode_jpeg(tf.io.read_file(path))
                arrays.append(tf.image.resize(image, (RESOLUTION, RESOLUTION), method="nearest").numpy())
            yield start, dict(zip(IMAGES, arrays, strict=True))


class ConstantTriplets(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """One record of this package's features, written any number of times under different keys."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, num_triplets: int, image_bytes: int, features: Any, **kwargs: Any):
        """Takes the number of records, the size of each of their three images, and the features."""
        self._num_triplets = num_triplets
        self._features_of_records = features
        image = bytes(image_bytes)
        self._record = {
            **dict.fromkeys(IMAGES, image),
            **dict.fromkeys(("anchor_id", "positive_id", "negative_id"), "0123456789abcdef"),
            **dict.fromkeys(("landmark_id", "negative_landmark_id"), 123_456),
        }
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=self._features_of_records)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for i in range(self._num_triplets):
            yield f"{i:016x}", self._record


def build_naive(files: list[str], work: Path | None) -> Measurement:
    """Builds the triplets of these files, three each, with the plain builder."""
    with builds.temporary_folder(work) as folder:
        builder = NaiveTriplets(files=files, data_dir=folder)
        with builds.quiet(), Stopwatch() as watch:
            builder.download_and_prepare()
    return watch.measurement(len(files) // len(IMAGES))


def build_constant(num_triplets: int, num_bytes: int, work: Path | None) -> Measurement:
    """Writes ``num_triplets`` constant records, ``num_bytes`` in all, with TFDS's own writer."""
    features = builds.tfds().builder(builds.DATASET).info.features
    with builds.temporary_folder(work) as folder:
        builder = ConstantTriplets(
            num_triplets=num_triplets,
            image_bytes=max(1, (num_bytes // num_triplets - _RECORD_OVERHEAD_BYTES) // len(IMAGES)),
            features=features,
            data_dir=folder,
        )
        with builds.quiet(), Stopwatch() as watch:
            builder.download_and_prepare()
    return watch.measurement(num_triplets)


def main() -> None:
    """Times the plain builder beside this package's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus_arguments(parser)
    add_common_arguments(parser)
    parser.add_argument("--triplets", type=int, default=300, help="of the plain builder (default: %(default)s)")
    args = parser.parse_args()
    machine = report.describe_machine()
    with open_corpus(args) as corpus:
        builds.read_all(corpus)
        files = Notebook(corpus, 2, args.triplets, args.work).files()
        cases = {
            "plain TFDS builder": lambda: build_naive(files, args.work),
            "128px": lambda: builds.timed_build("128px", corpus, args.work),
        }
        results = alternate(cases, args.runs)
    report.print_machine(machine)
    report.print_measurements(results, dict.fromkeys(cases, "triplets"))
    ratios = report.ratio(results, "speed of 128px / of the plain builder", "128px", "plain TFDS builder", "per_second")
    report.print_ratios(ratios)
    report.write_json(args.json, "naive_builder", machine=machine, results=results, ratios=ratios)


if __name__ == "__main__":
    main()
