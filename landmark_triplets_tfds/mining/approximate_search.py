"""The nearest images of other landmarks by faiss, for more images than can all be compared with each other.

An inverted file (Sivic and Zisserman, "Video Google", ICCV 2003) divides the images into lists by k-means and compares
an image with those in the nearest lists only. Which neighbours that misses is the price; the similarities of those it
finds are computed as in the exact search. A graph (HNSW) would be the other choice, but one that is built by several
threads comes out differently each time.
"""

from __future__ import annotations

import importlib
from typing import Any

import loky
import numpy as np

from landmark_triplets_tfds.errors import CommandError
from landmark_triplets_tfds.mining.embeddings import LandmarkVectors, Places
from landmark_triplets_tfds.mining.neighbours import NUM_SPARE, ROUNDING, Keys, Neighbours, finish, make_keys

DEFAULT_NUM_PROBES = 32

# Some multiple of the root of the number of images balances finding lists and searching them.
_LISTS_PER_ROOT = 4
_TRAINING_IMAGES_PER_LIST = 48  # k-means of faiss wants 39 at least
_NUM_ITERATIONS = 10

# What a landmark of many images, or many near-duplicates, push out of the nearest is searched for again, this much
# further, until there are enough or so many near-duplicates were passed over.
_FURTHER = 4
_MAX_PASSED_OVER = 1000
_NUM_RESULTS = 1 << 22  # at a time


def load_faiss() -> Any:
    """Imports faiss.

    Raises:
      CommandError: if it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise CommandError(
            f"The approximate search needs faiss, which cannot be imported ({error}). Install it with `pip install"
            " faiss-cpu`, or ask for the exact search (`--search exact`; its time grows with the square of the number"
            " of images)."
        ) from None


class ApproximateSearch:
    """Compares every image with those in the nearest lists of an inverted file.

    Attributes:
      num_probes: lists that an image is compared with.
    """

    def __init__(self, images: LandmarkVectors, max_similarity: float, num_probes: int = DEFAULT_NUM_PROBES):
        """Builds the file, which takes as much memory as the vectors.

        Args:
          images: all of them.
          max_similarity: the ceiling, above which images are passed over.
          num_probes: see the attribute; as many lists as there are, at most.

        Raises:
          CommandError: if faiss is not installed.
        """
        faiss = self._faiss = load_faiss()
        faiss.omp_set_num_threads(loky.cpu_count())
        self._images = images
        self._max_similarity = max_similarity
        count, dim = images.vectors.shape
        self._num_lists = max(1, min(round(_LISTS_PER_ROOT * count**0.5), count // _TRAINING_IMAGES_PER_LIST))
        self.num_probes = num_probes
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, self._num_lists, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.niter = _NUM_ITERATIONS
        self._index.train(images.vectors[:: max(1, count // (self._num_lists * _TRAINING_IMAGES_PER_LIST))])
        self._index.add(images.vectors)

    def search(self, start: int, stop: int, k: int) -> Neighbours:
        """Returns the k nearest that were found, of the images at the places ``start`` to ``stop``."""
        images = self._images
        kept = min(k + NUM_SPARE, len(images))
        keys: Keys = np.zeros((stop - start, k + NUM_SPARE), dtype=np.uint64)
        num_above = np.zeros(stop - start, dtype=np.int64)
        limits = np.minimum(images.stops - images.starts + kept + _MAX_PASSED_OVER, len(images))
        pending = np.arange(start, stop)
        depth, num_probes = min(2 * kept, len(images)), min(self.num_probes, self._num_lists)
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
        return finish(images, self._max_similarity, start, keys, num_above, k)

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
        is_above = is_other & (similarities > self._max_similarity + ROUNDING)
        keys = np.where(is_other & ~is_above, make_keys(similarities, places), np.uint64(0))
        return np.sort(keys, axis=1)[:, ::-1], is_above.sum(axis=1), places[:, -1] >= 0
