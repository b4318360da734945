"""Which triplets train better networks: retrieval of landmarks never trained on, for each way to make the data.

Every arm trains the network of `examples/train_embedding.py`, half as wide, from scratch, for as many steps of as many
images as the arm it is compared with, from which it differs in one thing. A seed decides the initial weights and all
draws; arms are compared seed by seed. A training takes half a minute or so on one core, and its result is kept in
--work: a run that was cut off goes on, and one with more seeds adds them.

    python -m benchmarks.corpus CORPUS
    python -m benchmarks.training --corpus CORPUS --work DIR

carries "What the choices are worth" in docs/training.md. Of drawn scenes, each landmark has one of its own, so that
held-out landmarks share nothing with those trained on; of photographs, landmarks may be regions of the same one.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
import statistics
import sys
from typing import Any

from etils import epath
import numpy as np

from benchmarks import builds
from benchmarks.harness import Program, print_table, progress
from landmark_triplets_tfds import (
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


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to make training data.

    In 'batches', semi-hard triplets are found within each batch, so what is compared there is more than data.

    Attributes:
      data: of the example: 'triplets', 'fresh' or 'batches'.
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


def images_folder(arm: str, work: Path) -> Path:
    return work / "data" / "landmark_images" / images_config(arm).name / "1.0.0"


def triplets_config(arm: str, seed: int, work: Path) -> LandmarkTripletsConfig:
    if arm == MINED:  # the file holds triplets of training landmarks alone
        fields: dict[str, Any] = {"triplets_file": os.fspath(mine(seed, work))}
    else:
        fields = {"images_per_landmark": None, "validation_percent": ARMS[arm].held_out, "seed": seed}
    fields |= ARMS[arm].triplets | {"resolution": ARMS[arm].resolution, "resize_method": ARMS[arm].resize_method}
    return LandmarkTripletsConfig(name=f"{arm}-{seed}", **fields)


def mine(seed: int, work: Path) -> Path:
    """Writes a triplet for every training image: semi-hard for the network that the first arm has trained."""
    trained = folder_of(work, MINED_FROM, seed)
    index = read_image_index(images_folder(MINED_FROM, work))
    spec = MiningSpec(margin=MARGIN, seed=seed)
    mined = mine_triplets(np.load(trained / "train.npy"), index.image_ids, index.landmark_ids, spec)
    path = trained / "mined.csv"
    write_triplets(mined, epath.Path(path))
    return path


def prepare(arm: str, seed: int, corpus: Path, work: Path) -> list[str]:
    """Builds what an arm trains on, unless it is there, and returns the example's options that name it."""
    data_dir, bank = work / "data", work / "bank"
    images = images_config(arm)
    builds.build(images, corpus, data_dir, bank=bank, dataset="landmark_images", file_format="array_record")
    options = ["--data", ARMS[arm].data, "--data_dir", os.fspath(data_dir), "--images_config", images.name]
    if ARMS[arm].data == "triplets":
        triplets = triplets_config(arm, seed, work)
        builds.build(triplets, corpus, data_dir, bank=bank)
        options += ["--triplets_config", triplets.name]
    return options


def train(arm: str, seed: int, corpus: Path, work: Path) -> None:
    """Runs the example, unless that is done; leaves its files in a folder of the arm and the seed."""
    folder = folder_of(work, arm, seed)
    if (folder / "metrics.json").exists():
        return
    arguments = [*prepare(arm, seed, corpus, work), "--out", os.fspath(folder)]
    steps = -(-ARMS[arm].epochs * len(read_image_index(images_folder(arm, work))) // TRIPLETS)
    options = {"steps": steps, "evaluate_every": steps, "seed": seed, "margin": MARGIN, "threads": 1, "verbose": 0}
    options |= {"batch_size": TRIPLETS, "landmarks_per_batch": LANDMARKS, "images_per_landmark": IMAGES_OF_EACH}
    arguments += [f"--{name}={value}" for name, value in options.items()] + ["--filters", *map(str, FILTERS)]
    if arm == MINED_FROM:
        arguments += ["--embeddings", os.fspath(folder)]
    sys.path.insert(0, os.fspath(EXAMPLES))
    import keras
    import train_embedding

    keras.backend.clear_session()
    with builds.quiet():
        train_embedding.main(arguments)


def read_results(work: Path, seeds: list[int]) -> dict[str, dict[int, dict[str, float]]]:
    """Returns the measures of all trainings that have ended, by arm and seed."""
    results: dict[str, dict[int, dict[str, float]]] = {}
    for arm in ARMS:
        for seed in seeds:
            path = folder_of(work, arm, seed) / "metrics.json"
            if path.exists():
                results.setdefault(arm, {})[seed] = json.loads(path.read_text(encoding="utf-8"))
    return results


def with_range(values: list[float], sign: str = "") -> str:
    """Returns mean, minimum and maximum in words."""
    return f"{statistics.mean(values):{sign}.3f} ({min(values):{sign}.3f} to {max(values):{sign}.3f})"


def print_results(results: dict[str, dict[int, dict[str, float]]]) -> None:
    """Prints each arm's measures, and its differences to another arm, seed by seed."""
    rows = [
        (arm, str(len(by_seed)), *(with_range([metrics[m] for metrics in by_seed.values()]) for m in MEASURES))
        for arm, by_seed in results.items()
    ]
    print_table(("mean (lowest to highest)", "seeds", "mAP@100", "recall@1"), rows)
    rows = []
    for arm, by_seed in results.items():
        against = ARMS[arm].against
        common = sorted(by_seed.keys() & results.get(against or "", {}).keys())
        if against and common:
            differences = ([by_seed[s][m] - results[against][s][m] for s in common] for m in MEASURES)
            rows.append((f"{arm} - {against}", str(len(common)), *(with_range(d, "+") for d in differences)))
    if rows:
        print_table(("difference, seed by seed", "seeds", "mAP@100", "recall@1"), rows)


def main() -> None:
    """Trains what has not been trained yet and prints the tables."""
    program = Program(__doc__)
    add = program.parser.add_argument
    add("--seeds", type=int, nargs="+", default=list(range(5)), metavar="N", help="(default: 0 1 2 3 4)")
    with program:
        args, corpus = program.args, program.corpus
        if not args.work:
            program.parser.error("--work is needed: datasets and results are kept there.")
        for seed, arm in itertools.product(args.seeds, ARMS):
            progress(f"{arm}, seed {seed}")
            train(arm, seed, corpus, args.work)
        progress("")
        print_results(read_results(args.work, args.seeds))


if __name__ == "__main__":
    main()
