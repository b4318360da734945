"""Images in the tars of the public Google Landmarks Dataset v2, read in place.

A tar has no directory. So each is walked through once, from header to header, and the index keeps where its images are;
a tar that changes is walked again. Python's tarfile does that, within bounds: by itself it takes a damaged header for
the end, does not look at what follows, reads as much as a header claims, and may go backwards.

A tar has no checksums of its data either. So whenever an image is read, the header in front of it is read with it, and
must be the one that was there when the tar was walked through, and so must be the tar's size and time.

Where an MD5 list, as it is published with the tars, names a tar, the tar is read as a whole before it is walked through
and compared, so that an image is only ever read from a tar that is right. A list that says nothing of the tars is no
error, but it is said: who put it there thinks that the tars are verified.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import contextlib
import hashlib
import operator
import os
import re
import struct
import tarfile
from typing import IO, Any
import zlib

from etils import epath
import numpy as np

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.checks import list_some, shorten
from landmark_triplets_tfds.common.file_access import read_image
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.archive import (
    LARGEST_SIZE,
    MEMBER,
    ArchiveIndex,
    ArchiveSource,
    BoundedReads,
    Members,
)
from landmark_triplets_tfds.competition.layout import (
    FOLDER_NAMES,
    IMAGES_NAME,
    TAR_PATTERN,
    find_names,
    image_path,
    mark_stamp,
    parse_tar_name,
)
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import ArchiveError, UnreadableImageError

_NUM_PROBLEMS_SHOWN = 5

_END_MARK = bytes(tarfile.BLOCKSIZE)
_LARGEST_RECORD = 1 << 20
_CHUNK_BYTES = 1 << 20

# In the index, of a member whose name is not in the header in front of its data, but in an extended one before that.
_NAMED_ELSEWHERE = 1

# Long names and extended headers are data to tarfile; those of the published tars, if any, have a few hundred bytes.
_MAX_HEADER_BYTES = 1 << 20

_LIST_PATTERN = re.compile(r"md5.*|.*md5(sums?)?(\.txt)?", re.IGNORECASE)
# A line in one of the forms that ``md5sum -c`` reads, GNU's, BSD's and OpenSSL's: '<hash>  <name>' or '<hash> *<name>';
# 'MD5 (<name>) = <hash>' or 'MD5(<name>)= <hash>'. If it begins with a backslash, some characters of the folder's name
# are written as in C, which does not matter.
_LINE_PATTERN = re.compile(
    r"\\?(?:(?P<md5>[0-9a-f]{32})\s+\*?(?P<name>\S.*)"
    r"|MD5\s*\((?P<bsd_name>.+)\)\s*=\s*(?P<bsd_md5>[0-9a-f]{32}))",
    re.IGNORECASE,
)
_SEPARATOR_PATTERN = re.compile(r"[/\\]")
_COMMENTS = ("#", ";")
_MAX_LIST_BYTES = 1 << 20

# What tarfile raises for headers that make no sense.
_DAMAGE = (tarfile.TarError, ValueError, OverflowError, EOFError, KeyError, IndexError, struct.error, RecursionError)


# name, size and mtime_ns, which tell that a tar is still the same, and the md5 it was verified to have, or None.
_Tar = dict[str, Any]
_key = operator.itemgetter("name", "size", "mtime_ns")


class TarSource(ArchiveSource):
    """An `ImageSource` of the members ``a/b/c/<id>.jpg`` of the tars ``train/images_<number>.tar``."""

    def __init__(self, root: epath.Path, table_name: str, index_folder: str | None, folder: str = IMAGES_NAME):
        """Takes the folder with the table, its name, where the index is kept, and the name of the tars' folder."""
        super().__init__(os.fspath(root / folder), index_folder)
        self.table_path = os.fspath(root / table_name)
        self._root = os.fspath(root)
        self._folder = folder
        self._remarks_on_lists: list[str] = []

    def locate(self, image_id: int) -> str:
        """Returns the path of the tar and the member, or of all tars where none has it."""
        member = self.index().find(image_id)
        tar = "images_*.tar" if member is None else self._tar_of(member)["name"]
        return f"{self.archive}/{tar}/{image_path(image_id)}"

    def remarks(self) -> list[str]:
        verified, others = self.verified()
        tars = f"{len(verified) + len(others):,} tars in {self.archive}"
        if not others:
            return [f"All {tars} are verified: they are as their MD5 lists say.", *self._remarks_on_lists]
        listed = list_some(others, _NUM_PROBLEMS_SHOWN)
        text = f"{len(verified):,} of the {tars} are verified. No MD5 list names the others ({listed})"
        return [f"{text}: whether they are whole could not be verified.", *self._remarks_on_lists]

    def verified(self) -> tuple[list[str], list[str]]:
        """Returns the names of the tars that are as their MD5 lists say, and of those that no list names."""
        tars = self.index().archives
        return [tar["name"] for tar in tars if tar["md5"]], [tar["name"] for tar in tars if not tar["md5"]]

    def _read_member(self, member: Any) -> bytes:
        tar = self._tar_of(member)
        path, size = f"{self.archive}/{tar['name']}", int(member["size"])
        name = f"{format_image_id(member['image_id'])}.jpg"
        # Copies of a tar on several machines may have several times.
        stamp = None if self._is_elsewhere else (tar["size"], tar["mtime_ns"])
        content = read_image(path, int(member["offset"]) - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE + size, stamp)
        if len(content) < tarfile.BLOCKSIZE + size:
            raise UnreadableImageError(UnreadableImageError.DAMAGED, f"{path} ends within {name}")
        header, data = content[: tarfile.BLOCKSIZE], content[tarfile.BLOCKSIZE :]
        is_named = name.encode() in header or member["method"] == _NAMED_ELSEWHERE
        if zlib.crc32(header) != int(member["crc"]) or not is_named:
            raise UnreadableImageError(UnreadableImageError.DAMAGED, f"in {path}: {name} is not where it was")
        return data

    def _stamp_member(self, member: Any) -> tuple[int, int]:
        """Returns the image's size, and the tar's modification time and the image's place in it as one number."""
        mtime_ns = int(self._tar_of(member)["mtime_ns"])
        return mark_stamp((int(member["size"]), mtime_ns + int(member["offset"])), self._folder)

    def _tar_of(self, member: Any) -> _Tar:
        return self.index().archives[int(member["archive"])]

    def _make_index(self, known: ArchiveIndex | None, num_threads: int) -> ArchiveIndex:
        names = find_names(epath.Path(self.archive), TAR_PATTERN)
        md5_of_name, self._remarks_on_lists = read_md5_lists(epath.Path(self._root), self._folder)

        def describe(name: str) -> _Tar:
            size, mtime_ns = file_access.stat_file(f"{self.archive}/{name}")
            return {"name": name, "size": size, "mtime_ns": mtime_ns, "md5": md5_of_name.get(name)}

        with ThreadPoolExecutor(num_threads) as pool:
            try:
                tars = list(pool.map(describe, names))
            except OSError as error:
                raise ArchiveError(f"A tar in {self.archive} cannot be opened ({error}).") from None
            if known is not None and known.archives == tars:
                return known
            known_tars = {} if known is None else _split(known)
            found: list[tuple[_Tar, Members]] = []
            problems: list[str] = []
            examined = pool.map(lambda tar: self._examine(tar, known_tars.get(_key(tar))), tars)
            try:
                with progress_bar(len(tars), "Indexing archives", " archives") as bar:
                    for tar, result in zip(tars, examined, strict=True):
                        if isinstance(result, str):
                            problems.append(result)
                        else:
                            found.append((tar, result))
                        bar.update(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            finally:  # what was found is kept, also when the build is interrupted
                index = _join(found)
                if 0 < len(found) < len(tars):
                    with contextlib.suppress(OSError):
                        self._keep(index)
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

    def _examine(self, tar: _Tar, known: tuple[str | None, Members] | None) -> Members | str:
        """Returns the images of a tar, from what is known of it if it has not changed, or what is wrong with it."""
        verified_md5, members = known or (None, None)
        path = f"{self.archive}/{tar['name']}"
        try:
            if tar["md5"] not in (None, verified_md5) and (md5 := md5_of(path)) != tar["md5"]:
                return f"{path} has the MD5 {md5}; its list says {tar['md5']}."
            if members is None:
                members = list_images(path, tar["size"], self._folder, is_verified=tar["md5"] is not None)
            if file_access.stat_file(path) != (tar["size"], tar["mtime_ns"]):
                return f"{path} changes while it is read."
            return members
        except OSError as error:  # an ArchiveError is one
            return str(error)


def _split(index: ArchiveIndex) -> dict[tuple[Any, ...], tuple[str | None, Members]]:
    """Returns the MD5 that each tar was verified to have, and its members."""
    by_tar = index.members[np.argsort(index.members["archive"], kind="stable")]
    parts = np.split(by_tar, np.searchsorted(by_tar["archive"], np.arange(1, len(index.archives))))
    return {_key(tar): (tar["md5"], members) for tar, members in zip(index.archives, parts, strict=True)}


def _join(found: list[tuple[_Tar, Members]]) -> ArchiveIndex:
    """Returns the index of tars, which are numbered in their order."""
    members = np.concatenate([np.zeros(0, dtype=MEMBER), *(members for _, members in found)])
    members["archive"] = np.repeat(np.arange(len(found)), [len(members) for _, members in found])
    return ArchiveIndex.of(members, [tar for tar, _ in found])


def list_images(path: str, size: int, folder: str = IMAGES_NAME, *, is_verified: bool = False) -> Members:
    """Returns the images in a tar of this size, in its order.

    Names of members may begin with the folder that the tar belongs to, 'train', 'index' or 'test'.

    Args:
      path: of the tar.
      size: in bytes.
      folder: that the tar belongs to.
      is_verified: whether the tar is known to be as it was published.

    Raises:
      ArchiveError: if it is damaged, cut off or not a plain tar, or has an image under two names.
      OSError: if it cannot be read.
    """
    images: list[tuple[int, ...]] = []
    names: dict[int, str] = {}
    position = -1
    with file_access.open_file(path) as file:
        try:
            headers = _Headers(file, _MAX_HEADER_BYTES)
            with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
                is_empty = tar.firstmember is None  # in Python 3.10, next() fails on an empty tar
                while not is_empty and (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile would keep them all
                    if tar.offset <= position:
                        raise ArchiveError(f"{path} is damaged at byte {position:,}.")
                    position = tar.offset
                    is_file = member.isreg() and member.sparse is None
                    image_id = parse_tar_name(member.name, folder) if is_file else None
                    if image_id is not None:
                        if names.setdefault(image_id, member.name).lstrip("./") != member.name.lstrip("./"):
                            raise ArchiveError(
                                f"{path} has an image twice, as {names[image_id]} and as {member.name}. Pack one of"
                                " them alone."
                            )
                        header = headers.last_block
                        place = 0 if f"{format_image_id(image_id)}.jpg".encode() in header else _NAMED_ELSEWHERE
                        num_bytes = min(member.size, LARGEST_SIZE)
                        images.append(
                            (image_id, member.offset_data, num_bytes, num_bytes, zlib.crc32(header), 0, place, 0)
                        )
                    if member.offset_data + (member.size if member.isreg() else 0) > size:
                        raise ArchiveError(f"{path} is cut off: it ends, after {size:,} bytes, within {member.name!r}.")
                end = max(tar.offset, 0)
        except _DAMAGE as error:
            if isinstance(error, ArchiveError):
                raise
            what = "is no tar, is compressed or" if position < 0 else "is"
            raise ArchiveError(f"{path} {what} damaged after byte {max(position, 0):,} ({error}).") from None
        _check_end(file, path, end, is_verified)
    return np.array(images, dtype=MEMBER)


def _check_end(file: IO[bytes], path: str, end: int, is_verified: bool) -> None:
    """Raises ArchiveError if there is anything behind the last member but what a tar ends with: some zeros."""
    file.seek(end)
    chunk = file.read(tarfile.BLOCKSIZE)
    if chunk != _END_MARK:
        # A missing end is an end that is cut off; anything else here is a header that tarfile could not read.
        what = "cut off" if len(chunk) < tarfile.BLOCKSIZE else "damaged"
        raise ArchiveError(f"{path} is {what} at byte {end:,}: there is neither a member nor the end mark of a tar.")
    at = end
    while chunk and (is_verified or at - end <= 2 * _LARGEST_RECORD):
        if data := chunk.lstrip(b"\0"):
            raise ArchiveError(
                f"{path} has data at byte {at + len(chunk) - len(data):,}, behind its end mark at byte {end:,}: a"
                " header was overwritten with zeros, or several tars were joined."
            )
        at += len(chunk)
        chunk = file.read(_CHUNK_BYTES)
    # Two blocks, and what fills up the last record: usually of 10,240 bytes, else of a power of two.
    num_usual = len(_END_MARK) * 2 + max(tarfile.RECORDSIZE, min(at & -at, _LARGEST_RECORD))
    if at - end > num_usual and not is_verified:
        raise ArchiveError(
            f"{path} holds {at - end:,} bytes of zeros{' and more' if chunk else ''} from byte {end:,} on, more"
            " than the end of a tar has: is it an unfinished download? If it is whole, put an MD5 list beside it."
        )


class _Headers(BoundedReads):
    """A tar as tarfile reads it.

    Attributes:
      last_block: what was read last, of a block's size: of a member that tarfile has found, the header before its data.
    """

    last_block = b""

    def read(self, num_bytes: int | None = None) -> bytes:
        content = super().read(num_bytes)
        if num_bytes == tarfile.BLOCKSIZE:
            self.last_block = content
        return content


# --- MD5 lists


def read_md5_lists(root: epath.Path, folder: str = IMAGES_NAME) -> tuple[dict[str, str], list[str]]:
    """Returns the MD5, in lower case, of each tar of a folder that a list names, and what is odd about the lists.

    Tars in ``train/``, ``index/`` and ``test/`` have the same names. So where a line names a folder, it counts for tars
    in that folder; where it does not, the folder that the list is in decides.

    Args:
      root: the folder with the table and ``train/``.
      folder: of the tars.

    Raises:
      ArchiveError: if a list cannot be read.
    """
    md5_of_name: dict[str, str] = {}
    remarks: list[str] = []
    # Beside the tars, beside the table, or where a mirror of the published files has them.
    for place, meant in ((folder, folder), (".", IMAGES_NAME), (f"md5sum/{folder}", folder)):
        if not (root / place).is_dir():
            continue
        for path in sorted((root / place).iterdir()):
            if not _LIST_PATTERN.fullmatch(path.name) or path.is_dir():
                continue
            entries, remark = _read_list(os.fspath(path))
            remarks += [f"{path} {remark}"] if remark else []
            for above, name, md5 in entries:
                if (above or meant) == folder and md5_of_name.setdefault(name, md5) != md5:
                    remarks.append(f"{path} has another MD5 of {name} than a list before it, which counts.")
    return md5_of_name, remarks


def _read_list(path: str) -> tuple[list[tuple[str, str, str]], str]:
    """Returns the folder, or '', the name and the MD5 of each tar in a list; and what is odd about the list, or ''."""
    try:
        with file_access.open_file(path) as file:
            content = file.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        raise ArchiveError(f"The MD5 list {path} cannot be read ({error}). Mend it, or take it away.") from None
    if len(content) > _MAX_LIST_BYTES:
        return [], "is too large for an MD5 list of tars. It is not read, and verifies nothing."
    lines = [line.strip() for line in file_access.decode_text(content, "replace").splitlines()]
    entries: list[tuple[str, str, str]] = []
    wrong: list[str] = []
    for line in lines:
        if not line or line.startswith(_COMMENTS):
            continue
        match = _LINE_PATTERN.fullmatch(line)
        if match is None:
            wrong.append(line)
            continue
        *above, name = _SEPARATOR_PATTERN.split(match["name"] or match["bsd_name"])
        if TAR_PATTERN.fullmatch(name):
            in_folder = above[-1] if above and above[-1] in FOLDER_NAMES else ""
            entries.append((in_folder, name, (match["md5"] or match["bsd_md5"]).lower()))
    if wrong:
        return entries, (
            f"has {len(wrong):,} lines that are not understood, such as {shorten(wrong[0])}. Expected are those that"
            " `md5sum` writes: <hash>  <name>"
        )
    return entries, "" if entries else "names no tar images_<number>.tar, so it verifies nothing."


def md5_of(path: str) -> str:
    """Returns the MD5 of a file, local or remote; raises OSError."""
    digest = hashlib.md5(usedforsecurity=False)
    with file_access.open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
