"""Where image bytes come from.

A source knows the layout of one kind of copy of the competition and gives the bytes of an image by its id. It looks at
no pixels. Paths go through epath, so that ``gs://`` works wherever TFDS does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import os
import time
from typing import Protocol

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.landmarks import format_image_id

COMPETITION = "landmark-retrieval-2020"
TABLE_NAME = "train.csv"
IMAGES_NAME = "train"

LAYOUT_INSTRUCTIONS = f"""\
Expected layout (of the Kaggle competition {COMPETITION}; its sibling competitions and the extracted public
Google Landmarks Dataset v2 have the same one):
  <manual_dir>/{TABLE_NAME}               columns id,landmark_id
  <manual_dir>/{IMAGES_NAME}/a/b/c/<id>.jpg     where a, b, c are the first three characters of the id
or the same inside <manual_dir>/{COMPETITION}/. To get the files (105 GB, after accepting the rules of the competition
on its page):
  kaggle competitions download -c {COMPETITION} && unzip -q {COMPETITION}.zip -d {COMPETITION}
In a Kaggle notebook, add the competition as input: it is at /kaggle/input/{COMPETITION}. Then name the folder:
  tfds build landmark_triplets/128px --imports landmark_triplets_tfds --manual_dir <manual_dir>
"""

# A read that fails for another reason than a missing file (a network mount that is busy, say) is tried again.
_NUM_READ_ATTEMPTS = 3
_SECONDS_BETWEEN_ATTEMPTS = 0.5


class ImageSource(Protocol):
    """Gives the bytes of images. Used from many threads at once."""

    table_path: epath.Path
    is_remote: bool

    def locate(self, image_id: int) -> str:
        """Returns where the image is, for messages."""

    def read(self, image_id: int) -> bytes:
        """Returns the whole file; raises UnreadableImageError if it is missing or cannot be read."""

    def exists(self, image_id: int) -> bool:
        """Returns whether there is a file, readable or not."""

    def stamp(self, image_id: int) -> tuple[int, int]:
        """Returns size in bytes and modification time in ns, which tell a changed file; (-1, -1) if there is none."""

    def find_present(
        self, image_ids: npt.NDArray[np.uint64], num_threads: int, on_listed: Callable[[int, int], object]
    ) -> npt.NDArray[np.bool_]:
        """Returns bool[n]: which images have a file. Calls ``on_listed(folders done, folders in all)``."""


class FolderSource:
    """Images at ``train/a/b/c/<id>.jpg`` below a folder."""

    def __init__(self, root: epath.Path):
        self.table_path = root / TABLE_NAME
        # A plain string: building a path object per image costs more than opening the file.
        self._images = os.fspath(root / IMAGES_NAME)
        self.is_remote = "://" in self._images

    def locate(self, image_id: int) -> str:
        name = format_image_id(image_id)
        return f"{self._images}/{name[0]}/{name[1]}/{name[2]}/{name}.jpg"

    def read(self, image_id: int) -> bytes:
        path = self.locate(image_id)
        for attempt in range(1, _NUM_READ_ATTEMPTS + 1):
            try:
                if self.is_remote:
                    return bytes(epath.Path(path).read_bytes())
                with open(path, "rb", buffering=0) as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                raise UnreadableImageError(UnreadableImageError.MISSING, path) from None
            except (IsADirectoryError, PermissionError) as error:
                raise UnreadableImageError(UnreadableImageError.NO_ACCESS, str(error)) from None
            except OSError as error:
                if attempt == _NUM_READ_ATTEMPTS:
                    raise UnreadableImageError(UnreadableImageError.NO_ACCESS, str(error)) from None
                time.sleep(_SECONDS_BETWEEN_ATTEMPTS * attempt)
        raise AssertionError("unreachable")

    def exists(self, image_id: int) -> bool:
        path = self.locate(image_id)
        # os.path, because a path object would make 1.6 million look-ups ten times as slow.
        return epath.Path(path).exists() if self.is_remote else os.path.exists(path)  # noqa: PTH110

    def stamp(self, image_id: int) -> tuple[int, int]:
        path = self.locate(image_id)
        try:
            if self.is_remote:
                remote = epath.Path(path).stat()
                return int(remote.length), int(remote.mtime) * 1_000_000_000
            local = os.stat(path)  # noqa: PTH116
        except OSError:
            return -1, -1
        return local.st_size, local.st_mtime_ns

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


def find_source(manual_dir: epath.Path) -> ImageSource:
    """Finds the competition's files in a folder.

    Args:
      manual_dir: a folder that holds ``train.csv`` and ``train/``, or ``landmark-retrieval-2020/`` with them.

    Raises:
      SourceLayoutError: with the path looked at, what is there, the layout expected and how to get it.
    """
    roots = [manual_dir, manual_dir / COMPETITION]
    for root in roots:
        if (root / TABLE_NAME).exists() and (root / IMAGES_NAME).is_dir():
            return FolderSource(root)
    raise SourceLayoutError(f"{_describe_wrong_layout(manual_dir, roots)}\n\n{LAYOUT_INSTRUCTIONS}")


def _describe_wrong_layout(manual_dir: epath.Path, roots: list[epath.Path]) -> str:
    """Says what is wrong with a folder in which no source was found."""
    if not manual_dir.exists():
        return f"The folder {manual_dir} does not exist."
    if not manual_dir.is_dir():
        return f"{manual_dir} is a file, not a folder."
    for root in roots:
        if (root / TABLE_NAME).exists():
            return f"{root} holds {TABLE_NAME} but no folder {IMAGES_NAME}/ with the images."
        if (root / IMAGES_NAME).is_dir():
            return f"{root} holds {IMAGES_NAME}/ but no {TABLE_NAME}."
    if (manual_dir.parent / TABLE_NAME).exists():
        return f"{manual_dir} holds no {TABLE_NAME}, but {manual_dir.parent} does: use that as manual_dir."
    archives = sorted(path.name for path in manual_dir.iterdir() if path.suffix in (".zip", ".tar"))
    if archives:
        return f"{manual_dir} holds an archive ({archives[0]}) that is not extracted yet."
    names = sorted(path.name for path in manual_dir.iterdir())
    found = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    return f"{manual_dir} does not hold the competition's files. Found there: {found}."
