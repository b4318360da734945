"""The nearest images: of queries in a database, and, among the images of one table, those of other landmarks.

The similarity of two images is the cosine of the angle between their embeddings: the dot product of unit vectors. All
products of 160,000 images with each other are 26 billion numbers, far more than fit in memory, so the exact search
makes them in blocks, of which each image keeps its best. Selecting is kept cheaper than multiplying: a comparison with
the worst kept so far leaves few numbers of a block to look at.

Where the images of a table are too many to compare all with all, faiss finds neighbours approximately. That search has
an inverted file (Sivic and Zisserman, "Video Google", ICCV 2003), which divides the images into lists by k-means and
compares an image with those in the nearest lists only. Which neighbours that misses is the price. A graph (HNSW) would
be the other choice, but one that is built by several threads comes out differently each time.

A product of float32 matrices may differ in its last bit with the shapes of the blocks. So both searches keep a few more
neighbours than asked for, whose similarities are then computed one by one in float64 and rounded: what comes out does
not depend on blocks, and is the same for the neighbours that both find.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import importlib
import mmap
from typing import Any

import loky
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import MissingPackageError
from landmark_triplets_tfds.mining.embeddings import Embeddings, LandmarkVectors, Places, as_vectors

COSINE, EUCLIDEAN = "cosine", "euclidean"

Similarities = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]  # a similarity and a place in one number, see `_make_keys`

# Images whose neighbours are searched together: a block of products of so many rows and columns takes 8 MB, which stays
# in the caches of processors.
ROWS_PER_BLOCK, _COLUMNS_PER_BLOCK = 512, 4096

# Neighbours kept beyond those asked for, and how far float32 products may be off (1e-6 is what 2048 dimensions reach).
_NUM_SPARE, _ROUNDING = 8, 2e-6

# Where more than this share of a block is better than the worst kept, a closer bound is worth its cost.
_MANY = 1 / 16
_GROUPS_PER_NEIGHBOUR = 4

_BELOW_ALL = np.float32(-np.inf)  # where what is hidden is
_NUM_GATHERED = 1 << 22  # numbers at a time

# --- Of the approximate search

_NUM_PROBES = 32  # lists that an image is compared with

# Some multiple of the root of the number of images balances finding lists and searching them.
_LISTS_PER_ROOT = 4
_TRAINING_IMAGES_PER_LIST = 48  # k-means of faiss wants 39 at least
_NUM_ITERATIONS = 10

# What a landmark of many images, or many near-duplicates, push out of the nearest is searched for again, this much
# further, until there are enough or so many near-duplicates were passed over.
_FURTHER = 4
_MAX_PASSED_OVER = 1000
_NUM_RESULTS = 1 << 22  # at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest images of other landmarks whose similarity is not above the ceiling, nearest first."""

    places: Places  # [n, k] in the `LandmarkVectors`; -1 where there are fewer
    similarities: Similarities  # [n, k]; -inf where there are fewer. Equally similar ones are in order of their places
    num_above: Places  # [n]: images of other landmarks that were passed over because they are above the ceiling


def search(
    queries: Embeddings,
    database: Embeddings,
    k: int,
    metric: str = EUCLIDEAN,
    on_done: Callable[[int], object] = lambda count: None,
    name_query: Callable[[int], str] = "query_embeddings, row {:,},".format,
    name_image: Callable[[int], str] = "index_embeddings, row {:,},".format,
) -> tuple[Places, Similarities]:
    """Finds the k nearest database images of every query, exactly, by blocked matrix products.

    The database may be a mapped file larger than memory: it is read once, from its beginning to its end, and then where
    the best are.

    Args:
      queries: float[num_queries, dim].
      database: float[num_images, dim].
      k: at least 1, at most num_images.
      metric: 'cosine' or 'euclidean'.
      on_done: called with the number of database images just compared.
      name_query: says which one a row of the queries is, for messages.
      name_image: the same of the database.

    Returns:
      int64[num_queries, k] rows of the database, nearest first, and float32[num_queries, k], their cosines, or their
      distances with a minus. Of equally near ones the first row comes first.

    Raises:
      EmbeddingsError: if a value is not finite, or with 'cosine' a vector is all zeros.
    """
    vectors = as_vectors(queries, 0, name_query, scaled=metric == COSINE)
    keys: Keys = np.zeros((len(queries), min(k + _NUM_SPARE, len(database))), dtype=np.uint64)
    for first in range(0, len(database), _COLUMNS_PER_BLOCK):
        block = database[first : first + _COLUMNS_PER_BLOCK]
        block = as_vectors(block, first, name_image, scaled=metric == COSINE)
        # |q - d|^2 = |q|^2 - 2 (q.d - |d|^2 / 2), and |q| is the same for all that a query is compared with.
        half_squares = (block**2).sum(axis=1) / 2 if metric == EUCLIDEAN else np.float32(0)
        for start in range(0, len(vectors), ROWS_PER_BLOCK):
            rows = slice(start, start + ROWS_PER_BLOCK)
            products = vectors[rows] @ block.T - half_squares
            keys[rows] = _keep_best(keys[rows], products, np.empty(products.shape, dtype=bool), first)
        _let_go(database)
        on_done(len(block))
    places = _places_of(keys)
    return _take_best(places, _nearness(queries, database, places, metric), k)


def _nearness(queries: Embeddings, database: Embeddings, places: Places, metric: str = "") -> Similarities:
    """Returns float32[n, k]: how near queries are to these places of a database, computed in float64.

    Without a metric, that is the cosine of unit vectors.
    """
    nearness = np.empty(places.shape, dtype=np.float32)
    step = max(1, _NUM_GATHERED // (places.shape[1] * database.shape[1]))
    for start in range(0, len(places), step):
        rows = slice(start, start + step)
        own = queries[rows].astype(np.float64)
        others = _gather(database, places[rows]).astype(np.float64)
        if metric == EUCLIDEAN:
            nearness[rows] = -np.linalg.norm(own[:, np.newaxis] - others, axis=2)
        else:
            products = np.einsum("nd,nkd->nk", own, others)
            if metric == COSINE:
                products /= np.linalg.norm(own, axis=1, keepdims=True) * np.linalg.norm(others, axis=2)
            nearness[rows] = as_similarities(products)
    return nearness


def _take_best(places: Places, nearness: Similarities, k: int) -> tuple[Places, Similarities]:
    """Returns the k nearest of these places, and how near they are; of equally near ones the first comes first."""
    order = np.lexsort((places, -nearness))[:, :k]
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(nearness, order, axis=1)


def _gather(array: Embeddings, places: Places) -> Embeddings:
    """Returns rows of an array, [*places.shape, dim].

    Those of a mapped file are read: where one is touched, Linux (6.18) maps megabytes around it, and some thousand
    would have all of a large file counted as this process's memory.
    """
    if not isinstance(array, np.memmap) or not isinstance(array.base, mmap.mmap) or not array.flags.c_contiguous:
        return array[places]
    rows: Embeddings = np.empty((places.size, array.shape[1]), dtype=array.dtype)
    with open(array.filename, "rb", buffering=0) as file:
        for row, place in zip(rows, places.ravel().tolist(), strict=True):
            file.seek(array.offset + place * row.nbytes)
            if file.readinto(row) != row.nbytes:
                raise OSError(f"{array.filename} has become shorter.")
    return rows.reshape(*places.shape, -1)


def _let_go(array: Embeddings) -> None:
    """Lets the system have back the memory of a mapped file, which would be counted as this process's."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


class ExactSearch:
    """Compares every image with every other one."""

    def __init__(self, images: LandmarkVectors, max_similarity: float):
        """Takes the images and the ceiling, above which images are passed over."""
        self._images = images
        self._max_similarity = max_similarity

    def search(self, start: int, stop: int, k: int) -> Neighbours:
        """Returns the k nearest of the images at the places ``start`` to ``stop``."""
        images, vectors = self._images, self._images.vectors
        keys: Keys = np.zeros((stop - start, k + _NUM_SPARE), dtype=np.uint64)
        num_above = np.zeros(stop - start, dtype=np.int64)
        own_start, own_stop = images.starts[start], images.stops[stop - 1]
        # Memory that is used again costs no time to get.
        products_buffer = np.empty((stop - start) * _COLUMNS_PER_BLOCK, dtype=np.float32)
        mask_buffer = np.empty((stop - start) * _COLUMNS_PER_BLOCK, dtype=bool)
        for first in range(0, len(images), _COLUMNS_PER_BLOCK):
            last = min(first + _COLUMNS_PER_BLOCK, len(images))
            shape = stop - start, last - first
            products = products_buffer[: shape[0] * shape[1]].reshape(shape)
            mask = mask_buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(vectors[start:stop], vectors[first:last].T, out=products)
            hide_from, hide_to = max(first, own_start), min(last, own_stop)
            if hide_from < hide_to:  # else no landmark is in rows and columns
                own = images.starts[start:stop, np.newaxis] == images.starts[hide_from:hide_to]
                products[:, hide_from - first : hide_to - first][own] = -np.inf
            above = np.greater(products, self._max_similarity + _ROUNDING, out=mask)
            if above.any():
                num_above += np.count_nonzero(above, axis=1)
                products[above] = -np.inf
            keys = _keep_best(keys, products, mask, first)
        return _finish(images, self._max_similarity, start, keys, num_above, k)


class ApproximateSearch:
    """Compares every image with those in the nearest lists of an inverted file."""

    def __init__(self, images: LandmarkVectors, max_similarity: float, num_probes: int = _NUM_PROBES):
        """Builds the file, as large as the vectors in memory; ``num_probes`` of its lists are looked into first."""
        faiss = self._faiss = load_faiss()
        faiss.omp_set_num_threads(loky.cpu_count())
        self._images = images
        self._max_similarity = max_similarity
        count, dim = images.vectors.shape
        self._num_lists = max(1, min(round(_LISTS_PER_ROOT * count**0.5), count // _TRAINING_IMAGES_PER_LIST))
        self._num_probes = num_probes
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, self._num_lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter = _NUM_ITERATIONS
        self._index.train(images.vectors[:: max(1, count // (self._num_lists * _TRAINING_IMAGES_PER_LIST))])
        self._index.add(images.vectors)

    def search(self, start: int, stop: int, k: int) -> Neighbours:
        """Returns the k nearest that were found, of the images at the places ``start`` to ``stop``."""
        images = self._images
        kept = min(k + _NUM_SPARE, len(images))
        keys: Keys = np.zeros((stop - start, k + _NUM_SPARE), dtype=np.uint64)
        num_above = np.zeros(stop - start, dtype=np.int64)
        limits = np.minimum(images.stops - images.starts + kept + _MAX_PASSED_OVER, len(images))
        pending = np.arange(start, stop)
        depth, num_probes = min(2 * kept, len(images)), min(self._num_probes, self._num_lists)
        while len(pending):
            again = []
            step = max(1, _NUM_RESULTS // depth)
            for rows in np.split(pending, range(step, len(pending), step)):
                found, above, is_full = self._search_once(rows, depth, num_probes)
                keys[rows - start, :kept] = found[:, :kept]
                num_above[rows - start] = above
                is_done = (depth >= limits[rows]) & (is_full | (num_probes == self._num_lists))
                again.append(rows[~is_done & (np.count_nonzero(found[:, :kept], axis=1) < k)])
            pending = np.concatenate(again)
            depth = min(_FURTHER * depth, int(limits[pending].max(initial=0)))
            num_probes = min(_FURTHER * num_probes, self._num_lists)
        return _finish(images, self._max_similarity, start, keys, num_above, k)

    def _search_once(self, rows: Places, depth: int, num_probes: int) -> tuple[Keys, Places, np.ndarray[Any, Any]]:
        """Searches for the images at some places.

        Returns:
          uint64[n, depth] keys in descending order, 0 where there are fewer; int64[n], how many were passed over; and
          bool[n], whether the lists held as many as ``depth`` images.
        """
        images = self._images
        similarities, places = self._index.search(
            images.vectors[rows], depth, params=self._faiss.SearchParametersIVF(nprobe=num_probes)
        )
        is_own = (places >= images.starts[rows, np.newaxis]) & (places < images.stops[rows, np.newaxis])
        is_other = (places >= 0) & ~is_own
        is_above = is_other & (similarities > self._max_similarity + _ROUNDING)
        keys = np.where(is_other & ~is_above, _make_keys(similarities, places), np.uint64(0))
        return np.sort(keys, axis=1)[:, ::-1], is_above.sum(axis=1), places[:, -1] >= 0


def load_faiss() -> Any:
    """Imports faiss; raises MissingPackageError if it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise MissingPackageError(
            f"The approximate search needs faiss, which cannot be imported ({error}). Install it with `pip install"
            " faiss-cpu`, or ask for the exact search, whose time grows with the square of the number of images."
        ) from None


def _keep_best(keys: Keys, products: Similarities, mask: npt.NDArray[np.bool_], first: int) -> Keys:
    """Returns the best of the keys so far, uint64[n, kept], and the products, float32[n, columns from ``first`` on].

    The mask is written over.
    """
    num_rows, num_columns = products.shape
    worst = keys.min(axis=1)
    # Strictly: of equally similar images the first ones count, and these are the last ones so far.
    bound = np.where(worst > 0, _similarities_of(worst), _BELOW_ALL)
    hits = np.greater(products, bound[:, np.newaxis], out=mask)
    num_groups = _GROUPS_PER_NEIGHBOUR * keys.shape[1]
    if np.count_nonzero(hits) > _MANY * products.size and num_columns >= 2 * num_groups:
        # The best of the groups' maxima, as many as are kept, are as many products: none worse than they is kept.
        groups = products[:, : num_columns // num_groups * num_groups].reshape(num_rows, -1, num_groups).max(axis=1)
        at = num_groups - keys.shape[1]
        just_below = np.nextafter(np.partition(groups, at, axis=1)[:, at], np.float32(-np.inf))
        hits = np.greater(products, np.maximum(bound, just_below)[:, np.newaxis], out=mask)
    found = np.flatnonzero(hits)
    rows, columns = np.divmod(found, num_columns)
    return _merge(keys, rows, _make_keys(products.ravel()[found], columns + first))


def _merge(keys: Keys, rows: Places, found: Keys) -> Keys:
    """Returns the best of the keys uint64[n, kept] and of the found ones, which belong to these rows (ascending)."""
    counts = np.bincount(rows, minlength=len(keys))
    most = int(counts.max())
    if not most:
        return keys
    ranks = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    both = np.zeros((len(keys), keys.shape[1] + most), dtype=np.uint64)
    both[:, : keys.shape[1]] = keys
    both[rows, keys.shape[1] + ranks] = found
    both.partition(most, axis=1)
    return both[:, most:]


def _make_keys(similarities: Similarities, places: Places) -> Keys:
    """Returns numbers that order by similarity and then, the other way round, by place; all are above 0.

    The bits of a float32, read as a whole number, are in the order of the floats once negative ones are turned over.
    """
    bits = (similarities + np.float32(0)).view(np.uint32)  # adding 0 makes -0 a 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)
    return (ordered << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - places.astype(np.uint64))


def _similarities_of(keys: Keys) -> Similarities:
    """Returns the similarities that are in keys; what it returns for 0 means nothing."""
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    return np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered).view(np.float32)


def _places_of(keys: Keys) -> Places:
    """Returns the places that are in keys, and -1 for 0."""
    places = np.uint64(0xFFFFFFFF) - (keys & np.uint64(0xFFFFFFFF))
    return np.where(keys > 0, places.astype(np.int64), -1)


def _finish(
    images: LandmarkVectors, max_similarity: float, start: int, keys: Keys, num_above: Places, k: int
) -> Neighbours:
    """Computes the similarities of what was kept for the images from ``start`` on, and returns the k best of it.

    ``keys`` are uint64[n, kept], 0 where there are fewer; ``num_above``, int64[n], is how many were passed over so far.
    """
    places = _places_of(keys)
    similarities = _nearness(images.vectors[start : start + len(places)], images.vectors, places)
    is_above = (places >= 0) & (similarities > max_similarity)
    is_none = (places < 0) | is_above
    best = _take_best(np.where(is_none, -1, places), np.where(is_none, _BELOW_ALL, similarities), k)
    return Neighbours(*best, num_above + is_above.sum(axis=1))


def as_similarities(products: npt.NDArray[np.float64]) -> Similarities:
    """Returns products of unit vectors as cosines: the length of a vector in float32 may be a bit more than 1."""
    return np.clip(products, -1, 1).astype(np.float32)
