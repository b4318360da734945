"""MD5 lists, as they are published with tars: which hash each tar should have."""

from __future__ import annotations

import hashlib
import re

from etils import epath

from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.layout import FOLDER_NAMES, IMAGES_NAME

_MD5_LIST_PATTERN = re.compile(r"md5.*\.txt|.*\.md5|MD5SUMS?", re.IGNORECASE)
_MD5_LINE_PATTERN = re.compile(r"\s*([0-9a-fA-F]{32})\s+\*?(\S+)\s*")
_MAX_LIST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def read_md5_lists(root: epath.Path, folder: str = IMAGES_NAME) -> dict[str, str]:
    """Returns the MD5, in lower case, of each file of a folder that a list names: lines ``<hash>  <name>``.

    Tars in ``train/``, ``index/`` and ``test/`` have the same names. So where a line names a folder, it counts for tars
    in that folder; where it does not, the folder that the list is in decides.

    Args:
      root: the folder with the table and ``train/``.
      folder: of the tars.
    """
    md5_of_name: dict[str, str] = {}
    # Beside the tars, beside the table, or where a mirror of the published files has them.
    for place, meant in ((folder, folder), (".", IMAGES_NAME), (f"md5sum/{folder}", folder)):
        if not (root / place).is_dir():
            continue
        for path in sorted((root / place).iterdir()):
            if not _MD5_LIST_PATTERN.fullmatch(path.name) or not path.is_file():
                continue
            if file_access.stat_file(str(path))[0] > _MAX_LIST_BYTES:
                continue
            for line in path.read_bytes().decode("ascii", "replace").splitlines():
                if match := _MD5_LINE_PATTERN.fullmatch(line):
                    *above, name = match[2].split("/")
                    if (above[-1] if above and above[-1] in FOLDER_NAMES else meant) == folder:
                        md5_of_name.setdefault(name, match[1].lower())
    return md5_of_name


def md5_of(path: str) -> str:
    """Returns the MD5 of a file, local or remote; raises OSError."""
    digest = hashlib.md5(usedforsecurity=False)
    with file_access.open_file(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
