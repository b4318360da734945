"""MD5 lists, as they are published with tars: which hash each tar should have.

Read are the forms that ``md5sum -c`` reads, GNU's, BSD's and OpenSSL's. A list that says nothing of the tars, since it
is in another form or of other files, is no error, but it is said: who put it there thinks that the tars are verified.
"""

from __future__ import annotations

import hashlib
import os
import re

from etils import epath

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.common.checks import shorten
from landmark_triplets_tfds.competition.layout import FOLDER_NAMES, IMAGES_NAME, TAR_PATTERN
from landmark_triplets_tfds.errors import ArchiveError

_LIST_PATTERN = re.compile(r"md5.*|.*md5(sums?)?(\.txt)?", re.IGNORECASE)
# '<hash>  <name>' or '<hash> *<name>'; 'MD5 (<name>) = <hash>' or 'MD5(<name>)= <hash>'. In lines that begin with a
# backslash, some characters of names are written as in C.
_LINE_PATTERN = re.compile(
    r"(?P<escaped>\\?)(?:(?P<md5>[0-9a-f]{32})\s+\*?(?P<name>\S.*)"
    r"|MD5\s*\((?P<bsd_name>.+)\)\s*=\s*(?P<bsd_md5>[0-9a-f]{32}))",
    re.IGNORECASE,
)
_ESCAPE_PATTERN = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r"}
_SEPARATOR_PATTERN = re.compile(r"[/\\]")
_COMMENTS = ("#", ";")
_MAX_LIST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


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
        name = match["name"] or match["bsd_name"]
        if match["escaped"]:
            name = _ESCAPE_PATTERN.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), name)
        *above, name = _SEPARATOR_PATTERN.split(name)
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
