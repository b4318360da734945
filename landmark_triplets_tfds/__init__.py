"""Image triplets of the Google Landmark Retrieval 2020 competition as a TensorFlow Datasets builder.

Importing the package registers the builder with TFDS.
"""

from landmark_triplets_tfds.landmark_triplets import LandmarkTriplets, LandmarkTripletsConfig

__all__ = ["LandmarkTriplets", "LandmarkTripletsConfig"]
