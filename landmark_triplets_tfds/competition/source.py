"""Where image bytes come from: which kind of copy a folder holds, found by looking.

A source knows one kind of copy (`folder_source`, `zip_source`, `tar_source`) and gives the bytes of an image by its id.
It looks at no pixels. Paths go through epath, so that ``gs://`` works wherever TFDS does.
"""

from __future__ import annotations

import os
from typing import Protocol

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.competition.folder import FolderSource
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
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.competition.zip_archive import ZipSource
from landmark_triplets_tfds.errors import SourceLayoutError


class ImageSource(Protocol):
    """Gives the bytes of images. Used from many threads at once, and pickled small for other processes.

    What takes a while shows a progress bar.

    Attributes:
      table_path: where the table is, for messages.
      is_remote: whether reads go over a network to a store such as ``gs://``.
    """

    table_path: str
    is_remote: bool

    def prepare(self, num_threads: int) -> None:
        """Makes what reading needs, such as the index of archives; without this call, the first read does.

        Raises ArchiveError if an archive cannot be used.
        """

    def share(self, folder: epath.Path, *, elsewhere: bool = False) -> ImageSource:
        """Returns a source for other processes, which need to reach ``folder`` and the files alone.

        Args:
          folder: for what they have to know.
          elsewhere: whether they run on other machines, perhaps with copies of the files.
        """

    def remarks(self) -> list[str]:
        """Returns what is to be said of files that were verified when they were prepared, or could not be."""

    def read_table(self) -> LandmarkTable:
        """Reads and validates the table; raises LandmarkTableError, or ArchiveError where it is in an archive."""

    def locate(self, image_id: int) -> str:
        """Returns where the image is, for messages."""

    def read(self, image_id: int) -> bytes:
        """Returns the whole file; raises UnreadableImageError if it is missing or cannot be read."""

    def exists(self, image_id: int) -> bool:
        """Returns whether there is a file, readable or not."""

    def stamp(self, image_id: int) -> tuple[int, int]:
        """Returns two numbers that tell a changed file, the first its size in bytes; (-1, -1) if there is none."""

    def read_order(self, image_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Returns int64[n]: the order in which images are best read, archives from the beginning to the end."""

    def find_present(self, image_ids: npt.NDArray[np.uint64], num_threads: int) -> npt.NDArray[np.bool_]:
        """Returns bool[n]: which images have a file."""

    def list_images(self, num_threads: int) -> npt.NDArray[np.uint64]:
        """Returns the ids of all images that have a file, ascending, each once; none if there is no such folder."""


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
    """Finds another folder of the same copy: beside ``train/``, extracted or as tars, or in the same zip.

    Args:
      source: of ``train/``.
      folder: 'index' or 'test'.
      index_folder: see `find_source`.

    Returns:
      A source of its images, which may turn out to hold none.
    """
    if isinstance(source, ZipSource):
        return source.of_folder(folder)
    table = epath.Path(source.table_path)
    if not holds_image_folders(table.parent / folder) and find_names(table.parent / folder, TAR_PATTERN):
        return TarSource(table.parent, table.name, index_folder, folder)
    return FolderSource(table.parent, table.name, folder)
