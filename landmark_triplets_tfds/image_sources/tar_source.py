"""Images in the tars of the public Google Landmarks Dataset v2, read in place.

A tar has no directory. So each is walked through once, from header to header, and the index keeps where its images are;
a tar that changes is walked again. Where an MD5 list names a tar, it is read as a whole at that point and compared, so
that an image is only ever read from a tar that is right.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import dataclasses
import os
from typing import Any

from etils import epath
import numpy as np

from landmark_triplets_tfds import file_access, image_tables
from landmark_triplets_tfds.errors import ArchiveError, UnreadableImageError
from landmark_triplets_tfds.file_access import read_image_part, refuse_large
from landmark_triplets_tfds.image_sources.archive_index import ArchiveIndex, Members, make_members
from landmark_triplets_tfds.image_sources.archive_source import ArchiveSource, OnListed
from landmark_triplets_tfds.image_sources.layout import IMAGES_NAME, TAR_PATTERN, image_path, mark_stamp
from landmark_triplets_tfds.image_sources.md5_lists import md5_of, read_md5_lists
from landmark_triplets_tfds.image_sources.tar_listing import list_images
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id

_NUM_PROBLEMS_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tar:
    """What tells that a tar is still the same, and the MD5 it was verified to have, if it was."""

    name: str
    size: int
    mtime_ns: int
    md5: str | None


class TarSource(ArchiveSource):
    """An `ImageSource` of the members ``a/b/c/<id>.jpg`` of the tars ``train/images_<number>.tar``."""

    def __init__(self, root: epath.Path, table_name: str, index_folder: str | None, folder: str = IMAGES_NAME):
        """Takes the folder with the table and ``train/``, the table's name, and where the index is kept.

        Args:
          root: the folder.
          table_name: of the table in it.
          index_folder: see `ArchiveSource`.
          folder: which folder the tars are in.
        """
        super().__init__(os.fspath(root / folder), index_folder)
        self.table_path = os.fspath(root / table_name)
        self._root = os.fspath(root)
        self._folder = folder

    def read_table(self) -> LandmarkTable:
        return image_tables.read_image_table(self.table_path)

    def locate(self, image_id: int) -> str:
        """Returns the path of the tar and the member, or of all tars where none has it."""
        member = self.index().find(image_id)
        tar = "images_*.tar" if member is None else self._name_of_tar(member)
        return f"{self.archive}/{tar}/{image_path(image_id)}"

    def read(self, image_id: int) -> bytes:
        member = self.index().find(image_id)
        if member is None:
            raise UnreadableImageError(UnreadableImageError.MISSING, self.locate(image_id))
        size, tar = int(member["size"]), f"{self.archive}/{self._name_of_tar(member)}"
        refuse_large(size)
        content = read_image_part(tar, int(member["offset"]), size)
        if len(content) < size:
            raise UnreadableImageError(
                UnreadableImageError.DAMAGED, f"{tar} ends within {format_image_id(image_id)}.jpg"
            )
        return content

    def stamp(self, image_id: int) -> tuple[int, int]:
        """Returns the image's size, and the tar's modification time and the image's place in it as one number."""
        member = self.index().find(image_id)
        if member is None:
            return -1, -1
        tar = self.index().archives[int(member["archive"])]
        return mark_stamp((int(member["size"]), int(tar["mtime_ns"]) + int(member["offset"])), self._folder)

    def _name_of_tar(self, member: Any) -> str:
        return str(self.index().archives[int(member["archive"])]["name"])

    def _make_index(self, known: ArchiveIndex | None, num_threads: int, on_listed: OnListed) -> ArchiveIndex:
        names = list_tars(epath.Path(self.archive))
        md5_of_name = read_md5_lists(epath.Path(self._root), self._folder)
        with ThreadPoolExecutor(num_threads) as pool:
            try:
                tars = list(pool.map(lambda name: _describe(self.archive, name, md5_of_name.get(name)), names))
            except OSError as error:
                raise ArchiveError(f"A tar in {self.archive} cannot be opened ({error}).") from None
            if known is not None and known.archives == [dataclasses.asdict(tar) for tar in tars]:
                return known
            known_members = {} if known is None else _split(known)
            found: dict[_Tar, Members] = {}
            problems: list[str] = []
            examined = pool.map(lambda tar: _examine(self.archive, tar, known_members, self._folder), tars)
            try:
                for num_examined, (tar, result) in enumerate(zip(tars, examined, strict=True), 1):
                    if isinstance(result, str):
                        problems.append(result)
                    else:
                        found[tar] = result
                    on_listed(num_examined, len(tars))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:  # what was found is kept, also when the build is interrupted
                index = _join(found)
                if 0 < len(found) < len(tars):
                    self._save_index(index)
        if problems:
            more = [f"... and {len(problems) - _NUM_PROBLEMS_SHOWN} more"] * (len(problems) > _NUM_PROBLEMS_SHOWN)
            shown = "\n  ".join(problems[:_NUM_PROBLEMS_SHOWN] + more)
            raise ArchiveError(
                f"{len(problems):,} of the {len(tars):,} tars in {self.archive} cannot be used:\n  {shown}\n"
                "Fetch them again, or take them away and use a config with missing_images='drop'."
            )
        if not len(index.members):
            raise ArchiveError(f"The {len(tars):,} tars in {self.archive} hold no image a/b/c/<id>.jpg.")
        return index


def list_tars(folder: epath.Path) -> list[str]:
    """Returns the names of the tars in a folder, in their order."""
    return sorted(path.name for path in folder.iterdir() if TAR_PATTERN.fullmatch(path.name))


def _describe(folder: str, name: str, md5: str | None) -> _Tar:
    size, mtime_ns = file_access.stat_file(f"{folder}/{name}")
    return _Tar(name=name, size=size, mtime_ns=mtime_ns, md5=md5)


def _examine(archive: str, tar: _Tar, known: dict[_Tar, tuple[str | None, Members]], folder: str) -> Members | str:
    """Returns the images of a tar, from what is known if it has not changed, or what is wrong with it."""
    verified_md5, members = known.get(dataclasses.replace(tar, md5=None), (None, None))
    path = f"{archive}/{tar.name}"
    try:
        if tar.md5 not in (None, verified_md5) and (md5 := md5_of(path)) != tar.md5:
            return f"{path} has the MD5 {md5}; its list says {tar.md5}."
        if members is not None:
            return members
        images = list_images(path, tar.size, folder)
        return make_members((image_id, start, size, size, 0, 0, 0, 0) for image_id, start, size in images)
    except OSError as error:  # an ArchiveError is one
        return str(error)


def _split(index: ArchiveIndex) -> dict[_Tar, tuple[str | None, Members]]:
    """Returns the MD5 that each tar was verified to have, and its members, by the tar without its MD5."""
    by_tar = index.members[np.argsort(index.members["archive"], kind="stable")]
    bounds = np.searchsorted(by_tar["archive"], np.arange(len(index.archives) + 1))
    return {
        _Tar(**(tar | {"md5": None})): (tar["md5"], by_tar[bounds[number] : bounds[number + 1]])
        for number, tar in enumerate(index.archives)
    }


def _join(found: dict[_Tar, Members]) -> ArchiveIndex:
    """Returns the index of tars, which are numbered in their order."""
    archives = [dataclasses.asdict(tar) for tar in found]
    if not found:
        return ArchiveIndex.of(make_members([]), archives)
    members = np.concatenate(list(found.values()))
    members["archive"] = np.repeat(np.arange(len(found)), [len(members) for members in found.values()])
    return ArchiveIndex.of(members, archives)
