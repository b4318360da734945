"""Which images a dataset is made from.

Of train.csv all, but for excluded landmarks and, if wanted, missing files. If wanted, also those of the folders
``index/`` and ``test/``, which no table lists: they are found by looking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.competition.layout import IMAGES_NAME
from landmark_triplets_tfds.competition.source import ImageSource, find_folder
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.errors import LandmarkTableError, SourceLayoutError


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images: which landmarks they show, and where their files are."""

    table: LandmarkTable
    source: ImageSource


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was selected.

    Attributes:
      images: to draw from.
      whole: the table as it was read.
      not_excluded: the table without the excluded landmarks.
      unlabeled: images without labels, in order of their ids, by the split they become; none of a folder that is not
        there. Empty unless they are wanted.
    """

    images: ImageSet
    whole: LandmarkTable
    not_excluded: LandmarkTable
    unlabeled: Mapping[str, ImageSet] = dataclasses.field(default_factory=dict)

    def fingerprints(self) -> dict[str, Any]:
        """Returns what is recorded with a dataset to tell whether another one is made from the same images."""
        recorded: dict[str, Any] = {"table_sha256": self.images.table.fingerprint}
        if self.unlabeled:
            recorded["unlabeled_sha256"] = {
                split: images.table.fingerprint for split, images in self.unlabeled.items() if images.table.num_images
            }
        return recorded


def select_images(
    source: ImageSource,
    *,
    excluded_landmarks: npt.NDArray[np.int64],
    missing_images: str,
    unlabeled_folders: Sequence[str],
    index_folder: str | None,
    num_threads: int,
) -> Selection:
    """Reads the table of a source, takes out what is not wanted, and finds the images without labels that are.

    Args:
      source: of the files.
      excluded_landmarks: ids of the landmarks to leave out.
      missing_images: 'drop' leaves out images that have no file; 'error' does not look for files.
      unlabeled_folders: 'index' and 'test', or fewer.
      index_folder: where indexes of archives are kept, see `find_source`.
      num_threads: that may list folders at a time.

    Raises:
      LandmarkTableError: if the table is invalid, or nothing is left of it.
      SourceLayoutError: if images without labels are wanted, and there are none.
      ArchiveError: if an archive with them cannot be used.
    """
    whole = source.read_table()
    excluded = np.isin(whole.landmark_ids, excluded_landmarks)
    if excluded.all():
        raise LandmarkTableError(
            f"exclude_landmarks excludes all {whole.num_landmarks:,} landmarks of {source.table_path}."
        )
    table = not_excluded = whole.restrict(~excluded) if excluded.any() else whole
    if missing_images == "drop":
        table = _drop_missing(not_excluded, source, num_threads)
    unlabeled = {folder: _find_unlabeled(source, folder, index_folder, num_threads) for folder in unlabeled_folders}
    if unlabeled and not any(images.table.num_images for images in unlabeled.values()):
        root = epath.Path(source.table_path).parent
        raise SourceLayoutError(
            "unlabeled_splits=True, but there is no image in"
            f" {' or '.join(str(root / folder) for folder in unlabeled_folders)}. Such a folder is beside"
            f" {IMAGES_NAME}/, in the same folder or the same zip, and holds a/b/c/<id>.jpg or, outside of zips,"
            " images_000.tar and so on. Put one of them there, or use a config without unlabeled_splits."
        )
    return Selection(ImageSet(table, source), whole, not_excluded, unlabeled)


def _drop_missing(table: LandmarkTable, source: ImageSource, num_threads: int) -> LandmarkTable:
    present = source.find_present(table.image_ids, num_threads)
    if not present.any():
        raise LandmarkTableError(
            f"None of the {table.num_images:,} images in {source.table_path} has a file; the first would be"
            f" {source.locate(int(table.image_ids[0]))}."
        )
    return table if present.all() else table.restrict(present)


def _find_unlabeled(source: ImageSource, folder: str, index_folder: str | None, num_threads: int) -> ImageSet:
    images = find_folder(source, folder, index_folder)
    images.prepare(num_threads)
    return ImageSet(LandmarkTable.without_labels(images.list_images(num_threads)), images)
