"""Lists of sha256 hashes as `sha256sum` writes and reads them: one published, and one of a dataset at hand.

The same files and the same config give the same bytes, so whoever publishes a config can publish the hashes of its
shards, and others can see whether they built, or were given, the same.
"""

from __future__ import annotations

from collections.abc import Mapping
import re

from etils import epath

from landmark_triplets_tfds.commands.verify.findings import SHA256, Findings
from landmark_triplets_tfds.commands.verify.records import hash_file
from landmark_triplets_tfds.errors import CommandError

_LINE_PATTERN = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+?)\s*")


def format_hashes(hashes: Mapping[str, str]) -> list[str]:
    """Returns the lines that `sha256sum` would print for files of these names."""
    return [f"{sha256}  {name}" for name, sha256 in hashes.items()]


def read_hashes(path: epath.Path) -> dict[str, str]:
    """Reads a list, which may be what `verify` printed: other lines are ignored, and so are folders before a name.

    Returns:
      sha256 by file name.

    Raises:
      CommandError: if there is no hash in the file, or a name has two.
      OSError: if it cannot be read.
    """
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError:
        lines = []
    matches = [match for match in map(_LINE_PATTERN.fullmatch, lines) if match]
    if not matches:
        raise CommandError(f"{path} holds no line of `sha256sum`: 64 hex digits, two spaces, a file name.")
    hashes: dict[str, str] = {}
    for match in matches:
        name, sha256 = re.split(r"[/\\]", match[2])[-1], match[1].lower()
        if hashes.setdefault(name, sha256) != sha256:
            raise CommandError(f"{path} holds two hashes of {name}. Give a list of one dataset.")
    return hashes


def compare_hashes(
    published: Mapping[str, str], shards: Mapping[str, str], folder: epath.Path, findings: Findings
) -> None:
    """Adds what differs from a published list.

    Args:
      published: sha256 by file name, of shards and perhaps of other files.
      shards: of the shards at hand.
      folder: of the dataset, where other files are.
      findings: are added to.
    """
    for name, expected in published.items():
        found = shards.get(name)
        if found is None:
            try:
                found = hash_file(folder / name)
            except OSError:
                findings.add(SHA256, "it is in the published list, and not here", file=name)
                continue
        if found != expected:
            findings.add(SHA256, f"it is {found}, and {expected} was published", file=name)
    for name in shards:
        if name not in published:
            findings.add(SHA256, "it is not in the published list", file=name)
