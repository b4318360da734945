"""Makes a folder with the layout of the competition: train.csv and train/a/b/c/<id>.jpg.

Three kinds: views of your own photographs (what figures should be quoted from), views of drawn scenes, and tiny
pictures in any number, with which all that a build does around the images can be measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
import contextlib
import functools
import multiprocessing
import os
from pathlib import Path
import tempfile
import time

import loky
import numpy as np
import numpy.typing as npt

from benchmarks import pictures
from benchmarks.harness import progress

# The competition's own figures.
NUM_COMPETITION_LANDMARKS = 81_313
NUM_COMPETITION_IMAGES = 1_580_470

DEFAULT_NUM_LANDMARKS = 400
_IMAGES_PER_LANDMARK = 6.5  # on average, in corpora of pictures; the competition has 19.4

_NUM_DISTINCT_TINY = 512  # at 1.58 million rows, each file has 3,100 links; ext4 allows 65,000


def long_tail_sizes(num_landmarks: int, num_images: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Returns int64[num_landmarks]: images of each landmark, at least 2, a few with very many, ``num_images`` in all.

    Raises:
      ValueError: if there are fewer than two images per landmark.
    """
    if num_images < 2 * num_landmarks:
        raise ValueError(f"{num_landmarks} landmarks need at least {2 * num_landmarks} images, got {num_images}.")
    weights = 0.5 + np.minimum(rng.pareto(1.1, num_landmarks), 0.02 * num_landmarks + 10)
    sizes: npt.NDArray[np.int64] = 2 + rng.multinomial(num_images - 2 * num_landmarks, weights / weights.sum())
    return sizes


def random_table(
    sizes: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Returns image ids uint64[n] and landmark ids int64[n] in a random order; landmark ids have gaps."""
    num_images = int(sizes.sum())
    image_ids = np.unique(rng.integers(0, 2**64, num_images + 8, dtype=np.uint64))
    image_ids = rng.permutation(image_ids)[:num_images]
    landmark_ids = np.repeat(np.cumsum(rng.integers(1, 6, len(sizes))), sizes)
    return image_ids, rng.permutation(landmark_ids)


def image_path(folder: Path | str, image_id: str) -> str:
    return f"{folder}/train/{image_id[0]}/{image_id[1]}/{image_id[2]}/{image_id}.jpg"


def make_tiny_corpus(folder: Path, num_images: int, seed: int = 0) -> None:
    """Makes a corpus of 16 x 16 px pictures, 19.4 per landmark: 512 different files, the others links to them."""
    rng = np.random.default_rng(seed)
    num_landmarks = max(2, round(num_images * NUM_COMPETITION_LANDMARKS / NUM_COMPETITION_IMAGES))
    image_ids, landmark_ids = random_table(long_tail_sizes(num_landmarks, num_images, rng), rng)
    names = [f"{image_id:016x}" for image_id in image_ids.tolist()]
    _make_folders(folder, names)
    originals: list[str] = []
    for i, name in enumerate(names):
        path = image_path(folder, name)
        if i < _NUM_DISTINCT_TINY:
            Path(path).write_bytes(pictures.draw_tiny(rng))
            originals.append(path)
        else:
            os.link(originals[i % _NUM_DISTINCT_TINY], path)
        if i % 10_000 == 0:
            progress(f"tiny pictures: {i:,} of {num_images:,}")
    _write_table(folder, names, landmark_ids.tolist())


def make_picture_corpus(folder: Path, photos: Path | None, num_landmarks: int, seed: int = 0) -> None:
    """Makes a corpus of views of photographs, or of drawn scenes if ``photos`` is None, on all usable cores."""
    rng = np.random.default_rng(seed)
    sizes = long_tail_sizes(num_landmarks, round(_IMAGES_PER_LANDMARK * num_landmarks), rng)
    image_ids, _ = random_table(sizes, rng)
    names = [f"{image_id:016x}" for image_id in image_ids.tolist()]
    _make_folders(folder, names)
    numbers = np.repeat(np.arange(num_landmarks), sizes)
    names_of = [[names[i] for i in np.flatnonzero(numbers == landmark)] for landmark in range(num_landmarks)]
    work = functools.partial(_make_landmark, folder, pictures.find_photos(photos) if photos else [], seed)
    # Processes that start afresh: forking one that has imported TensorFlow may deadlock.
    with ProcessPoolExecutor(loky.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for i, _ in enumerate(pool.map(work, range(num_landmarks), names_of, chunksize=4)):
            progress(f"pictures: landmark {i + 1:,} of {num_landmarks:,}")
    order = rng.permutation(len(names))
    landmark_ids = np.cumsum(rng.integers(1, 6, num_landmarks))[numbers]
    _write_table(folder, [names[i] for i in order], landmark_ids[order].tolist())


def _make_landmark(folder: Path, photos: Sequence[Path], seed: int, number: int, names: Sequence[str]) -> None:
    rng = np.random.default_rng([seed, number])
    if not photos:
        landmark = pictures.Landmark(pictures.draw_scene(rng), rng)
    # Every photograph gets its turn; instead of a plain one, of which folders may hold some, any other is taken.
    for i in [number % len(photos), *rng.permutation(len(photos))] if photos else ():
        landmark = pictures.Landmark(pictures.load_photo(photos[i]), rng)
        if landmark.detail >= pictures.MIN_DETAIL:
            break
    for name in names:
        Path(image_path(folder, name)).write_bytes(landmark.view())


def _make_folders(folder: Path, names: Sequence[str]) -> None:
    for prefix in {name[:3] for name in names}:
        (folder / "train" / prefix[0] / prefix[1] / prefix[2]).mkdir(parents=True, exist_ok=True)


def _write_table(folder: Path, names: Sequence[str], landmark_ids: Sequence[int]) -> None:
    """Writes train.csv, last of all: a folder that has it is complete."""
    with (folder / "train.csv").open("w", encoding="utf-8", newline="\n") as file:
        file.write("id,landmark_id\n")
        file.writelines(f"{name},{landmark_id}\n" for name, landmark_id in zip(names, landmark_ids, strict=True))
    progress("")


def add_corpus_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus",
        type=Path,
        metavar="DIR",
        help="use the corpus in this folder; made there, and kept, if there is none (default: a temporary one)",
    )
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="make the corpus from the photographs below this folder, not drawn"
    )
    parser.add_argument(
        "--landmarks",
        type=int,
        default=DEFAULT_NUM_LANDMARKS,
        metavar="N",
        help="landmarks of the corpus that is made, 6.5 images each (default: %(default)s)",
    )


def open_corpus(args: argparse.Namespace) -> contextlib.AbstractContextManager[Path]:
    """Returns, as a context manager, the folder of the corpus that the arguments ask for."""
    return _corpus(args.corpus, lambda folder: make_picture_corpus(folder, args.photos, args.landmarks))


def open_tiny_corpus(parent: Path | None, num_images: int) -> contextlib.AbstractContextManager[Path]:
    """Returns, as a context manager, the folder of a corpus of tiny pictures, kept below ``parent`` if given."""
    return _corpus(parent and parent / f"tiny_{num_images}", lambda folder: make_tiny_corpus(folder, num_images))


@contextlib.contextmanager
def _corpus(kept: Path | None, make: Callable[[Path], None]) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="corpus.")))
        if not (folder / "train.csv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            make(folder)
        yield folder


def main() -> None:
    """Makes a corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to make it")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photographs to take views of (default: drawn scenes)"
    )
    parser.add_argument("--landmarks", type=int, default=DEFAULT_NUM_LANDMARKS, metavar="N", help="(%(default)s)")
    parser.add_argument("--tiny", type=int, metavar="N", help="make N tiny pictures instead")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures (%(default)s)")
    args = parser.parse_args()
    if (args.folder / "train.csv").exists():
        parser.error(f"{args.folder} holds a corpus already.")
    args.folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if args.tiny:
        make_tiny_corpus(args.folder, args.tiny, args.seed)
    else:
        make_picture_corpus(args.folder, args.photos, args.landmarks, args.seed)
    seconds = time.perf_counter() - start
    table = (args.folder / "train.csv").read_text(encoding="utf-8").split()[1:]
    some = [Path(image_path(args.folder, line.partition(",")[0])).stat().st_size for line in table[:1000]]
    print(f"{len(table):,} images of {np.mean(some) / 1000:.1f} kB in {args.folder}, made in {seconds:.0f} s.")


if __name__ == "__main__":
    main()
