"""Images in folders: ``train/a/b/c/<id>.jpg``, as an extracted copy has them, and ``index/`` and ``test/`` likewise."""

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


class FolderSource:
    """An `ImageSource` of image files below a folder."""

    def __init__(self, root: epath.Path, table_name: str, folder: str = IMAGES_NAME):
        """Takes the folder that holds the table and ``train/``, the table's name, and which folder holds the images."""
        self.table_path = os.fspath(root / table_name)
        self._folder = folder
        # A plain string: building a path object per image costs more than opening the file.
        self._images = os.fspath(root / folder)
        self.is_remote = file_access.is_remote(self._images)

    def prepare(self, num_threads: int) -> None:
        """Does nothing: the file system knows where files are."""

    def share(self, folder: epath.Path, *, elsewhere: bool = False) -> FolderSource:
        """Returns the source itself: it holds nothing but paths."""
        return self

    def remarks(self) -> list[str]:
        return []

    def read_table(self) -> LandmarkTable:
        return read_landmark_table(self.table_path)

    def locate(self, image_id: int) -> str:
        return f"{self._images}/{image_path(image_id)}"

    def read(self, image_id: int) -> bytes:
        return file_access.read_image(self.locate(image_id))

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
