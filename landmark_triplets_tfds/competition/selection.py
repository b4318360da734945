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

from landmark_triplets_tfds.build.config import LandmarkBuilderConfig
from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.common.progress import listing_bar
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
        there. Empty unless the config wants them.
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


def select_images(source: ImageSource, config: LandmarkBuilderConfig, options: BuildOptions) -> Selection:
    """Reads the table of a source, takes out what the config says, and finds the images without labels that it wants.

    Args:
      source: of the files.
      config: its ``exclude_landmarks``, ``missing_images`` and ``unlabeled_folders()`` count.
      options: say how many threads list folders, and where indexes of archives are kept.

    Raises:
      LandmarkTableError: if the table or the list of excluded landmarks is invalid, or nothing is left.
      SourceLayoutError: if images without labels are wanted, and there are none.
      ArchiveError: if an archive with them cannot be used.
    """
    whole = source.read_table()
    table = not_excluded = _exclude(whole, config)
    if config.missing_images == "drop":
        table = _drop_missing(not_excluded, source, options)
    unlabeled = _find_unlabeled(source, config.unlabeled_folders(), options)
    return Selection(ImageSet(table, source), whole, not_excluded, unlabeled)


def _exclude(table: LandmarkTable, config: LandmarkBuilderConfig) -> LandmarkTable:
    excluded = np.isin(table.landmark_ids, config.excluded_landmarks())
    if not excluded.any():
        return table
    if excluded.all():
        raise LandmarkTableError(f"{config.exclude_landmarks} excludes all {table.num_landmarks:,} landmarks.")
    return table.restrict(~excluded)


def _drop_missing(table: LandmarkTable, source: ImageSource, options: BuildOptions) -> LandmarkTable:
    with listing_bar("Listing images", " folders") as advance:
        present = source.find_present(table.image_ids, options.num_readers(source.is_remote), advance)
    if not present.any():
        raise LandmarkTableError(
            f"None of the {table.num_images:,} images in {source.table_path} has a file; the first would be"
            f" {source.locate(int(table.image_ids[0]))}."
        )
    return table if present.all() else table.restrict(present)


def _find_unlabeled(source: ImageSource, folders: Sequence[str], options: BuildOptions) -> dict[str, ImageSet]:
    found = {}
    for folder in folders:
        images = find_folder(source, folder, options.bank)
        num_threads = options.num_readers(images.is_remote)
        with listing_bar("Indexing archives", " archives") as advance:
            images.prepare(num_threads, advance)
        with listing_bar(f"Listing {folder}", " folders") as advance:
            image_ids = images.list_images(num_threads, advance)
        found[folder] = ImageSet(LandmarkTable.without_labels(image_ids), images)
    if found and not any(images.table.num_images for images in found.values()):
        place = epath.Path(source.table_path).parent
        raise SourceLayoutError(
            f"unlabeled_splits=True, but there is no image in {' or '.join(str(place / folder) for folder in folders)}."
            f" Such a folder is beside {IMAGES_NAME}/, in the same folder or the same zip, and holds a/b/c/<id>.jpg or,"
            " outside of zips, images_000.tar and so on. Put one of them there, or use a config without"
            " unlabeled_splits."
        )
    return found
