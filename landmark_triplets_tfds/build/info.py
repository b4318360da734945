"""What TFDS keeps of a prepared dataset beside its shards: damaged files are named, and `repr` is short."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import json
from typing import Any

from etils import epath
import tensorflow_datasets as tfds

from landmark_triplets_tfds.common.progress import showable
from landmark_triplets_tfds.errors import PreparedDataError

INFO_NAME, FEATURES_NAME, METADATA_NAME = "dataset_info.json", "features.json", "metadata.json"


class LandmarkDatasetInfo(tfds.core.DatasetInfo):
    """Information about a dataset.

    `repr` is a line, for TFDS's command prints it below what a build came to; `str` is all that TFDS has to tell.
    """

    def read_from_directory(self, dataset_info_dir: epath.PathLike) -> None:
        """Reads what is prepared in a folder.

        Raises:
          PreparedDataError: if its dataset_info.json is missing, damaged or of another dataset.
          OSError: if it cannot be read.
        """
        wanted = self.name
        with damage_is_named(epath.Path(dataset_info_dir) / INFO_NAME):
            super().read_from_directory(dataset_info_dir)
            if self.name != wanted:
                raise ValueError(f"it is of {self.name!r}")

    @property
    def metadata(self) -> Any:
        """What is recorded beside what TFDS itself records; it is read when it is asked for."""
        with damage_is_named(epath.Path(self.data_dir) / METADATA_NAME):
            return super().metadata

    def check_prepared(self) -> None:
        """Raises PreparedDataError if the files do not say what is needed to read the data, here and elsewhere."""
        with damage_is_named(epath.Path(self.data_dir) / INFO_NAME):
            if not self.splits:
                raise ValueError("it lists no split")
        with damage_is_named(epath.Path(self.data_dir) / FEATURES_NAME) as path:
            found = tfds.features.FeatureConnector.from_json(json.loads(path.read_text()))
            if found.get_tensor_info() != self.features.get_tensor_info():
                raise ValueError("it lists other features")

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {split.num_examples:,}" for name, split in self.splits.items())
        return showable(f"<{self.full_name}: {splits or 'not built'}, {self.dataset_size}, in {self.data_dir}>")

    def __str__(self) -> str:
        return str(super().__repr__())


@contextlib.contextmanager
def damage_is_named(path: epath.Path) -> Iterator[epath.Path]:
    """Turns whatever the reading of a file comes upon, other than errors of its disk, into one error that names it."""
    try:
        yield path
    except PreparedDataError:
        raise
    except Exception as error:  # TFDS and protobuf raise many types
        if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
            what = "is missing"
        elif isinstance(error, OSError):
            raise
        else:
            what = f"is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise PreparedDataError(f"{path} {what}. Delete {path.parent} and build the dataset anew.") from error
