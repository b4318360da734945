"""Image triplets and images of the Google Landmark Retrieval 2020 competition as TensorFlow Datasets builders.

Importing the package registers the builders with TFDS.
"""

from landmark_triplets_tfds.landmark_images import LandmarkImages, LandmarkImagesConfig
from landmark_triplets_tfds.landmark_triplets import LandmarkTriplets, LandmarkTripletsConfig

__all__ = ["LandmarkImages", "LandmarkImagesConfig", "LandmarkTriplets", "LandmarkTripletsConfig"]
