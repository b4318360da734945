"""Where image bytes come from: what every kind of copy gives, and the plain one, ``train/a/b/c/<id>.jpg`` in folders.

A source knows one kind of copy (this, `zip_archive`, `tar_archives`) and gives the bytes of an image by its id. It
looks at no pixels. Paths go through epath, so that ``gs://`` works wherever TFDS does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
import os

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.layout import IMAGES_NAME, image_path, mark_stamp, parse_file_name
from landmark_triplets_tfds.competition.tables import LandmarkTable, read_landmark_table

_HEX_DIGITS = "0123456789abcdef"


class ImageSource:
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
        return self

    def remarks(self) -> list[str]:
        """Returns what is to be said of files that were verified when they were prepared, or could not be."""
        return []

    def read_table(self) -> LandmarkTable:
        """Reads and validates the table; raises LandmarkTableError, or ArchiveError where it is in an archive."""
        return read_landmark_table(self.table_path)

    def locate(self, image_id: int) -> str:
        """Returns where the image is, for messages."""
        raise NotImplementedError

    def read(self, image_id: int) -> bytes:
        """Returns the whole file; raises UnreadableImageError if it is missing or cannot be read."""
        raise NotImplementedError

    def read_stamped(self, image_id: int) -> tuple[bytes, tuple[int, int]]:
        """Returns the whole file, and its stamp of before it was read; raises UnreadableImageError as `read` does."""
        stamp = self.stamp(image_id)
        return self.read(image_id), stamp

    def exists(self, image_id: int) -> bool:
        """Returns whether there is a file, readable or not."""
        return self.stamp(image_id) != (-1, -1)

    def stamp(self, image_id: int) -> tuple[int, int]:
        """Returns two numbers that tell a changed file, the first its size in bytes; (-1, -1) if there is none."""
        raise NotImplementedError

    def read_order(self, image_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Returns int64[n]: the order in which images are best read, archives from the beginning to the end."""
        raise NotImplementedError

    def find_present(self, image_ids: npt.NDArray[np.uint64], num_threads: int) -> npt.NDArray[np.bool_]:
        """Returns bool[n]: which images have a file."""
        return np.isin(image_ids, self.list_images(num_threads))

    def list_images(self, num_threads: int) -> npt.NDArray[np.uint64]:
        """Returns the ids of all images that have a file, ascending, each once; none if there is no such folder."""
        raise NotImplementedError


class FolderSource(ImageSource):
    """Image files below a folder: ``train/``, or ``index/`` or ``test/`` beside it."""

    def __init__(self, root: epath.Path, table_name: str, folder: str = IMAGES_NAME):
        """Takes the folder that holds the table and ``train/``, the table's name, and which folder holds the images."""
        self.table_path = os.fspath(root / table_name)
        self._folder = folder
        # A plain string: building a path object per image costs more than opening the file.
        self._images = os.fspath(root / folder)
        self.is_remote = file_access.is_remote(self._images)

    def locate(self, image_id: int) -> str:
        return f"{self._images}/{image_path(image_id)}"

    def read(self, image_id: int) -> bytes:
        return file_access.read_image(self.locate(image_id))

    def read_stamped(self, image_id: int) -> tuple[bytes, tuple[int, int]]:
        if self.is_remote:
            return super().read_stamped(image_id)
        content, stamp = file_access.read_local_image(self.locate(image_id))
        return content, mark_stamp(stamp, self._folder)

    def exists(self, image_id: int) -> bool:
        path = self.locate(image_id)
        # os.path, because a path object would make 1.6 million look-ups ten times as slow.
        return epath.Path(path).exists() if self.is_remote else os.path.exists(path)  # noqa: PTH110

    def stamp(self, image_id: int) -> tuple[int, int]:
        try:
            return mark_stamp(file_access.stat_file(self.locate(image_id)), self._folder)
        except OSError:
            return -1, -1

    def read_order(self, image_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        return np.argsort(image_ids)

    def find_present(self, image_ids: npt.NDArray[np.uint64], num_threads: int) -> npt.NDArray[np.bool_]:
        """Lists folders instead of looking up files: 4,096 of them hold the 1.6 million images."""
        folders = [image_path(prefix << 52)[:5] for prefix in np.unique(image_ids >> np.uint64(52)).tolist()]
        return np.isin(image_ids, self._list_folders(folders, num_threads))

    def list_images(self, num_threads: int) -> npt.NDArray[np.uint64]:
        digits = sorted(self._list("").intersection(_HEX_DIGITS))
        folders = [f"{a}/{b}/{c}" for a in digits for b in _HEX_DIGITS for c in _HEX_DIGITS]
        return np.sort(self._list_folders(folders, num_threads))

    def _list_folders(self, folders: Sequence[str], num_threads: int) -> npt.NDArray[np.uint64]:
        """Returns the ids of the images in some folders ``a/b/c``, in any order."""

        def list_ids(folder: str) -> npt.NDArray[np.uint64]:
            found = map(parse_file_name, self._list(folder))
            ids = np.array([image_id for image_id in found if image_id is not None], dtype=np.uint64)
            # A file that is in another folder than its id says is not where it would be read.
            in_place: npt.NDArray[np.bool_] = ids >> np.uint64(52) == int(folder.replace("/", ""), 16)
            return ids[in_place]

        parts = [np.zeros(0, dtype=np.uint64)]
        description = "Listing images" if self._folder == IMAGES_NAME else f"Listing {self._folder}"
        with ThreadPoolExecutor(num_threads) as pool, progress_bar(len(folders), description, " folders") as bar:
            for ids in pool.map(list_ids, folders):
                parts.append(ids)
                bar.update(1)
        return np.concatenate(parts)

    def _list(self, folder: str) -> set[str]:
        """Returns the names in a folder below that of the images; none if it does not exist."""
        path = os.path.join(self._images, folder)  # noqa: PTH118
        try:
            if self.is_remote:
                return {each.name for each in epath.Path(path).iterdir()}
            return set(os.listdir(path))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return set()
