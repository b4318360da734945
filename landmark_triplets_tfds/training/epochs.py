"""What a network sees in an epoch, drawn while training from a prepared `landmark_images`: triplets or P x K batches.

A stored dataset of triplets holds an image about three times and shows the same triplets in every epoch. Here the
images are stored once, in a file format with random access, and only numbers of records are drawn, by stateless hashes
with the epoch as one more input. So any process can make any triplet and any batch of any epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import operator
import threading
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common.checks import MAX_WORD, check_int, check_word
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import NoExampleError
from landmark_triplets_tfds.training.records import DataSource, ImageIndex, find_index, read_images
from landmark_triplets_tfds.triplets.draws import Purpose, hash_words
from landmark_triplets_tfds.triplets.examples import TRIPLETS
from landmark_triplets_tfds.triplets.sampling import SamplingSpec, TripletSampler

# A number of a triplet in the epoch of the source, or (epoch, number).
Item = int | tuple[int, int]
RecordNumbers = npt.NDArray[np.int32]

_Item = TypeVar("_Item")

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
    Its arguments are attributes, too.
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
        self.data_source = data_source
        self.seed = check_word("seed", seed)
        self.epoch = check_word("epoch", epoch)
        self.index = find_index(data_source, index)
        self._epochs: dict[int, RecordNumbers] = {}
        self._lock = threading.Lock()
        self._num_triplets = len(self.record_numbers())

    def __len__(self) -> int:
        return self._num_triplets

    def __getitem__(self, item: Item) -> dict[str, Any]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Returns several triplets; PyTorch's DataLoader asks for a whole batch with it."""
        numbers = [number for item in items for number in self._numbers_of(item)]
        records = read_images(self.data_source, self.index, numbers)
        return [as_triplet(records[at : at + 3]) for at in range(0, len(records), 3)]

    def _numbers_of(self, item: Item) -> list[int]:
        epoch, number = item if isinstance(item, tuple) else (self.epoch, item)
        number = operator.index(number)
        if not -self._num_triplets <= number < self._num_triplets:
            raise IndexError(f"triplet {number} of {self._num_triplets}")
        numbers: list[int] = self.record_numbers(epoch)[number].tolist()
        return numbers

    def record_numbers(self, epoch: int | None = None) -> RecordNumbers:
        """Returns int32[len, 3]: the records of anchor, positive and negative of every triplet of an epoch.

        None is the epoch of this source. Drawing 1.58 million takes about half a second, and the last epochs are kept.
        """
        epoch = self.epoch if epoch is None else epoch
        with self._lock:
            if epoch not in self._epochs:
                kept = list(self._epochs.items())[1 - _NUM_EPOCHS_KEPT :]
                self._epochs = dict(kept) | {epoch: self._draw(check_word("epoch", epoch))}
            return self._epochs[epoch]

    def _draw(self, epoch: int) -> RecordNumbers:
        table = LandmarkTable(self.index.image_ids, self.index.landmark_ids.astype(np.int64))
        spec = SamplingSpec(images_per_landmark=None, seed=self.seed, epoch=epoch)
        sampler = TripletSampler(table, spec)
        by_anchor = np.full((len(self.index), 3), -1, dtype=np.int32)
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
        return f"FreshTriplets({self.data_source!r}, seed={self.seed}, epoch={self.epoch}): {len(self):,} triplets"


class _Epochs(Generic[_Item]):
    """One epoch after the other: each iteration is the next one. A base of samplers.

    Draws are stateless, so two numbers say where a training is. `state_dict` and `load_state_dict` are what stateful
    loaders ask for, as torchdata's ``StatefulDataLoader``. Other loaders read ahead, and only the program that trains
    knows how far it is: ``load_state_dict({"epoch": epoch, "start": number})`` goes on with the item of that number,
    from 0, of the epoch's ``len(...)``.
    """

    def __init__(self, epoch: int):
        self.set_epoch(epoch)

    def __len__(self) -> int:
        raise NotImplementedError

    def _items(self, epoch: int, start: int) -> Iterator[_Item]:
        """Yields the items of an epoch from the one with the number ``start`` on."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """Of the next iteration."""
        return self._next[0]

    def set_epoch(self, epoch: int) -> None:
        """Makes this the epoch of the next iteration; without it, each iteration is the epoch after the last one."""
        self._next = self._position = check_word("epoch", epoch), 0

    def state_dict(self) -> dict[str, int]:
        """Returns which item follows the one that was given last, as ``epoch`` and ``start``."""
        epoch, start = self._position
        return {"epoch": epoch, "start": start}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Makes the next iteration go on with this item; at the end of an epoch, that is the first one of the next.

        Args:
          state: as from `state_dict`.

        Raises:
          ValueError: if there is no such item, as when it was noted with another number of shards.
        """
        self.set_epoch(state["epoch"])
        self._next = self._position = self._at(self.epoch, check_int("start", state["start"], 0, len(self)))

    def __iter__(self) -> Iterator[_Item]:
        epoch, start = self._next
        self._next = epoch + 1, 0
        for number, item in enumerate(self._items(epoch, start), start + 1):
            self._position = self._at(epoch, number)
            yield item

    def _at(self, epoch: int, number: int) -> tuple[int, int]:
        return (epoch, number) if number < len(self) else (epoch + 1, 0)


class EpochSampler(_Epochs[tuple[int, int]]):
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
        self._num_shards = check_int("num_shards", num_shards, 1, len(triplets), "(the triplets of an epoch)")
        self._shard = check_int("shard", shard, 0, num_shards - 1)
        super().__init__(triplets.epoch)

    def __len__(self) -> int:
        return len(self._triplets) // self._num_shards

    def _items(self, epoch: int, start: int) -> Iterator[tuple[int, int]]:
        order = order_of_epoch(len(self._triplets), self._triplets.seed, epoch) if self._shuffle else None
        for at in range(self._shard + start * self._num_shards, len(self) * self._num_shards, self._num_shards):
            yield epoch, at if order is None else int(order[at])


class LandmarkBatches(_Epochs[list[int]]):
    """Which records make up the batches of an epoch: P landmarks, K images of each, side by side.

    In an epoch every landmark with at least ``min_images`` images is in one batch, but for the last few (fewer than P)
    of the epoch's random order, which do not fill a batch. Its K images are drawn without replacement. A landmark with
    fewer than K gives all it has and then these again: with K = 4, two images a, b become a, b, a, b. ``min_images=K``
    leaves such landmarks out instead.

    Iterating gives lists of record numbers, so this is a ``batch_sampler`` for PyTorch's DataLoader. Each iteration is
    the next epoch, unless `set_epoch` says which. Deterministic in the seed, the epoch and the images, in which each
    landmark's draw depends on its own images alone.

    Attributes:
      batch_size: images in a batch, P * K.
      index: of the records.
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
        self.batch_size = num_landmarks * images_per_landmark
        self._seed = check_word("seed", seed)
        super().__init__(epoch)
        self.index = find_index(data_source, index)
        landmarks, counts = np.unique(self.index.landmark_ids, return_counts=True)
        self._landmarks = landmarks[counts >= min_images]
        num_batches = len(self._landmarks) // num_landmarks
        if not num_batches:
            raise NoExampleError(
                f"No batch can be drawn: {len(self._landmarks):,} landmarks have at least min_images={min_images}"
                f" images, and a batch needs num_landmarks={num_landmarks}."
            )
        self._num_shards = check_int("num_shards", num_shards, 1, num_batches, "(the batches of an epoch)")
        self._shard = check_int("shard", shard, 0, num_shards - 1)
        self._num_batches = num_batches // num_shards

    def __len__(self) -> int:
        return self._num_batches

    def _items(self, epoch: int, start: int) -> Iterator[list[int]]:
        for batch in self.record_numbers(epoch)[start:]:
            yield batch.tolist()

    def record_numbers(self, epoch: int) -> npt.NDArray[np.int64]:
        """Returns int64[len, P * K]: the records of every batch of an epoch, those of a landmark side by side."""
        order = np.argsort(hash_words(Purpose.BATCH_LANDMARK, self._seed, epoch, self._landmarks), kind="stable")
        num_used = self._num_batches * self._num_shards * self._num_landmarks
        batches = self._landmarks[order[:num_used]].reshape(-1, self._num_landmarks)
        landmarks = batches[self._shard :: self._num_shards].ravel()
        # A landmark's images in the order of their hashes: the first K are a uniform draw without replacement.
        ids, labels = self.index.image_ids, self.index.landmark_ids
        images = np.lexsort((hash_words(Purpose.BATCH_IMAGE, self._seed, epoch, ids), labels))
        starts = np.searchsorted(labels[images], landmarks, side="left")
        sizes = np.searchsorted(labels[images], landmarks, side="right") - starts
        places = starts[:, np.newaxis] + np.arange(self._images_per_landmark) % sizes[:, np.newaxis]
        return images[places].reshape(-1, self.batch_size)


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
