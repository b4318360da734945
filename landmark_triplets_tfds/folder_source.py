"""Images in folders: ``train/a/b/c/<id>.jpg``, as an extracted copy has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import os

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds import file_access, image_tables
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.layout import IMAGES_NAME, image_path


class FolderSource:
    """An `ImageSource` of image files below a folder."""

    def __init__(self, root: epath.Path, table_name: str):
        """Takes the folder that holds the table and ``train/``, and the table's name."""
        self.table_path = os.fspath(root / table_name)
        # A plain string: building a path object per image costs more than opening the file.
        self._images = os.fspath(root / IMAGES_NAME)
        self.is_remote = file_access.is_remote(self._images)

    def prepare(self, num_threads: int, on_listed: Callable[[int, int], object]) -> None:
        """Does nothing: the file system knows where files are."""

    def share(self, folder: epath.Path) -> FolderSource:
        """Returns the source itself: it holds nothing but paths."""
        return self

    def read_table(self) -> LandmarkTable:
        return image_tables.read_image_table(self.table_path)

    def locate(self, image_id: int) -> str:
        return f"{self._images}/{image_path(image_id)}"

    def read(self, image_id: int) -> bytes:
        return file_access.read_image_file(self.locate(image_id))

    def exists(self, image_id: int) -> bool:
        path = self.locate(image_id)
        # os.path, because a path object would make 1.6 million look-ups ten times as slow.
        return epath.Path(path).exists() if self.is_remote else os.path.exists(path)  # noqa: PTH110

    def stamp(self, image_id: int) -> tuple[int, int]:
        try:
            return file_access.stat_file(self.locate(image_id))
        except OSError:
            return -1, -1

    def find_present(
        self, image_ids: npt.NDArray[np.uint64], num_threads: int, on_listed: Callable[[int, int], object]
    ) -> npt.NDArray[np.bool_]:
        """Lists folders instead of looking up files: 4,096 of them hold the 1.6 million images."""
        rows_of_folder = defaultdict(list)
        for row, prefix in enumerate((image_ids >> np.uint64(52)).tolist()):  # the first three hex digits
            rows_of_folder[prefix].append(row)
        present = np.zeros(len(image_ids), dtype=bool)

        def look(prefix: int) -> None:
            rows = rows_of_folder[prefix]
            folder = os.path.dirname(self.locate(int(image_ids[rows[0]])))  # noqa: PTH120
            names = self._list(folder)
            present[rows] = [f"{format_image_id(image_ids[row])}.jpg" in names for row in rows]

        with ThreadPoolExecutor(num_threads) as pool:
            for num_listed, _ in enumerate(pool.map(look, rows_of_folder), 1):
                on_listed(num_listed, len(rows_of_folder))
        return present

    def _list(self, folder: str) -> set[str]:
        try:
            if self.is_remote:
                return {path.name for path in epath.Path(folder).iterdir()}
            return set(os.listdir(folder))  # noqa: PTH208
        except (FileNotFoundError, NotADirectoryError):
            return set()
