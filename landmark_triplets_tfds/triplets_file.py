"""Triplets that someone chose, by mining or by hand: a CSV or Parquet file of image ids.

What is checked here needs the file alone; `chosen_splits` compares it with the table of images. Places in the file
are looked up only when there is something to say about them.
"""

from __future__ import annotations

from collections.abc import Collection
import dataclasses
import functools
import hashlib
import io
import os
import pathlib
from typing import IO

from etils import epath

from landmark_triplets_tfds import file_access, triplets_formats
from landmark_triplets_tfds.errors import TripletsFileError
from landmark_triplets_tfds.triplets_formats import LISTED_COLUMNS, Ids, Place

_PARQUET_MAGIC = b"PAR1"


@dataclasses.dataclass(frozen=True, eq=False)
class TripletsFile:
    """The triplets of a file, in its order. Their numbers count from 0.

    Attributes:
      path: of the file.
      ids: uint64[num_triplets, 3]: ids of anchor, positive and negative.
    """

    path: str
    ids: Ids

    @property
    def num_triplets(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def content_hash(self) -> str:
        """'sha256:' and the hash of the ids in their order: the same for CSV and Parquet, whatever else they hold."""
        digest = hashlib.sha256(b"Triplets 1\n")
        digest.update(self.ids.astype("<u8", order="C", copy=False).data)
        return f"sha256:{digest.hexdigest()}"

    def places(self, numbers: Collection[int]) -> dict[int, Place]:
        """Returns where these triplets are. It reads the file again, up to the last of them."""
        wanted = set(numbers)
        places = {number: Place(f"triplet {number + 1}", None) for number in wanted}  # of a file that has changed since
        with _open(self.path) as file:
            find = triplets_formats.find_in_parquet if _is_parquet(file) else triplets_formats.find_in_csv
            for number, place in find(file, self.path, wanted):
                places[number] = place
                wanted.remove(number)
                if not wanted:
                    break
        return places

    def problem(self, number: int, message: str) -> TripletsFileError:
        """Returns the error to raise for something that is wrong with a triplet; its message names the place."""
        return TripletsFileError(f"{self.path}, {self.places([number])[number].where}: {message}")


def read_triplets_file(path: str) -> TripletsFile:
    """Reads a file of triplets; its first bytes tell whether it is Parquet or CSV, not its name.

    Args:
      path: local, where ~ stands for the user's folder, or remote, such as ``gs://``.

    Raises:
      TripletsFileError: with line or row and value, if a column is missing, a record has too many or too few fields, an
        id is not a text of 16 hex digits, there is no triplet, or the file is neither CSV nor Parquet.
      FileNotFoundError: if there is no such file.
      OSError: if it cannot be read.
    """
    path = os.fspath(epath.Path(path).expanduser())
    with _open(path) as file:
        read = triplets_formats.read_parquet if _is_parquet(file) else triplets_formats.read_csv_fast
        ids = read(file, path)
    if ids is None:
        with _open(path) as file:  # anew: threads of a reader that gave up may still be reading
            ids = triplets_formats.read_csv_slowly(file, path)
    if not len(ids):
        raise TripletsFileError(f"{path} has the columns {LISTED_COLUMNS}, but no triplets.")
    return TripletsFile(path, ids)


def _open(path: str) -> IO[bytes]:
    try:
        file = file_access.open_file(path)
        if not file_access.is_remote(path):
            return file
        with file:  # it is read from several times, and not all remote files can be searched
            return io.BytesIO(file.read())
    except FileNotFoundError:
        looked_in = "" if file_access.is_remote(path) else f" (looked for in {pathlib.Path.cwd()})"
        raise FileNotFoundError(
            f"There is no file {path}{looked_in}. triplets_file must name a CSV or Parquet file with the columns"
            f" {LISTED_COLUMNS}."
        ) from None
    except IsADirectoryError:
        raise TripletsFileError(
            f"{path} is a folder. triplets_file must name one CSV or Parquet file. pandas joins the parts that Spark"
            " writes: read_parquet(folder).to_parquet(file)."
        ) from None


def _is_parquet(file: IO[bytes]) -> bool:
    magic = file.read(len(_PARQUET_MAGIC))
    file.seek(0)
    return magic == _PARQUET_MAGIC
