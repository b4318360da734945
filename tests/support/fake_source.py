"""Records in memory, in the shape that a data source of `landmark_images` gives them in."""

import numpy as np

from landmark_triplets_tfds.training.records import ImageIndex


def image_index(landmarks, ids=None) -> ImageIndex:
    """Makes an index; by default the image ids are scrambled record numbers, so that no order is implied."""
    if ids is None:
        ids = [(number + 1) * 0x9E3779B97F4A7C15 % 2**64 for number in range(len(landmarks))]
    return ImageIndex(np.array(ids, dtype=np.uint64), np.array(landmarks, dtype=np.int32))


class FakeSource:
    """Gives a 2 x 2 px image whose colour is the record's number."""

    def __init__(self, index: ImageIndex):
        self.index = index

    def __len__(self):
        return len(self.index)

    def __getitem__(self, number):
        return {
            "image": np.full((2, 2, 3), number % 256, dtype=np.uint8),
            "image_id": b"%016x" % int(self.index.image_ids[number]),
            "landmark_id": np.int64(self.index.landmark_ids[number]),
        }


class BatchingSource(FakeSource):
    """One that reads records together, as TFDS's data source does."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]
