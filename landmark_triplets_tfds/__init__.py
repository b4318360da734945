"""Image triplets and images of the Google Landmark Retrieval 2020 competition as TensorFlow Datasets builders.

Importing the package registers the builders with TFDS. Here are all public names; what is not here is private. All but
the builders are imported when they are first used, so that the import is fast and does not take TensorFlow.
"""

from etils import epy

from landmark_triplets_tfds.errors import LandmarkTripletsError
from landmark_triplets_tfds.landmark_images import LandmarkImages, LandmarkImagesConfig
from landmark_triplets_tfds.landmark_triplets import LandmarkTriplets, LandmarkTripletsConfig

with epy.lazy_api_imports(globals()):
    from landmark_triplets_tfds.mining.hard_triplets import MinedTriplets, MiningSpec, mine_triplets, write_triplets
    from landmark_triplets_tfds.mining.scores import (
        average_precisions,
        find_nearest,
        mean_average_precision_at_k,
        recall_at_k,
    )
    from landmark_triplets_tfds.training.epochs import EpochSampler, FreshTriplets, LandmarkBatches
    from landmark_triplets_tfds.training.records import ImageIndex, TensorFlowPixels, read_image_index
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
