"""Which copy of the competition a folder holds, and what is selected of it."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import os
from typing import Any

from etils import epath

from landmark_triplets_tfds.competition.layout import (
    COMPETITION,
    IMAGES_NAME,
    LAYOUT_INSTRUCTIONS,
    TAR_PATTERN,
    ZIP_NAME,
    ZIP_PATTERN,
    describe_wrong_layout,
    find_names,
    find_table,
    holds_image_folders,
)
from landmark_triplets_tfds.competition.source import FolderSource, ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.competition.zip_archive import ZipSource
from landmark_triplets_tfds.errors import SourceLayoutError


def find_source(manual_dir: epath.Path, index_folder: str | None = None) -> ImageSource:
    """Finds the competition's files in a folder, or in ``landmark-retrieval-2020/`` within it.

    Of several copies, an extracted one counts before tars, and tars before a zip: what took more work to put there is
    what is meant. No archive is opened yet.

    Args:
      manual_dir: the folder.
      index_folder: where indexes of archives are kept: None: the user's cache folder; 'off': nowhere, so that no index
        made before is trusted, and this source's own ends with it.

    Raises:
      SourceLayoutError: with the path looked at, what is there, the layout expected and how to get it.
    """
    roots = [manual_dir, manual_dir / COMPETITION]
    for root in roots:
        if (table_name := find_table(root)) and holds_image_folders(root / IMAGES_NAME):
            return FolderSource(root, table_name)
    for root in roots:
        if (table_name := find_table(root)) and find_names(root / IMAGES_NAME, TAR_PATTERN):
            return TarSource(root, table_name, index_folder)
    for root in roots:
        zips = find_names(root, ZIP_PATTERN)
        if ZIP_NAME in zips or len(zips) == 1:
            return ZipSource(os.fspath(root / (ZIP_NAME if ZIP_NAME in zips else zips[0])), index_folder)
    raise SourceLayoutError(f"{describe_wrong_layout(manual_dir)}\n\n{LAYOUT_INSTRUCTIONS}")


def open_copy(manual_dir: epath.Path, index_folder: str | None, num_threads: int) -> ImageSource:
    """Finds the competition's files, see `find_source`, and makes what reading them needs.

    Raises:
      SourceLayoutError: if there is no copy.
      ArchiveError: if an archive cannot be used.
    """
    source = find_source(manual_dir, index_folder)
    source.prepare(num_threads)
    return source


def find_folder(source: ImageSource, folder: str, index_folder: str | None = None) -> ImageSource:
    """Finds 'index' or 'test' in the same copy: beside ``train/``, extracted or as tars, or in the same zip.

    Returns:
      A source of its images, which may turn out to hold none.
    """
    if isinstance(source, ZipSource):
        return source.of_folder(folder)
    table = epath.Path(source.table_path)
    if not holds_image_folders(table.parent / folder) and find_names(table.parent / folder, TAR_PATTERN):
        return TarSource(table.parent, table.name, index_folder, folder)
    return FolderSource(table.parent, table.name, folder)


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
