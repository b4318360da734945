"""The command `verify`: is this dataset whole, and is it what a build makes of these files?

All checks in their order, and what is shown of them. The same files and the same config give the same bytes, so whoever
publishes a config can publish the hashes of its shards, and others can see whether they built, or were given, the same:
lists of hashes are written and read as `sha256sum` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import dataclasses
import re
import time
from typing import Any

from etils import epath

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.verify.findings import SHA256, Findings
from landmark_triplets_tfds.commands.verify.prepared import PreparedData, find_version_folder, read_prepared_data
from landmark_triplets_tfds.commands.verify.records import hash_file
from landmark_triplets_tfds.commands.verify.shards import Records, check_shards
from landmark_triplets_tfds.commands.verify.source import SourceOptions, check_against_source
from landmark_triplets_tfds.commands.verify.together import check_together
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.errors import CommandError

SCHEMA_VERSION = 1

_HASH_PATTERN = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+?)\s*")


def run(arguments: argparse.Namespace) -> int:
    """Checks a dataset and shows what was found."""
    source = None
    if arguments.manual_dir is not None:
        source = SourceOptions(
            manual_dir=epath.Path(arguments.manual_dir).expanduser(),
            exclude_landmarks=arguments.exclude_landmarks,
            sample=arguments.sample,
            seed=arguments.seed,
        )
    elif arguments.exclude_landmarks is not None:
        raise CommandError("--exclude_landmarks is of use with --manual_dir only.")
    published = None if arguments.sha256 is None else _read_hashes(epath.Path(arguments.sha256).expanduser())
    folder = find_version_folder(arguments.data_dir, arguments.dataset)
    verification = verify(folder, source=source, published=published, num_processes=arguments.workers)
    if arguments.json:
        console.print_json(verification.as_json())
    else:
        print("\n".join(_describe(verification, arguments.manual_dir, 100 if arguments.show_all else 5)))
    return console.FOUND_WRONG if verification.findings.num_problems else console.OK


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of looking at a dataset.

    Attributes:
      data: the dataset.
      findings: what is wrong, and what could not be compared.
      hashes: sha256 of each shard that can be read, by its name.
      num_records: by split, damaged ones included.
      num_bytes: of all shards' records.
      seconds: that it took.
    """

    data: PreparedData
    findings: Findings
    hashes: dict[str, str]
    num_records: dict[str, int]
    num_bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Returns everything, ready for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.data.name,
            "folder": str(self.data.folder),
            "file_format": self.data.file_format,
            "all_well": not self.findings.num_problems,
            "num_records": self.num_records,
            "num_bytes": self.num_bytes,
            "num_problems": self.findings.num_problems,
            "num_problems_by_kind": {kind: self.findings.counts[kind] for kind in self.findings.by_kind},
            "problems": [dataclasses.asdict(problem) for problem in self.findings.problems],
            "notes": self.findings.notes,
            "sha256": self.hashes,
            "seconds": round(self.seconds, 3),
        }


def verify(
    folder: epath.Path,
    *,
    source: SourceOptions | None = None,
    published: Mapping[str, str] | None = None,
    num_processes: int | None = None,
) -> Verification:
    """Checks a prepared dataset.

    Args:
      folder: of its version.
      source: what it was made from, to compare it with; None: it is checked by itself.
      published: sha256 of files by name, to compare with; None: none are.
      num_processes: that read; None: one for each usable core.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
      SourceLayoutError, LandmarkTableError, ArchiveError: if the source cannot be used.
    """
    started = time.perf_counter()
    findings = Findings()
    data = read_prepared_data(folder, findings)
    hashes: dict[str, str] = {}
    parts: dict[str, list[Records]] = {split: [] for split in data.splits()}
    with progress_bar(len(data.shards), "Reading shards", " shards") as bar:
        for shard, (records, sha256, found) in zip(data.shards, check_shards(data, num_processes), strict=True):
            parts[shard.split].append(records)
            if sha256 is not None:
                hashes[shard.name] = sha256
            findings.take_over(found)
            bar.update()
    splits = {split: Records.join(of_split) for split, of_split in parts.items()}
    check_together(data, splits, findings)
    if published is not None:
        _compare_hashes(published, hashes, folder, findings)
    if source is not None and splits:
        check_against_source(data, splits, source, findings)
    return Verification(
        data=data,
        findings=findings,
        hashes=hashes,
        num_records={split: records.num_records for split, records in splits.items()},
        num_bytes=sum(records.num_bytes for records in splits.values()),
        seconds=time.perf_counter() - started,
    )


def _read_hashes(path: epath.Path) -> dict[str, str]:
    """Reads a list, which may be what `verify` printed: other lines are ignored, and so are folders before a name.

    Returns:
      sha256 by file name.

    Raises:
      CommandError: if there is no hash in the file, or a name has two.
      OSError: if it cannot be read.
    """
    lines = path.read_bytes().decode(errors="replace").splitlines()
    matches = [match for match in map(_HASH_PATTERN.fullmatch, lines) if match]
    if not matches:
        raise CommandError(f"{path} holds no line of `sha256sum`: 64 hex digits, two spaces, a file name.")
    hashes: dict[str, str] = {}
    for match in matches:
        name, sha256 = re.split(r"[/\\]", match[2])[-1], match[1].lower()
        if hashes.setdefault(name, sha256) != sha256:
            raise CommandError(f"{path} holds two hashes of {name}. Give a list of one dataset.")
    return hashes


def _compare_hashes(
    published: Mapping[str, str], shards: Mapping[str, str], folder: epath.Path, findings: Findings
) -> None:
    """Adds what differs from a published list.

    Args:
      published: sha256 by file name, of shards and perhaps of other files.
      shards: of the shards at hand.
      folder: of the dataset, where other files are.
      findings: are added to.
    """
    for name in {**published, **shards}:
        expected = published.get(name)
        try:
            found = shards.get(name) or hash_file(folder / name)
        except OSError:
            findings.add(SHA256, "it is in the published list, and not here", file=name)
        else:
            if expected is None:
                findings.add(SHA256, "it is not in the published list", file=name)
            elif found != expected:
                findings.add(SHA256, f"it is {found}, and {expected} was published", file=name)


def _describe(verification: Verification, manual_dir: str | None, num_shown: int) -> list[str]:
    """Returns the lines that are shown."""
    data, findings = verification.data, verification.findings
    counts = ", ".join(f"{split} {count:,}" for split, count in verification.num_records.items())
    lines = [
        console.styled(data.name, "bold") + f" in {data.folder}",
        f"{counts or 'no'} {data.kind.noun} in {len(data.shards):,} {data.file_format} shards,"
        f" {verification.num_bytes / 1e6:,.1f} MB, read in {verification.seconds:,.1f} s.",
        *(f"{sha256}  {name}" for name, sha256 in verification.hashes.items()),
    ]
    for kind, problems in findings.by_kind.items():
        count = findings.counts[kind]
        lines.append(console.styled(f"{kind.capitalize()}: {count:,} wrong", "red"))
        lines += [f"  {problem}" for problem in problems[:num_shown]]
        if count > num_shown:
            lines.append(f"  ... and {count - min(num_shown, len(problems)):,} more")
    lines += [console.styled(f"Note: {note}", "yellow") for note in findings.notes]
    if findings.num_problems:
        lines.append(console.styled(f"{findings.num_problems:,} problems.", "red"))
    elif manual_dir is None:
        lines.append(
            console.styled("All well", "green") + "; not compared with the competition's files (--manual_dir)."
        )
    else:
        lines.append(console.styled("All well.", "green"))
    return lines
