"""Planning, archives, files of triplets, mining and checks at full size: how long they take, and how much memory.

    python -m benchmarks.large_inputs plan
    python -m benchmarks.large_inputs verify --corpus CORPUS --runs 5

Each case carries a figure of a page:

* plan: plans all triplets of a made-up table of the competition's size (docs/performance.md, "Large tables").
* zip, tars: open a zip of as many images, and 500 tars of 8,266, for the first time and again. Members hold a few
  bytes, and the zip begins with a hole of 100 GiB, so that its offsets need zip64. It takes 6 GB (docs/sources.md).
* triplets: reads and checks files of 5 million triplets (docs/triplets.md).
* evaluate: `landmark-triplets evaluate` at the size of the public benchmark, recognition with a tenth of its queries,
  and with all of them in a part of the images (docs/commands.md). It takes 5 GB.
* mine: mines hard triplets from made-up embeddings: landmarks are scattered around the centres of groups, images around
  their landmarks, all normally; there are as many groups as the root of the number of landmarks. `--search approximate`
  also says what faiss misses (docs/triplets.md).
* worker: what a worker process of a cluster needs in memory before its first triplet, with tables of that size and of
  twice the size; the difference is what an image costs (docs/clusters.md, "Full-size runs").
* verify: reads `128px_all` of a corpus of pictures as `landmark-triplets verify` does, beside `tfds.load` and a bare
  sha256 (docs/commands.md).

All but the last run in processes of their own, so that peaks of memory can be told from what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import functools
import hashlib
import itertools
from pathlib import Path
import tarfile
import time
from typing import Any
import zipfile

from etils import epath
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import builds
from benchmarks.corpus import NUM_COMPETITION_IMAGES, NUM_COMPETITION_LANDMARKS, random_table
from benchmarks.harness import (
    Figures,
    Measurement,
    PeakMemory,
    Program,
    Stopwatch,
    in_fresh_process,
    print_figures,
    print_measurements,
    progress,
)
from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, ZIP_NAME, image_path
from landmark_triplets_tfds.competition.selection import ImageSet, Selection, open_copy
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id, read_landmark_table
from landmark_triplets_tfds.mining.embeddings import arrange
from landmark_triplets_tfds.mining.hard_triplets import MiningSpec, mine_triplets
from landmark_triplets_tfds.mining.neighbours import ApproximateSearch, ExactSearch, load_faiss
from landmark_triplets_tfds.training.records import INDEX_NAME, ImageIndex, write_image_index
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler
from landmark_triplets_tfds.triplets.triplets_file import (
    ID_COLUMNS,
    GivenTriplets,
    TripletsFileSpec,
    read_triplets_file,
)

_HOLE_BYTES = 100 << 30
_MEMBERS_PER_TAR = 8_266
_IMAGE = b"\xff\xd8\xff not an image"
_NUM_THREADS, _NUM_LOOKED_UP = 8, 20_000

_DIM = 64
_SPREAD_OF_LANDMARKS, _SPREAD_OF_IMAGES = 0.7, 0.5  # around a group and a landmark; centres of groups have 1
# Of the Google Landmarks Dataset v2's benchmark: images, and queries that have answers among the index.
_BENCHMARK_IMAGES = {"test": 117_577, "index": 761_757, "train": NUM_COMPETITION_IMAGES, "part_of_train": 16_384}
_NUM_SCORED, _SCORED_DIM = 1_129, 512
_NUM_PARTS, _PART_SIZE = 16, 64  # of the anchors for which both searches are compared


def save_table(folder: Path, num_images: int, num_landmarks: int | None = None) -> LandmarkTable:
    """Makes up a table and writes it for other processes."""
    image_ids, landmark_ids = random_table(num_images, np.random.default_rng(0), num_landmarks)
    np.savez(folder / "table.npz", image_ids=image_ids, landmark_ids=landmark_ids)
    return load_table(folder)


def load_table(folder: Path) -> LandmarkTable:
    with np.load(folder / "table.npz") as arrays:
        return LandmarkTable(image_ids=arrays["image_ids"], landmark_ids=arrays["landmark_ids"])


def measure(program: Program, what: str, cases: Mapping[str, tuple[Callable[..., Figures], Any]]) -> None:
    """Calls each function with its argument in a process of its own, in turns, and prints the figures."""
    calls = {name: functools.partial(in_fresh_process, *call) for name, call in cases.items()}
    print_figures(what, program.alternate(calls, warm_up=False))


# --- Planning


def plan_all(folder: Path) -> Figures:
    table = load_table(folder)
    with PeakMemory() as memory, Stopwatch() as watch:
        planned = TripletSampler(table, SamplingSpec(images_per_landmark=None)).plan()
    measured = watch.measurement(len(planned))
    return {"triplets": measured.count, "seconds": measured.wall_s, "peak MB": memory.added_bytes / 1e6}


def plan(program: Program) -> None:
    folder = program.folder()
    save_table(folder, program.args.images)
    measure(program, "planning", {"all images": (plan_all, folder)})


# --- Archives


def some_ids(count: int) -> Iterator[int]:
    """Yields different ids in no order."""
    return (number * 0x9E3779B97F4A7C15 % 2**64 for number in range(count))


def write_zip(folder: Path, num_members: int) -> None:
    """Writes a zip with so many images and their table."""
    ids = enumerate(some_ids(num_members))
    lines = "".join(f"{format_image_id(i)},{number % NUM_COMPETITION_LANDMARKS}\n" for number, i in ids)
    with (folder / ZIP_NAME).open("wb") as file:
        file.seek(_HOLE_BYTES)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(TABLE_NAME, "id,landmark_id\n" + lines, zipfile.ZIP_DEFLATED)
            for image_id in some_ids(num_members):
                archive.writestr(f"{IMAGES_NAME}/{image_path(image_id)}", _IMAGE)


def write_tars(folder: Path, num_tars: int) -> None:
    """Writes tars; the table names one of their images."""
    (folder / TABLE_NAME).write_text(f"id,landmark_id\n{format_image_id(0)},1\n")
    (folder / IMAGES_NAME).mkdir()
    ids = some_ids(num_tars * _MEMBERS_PER_TAR)
    for tar in range(num_tars):
        with (folder / IMAGES_NAME / f"images_{tar:03d}.tar").open("wb") as file:
            for image_id in itertools.islice(ids, _MEMBERS_PER_TAR):
                member = tarfile.TarInfo(image_path(image_id))
                member.size = len(_IMAGE)
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + _IMAGE.ljust(tarfile.BLOCKSIZE, b"\0"))
            file.write(bytes(2 * tarfile.BLOCKSIZE))


def open_archives(folder: Path, num_members: int) -> Figures:
    """Opens the copy in a folder and reads some images."""
    with PeakMemory() as memory:
        start = time.perf_counter()
        source = open_copy(epath.Path(folder), str(folder / "bank"), _NUM_THREADS)
        opened = time.perf_counter()
        looked_up = list(itertools.islice(some_ids(num_members), 0, None, max(1, num_members // _NUM_LOOKED_UP)))
        reading = time.perf_counter()
        num_bytes = sum(len(source.read(image_id)) for image_id in looked_up)
        read_s = time.perf_counter() - reading
    if num_bytes != len(_IMAGE) * len(looked_up):
        raise RuntimeError("what was read is not what was written")
    return {
        "s to open": opened - start,
        "us to read an image": read_s / len(looked_up) * 1e6,
        "peak MB": memory.added_bytes / 1e6,
        "MB of index": sum(path.stat().st_size for path in (folder / "bank").iterdir()) / 1e6,
    }


def _print_openings(what: str, folder: Path, num_members: int) -> None:
    progress(f"opening {what}")
    openings = {
        label: [in_fresh_process(open_archives, folder, num_members)] for label in ("for the first time", "again")
    }
    progress("")
    print_figures(f"{what} of {num_members:,} images", openings)


def open_zip(program: Program) -> None:
    progress("writing the zip")
    folder = program.folder()
    write_zip(folder, program.args.images)
    _print_openings("zip", folder, program.args.images)


def open_tars(program: Program) -> None:
    progress("writing tars")
    folder = program.folder()
    write_tars(folder, program.args.tars)
    _print_openings(f"{program.args.tars:,} tars", folder, program.args.tars * _MEMBERS_PER_TAR)


# --- Files of triplets


def write_triplets(folder: Path, num_images: int, num_triplets: int) -> dict[str, Path]:
    """Writes a table and triplets, all different, in each format; returns the files by what they are."""
    table = save_table(folder, num_images)
    per_anchor = 1 + num_triplets // num_images
    sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None, triplets_per_anchor=per_anchor))
    rows = pd.DataFrame(sampler.plan()).drop_duplicates().to_numpy()[:num_triplets]
    texts = np.array([format_image_id(image_id) for image_id in table.image_ids])
    frame = pd.DataFrame({name: texts[rows[:, i]] for i, name in enumerate(ID_COLUMNS)})
    paths = {"CSV": folder / "triplets.csv", "Parquet": folder / "triplets.parquet"}
    frame.to_csv(paths["CSV"], index=False)
    frame.to_parquet(paths["Parquet"], index=False)
    return paths


def read_triplets(path: Path) -> Figures:
    """Reads and checks a file."""
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    table = load_table(path.parent)
    source = FolderSource(epath.Path(path.parent), "train.csv")  # of which nothing is read
    selection = Selection(ImageSet(table, source), table, table)
    with PeakMemory() as memory:
        start = time.perf_counter()
        file = read_triplets_file(str(path))
        read = time.perf_counter()
        spec = TripletsFileSpec(path=str(path))
        GivenTriplets(file, spec, selection).of_split(spec.split)
        checked = time.perf_counter()
    return {"read s": read - start, "check s": checked - read, "peak MB": memory.added_bytes / 1e6}


def triplets(program: Program) -> None:
    progress("writing files of triplets")
    paths = write_triplets(program.folder(), program.args.images, program.args.triplets)
    measure(
        program, f"{program.args.triplets:,} triplets", {what: (read_triplets, path) for what, path in paths.items()}
    )


# --- Mining


def write_embeddings(folder: Path, num_images: int, num_landmarks: int) -> None:
    """Writes embeddings.npy, float32[num_images, 64], and their table."""
    rng = np.random.default_rng(0)
    landmarks, of_image = np.unique(save_table(folder, num_images, num_landmarks).landmark_ids, return_inverse=True)
    num_groups = round(len(landmarks) ** 0.5)
    groups = rng.standard_normal((num_groups, _DIM), dtype=np.float32)
    centres = groups[np.arange(len(landmarks)) % num_groups]
    centres += _SPREAD_OF_LANDMARKS * rng.standard_normal(centres.shape, dtype=np.float32)
    embeddings = centres[of_image]
    for part in np.array_split(embeddings, 1 + num_images // 65_536):
        part += _SPREAD_OF_IMAGES * rng.standard_normal(part.shape, dtype=np.float32)
    np.save(folder / "embeddings.npy", embeddings)


def _read_embeddings(folder: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    table = load_table(folder)
    return np.load(folder / "embeddings.npy", mmap_mode="r"), table.image_ids, table.landmark_ids


def mine_exactly(folder: Path) -> Figures:
    return _mine(folder, "exact")


def mine_approximately(folder: Path) -> Figures:
    load_faiss()
    return _mine(folder, "approximate") | {"of 50 nearest found": share_found(folder, 50)}


def _mine(folder: Path, search: Any) -> Figures:
    """Mines all triplets with the defaults."""
    images = _read_embeddings(folder)
    with PeakMemory() as memory, Stopwatch() as watch:
        mined = mine_triplets(*images, MiningSpec(search=search))
    measured = watch.measurement(len(mined))
    return {"triplets": measured.count, "seconds": measured.wall_s, "peak MB": memory.added_bytes / 1e6}


def share_found(folder: Path, k: int) -> float:
    """Returns the share of the k nearest, of some anchors, that the approximate search finds."""
    images = arrange(*_read_embeddings(folder))
    ceiling = MiningSpec().max_similarity
    starts = np.linspace(0, len(images) - _PART_SIZE, _NUM_PARTS).astype(int).tolist()

    def search_parts(search: ExactSearch | ApproximateSearch) -> npt.NDArray[np.int64]:
        return np.concatenate([search.search(start, start + _PART_SIZE, k).places for start in starts])

    exact, found = search_parts(ExactSearch(images, ceiling)), search_parts(ApproximateSearch(images, ceiling))
    return float((exact[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2).mean())


def mine(program: Program) -> None:
    args = program.args
    function = mine_exactly if args.search == "exact" else mine_approximately
    cases = {}
    for per_landmark in args.per_landmark:
        num_landmarks = args.embeddings // per_landmark
        folder = program.folder()
        write_embeddings(folder, args.embeddings, num_landmarks)
        cases[f"{num_landmarks:,} landmarks, {args.search}"] = (function, folder)
    measure(program, f"{args.embeddings:,} images", cases)


# --- Scores


def score(folder: Path, database: str) -> Figures:
    """Runs the command."""
    files = {"queries": "test.npy", "database": f"{database}.npy", "index": "", "solution": f"{database}.csv"}
    arguments = ["evaluate", *(f"--{name}={folder / file}" for name, file in files.items())]
    arguments.append(f"--database_split={database}")
    with PeakMemory() as memory, Stopwatch() as watch, builds.quiet():
        if cli.main(arguments):
            raise RuntimeError("landmark-triplets evaluate has failed.")
    measured = watch.measurement(1)
    return {"seconds": measured.wall_s, "CPU s": measured.cpu_s, "peak MB, all": memory.peak_bytes / 1e6}


def evaluate(program: Program) -> None:
    rng, folder, args = np.random.default_rng(0), program.folder(), program.args
    splits = {}
    for split, count in _BENCHMARK_IMAGES.items():
        ids, landmarks = random_table(round(count * args.images / NUM_COMPETITION_IMAGES), rng)
        splits[split] = ImageIndex(ids, (landmarks if "train" in split else np.full(len(ids), -1)).astype(np.int32))
        shape = len(ids), _SCORED_DIM
        vectors = np.lib.format.open_memmap(folder / f"{split}.npy", "w+", np.float32, shape)
        for part in np.array_split(vectors, 1 + len(ids) // 65_536):
            part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    write_image_index(epath.Path(folder / INDEX_NAME), splits)
    queries = list(map(format_image_id, splits["test"].image_ids))
    image, landmark = format_image_id(splits["index"].image_ids[0]), splits["train"].landmark_ids[0]
    cases = {}
    for task, database, column, answer, num_scored in (
        ("retrieval", "index", "images", image, min(_NUM_SCORED, len(queries))),
        ("recognition", "train", "landmarks", landmark, round(args.share * len(queries))),
        ("recognition", "part_of_train", "landmarks", landmark, len(queries)),
    ):
        usages = ["Private"] * num_scored + ["Ignored"] * (len(queries) - num_scored)
        lines = [f"{query},{answer},{usage}\n" for query, usage in zip(queries, usages, strict=True)]
        (folder / f"{database}.csv").write_text(f"id,{column},Usage\n" + "".join(lines))
        name = f"{task}, {num_scored:,} queries in {len(splits[database]):,} images"
        cases[name] = functools.partial(score, database=database), folder
    measure(program, f"{_SCORED_DIM} numbers an image", cases)


# --- Workers of a cluster


def start_worker(path: Path) -> Figures:
    """Does what a worker does before its first triplet, and draws some."""
    with PeakMemory() as memory:
        import tensorflow  # noqa: F401
        import tensorflow_datasets  # noqa: F401

        import landmark_triplets_tfds.build.beam_pipeline  # noqa: F401

        after_imports = memory.now_bytes()
        sampler = TripletSampler(read_landmark_table(epath.Path(path)), SamplingSpec(images_per_landmark=None))
        sampler.plan(0, min(4096, sampler.num_triplets))
    return {"MB after imports": after_imports / 1e6, "peak MB": memory.peak_bytes / 1e6}


def worker(program: Program) -> None:
    cases: dict[str, Any] = {}
    for num_images in (program.args.images, 2 * program.args.images):
        path = program.folder() / "train.csv"
        table = save_table(path.parent, num_images)
        ids = map(format_image_id, table.image_ids)
        pd.DataFrame({"id": ids, "landmark_id": table.landmark_ids}).to_csv(path, index=False)
        cases[f"{num_images:,} images"] = start_worker, path
    measure(program, "worker process", cases)


# --- Checks


def verify(program: Program) -> None:
    from landmark_triplets_tfds.commands.verify.command import verify as verify_dataset

    _, builder = builds.build("128px_all", program.corpus, program.folder())
    split = builder.info.splits["train"]

    def check() -> None:
        if not verify_dataset(epath.Path(builder.data_dir))[1]["all_well"]:
            raise RuntimeError("landmark-triplets verify finds fault with a new dataset.")

    def load() -> None:
        for _ in builder.as_dataset(split="train", read_config=builds.tfds().ReadConfig(try_autocache=False)):
            pass

    def hash_shards() -> None:
        for path in split.filepaths:
            hashlib.sha256(Path(path).read_bytes())

    def measure(read: Callable[[], object]) -> Measurement:
        with Stopwatch() as watch:
            read()
        return watch.measurement(split.num_examples)

    ways: dict[str, Callable[[], object]] = {"verify": check, "tfds.load": load, "sha256": hash_shards}
    results = program.alternate({name: functools.partial(measure, read) for name, read in ways.items()})
    print(f"{split.num_bytes / 1e6:,.0f} MB in {len(split.filepaths)} shards")
    print_measurements("records", results)


CASES = {
    "plan": plan,
    "zip": open_zip,
    "tars": open_tars,
    "triplets": triplets,
    "mine": mine,
    "evaluate": evaluate,
    "worker": worker,
    "verify": verify,
}


def main() -> None:
    """Measures what was asked for."""
    program = Program(__doc__, runs=1)
    add = program.parser.add_argument
    add("cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    add("--images", type=int, default=NUM_COMPETITION_IMAGES, help="in tables, zip and train (default: %(default)s)")
    add("--tars", type=int, default=500, help=f"of {_MEMBERS_PER_TAR:,} images each (default: %(default)s)")
    add("--triplets", type=int, default=5_000_000, help="in each file (default: %(default)s)")
    add("--embeddings", type=int, default=160_000, help="to mine from (default: %(default)s)")
    add("--per-landmark", type=int, nargs="+", default=[400, 40, 5], help="embeddings per landmark (default: 400 40 5)")
    add("--search", choices=("exact", "approximate"), default="exact", help="of neighbours (default: %(default)s)")
    text = "of the queries of recognition; its time grows with them (default: %(default)s)"
    add("--share", type=float, default=0.1, help=text)
    with program:
        for case in program.args.cases:
            CASES[case](program)


if __name__ == "__main__":
    main()
