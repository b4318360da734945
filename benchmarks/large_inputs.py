"""Planning, archives, files of triplets, mining and checks at full size: how long they take, and how much memory.

    python -m benchmarks.large_inputs plan
    python -m benchmarks.large_inputs verify --corpus CORPUS --runs 5

Each case carries a figure of a page:

* plan: plans all triplets of a made-up table of the competition's size (docs/performance.md, "Large tables").
* zip, tars: open a zip of as many images, and 500 tars of 8,266, for the first time and again. Members hold a few
  bytes, and the zip begins with a hole of 100 GiB, so that its offsets need zip64. It takes 6 GB (docs/sources.md).
* triplets: reads and checks files of 5 million triplets (docs/triplets.md).
* mine: mines hard triplets from 160,000 made-up embeddings of 400, 4,000 and 32,000 landmarks. Landmarks are scattered
  around the centres of groups, images around their landmarks; there are as many groups as the root of the number of
  landmarks. faiss: mines from 500,000 of 25,000, and says what faiss misses (docs/triplets.md).
* evaluate: `landmark-triplets evaluate` at the size of the public benchmark, recognition with a tenth of its queries,
  and with all of them in a part of the images (docs/commands.md). It takes 5 GB.
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
from typing import Any
import zipfile

from etils import epath
import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks import builds
from benchmarks.corpus import NUM_COMPETITION_IMAGES, NUM_COMPETITION_LANDMARKS, random_table
from benchmarks.harness import Figures, PeakMemory, Program, Stopwatch, in_fresh_process, measure_each, print_figures
from landmark_triplets_tfds.commands import cli
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, TABLE_NAME, ZIP_NAME, image_path
from landmark_triplets_tfds.competition.selection import ImageSet, Selection, open_copy
from landmark_triplets_tfds.competition.source import FolderSource
from landmark_triplets_tfds.competition.tables import LandmarkTable, format_image_id, read_landmark_table
from landmark_triplets_tfds.mining.embeddings import arrange
from landmark_triplets_tfds.mining.hard_triplets import MiningSpec, mine_triplets
from landmark_triplets_tfds.mining.neighbours import ApproximateSearch, ExactSearch, load_faiss
from landmark_triplets_tfds.training.records import INDEX_NAME, ImageIndex, write_image_index
from landmark_triplets_tfds.triplets import triplets_file
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler

_HOLE_BYTES = 100 << 30
_NUM_TARS, _MEMBERS_PER_TAR = 500, 8_266
_IMAGE = b"\xff\xd8\xff not an image"
_NUM_THREADS, _NUM_LOOKED_UP = 8, 20_000

_DIM = 64
_SPREAD_OF_LANDMARKS, _SPREAD_OF_IMAGES = 0.7, 0.5  # around a group and a landmark; centres of groups have 1
_NUM_PARTS, _PART_SIZE = 16, 64  # of the anchors for which both searches are compared

# Of the Google Landmarks Dataset v2's benchmark: images, and queries that have answers among the index.
_BENCHMARK_IMAGES = {"test": 117_577, "index": 761_757, "train": NUM_COMPETITION_IMAGES, "part_of_train": 16_384}
_NUM_SCORED, _SCORED_DIM = 1_129, 512


def measure(do: Callable[[], object]) -> Figures:
    """Calls a function; returns its time, and the memory of this process before and of all processes at the peak."""
    with PeakMemory() as memory, Stopwatch() as watch:
        do()
    return {"seconds": watch.wall_s, "MB before": memory.before_bytes / 1e6, "peak MB": memory.peak_bytes / 1e6}


def print_cases(program: Program, what: str, cases: Mapping[str, tuple[Callable[..., Figures], Any]]) -> None:
    """Calls each function with its argument in a process of its own, in turns, and prints the figures."""
    calls = {name: functools.partial(in_fresh_process, *call) for name, call in cases.items()}
    print_figures(what, program.alternate(calls, warm_up=False))


def scaled(program: Program, count: int) -> int:
    """Returns a number that belongs to the competition's, for as many images as were asked for."""
    num_images: int = program.args.images
    return max(1, round(count * num_images / NUM_COMPETITION_IMAGES))


def save_table(folder: Path, num_images: int, num_landmarks: int | None = None) -> LandmarkTable:
    """Makes up a table and writes it for other processes."""
    image_ids, landmark_ids = random_table(num_images, np.random.default_rng(0), num_landmarks)
    columns = {"id": map(format_image_id, image_ids.tolist()), "landmark_id": landmark_ids}
    pd.DataFrame(columns).to_csv(folder / TABLE_NAME, index=False)
    return load_table(folder)


def load_table(folder: Path) -> LandmarkTable:
    return read_landmark_table(epath.Path(folder / TABLE_NAME))


# --- Planning


def plan_all(folder: Path) -> Figures:
    table = load_table(folder)
    return measure(lambda: TripletSampler(table, SamplingSpec(images_per_landmark=None)).plan())


def plan(program: Program) -> None:
    save_table(program.work, program.args.images)
    print_cases(program, "planning", {f"{program.args.images:,} images": (plan_all, program.work)})


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


def write_tars(folder: Path, num_members: int) -> None:
    """Writes tars with so many images; the table names one of them."""
    (folder / TABLE_NAME).write_text(f"id,landmark_id\n{format_image_id(0)},1\n")
    (folder / IMAGES_NAME).mkdir()
    ids = some_ids(num_members)
    for tar in range(num_members // _MEMBERS_PER_TAR):
        with (folder / IMAGES_NAME / f"images_{tar:03d}.tar").open("wb") as file:
            for image_id in itertools.islice(ids, _MEMBERS_PER_TAR):
                member = tarfile.TarInfo(image_path(image_id))
                member.size = len(_IMAGE)
                file.write(member.tobuf(tarfile.USTAR_FORMAT) + _IMAGE.ljust(tarfile.BLOCKSIZE, b"\0"))
            file.write(bytes(2 * tarfile.BLOCKSIZE))


def open_archives(folder: Path, num_members: int) -> Figures:
    """Opens the copy in a folder and reads some images."""
    opened: list[Any] = []
    figures = measure(lambda: opened.append(open_copy(epath.Path(folder), str(folder / "bank"), _NUM_THREADS)))
    looked_up = list(itertools.islice(some_ids(num_members), 0, None, max(1, num_members // _NUM_LOOKED_UP)))
    if opened[0].read(looked_up[-1]) != _IMAGE:
        raise RuntimeError("what was read is not what was written")
    return figures | {
        "us to read an image": 1e6 / measure_each(opened[0].read, looked_up)["a second"],
        "MB of index": sum(path.stat().st_size for path in (folder / "bank").iterdir()) / 1e6,
    }


def open_written(program: Program, write: Callable[[Path, int], None], num_members: int) -> None:
    folder = program.folder()
    write(folder, num_members)
    openings = ("for the first time", "again")
    figures = {name: [in_fresh_process(open_archives, folder, num_members)] for name in openings}
    print_figures(f"{num_members:,} images opened", figures)


# --- Files of triplets


def read_triplets(path: Path) -> Figures:
    """Reads and checks a file."""
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401

    table = load_table(path.parent)
    source = FolderSource(epath.Path(path.parent), TABLE_NAME)  # of which nothing is read
    selection, spec = Selection(ImageSet(table, source), table, table), triplets_file.TripletsFileSpec(path=str(path))

    def read_and_check() -> None:
        given = triplets_file.GivenTriplets(triplets_file.read_triplets_file(spec.path), spec, selection)
        given.of_split(spec.split)

    return measure(read_and_check)


def triplets(program: Program) -> None:
    folder, num_triplets = program.folder(), scaled(program, 5_000_000)
    table = save_table(folder, program.args.images)
    per_anchor = 1 + num_triplets // program.args.images
    sampler = TripletSampler(table, SamplingSpec(images_per_landmark=None, triplets_per_anchor=per_anchor))
    rows = pd.DataFrame(sampler.plan()).drop_duplicates().to_numpy()[:num_triplets]
    texts = np.array([format_image_id(image_id) for image_id in table.image_ids])
    frame = pd.DataFrame({name: texts[rows[:, i]] for i, name in enumerate(triplets_file.ID_COLUMNS)})
    paths = {"CSV": folder / "triplets.csv", "Parquet": folder / "triplets.parquet"}
    frame.to_csv(paths["CSV"], index=False)
    frame.to_parquet(paths["Parquet"], index=False)
    print_cases(program, f"{len(rows):,} triplets", {what: (read_triplets, path) for what, path in paths.items()})


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


def mine_all(folder: Path, search: Any) -> Figures:
    if search == "approximate":
        load_faiss()
    images = _read_embeddings(folder)
    figures = measure(lambda: mine_triplets(*images, MiningSpec(search=search)))
    return figures | ({"of 50 nearest found": share_found(folder, 50)} if search == "approximate" else {})


def share_found(folder: Path, k: int) -> float:
    """Returns the share of the k nearest, of some anchors, that the approximate search finds."""
    images, ceiling = arrange(*_read_embeddings(folder)), MiningSpec().max_similarity
    parts = np.linspace(0, len(images) - _PART_SIZE, _NUM_PARTS).astype(int).tolist()
    exact, found = (
        np.concatenate([search.search(start, start + _PART_SIZE, k).places for start in parts])
        for search in (ExactSearch(images, ceiling), ApproximateSearch(images, ceiling))
    )
    return float((exact[:, :, np.newaxis] == found[:, np.newaxis, :]).any(axis=2).mean())


def mine(program: Program, search: str, count: int, per_landmark: tuple[int, ...]) -> None:
    num_images, cases = scaled(program, count), {}
    for each in per_landmark:
        folder, num_landmarks = program.folder(), max(2, num_images // each)
        write_embeddings(folder, num_images, num_landmarks)
        cases[f"{num_landmarks:,} landmarks"] = functools.partial(mine_all, search=search), folder
    print_cases(program, f"{num_images:,} images, {search} search", cases)


# --- Scores


def score(folder: Path, database: str) -> Figures:
    """Runs the command."""
    files = {"queries": "test.npy", "database": f"{database}.npy", "index": "", "solution": f"{database}.csv"}
    arguments = ["evaluate", *(f"--{name}={folder / file}" for name, file in files.items())]
    arguments.append(f"--database_split={database}")

    def run() -> None:
        if cli.main(arguments):
            raise RuntimeError("landmark-triplets evaluate has failed.")

    with builds.quiet():
        return measure(run)


def evaluate(program: Program) -> None:
    rng, folder, splits = np.random.default_rng(0), program.folder(), {}
    for split, count in _BENCHMARK_IMAGES.items():
        ids, landmarks = random_table(scaled(program, count), rng)
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
        ("recognition", "train", "landmarks", landmark, -(-len(queries) // 10)),
        ("recognition", "part_of_train", "landmarks", landmark, len(queries)),
    ):
        usages = ["Private"] * num_scored + ["Ignored"] * (len(queries) - num_scored)
        lines = [f"{query},{answer},{usage}\n" for query, usage in zip(queries, usages, strict=True)]
        (folder / f"{database}.csv").write_text(f"id,{column},Usage\n" + "".join(lines))
        name = f"{task}, {num_scored:,} queries in {len(splits[database]):,} images"
        cases[name] = functools.partial(score, database=database), folder
    print_cases(program, f"{_SCORED_DIM} numbers an image", cases)


# --- Workers of a cluster


def start_worker(folder: Path) -> Figures:
    """Does what a worker does before its first triplet, and draws some; it has imported all it will by then."""
    import tensorflow  # noqa: F401
    import tensorflow_datasets  # noqa: F401

    import landmark_triplets_tfds.build.beam_pipeline  # noqa: F401

    return measure(lambda: TripletSampler(load_table(folder), SamplingSpec(images_per_landmark=None)).plan(0, 1000))


def worker(program: Program) -> None:
    cases = {}
    for num_images in (program.args.images, 2 * program.args.images):
        folder = program.folder()
        save_table(folder, num_images)
        cases[f"{num_images:,} images"] = start_worker, folder
    print_cases(program, "worker process", cases)


# --- Checks


def check(builder: Any) -> None:
    from landmark_triplets_tfds.commands.verify import verify

    if not verify(epath.Path(builder.data_dir))[1]["all_well"]:
        raise RuntimeError("landmark-triplets verify finds fault with a new dataset.")


def load(builder: Any) -> None:
    for _ in builder.as_dataset(split="train", read_config=builds.tfds().ReadConfig(try_autocache=False)):
        pass


def hash_shards(builder: Any) -> None:
    for path in builder.info.splits["train"].filepaths:
        hashlib.sha256(Path(path).read_bytes())


def check_and_load(program: Program) -> None:
    _, builder = builds.build("128px_all", program.corpus, program.folder())
    ways = {"verify": check, "tfds.load": load, "sha256": hash_shards}
    results = program.alternate({name: functools.partial(measure_each, way, [builder]) for name, way in ways.items()})
    print_figures(f"dataset of {builder.info.splits['train'].num_bytes / 1e6:,.0f} MB", results)


CASES: dict[str, Callable[[Program], None]] = {
    "plan": plan,
    "zip": lambda program: open_written(program, write_zip, program.args.images),
    "tars": lambda program: open_written(program, write_tars, scaled(program, _NUM_TARS) * _MEMBERS_PER_TAR),
    "triplets": triplets,
    "mine": lambda program: mine(program, "exact", 160_000, (400, 40, 5)),
    "faiss": lambda program: mine(program, "approximate", 500_000, (20,)),
    "evaluate": evaluate,
    "worker": worker,
    "verify": check_and_load,
}


def main() -> None:
    """Measures what was asked for."""
    program = Program(__doc__, runs=1)
    add = program.parser.add_argument
    add("cases", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    size = "of the table; all other numbers but those of `verify` shrink with it (default: %(default)s)"
    add("--images", type=int, default=NUM_COMPETITION_IMAGES, help=size)
    with program:
        for case in program.args.cases:
            CASES[case](program)


if __name__ == "__main__":
    main()
