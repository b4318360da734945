"""Batches of P landmarks with K images each, for losses that find their triplets within a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import MAX_WORD, check_int, check_word
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.training.fresh_triplets import check_shard
from landmark_triplets_tfds.training.records import DataSource, ImageIndex, find_index
from landmark_triplets_tfds.triplets.draws import Purpose, hash_words

Rows = npt.NDArray[np.int64]


class LandmarkBatches:
    """Which records make up the batches of an epoch: P landmarks, K images of each, side by side.

    In an epoch every landmark with at least ``min_images`` images is in one batch, but for the last few (fewer than P)
    of the epoch's random order, which do not fill a batch. Its K images are drawn without replacement. A landmark with
    fewer than K gives all it has and then these again: with K = 4, two images a, b become a, b, a, b. ``min_images=K``
    leaves such landmarks out instead.

    Iterating gives lists of record numbers, so this is a ``batch_sampler`` for PyTorch's DataLoader. Each iteration is
    the next epoch, unless `set_epoch` says which. Deterministic in the seed, the epoch and the images, in which each
    landmark's draw depends on its own images alone.
    """

    def __init__(
        self,
        data_source: DataSource,
        num_landmarks: int,
        images_per_landmark: int,
        seed: int = 0,
        epoch: int = 0,
        *,
        min_images: int = 2,
        num_shards: int = 1,
        shard: int = 0,
        index: ImageIndex | None = None,
    ):
        """Prepares the draws.

        Args:
          data_source: records of a whole split of `landmark_images`, as from ``tfds.data_source``.
          num_landmarks: P, of a batch.
          images_per_landmark: K.
          seed: of all draws, 0 <= seed < 2**64.
          epoch: of the first iteration.
          min_images: landmarks with fewer are left out. 1: single images too, each K times.
          num_shards: processes that train together; they get equally many of an epoch's batches.
          shard: the number of this process, from 0.
          index: of the records; None: read from the folder of the data source.

        Raises:
          ImageIndexError: if the index is missing or of another number of records.
          NoExampleError: if there are fewer than P landmarks.
          ValueError: if a number is out of its range.
        """
        sizes = {"num_landmarks": num_landmarks, "images_per_landmark": images_per_landmark, "min_images": min_images}
        for name, value in sizes.items():
            check_int(name, value, 1, MAX_WORD)
        self._num_landmarks = num_landmarks
        self._images_per_landmark = images_per_landmark
        self._seed = check_word("seed", seed)
        self._epoch = check_word("epoch", epoch)
        self._index = find_index(data_source, index)
        landmarks, counts = np.unique(self._index.landmark_ids, return_counts=True)
        self._landmarks = landmarks[counts >= min_images]
        num_batches = len(self._landmarks) // num_landmarks
        if not num_batches:
            raise NoExampleError(
                f"No batch can be drawn: {len(self._landmarks):,} landmarks have at least min_images={min_images}"
                f" images, and a batch needs num_landmarks={num_landmarks}."
            )
        self._num_shards, self._shard = check_shard(num_shards, shard, num_batches, "batches")
        self._num_batches = num_batches // num_shards

    @property
    def index(self) -> ImageIndex:
        return self._index

    @property
    def batch_size(self) -> int:
        """Images in a batch, P * K."""
        return self._num_landmarks * self._images_per_landmark

    @property
    def epoch(self) -> int:
        """The epoch of the next iteration."""
        return self._epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes this the epoch of the next iteration."""
        self._epoch = check_word("epoch", epoch)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self._epoch
        self._epoch += 1
        for batch in self.record_numbers(epoch):
            yield batch.tolist()

    def record_numbers(self, epoch: int) -> Rows:
        """Returns int64[len, P * K]: the records of every batch of an epoch, those of a landmark side by side."""
        order = np.argsort(hash_words(Purpose.BATCH_LANDMARK, self._seed, epoch, self._landmarks), kind="stable")
        num_used = self._num_batches * self._num_shards * self._num_landmarks
        batches = self._landmarks[order[:num_used]].reshape(-1, self._num_landmarks)
        landmarks = batches[self._shard :: self._num_shards].ravel()
        # A landmark's images in the order of their hashes: the first K are a uniform draw without replacement.
        ids, labels = self._index.image_ids, self._index.landmark_ids
        images = np.lexsort((hash_words(Purpose.BATCH_IMAGE, self._seed, epoch, ids), labels))
        starts = np.searchsorted(labels[images], landmarks, side="left")
        sizes = np.searchsorted(labels[images], landmarks, side="right") - starts
        places = starts[:, np.newaxis] + np.arange(self._images_per_landmark) % sizes[:, np.newaxis]
        return images[places].reshape(-1, self.batch_size)
