"""Image triplets and images of the Google Landmark Retrieval 2020 competition as TensorFlow Datasets builders.

Importing the package registers the builders with TFDS. Here are all public names; what is not here is private. All but
the builders are imported when they are first used, so that the import is fast and does not take TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING

from landmark_triplets_tfds.errors import LandmarkTripletsError
from landmark_triplets_tfds.landmark_images import LandmarkImages, LandmarkImagesConfig
from landmark_triplets_tfds.landmark_triplets import LandmarkTriplets, LandmarkTripletsConfig

if TYPE_CHECKING:
    from landmark_triplets_tfds.mining.hard_triplets import MinedTriplets, MiningSpec, mine_triplets, write_triplets
    from landmark_triplets_tfds.training.decoder import TensorFlowPixels
    from landmark_triplets_tfds.training.fresh_triplets import EpochSampler, FreshTriplets
    from landmark_triplets_tfds.training.landmark_batches import LandmarkBatches
    from landmark_triplets_tfds.training.metrics import (
        average_precisions,
        find_nearest,
        mean_average_precision_at_k,
        recall_at_k,
    )
    from landmark_triplets_tfds.training.records import ImageIndex, read_image_index
    from landmark_triplets_tfds.training.show import show_images, show_triplets
    from landmark_triplets_tfds.training.tf_data import (
        batches_as_tf_dataset,
        images_as_tf_dataset,
        triplets_as_tf_dataset,
    )
    from landmark_triplets_tfds.triplets.draws import choose_queries, is_held_out

__all__ = [
    "EpochSampler",
    "FreshTriplets",
    "ImageIndex",
    "LandmarkBatches",
    "LandmarkImages",
    "LandmarkImagesConfig",
    "LandmarkTriplets",
    "LandmarkTripletsConfig",
    "LandmarkTripletsError",
    "MinedTriplets",
    "MiningSpec",
    "TensorFlowPixels",
    "average_precisions",
    "batches_as_tf_dataset",
    "choose_queries",
    "find_nearest",
    "images_as_tf_dataset",
    "is_held_out",
    "mean_average_precision_at_k",
    "mine_triplets",
    "read_image_index",
    "recall_at_k",
    "show_images",
    "show_triplets",
    "triplets_as_tf_dataset",
    "write_triplets",
]

# The same imports for Python as above for type checkers.
_NAMES = {
    "mining.hard_triplets": ("MinedTriplets", "MiningSpec", "mine_triplets", "write_triplets"),
    "training.decoder": ("TensorFlowPixels",),
    "training.fresh_triplets": ("EpochSampler", "FreshTriplets"),
    "training.landmark_batches": ("LandmarkBatches",),
    "training.metrics": ("average_precisions", "find_nearest", "mean_average_precision_at_k", "recall_at_k"),
    "training.records": ("ImageIndex", "read_image_index"),
    "training.show": ("show_images", "show_triplets"),
    "training.tf_data": ("batches_as_tf_dataset", "images_as_tf_dataset", "triplets_as_tf_dataset"),
    "triplets.draws": ("choose_queries", "is_held_out"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Imports a name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    value = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
