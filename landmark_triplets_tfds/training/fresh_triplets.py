"""Triplets drawn while training, from a prepared `landmark_images`: other ones in each epoch, and nothing stored twice.

A stored dataset of triplets holds an image about three times and shows the same triplets in every epoch. Here the
images are stored once, in a file format with random access, and only numbers of records are drawn: by the sampler that
stored triplets come from, with the epoch as one more input. So any process can make any triplet of any epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import operator
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import check_word
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.training.records import DataSource, ImageIndex, find_index, read_images
from landmark_triplets_tfds.triplets.draws import Purpose, hash_words
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler

# A number of a triplet in the epoch of the source, or (epoch, number).
Item = int | tuple[int, int]
RecordNumbers = npt.NDArray[np.int32]

# Triplets drawn at a time: bounds the memory of intermediate arrays to some megabytes.
_CHUNK_SIZE = 1 << 17

# While one epoch ends, loaders that read ahead are in the next one.
_NUM_EPOCHS_KEPT = 2


class FreshTriplets:
    """The triplets of one epoch, as a sequence of dicts with the features of `landmark_triplets`.

    Triplet i has as its anchor the i-th image, in record order, of those whose landmark has another image. Its positive
    is uniform among the other images of the landmark, its negative among the images of all other landmarks. All are
    deterministic in the seed, the epoch and the images; so is each by itself, whoever asks for it.

    An item may also be asked for as ``(epoch, i)``, which is how `EpochSampler` tells the worker processes of a loader
    which epoch it is. It can be pickled: a copy draws again instead of carrying its draws along.
    """

    def __init__(self, data_source: DataSource, seed: int = 0, epoch: int = 0, *, index: ImageIndex | None = None):
        """Draws the epoch; no record is read.

        Args:
          data_source: records of a whole split of `landmark_images`, as from ``tfds.data_source``.
          seed: of all draws, 0 <= seed < 2**64.
          epoch: which triplets, 0 <= epoch < 2**64.
          index: of the records; None: read from the folder of the data source.

        Raises:
          ImageIndexError: if the index is missing or of another number of records. One that names other images is an
            error when these are read.
          NoExampleError: if no triplet can be drawn from the images.
          ValueError: if seed or epoch is out of its range.
        """
        self._data_source = data_source
        self._seed = check_word("seed", seed)
        self._epoch = check_word("epoch", epoch)
        self._index = find_index(data_source, index)
        self._epochs: dict[int, RecordNumbers] = {}
        self._lock = threading.Lock()
        self._num_triplets = len(self.record_numbers())

    @property
    def data_source(self) -> DataSource:
        return self._data_source

    @property
    def index(self) -> ImageIndex:
        return self._index

    @property
    def seed(self) -> int:
        return self._seed

    @property
    def epoch(self) -> int:
        return self._epoch

    def at_epoch(self, epoch: int) -> FreshTriplets:
        """Returns the triplets of another epoch, from the same records with the same seed."""
        return FreshTriplets(self._data_source, self._seed, epoch, index=self._index)

    def __len__(self) -> int:
        return self._num_triplets

    def __getitem__(self, item: Item) -> dict[str, Any]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Returns several triplets; PyTorch's DataLoader asks for a whole batch with it."""
        numbers = [number for item in items for number in self._numbers_of(item)]
        records = read_images(self._data_source, self._index, numbers)
        return [as_triplet(records[at : at + 3]) for at in range(0, len(records), 3)]

    def _numbers_of(self, item: Item) -> list[int]:
        epoch, number = item if isinstance(item, tuple) else (self._epoch, item)
        number = operator.index(number)
        if not -self._num_triplets <= number < self._num_triplets:
            raise IndexError(f"triplet {number} of {self._num_triplets}")
        numbers: list[int] = self.record_numbers(epoch)[number].tolist()
        return numbers

    def record_numbers(self, epoch: int | None = None) -> RecordNumbers:
        """Returns int32[len, 3]: the records of anchor, positive and negative of every triplet of an epoch.

        None is the epoch of this source. Drawing 1.58 million takes about half a second, and the last epochs are kept.
        """
        epoch = self._epoch if epoch is None else epoch
        with self._lock:
            if epoch not in self._epochs:
                kept = list(self._epochs.items())[1 - _NUM_EPOCHS_KEPT :]
                self._epochs = dict(kept) | {epoch: self._draw(check_word("epoch", epoch))}
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> RecordNumbers:
        table = LandmarkTable(self._index.image_ids, self._index.landmark_ids.astype(np.int64))
        spec = SamplingSpec(images_per_landmark=None, seed=self._seed, epoch=epoch)
        sampler = TripletSampler(table, spec)
        by_anchor = np.full((len(self._index), 3), -1, dtype=np.int32)
        for start in range(0, sampler.num_triplets, _CHUNK_SIZE):
            rows = sampler.plan(start, min(start + _CHUNK_SIZE, sampler.num_triplets))
            by_anchor[rows[:, 0]] = rows
        is_anchor = by_anchor[:, 0] >= 0
        return by_anchor if is_anchor.all() else by_anchor[is_anchor]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_epochs", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _epochs={}, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"FreshTriplets({self._data_source!r}, seed={self._seed}, epoch={self._epoch}): {len(self):,} triplets"


class EpochSampler:
    """Says which triplets a PyTorch DataLoader reads: all of the next epoch each time it is iterated over.

    Worker processes hold a copy of the source that was made when they started. So an epoch set on the source in the
    main process would not reach workers that live on (``persistent_workers=True``), and they would give the triplets of
    the first epoch forever. This sampler, which runs in the main process, hands out ``(epoch, number)``.
    """

    def __init__(self, triplets: FreshTriplets, *, shuffle: bool = True, num_shards: int = 1, shard: int = 0):
        """Starts at the epoch of the source.

        Args:
          triplets: the source, whose seed decides the order too.
          shuffle: False: in record order.
          num_shards: processes that train together, each with a loader of its own; they get equally many triplets, and
            fewer than ``num_shards`` are left out of an epoch for it.
          shard: the number of this process, from 0.

        Raises:
          ValueError: if there is no such shard, or no triplet for it.
        """
        self._triplets = triplets
        self._shuffle = shuffle
        self._shards = check_shard(num_shards, shard, len(triplets), "triplets")
        self._epoch = triplets.epoch

    def set_epoch(self, epoch: int) -> None:
        """Makes this the epoch of the next iteration; without it, each iteration is the epoch after the last one."""
        self._epoch = check_word("epoch", epoch)

    def __len__(self) -> int:
        return len(self._triplets) // self._shards[0]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self._epoch
        self._epoch += 1
        num_shards, shard = self._shards
        order = order_of_epoch(len(self._triplets), self._triplets.seed, epoch) if self._shuffle else None
        for at in range(shard, len(self) * num_shards, num_shards):
            yield epoch, at if order is None else int(order[at])


def as_triplet(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the triplet that three records of `landmark_images` make: anchor, positive and negative."""
    features = {
        "image": TRIPLETS.image_features,
        "image_id": TRIPLETS.id_features,
        "landmark_id": TRIPLETS.landmark_features,
    }
    return {
        name: record[feature]
        for feature, names in features.items()
        for name, record in zip(names, records, strict=True)
    }


def order_of_epoch(count: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns int64[count]: 0 to count - 1 in a random order that is deterministic in seed and epoch."""
    return np.argsort(hash_words(Purpose.ORDER, seed, epoch, np.arange(count)), kind="stable")


def check_shard(num_shards: int, shard: int, count: int, what: str) -> tuple[int, int]:
    """Returns both numbers if ``count`` things can be divided so that this shard gets some.

    Raises:
      ValueError: if not.
    """
    if not 0 <= shard < num_shards <= count:
        raise ValueError(
            f"expected 0 <= shard < num_shards <= {count} (the {what} of an epoch), got shard={shard} and"
            f" num_shards={num_shards}."
        )
    return num_shards, shard
