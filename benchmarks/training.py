"""Which triplets train better networks: retrieval of landmarks never trained on, for each way to make the data.

Every arm trains the network of `examples/train_embedding.py`, half as wide, from scratch, for as many steps of as many
images as the arm it is compared with, from which it differs in one thing. A seed decides the initial weights and all
draws, and there is one for each of --runs; arms are compared seed by seed. A training takes half a minute or so on one
core, and its result is kept in --work: a run that was cut off goes on, and one with more seeds adds them.

    python -m benchmarks.corpus CORPUS
    python -m benchmarks.training --corpus CORPUS --work DIR

carries "What the choices are worth" in docs/training.md. Of drawn scenes, each landmark has one of its own, so that
held-out landmarks share nothing with those trained on; of photographs, landmarks may be regions of the same one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
from pathlib import Path
import statistics
import sys
from typing import Any

import numpy as np

from benchmarks import builds
from benchmarks.harness import Program, print_table, progress
from landmark_triplets_tfds import (
    ImageIndex,
    LandmarkImagesConfig,
    LandmarkTripletsConfig,
    MiningSpec,
    mine_triplets,
    read_image_index,
    write_triplets,
)

EXAMPLES = Path(__file__).parents[1] / "examples"

FILTERS = (16, 32, 64, 64)
TRIPLETS, LANDMARKS, IMAGES_OF_EACH = 16, 12, 4  # of a step, of 48 images either way
MARGIN = 0.5  # at the example's 0.2, most random triplets have no loss left after a hundred steps
MEASURES = ("map_at_100", "recall_at_1")
Measures = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to make training data.

    Attributes:
      data: of the example: 'triplets', 'fresh' or 'batches', within each of which semi-hard triplets are found.
      against: the arm it is compared with.
      triplets: fields of the stored triplets, beside those all arms share.
      resize_method, resolution: of training and evaluation images alike.
      epochs: in which each image is an anchor of a triplet once; 'batches' take as many images.
      held_out: percent of the landmarks. By default there are few images to train on, so that stored triplets run out,
        and many queries.
    """

    data: str
    against: str | None = None
    triplets: dict[str, Any] = dataclasses.field(default_factory=dict)
    resize_method: str = "nearest"
    resolution: int = 32
    epochs: int = 30
    held_out: int = 90


MINED_FROM, MINED = "stored", "stored-mined"
ARMS = {
    "stored": Arm("triplets"),
    "stored-notebook": Arm("triplets", "stored", {"positive_may_be_anchor": True}),
    "fresh": Arm("fresh", "stored"),
    MINED: Arm("triplets", "stored"),
    "batches": Arm("batches", "fresh"),
    "fresh-many": Arm("fresh", epochs=5, held_out=30),
    "batches-many": Arm("batches", "fresh-many", epochs=5, held_out=30),
    "64px": Arm("batches", resolution=64, epochs=6),
    "64px-area": Arm("batches", "64px", resize_method="area", resolution=64, epochs=6),
    "128px": Arm("batches", resolution=128, epochs=6),
    "128px-area": Arm("batches", "128px", resize_method="area", resolution=128, epochs=6),
}


def folder_of(work: Path, arm: str, seed: int) -> Path:
    return work / "trainings" / f"{arm}-{seed}"


def images_config(arm: str) -> LandmarkImagesConfig:
    resolution, method, held_out = ARMS[arm].resolution, ARMS[arm].resize_method, ARMS[arm].held_out
    return LandmarkImagesConfig(
        name=f"images_{resolution}px_{method}_{held_out}",
        resolution=resolution,
        images_per_landmark=None,
        resize_method=method,
        validation_percent=held_out,
    )


def triplets_config(arm: str, seed: int, mined: Path | None = None) -> LandmarkTripletsConfig:
    if mined:  # the file holds triplets of training landmarks alone
        fields: dict[str, Any] = {"triplets_file": os.fspath(mined)}
    else:
        fields = {"images_per_landmark": None, "validation_percent": ARMS[arm].held_out, "seed": seed}
    fields |= ARMS[arm].triplets | {"resolution": ARMS[arm].resolution, "resize_method": ARMS[arm].resize_method}
    return LandmarkTripletsConfig(name=f"{arm}-{seed}", **fields)


def mine(index: ImageIndex, trained: Path, seed: int) -> Path:
    """Writes a triplet for every training image: semi-hard for the network that the first arm has trained."""
    embeddings, spec = np.load(trained / "train.npy"), MiningSpec(margin=MARGIN, seed=seed)
    write_triplets(mine_triplets(embeddings, index.image_ids, index.landmark_ids, spec), trained / "mined.csv")
    return trained / "mined.csv"


def train(arm: str, seed: int, corpus: Path, work: Path) -> None:
    """Builds what an arm trains on, unless it is there, and runs the example; leaves its files in `folder_of`."""
    build = functools.partial(builds.build, manual_dir=corpus, data_dir=work / "data", bank=work / "bank")
    _, images = build(images_config(arm), dataset="landmark_images", file_format="array_record")
    index = read_image_index(images.data_dir)
    steps = -(-ARMS[arm].epochs * len(index) // TRIPLETS)
    options = {"data": ARMS[arm].data, "data_dir": work / "data", "images_config": images.builder_config.name}
    options |= {"out": folder_of(work, arm, seed), "seed": seed, "margin": MARGIN, "threads": 1, "verbose": 0}
    options |= {"steps": steps, "evaluate_every": steps, "batch_size": TRIPLETS}
    options |= {"landmarks_per_batch": LANDMARKS, "images_per_landmark": IMAGES_OF_EACH}
    if arm == MINED_FROM:
        options["embeddings"] = options["out"]
    if ARMS[arm].data == "triplets":
        mined = mine(index, folder_of(work, MINED_FROM, seed), seed) if arm == MINED else None
        _, triplets = build(triplets_config(arm, seed, mined))
        options["triplets_config"] = triplets.builder_config.name
    sys.path.insert(0, os.fspath(EXAMPLES))
    import keras
    import train_embedding

    keras.backend.clear_session()
    with builds.quiet():
        train_embedding.main([*(f"--{name}={it}" for name, it in options.items()), "--filters", *map(str, FILTERS)])


def measures_of(arm: str, seed: int, corpus: Path, work: Path) -> Measures:
    """Returns what a training has come to; trains if that is not known yet."""
    path = folder_of(work, arm, seed) / "metrics.json"
    if not path.exists():
        train(arm, seed, corpus, work)
    measures: Measures = json.loads(path.read_text(encoding="utf-8"))
    return measures


def with_range(values: list[float], sign: str = "") -> str:
    """Returns mean, minimum and maximum in words."""
    return f"{statistics.mean(values):{sign}.3f} ({min(values):{sign}.3f} to {max(values):{sign}.3f})"


def print_results(results: dict[str, list[Measures]]) -> None:
    """Prints each arm's measures over the seeds, and its differences to another arm, seed by seed."""
    rows = [(arm, *(with_range([run[m] for run in runs]) for m in MEASURES)) for arm, runs in results.items()]
    print_table(("mean (lowest to highest)", "mAP@100", "recall@1"), rows)
    rows = []
    for arm, runs in results.items():
        if against := ARMS[arm].against:
            pairs = list(zip(runs, results[against], strict=True))
            columns = ([run[m] - other[m] for run, other in pairs] for m in MEASURES)
            rows.append((f"{arm} - {against}", *(with_range(column, "+") for column in columns)))
    print_table(("difference, seed by seed", "mAP@100", "recall@1"), rows)


def main() -> None:
    """Trains what has not been trained yet and prints the tables."""
    with Program(__doc__) as program:
        work, results = program.args.work, dict[str, list[Measures]]()
        if not work:
            program.parser.error("--work is needed: datasets and results are kept there.")
        for seed, arm in itertools.product(range(program.args.runs), ARMS):
            progress(f"{arm}, seed {seed}")
            results.setdefault(arm, []).append(measures_of(arm, seed, program.corpus, work))
        print_results(results)


if __name__ == "__main__":
    main()
