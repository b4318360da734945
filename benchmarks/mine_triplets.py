"""Mining hard triplets: time and memory of the exact search, and what the approximate one finds and misses.

Embeddings are made up: landmarks are scattered around the centres of groups, images around their landmarks, all
normally; there are as many groups as the root of the number of landmarks. `--scattered` leaves the groups out, which is
the worst case for an approximate search: in 64 dimensions, most of what is not of the same landmark is then about
equally far away. Each case runs in a process of its own, so that its peak of memory can be told.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import builds, corpus, processes, report
from benchmarks.harness import add_common_arguments, progress

MAX_BYTES = 1_000_000_000

_MODULE = "benchmarks.mine_triplets"
_SPREAD_OF_LANDMARKS, _SPREAD_OF_IMAGES = 0.7, 0.5  # around a group and a landmark; centres of groups have 1
_NUM_PARTS, _PART_SIZE = 16, 64  # of the anchors for which both searches are compared
_PROBES = (8, 32, 128)


def make_embeddings(
    folder: Path, num_images: int, num_landmarks: int, dim: int, scattered: bool, seed: int = 0
) -> None:
    """Writes embeddings.npy, float32[num_images, dim], and labels.npz; landmarks have a long tail of images."""
    rng = np.random.default_rng(seed)
    image_ids, landmark_ids = corpus.random_table(corpus.long_tail_sizes(num_landmarks, num_images, rng), rng)
    landmarks, of_image = np.unique(landmark_ids, return_inverse=True)
    num_groups = len(landmarks) if scattered else round(len(landmarks) ** 0.5)
    groups = rng.standard_normal((num_groups, dim), dtype=np.float32)
    of_landmark = np.arange(len(landmarks)) % num_groups
    centres = groups[of_landmark]
    if not scattered:
        centres += _SPREAD_OF_LANDMARKS * rng.standard_normal(centres.shape, dtype=np.float32)
    embeddings = centres[of_image]
    for start in range(0, num_images, 1 << 16):
        part = embeddings[start : start + (1 << 16)]
        part += _SPREAD_OF_IMAGES * rng.standard_normal(part.shape, dtype=np.float32)
    np.save(folder / "embeddings.npy", embeddings)
    np.savez(folder / "labels.npz", image_ids=image_ids, landmark_ids=landmark_ids)


def read(folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    with np.load(folder / "labels.npz") as labels:
        image_ids, landmark_ids = labels["image_ids"], labels["landmark_ids"]
    return np.load(folder / "embeddings.npy", mmap_mode="r"), image_ids, landmark_ids


def measure_mining(folder: Path, search: str) -> dict[str, Any]:
    """Mines all triplets with the defaults; to be called in a fresh process."""
    from landmark_triplets_tfds.mining.hard_triplets import MiningSpec, mine_triplets

    images = read(folder)
    if search == "approximate":
        from landmark_triplets_tfds.mining.neighbours import load_faiss

        load_faiss()
    with processes.PeakMemory() as memory:
        before = processes.resident_bytes()
        start = time.perf_counter()
        mined = mine_triplets(*images, MiningSpec(search=search))  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "bytes": memory.peak_bytes - before,
        "triplets": len(mined),
        "left_out": mined.num_left_out,
        "negatives": mined.num_negatives,
    }


def measure_recall(folder: Path, k: int = 50) -> dict[str, Any]:
    """Compares the neighbours that both searches find for some anchors, by the number of lists that are probed."""
    from landmark_triplets_tfds.mining.embeddings import arrange
    from landmark_triplets_tfds.mining.hard_triplets import MiningSpec
    from landmark_triplets_tfds.mining.neighbours import ApproximateSearch, ExactSearch, NeighbourSearch

    images = arrange(*read(folder))
    ceiling = MiningSpec().max_similarity
    starts = np.linspace(0, len(images) - _PART_SIZE, _NUM_PARTS).astype(int).tolist()

    def search_parts(search: NeighbourSearch) -> npt.NDArray[np.int64]:
        return np.concatenate([search.search(start, start + _PART_SIZE, k).places for start in starts])

    exact = search_parts(ExactSearch(images, ceiling))
    start = time.perf_counter()
    approximate = ApproximateSearch(images, ceiling)
    result: dict[str, Any] = {"build_seconds": time.perf_counter() - start, "anchors": len(exact), "by_probes": {}}
    for num_probes in _PROBES:
        approximate.num_probes = num_probes
        start = time.perf_counter()
        found = search_parts(approximate)
        seconds = time.perf_counter() - start
        is_found = (exact[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2)
        result["by_probes"][num_probes] = {
            "recall": float(is_found.mean()),
            "nearest_found": float(is_found[:, 0].mean()),
            "search_seconds_for_all": seconds * len(images) / len(exact),
        }
    return result


def run_cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a result for each number of landmarks."""
    results = []
    for num_landmarks in args.landmarks:
        with builds.temporary_folder(args.work) as folder:
            progress(f"{num_landmarks:,} landmarks: making embeddings")
            make_embeddings(folder, args.images, num_landmarks, args.dim, args.scattered)
            runs = []
            for run in range(args.runs):
                progress(f"{num_landmarks:,} landmarks: run {run + 1} of {args.runs}")
                runs.append(processes.run_child(_MODULE, "--child", "mine", args.search, str(folder)))
            result = {"landmarks": num_landmarks, "runs": runs}
            if args.search == "approximate":
                progress(f"{num_landmarks:,} landmarks: recall")
                result["recall"] = processes.run_child(_MODULE, "--child", "recall", args.search, str(folder))
            results.append(result)
    progress("")
    return results


def main() -> None:
    """Measures mining, in child processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser, runs=1)
    parser.add_argument("--search", choices=("exact", "approximate"), default="exact", help="(default: %(default)s)")
    parser.add_argument("--images", type=int, default=160_000, help="(default: %(default)s)")
    parser.add_argument("--dim", type=int, default=64, help="of the embeddings (default: %(default)s)")
    parser.add_argument(
        "--landmarks", type=int, nargs="+", default=[400, 4_000, 32_000], help="(default: 400 4000 32000)"
    )
    parser.add_argument("--scattered", action="store_true", help="landmarks without groups")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        what, search, folder = args.child
        print(json.dumps(measure_mining(Path(folder), search) if what == "mine" else measure_recall(Path(folder))))
        return

    machine = report.describe_machine()
    results = run_cases(args)
    report.print_machine(machine)
    print(f"{args.images:,} images, {args.dim} dimensions, {args.search} search, all defaults.")
    rows = []
    for result in results:
        seconds = [run["seconds"] for run in result["runs"]]
        most = max(run["bytes"] for run in result["runs"])
        rows.append(
            (
                f"{result['landmarks']:,}",
                f"{result['runs'][0]['triplets']:,}",
                f"{statistics.median(seconds):.1f}",
                f"{min(seconds):.1f}-{max(seconds):.1f}",
                f"{most / 1e6:,.0f}",
                "met" if most <= MAX_BYTES else "missed",
            )
        )
    report.print_table(("landmarks", "triplets", "median s", "min-max s", "peak MB", "target: 1 GB"), rows)
    rows = [
        (
            f"{result['landmarks']:,}",
            num_probes,
            f"{found['recall']:.3f}",
            f"{found['nearest_found']:.3f}",
            f"{result['recall']['build_seconds']:.0f}",
            f"{found['search_seconds_for_all']:.0f}",
        )
        for result in results
        if "recall" in result
        for num_probes, found in result["recall"]["by_probes"].items()
    ]
    if rows:
        report.print_table(
            ("landmarks", "lists probed", "of 50 nearest found", "nearest found", "s to build", "s to search"), rows
        )
    report.write_json(args.json, "mine_triplets", machine=machine, arguments=vars(args), results=results)


if __name__ == "__main__":
    main()
