"""The command `verify`: is this dataset whole, and is it what a build makes of these files?

All checks in their order, and what is shown of them. What is wrong and what could not be checked are told apart: either
ends "all is well", the first with the exit status of something wrong, the second alone with that of work not done.

The same files and the same config give the same bytes, so whoever publishes a config can publish the hashes of its
shards, and others can see whether they built, or were given, the same: lists of hashes are written and read as
`sha256sum` does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
import re
import time
from typing import Any

from etils import epath

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.prepared import PreparedData, find_version_folder, hash_file, read_prepared_data
from landmark_triplets_tfds.commands.verify.records import NUM_KEPT, Findings, Kind, Records, check_shards
from landmark_triplets_tfds.commands.verify.source import SourceOptions, check_against_source
from landmark_triplets_tfds.commands.verify.together import check_files, check_together
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.errors import CommandError

_HASH_PATTERN = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+?)\s*")


def run(arguments: argparse.Namespace) -> int:
    """Checks a dataset and shows what was found."""
    source = None
    if arguments.manual_dir is not None:
        source = SourceOptions(
            manual_dir=arguments.manual_dir,
            exclude_landmarks=arguments.exclude_landmarks,
            sample=arguments.sample,
            seed=arguments.seed,
        )
    elif arguments.exclude_landmarks is not None:
        raise CommandError("--exclude_landmarks is of use with --manual_dir only.")
    published = None if arguments.sha256 is None else _read_hashes(arguments.sha256)
    folder = find_version_folder(arguments.data_dir, arguments.dataset)
    data, found = verify(folder, source=source, published=published, num_processes=arguments.workers)
    num_shown = NUM_KEPT if arguments.show_all else 5
    console.show_found(found, _lines(data, found, num_shown), as_json=arguments.json)
    if found["num_problems"]:
        return console.FOUND_WRONG
    if found["not_checked"]:
        raise CommandError(f"Not all could be checked. {' '.join(found['not_checked'])}")
    return console.OK


def verify(
    folder: epath.Path,
    *,
    source: SourceOptions | None = None,
    published: Mapping[str, str] | None = None,
    num_processes: int | None = None,
) -> tuple[PreparedData, dict[str, Any]]:
    """Checks a prepared dataset by itself, and against what it was made from and the published sha256 of its files.

    Returns:
      The dataset, and what `--json` prints of it; docs/commands.md documents it.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
      SourceLayoutError, LandmarkTableError, ArchiveError: if the source cannot be used.
    """
    started = time.perf_counter()
    findings = Findings()
    data = read_prepared_data(folder)
    check_files(data, findings)
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
    if source is None:
        findings.notes.append("not compared with the competition's files (--manual_dir)")
    else:
        check_against_source(data, splits, source, findings)
    return data, {
        "schema_version": 1,
        "dataset": data.name,
        "folder": str(data.folder),
        "file_format": data.file_format,
        "all_well": not findings.counts and not findings.not_checked,
        "num_records": {split: records.num_records for split, records in splits.items()},
        "num_bytes": sum(records.num_bytes for records in splits.values()),
        **findings.as_json(),
        "sha256": hashes,
        "seconds": round(time.perf_counter() - started, 3),
    }


def _read_hashes(path: epath.Path) -> dict[str, str]:
    """Returns sha256 by file name, of a list or what `verify` printed: it ignores other lines, and folders of files."""
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
    """Adds what differs from a published list, sha256 by file name, of shards and perhaps of other files."""
    for name in {**published, **shards}:
        expected = published.get(name)
        try:
            found = shards.get(name) or hash_file(folder / name)
        except OSError:
            findings.add(Kind.SHA256, "it is in the published list, and not here", file=name)
        else:
            if expected is None:
                findings.add(Kind.SHA256, "it is not in the published list", file=name)
            elif found != expected:
                findings.add(Kind.SHA256, f"it is {found}, and {expected} was published", file=name)


def _lines(data: PreparedData, found: dict[str, Any], num_shown: int) -> Iterator[str]:
    counts = ", ".join(f"{split} {count:,}" for split, count in found["num_records"].items())
    yield f"{console.styled(data.name, 'bold')} in {data.folder}"
    yield (
        f"{counts or 'no'} {data.kind.noun} in {len(data.shards):,} {data.file_format} shards,"
        f" {found['num_bytes'] / 1e6:,.1f} MB, read in {found['seconds']:,.1f} s."
    )
    yield from (f"{sha256}  {name}" for name, sha256 in found["sha256"].items())
    for kind, count in found["num_problems_by_kind"].items():
        yield console.styled(f"{kind.capitalize()}: {count:,} wrong", "red")
        shown = [problem for problem in found["problems"] if problem["kind"] == kind][:num_shown]
        yield from map(_describe_problem, shown)
        if count > len(shown):
            yield f"  ... and {count - len(shown):,} more"
    yield from (console.styled(f"Not checked: {what}", "yellow") for what in found["not_checked"])
    if found["num_problems"]:
        yield console.styled(f"{found['num_problems']:,} problems.", "red")
    elif found["not_checked"]:
        yield console.styled("No problems in what could be checked.", "yellow")
    else:
        yield "; ".join([console.styled("All well", "green"), *found["notes"]]) + "."


def _describe_problem(problem: dict[str, Any]) -> str:
    record = None if problem["record"] is None else f"record {problem['record']:,}"
    key = problem["key"] and f"key {problem['key']}"
    place = ", ".join(part for part in (problem["file"], record, key) if part)
    return f"  {place}: {problem['message']}" if place else f"  {problem['message']}"
