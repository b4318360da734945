"""Triplets that a model finds hard, chosen by its own embeddings of the images, and the file of them.

Of random triplets a model soon gets most right, and then they teach it nothing. Here every image is an anchor once, and
its negative is one of the images of other landmarks that the model takes for the most similar. The file that comes of
it is what the config field ``triplets_file`` of `landmark_triplets` reads.

Similarity s(a, b) is the cosine of the angle between two embeddings. On the unit sphere it is squared Euclidean
distance in another form, |a - b|^2 = 2 - 2 s(a, b), in which FaceNet (Schroff, Kalenichenko and Philbin, "FaceNet: A
Unified Embedding for Face Recognition and Clustering", CVPR 2015) defines its terms.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import IO, Literal, get_args

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import check_choice, check_int, check_number, check_word
from landmark_triplets_tfds.common.file_access import replace_file
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import TripletsFileError
from landmark_triplets_tfds.mining.embeddings import LandmarkVectors, Places, arrange
from landmark_triplets_tfds.mining.neighbours import (
    ROWS_PER_BLOCK,
    ApproximateSearch,
    ExactSearch,
    Neighbours,
    Similarities,
    as_similarities,
)
from landmark_triplets_tfds.triplets.draws import Purpose, below, hash_words
from landmark_triplets_tfds.triplets.examples import TRIPLETS

PositiveRule = Literal["random", "hardest"]
NegativeRule = Literal["semi-hard", "hardest"]
SearchKind = Literal["auto", "exact", "approximate"]

# Up to here the exact search, about a minute on two cores, is worth its time.
MAX_IMAGES_EXACT = 200_000

# What negatives turn out to be.
SEMI_HARD, HARDER, EASIER = "semi-hard", "at least as similar as the positive", "less similar by more than the margin"

# Why an anchor has no triplet.
SINGLE_IMAGE = "no other image of the landmark"
NO_POSITIVE = "no positive at or below max_similarity"
NO_NEGATIVE = "no negative at or below max_similarity"

_MAX_NEIGHBOURS = 10_000
_MAX_MARGIN = 4  # no two points of the unit sphere are farther apart, in squared distance
_NUM_PRODUCTS = 1 << 21  # float64 at a time, among the images of landmarks

_LINES_PER_WRITE = 1 << 16
_SUFFIXES = (".csv", ".parquet")
# Of the file, behind the ids: there to look at, and to select by.
_SIMILARITIES = ("positive_similarity", "negative_similarity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiningSpec:
    """Everything, beside the embeddings, that decides which triplets are mined.

    Attributes:
      positive: 'random': uniform among the other images of the landmark; 'hardest': the least similar of them, which
        also is where images with a wrong landmark come up. In both cases only those at or below ``max_similarity``.
      negative: 'semi-hard': less similar than the positive, but by less than the margin; the most similar of those. If
        there is none, the most similar of those that are less similar by more; if all neighbours are at least as
        similar as the positive, the least similar of them. 'hardest': the most similar.
      neighbours: how many of the nearest images of other landmarks the negative is one of.
      max_similarity: images above it are passed over, as positives and as negatives: an image of another landmark that
        is nearly the same picture most likely shows the anchor's landmark under another number, and a positive that is
        teaches nothing. At 0.95 the squared distance is 0.1, half of FaceNet's margin.
      margin: alpha of FaceNet, 0.2 there, in squared distance, up to 4: half as much in similarity.
      seed: of the random positives, 0 <= seed < 2**64.
      search: 'exact'; 'approximate', by faiss; or 'auto': exact for up to `MAX_IMAGES_EXACT` images.

    Raises:
      ValueError: if a value is out of its range.
    """

    positive: PositiveRule = "random"
    negative: NegativeRule = "semi-hard"
    neighbours: int = 50
    max_similarity: float = 0.95
    margin: float = 0.2
    seed: int = 0
    search: SearchKind = "auto"

    def __post_init__(self) -> None:
        check_choice("positive", self.positive, get_args(PositiveRule))
        check_choice("negative", self.negative, get_args(NegativeRule))
        check_choice("search", self.search, get_args(SearchKind))
        check_int("neighbours", self.neighbours, 1, _MAX_NEIGHBOURS)
        check_number("max_similarity", self.max_similarity, -1, 1)
        check_number("margin", self.margin, 0, _MAX_MARGIN)
        check_word("seed", self.seed)


@dataclasses.dataclass(frozen=True, eq=False)
class MinedTriplets:
    """Triplets, in order of their anchors' rows, and what became of the other anchors.

    Attributes:
      rows: int64[n, 3]: rows of the embeddings of anchor, positive and negative.
      image_ids: uint64[n, 3]: their ids.
      similarities: float32[n, 2]: of the anchor with its positive and with its negative.
      num_anchors: images in all; n of them have a triplet.
      num_landmarks: of these images.
      num_left_out: anchors without a triplet, by reason: the three of this module, each of which is there.
      num_negatives: triplets by what their negative is: SEMI_HARD, HARDER and EASIER, each of which is there.
      num_passed_over: pairs (anchor, other image) above ``max_similarity``: 'positive' and 'negative'. An approximate
        search counts the negatives it came across.
      search: 'exact' or 'approximate'.
    """

    rows: Places
    image_ids: npt.NDArray[np.uint64]
    similarities: Similarities
    num_anchors: int
    num_landmarks: int
    num_left_out: dict[str, int]
    num_negatives: dict[str, int]
    num_passed_over: dict[str, int]
    search: str

    def __len__(self) -> int:
        return len(self.rows)


def mine_triplets(
    embeddings: npt.NDArray[np.floating],
    image_ids: npt.NDArray[np.uint64],
    landmark_ids: npt.NDArray[np.integer],
    spec: MiningSpec | None = None,
    on_mined: Callable[[int], object] = lambda count: None,
) -> MinedTriplets:
    """Chooses a triplet for every image that has one.

    Args:
      embeddings: float16 or float32[n, dim]; may be memory-mapped. They need not have length 1: each is divided by its
        length.
      image_ids: uint64[n], all different.
      landmark_ids: whole numbers[n], >= 0.
      spec: what to choose; None: the defaults.
      on_mined: called with the number of anchors that have just been dealt with.

    Returns:
      The triplets. Deterministic in the spec and the set of (embedding, image id, landmark id), whatever their order;
      the approximate search also in the version of faiss.

    Raises:
      EmbeddingsError: if the arrays do not fit, or an embedding has no direction; see `embeddings.arrange`.
      NoExampleError: if there are fewer than two landmarks.
      MissingPackageError: if the approximate search is to be used and faiss is not installed.
    """
    spec = spec or MiningSpec()
    images = arrange(embeddings, image_ids, landmark_ids)
    is_exact = spec.search == "exact" or (spec.search == "auto" and len(images) <= MAX_IMAGES_EXACT)
    search = (ExactSearch if is_exact else ApproximateSearch)(images, spec.max_similarity)
    # Of anchor, positive and negative, and of the anchor with these; places are -1 where there is none.
    places = np.stack([np.arange(len(images))] * 3, axis=1)
    similarities = np.empty((len(images), 2), dtype=np.float32)
    num_passed_over = np.zeros(2, dtype=np.int64)
    for start in range(0, len(images), ROWS_PER_BLOCK):
        stop = min(start + ROWS_PER_BLOCK, len(images))
        block = slice(start, stop)
        places[block, 1], similarities[block, 0], num_above = _choose_positives(images, spec, start, stop)
        neighbours = search.search(start, stop, spec.neighbours)
        chosen = np.arange(stop - start), _choose_negatives(neighbours, similarities[block, 0], spec)
        places[block, 2], similarities[block, 1] = neighbours.places[chosen], neighbours.similarities[chosen]
        num_passed_over += num_above.sum(), neighbours.num_above.sum()
        on_mined(stop - start)

    is_single = images.stops - images.starts == 1
    has_positive, has_negative = (places[:, 1:] >= 0).T
    order = np.argsort(images.rows)
    anchors = order[(has_positive & has_negative)[order]]
    return MinedTriplets(
        rows=images.rows[places[anchors]],
        image_ids=images.image_ids[places[anchors]],
        similarities=similarities[anchors],
        num_anchors=len(images),
        num_landmarks=images.num_landmarks,
        num_left_out={
            SINGLE_IMAGE: int(is_single.sum()),
            NO_POSITIVE: int((~is_single & ~has_positive).sum()),
            NO_NEGATIVE: int((has_positive & ~has_negative).sum()),
        },
        num_negatives=_count_negatives(similarities[anchors], spec.margin),
        num_passed_over=dict(zip(("positive", "negative"), num_passed_over.tolist(), strict=True)),
        search="exact" if is_exact else "approximate",
    )


# --- Choosing


def _choose_positives(
    images: LandmarkVectors, spec: MiningSpec, start: int, stop: int
) -> tuple[Places, Similarities, Places]:
    """Chooses for the anchors at the places ``start`` to ``stop``.

    Returns:
      int64[n] places, -1 where there is none; float32[n] similarities; int64[n], how many were passed over.
    """
    first, last = images.starts[start], images.stops[stop - 1]
    if (stop - start) * (last - first) > _NUM_PRODUCTS and stop - start > 1:
        middle = (start + stop) // 2
        halves = [_choose_positives(images, spec, *part) for part in ((start, middle), (middle, stop))]
        places, similarities, num_above = (np.concatenate(pair) for pair in zip(*halves, strict=True))
        return places, similarities, num_above
    anchors, candidates = np.arange(start, stop)[:, np.newaxis], np.arange(first, last)
    # In float64 and then rounded, as neighbours' similarities are: whatever the shape of the block.
    products = images.vectors[start:stop].astype(np.float64) @ images.vectors[first:last].T.astype(np.float64)
    similarities = as_similarities(products)
    is_other = (images.starts[first:last] == images.starts[start:stop, np.newaxis]) & (candidates != anchors)
    is_above = is_other & (similarities > spec.max_similarity)
    eligible = is_other & ~is_above
    counts = eligible.sum(axis=1)
    if spec.positive == "hardest":
        chosen = np.where(eligible, similarities, np.float32(np.inf)).argmin(axis=1)
    else:
        index = below(hash_words(Purpose.MINED_POSITIVE, spec.seed, images.image_ids[start:stop]), counts)
        chosen = (eligible.cumsum(axis=1, dtype=np.int32) > index[:, np.newaxis]).argmax(axis=1)
    return (
        np.where(counts > 0, chosen + first, -1),
        similarities[np.arange(stop - start), chosen],
        is_above.sum(axis=1),
    )


def _choose_negatives(neighbours: Neighbours, to_positive: Similarities, spec: MiningSpec) -> Places:
    """Returns int64[n]: which of its neighbours, nearest first, is the negative of each anchor."""
    if spec.negative == "hardest":
        return np.zeros(len(to_positive), dtype=np.int64)
    num_found = np.count_nonzero(neighbours.places >= 0, axis=1)
    # The first that is less similar than the positive: semi-hard if one is, else the most similar of the easier ones.
    num_harder = np.count_nonzero(neighbours.similarities >= to_positive[:, np.newaxis], axis=1)
    chosen: Places = np.maximum(0, np.minimum(num_harder, num_found - 1))
    return chosen


def _count_negatives(similarities: Similarities, margin: float) -> dict[str, int]:
    lead = similarities[:, 0].astype(np.float64) - similarities[:, 1]
    return {
        SEMI_HARD: int(((lead > 0) & (lead < margin / 2)).sum()),
        HARDER: int((lead <= 0).sum()),
        EASIER: int((lead >= margin / 2).sum()),
    }


# --- The file


def check_output(path: epath.Path) -> None:
    """Raises TripletsFileError, before there is anything to lose, if a file of triplets cannot be written there."""
    if path.suffix not in _SUFFIXES:
        raise TripletsFileError(f"{path} must end with {' or '.join(_SUFFIXES)}, which says how it is written.")
    if path.is_dir():
        raise TripletsFileError(f"{path} is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise TripletsFileError(f"The folder {path.parent} does not exist. Make it first.")


def write_triplets(triplets: MinedTriplets, path: epath.PathLike) -> None:
    """Writes the triplets in their order, as CSV or Parquet, by the suffix.

    A file that is there already is replaced once the new one is complete.

    Raises:
      TripletsFileError: if the path does not fit.
    """
    path = epath.Path(path).expanduser()
    check_output(path)
    with replace_file(path) as file:
        (_write_csv if path.suffix == ".csv" else _write_parquet)(triplets, file)


def _write_csv(triplets: MinedTriplets, file: IO[bytes]) -> None:
    file.write((",".join((*TRIPLETS.id_features, *_SIMILARITIES)) + "\n").encode())
    for start in range(0, len(triplets), _LINES_PER_WRITE):
        part = slice(start, start + _LINES_PER_WRITE)
        rows = zip(triplets.image_ids[part].tolist(), triplets.similarities[part].tolist(), strict=True)
        lines = [",".join([*map(format_image_id, ids), *(f"{value:.6f}" for value in values)]) for ids, values in rows]
        file.write(("\n".join(lines) + "\n").encode())


def _write_parquet(triplets: MinedTriplets, file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: pa.array([format_image_id(image_id) for image_id in ids.tolist()], pa.string())
        for name, ids in zip(TRIPLETS.id_features, triplets.image_ids.T, strict=True)
    }
    columns |= dict(zip(_SIMILARITIES, triplets.similarities.T, strict=True))
    pq.write_table(pa.table(columns), file)
