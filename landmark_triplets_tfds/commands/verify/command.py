"""The command `verify`: is this dataset whole, and is it what a build makes of these files?

All checks in their order, and what is shown of them. What records say together, and what the files beside the shards
say of them, is checked here: images that contradict each other, repetitions, splits that share landmarks, the index of
images, and the counts and fields that dataset_info.json, metadata.json and build_report.json record.

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
import numpy as np

from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.prepared import (
    FEATURES_NAME,
    INFO_NAME,
    METADATA_NAME,
    SHARD_PATTERN,
    PreparedData,
    find_version_folder,
    hash_file,
    read_prepared_data,
)
from landmark_triplets_tfds.commands.verify.records import (
    COUNT,
    FILE,
    IMAGE,
    INDEX,
    INFO,
    NUM_KEPT,
    REPEATED,
    RULE,
    SHA256,
    Findings,
    Records,
    check_shards,
    find_runs,
)
from landmark_triplets_tfds.commands.verify.source import SourceOptions, check_against_source
from landmark_triplets_tfds.common.progress import progress_bar
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import CommandError, ImageIndexError
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.triplets.examples import IMAGES

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
    if arguments.json:
        console.print_json(found)
    else:
        console.show("\n".join(_lines(data, found, arguments.manual_dir, NUM_KEPT if arguments.show_all else 5)))
    return console.OK if found["all_well"] else console.FOUND_WRONG


def verify(
    folder: epath.Path,
    *,
    source: SourceOptions | None = None,
    published: Mapping[str, str] | None = None,
    num_processes: int | None = None,
) -> tuple[PreparedData, dict[str, Any]]:
    """Checks a prepared dataset.

    Args:
      folder: of its version.
      source: what it was made from, to compare it with; None: it is checked by itself.
      published: sha256 of files by name, to compare with; None: none are.
      num_processes: that read; None: one for each usable core.

    Returns:
      The dataset, and what `--json` prints of it; docs/commands.md documents it.

    Raises:
      CommandError: if it is no dataset that can be looked at here.
      SourceLayoutError, LandmarkTableError, ArchiveError: if the source cannot be used.
    """
    started = time.perf_counter()
    findings = Findings()
    data = read_prepared_data(folder)
    _check_files(data, findings)
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
    _check_together(data, splits, findings)
    if published is not None:
        _compare_hashes(published, hashes, folder, findings)
    if source is not None and splits:
        check_against_source(data, splits, source, findings)
    return data, {
        "schema_version": 1,
        "dataset": data.name,
        "folder": str(data.folder),
        "file_format": data.file_format,
        "all_well": not findings.counts,
        "num_records": {split: records.num_records for split, records in splits.items()},
        "num_bytes": sum(records.num_bytes for records in splits.values()),
        **findings.as_json(),
        "sha256": hashes,
        "seconds": round(time.perf_counter() - started, 3),
    }


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


def _lines(data: PreparedData, found: dict[str, Any], manual_dir: epath.Path | None, num_shown: int) -> Iterator[str]:
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
    yield from (console.styled(f"Note: {note}", "yellow") for note in found["notes"])
    if not found["all_well"]:
        yield console.styled(f"{found['num_problems']:,} problems.", "red")
    elif manual_dir is None:
        yield console.styled("All well", "green") + "; not compared with the competition's files (--manual_dir)."
    else:
        yield console.styled("All well.", "green")


def _describe_problem(problem: dict[str, Any]) -> str:
    record = None if problem["record"] is None else f"record {problem['record']:,}"
    key = problem["key"] and f"key {problem['key']}"
    place = ", ".join(part for part in (problem["file"], record, key) if part)
    return f"  {place}: {problem['message']}" if place else f"  {problem['message']}"


# --- What records say together, and the files beside the shards


def _check_files(data: PreparedData, findings: Findings) -> None:
    """The files that describe the dataset can be read, and the shards are those that they list."""
    for name, what in data.damage.items():
        findings.add(INFO, what, file=name)
    listed = {shard.name for shard in data.shards}
    there = {path.name for path in data.folder.iterdir()}
    for name in sorted(listed - there):
        findings.add(FILE, "it is missing", file=name)
    for name in sorted(there - listed):
        if SHARD_PATTERN.fullmatch(name):
            findings.add(FILE, f"{INFO_NAME} lists no such shard", file=name)


def _check_together(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """Adds what is wrong with the records of all splits, seen together and with the files beside them."""
    _check_recorded(data, splits, findings)
    if splits:
        _check_same_everywhere(data, Records.join(list(splits.values())), findings)
    for split, records in splits.items():
        _check_repetitions(data, records, findings)
        if split in (TRAIN, VALIDATION):
            _check_side(data, split, records, findings)
    if data.kind == IMAGES:
        _check_index(data, splits, findings)


def _check_same_everywhere(data: PreparedData, records: Records, findings: Findings) -> None:
    """An image has one landmark and one thumbnail, however many records hold it."""
    names = data.kind.image_features
    ids, landmarks, digests = records.image_ids.ravel(), records.landmark_ids.ravel(), records.digests.ravel()
    order = np.argsort(ids, kind="stable")
    labeled = order[landmarks[order] >= 0]  # an image may be in an unlabeled split too
    for kind, values, among in ((RULE, landmarks, labeled), (IMAGE, digests, order)):
        starts, stops = find_runs(ids[among])
        lowest, highest = (ufunc.reduceat(values[among], starts) for ufunc in (np.minimum, np.maximum))
        for run in np.flatnonzero(lowest != highest).tolist():
            group = among[starts[run] : stops[run]]
            found, first, counts = np.unique(values[group], return_index=True, return_counts=True)
            usual = max(range(len(found)), key=lambda i: (counts[i], -first[i]))
            elsewhere = _describe_place(data, records, int(group[first[usual]]) // len(names))
            for at in group[values[group] != found[usual]].tolist():
                what = (
                    f"shows landmark {values[at]}, and landmark {found[usual]} in {elsewhere}"
                    if kind == RULE
                    else f"differs from the image stored under the same id in {elsewhere}"
                )
                message = f"{names[at % len(names)]}, image {format_image_id(ids[at])}, {what}"
                findings.add(kind, message, **records.place(at // len(names), data))


def _describe_place(data: PreparedData, records: Records, number: int) -> str:
    return f"{data.shards[records.shards[number]].name}, record {records.numbers[number]:,}"


def _check_repetitions(data: PreparedData, records: Records, findings: Findings) -> None:
    """In a split, an anchor has as many triplets as the config says, a single image one record."""
    if data.config_fields.get("triplets_file"):
        return  # a file of triplets says itself how often an anchor is one
    per_anchor = data.config_fields.get("triplets_per_anchor", 1)
    order = np.argsort(records.image_ids[:, 0], kind="stable")
    starts, stops = find_runs(records.image_ids[order, 0])
    for run in np.flatnonzero(stops - starts > per_anchor).tolist():
        first = _describe_place(data, records, int(order[starts[run]]))
        already = "is its key already" if per_anchor == 1 else f"begin the {per_anchor} triplets of its anchor"
        for at in order[starts[run] + per_anchor : stops[run]].tolist():
            findings.add(REPEATED, f"in {first} {already}", **records.place(at, data))
    limit = data.config_fields.get("images_per_landmark")
    if not isinstance(limit, int):
        return
    found = records.landmark_ids[order[starts], 0]  # of each anchor or image once
    landmarks, counts = np.unique(found[found >= 0], return_counts=True)
    what = "images" if data.kind == IMAGES else "anchors"
    for landmark, count in zip(landmarks[counts > limit], counts[counts > limit], strict=True):
        allowed = f"the config allows images_per_landmark={limit}"
        findings.add(RULE, f"landmark {landmark} has {count:,} {what}, and {allowed}")


def _check_side(data: PreparedData, split: str, records: Records, findings: Findings) -> None:
    """A landmark is in the split that the hash of its id decides, and so in no other one."""
    percent = data.config_fields.get("validation_percent")
    if not isinstance(percent, int | float):
        return  # metadata.json is damaged
    landmarks = np.unique(records.landmark_ids)
    wrong = landmarks[is_held_out(landmarks, percent) != (split == VALIDATION)]
    for at in np.flatnonzero(np.isin(records.landmark_ids, wrong).any(axis=1)).tolist():
        found = ", ".join(map(str, np.intersect1d(records.landmark_ids[at], wrong)))
        message = f"landmark {found} belongs to the other split than {split}, by validation_percent={percent}"
        findings.add(RULE, message, **records.place(at, data))


def _check_index(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """index.npz lists the records of each split, in their order."""
    if not (data.folder / INDEX_NAME).exists():
        findings.notes.append(f"There is no {INDEX_NAME}: fresh triplets and batches of landmarks need it.")
        return
    for split, records in splits.items():
        try:
            index = read_image_index(data.folder, split)
        except ImageIndexError as error:
            findings.add(INDEX, str(error), file=INDEX_NAME)
            return
        if len(index) != len(records):
            message = f"it lists {len(index):,} records of {split}, of which {len(records):,} are there to be compared"
            findings.add(INDEX, message, file=INDEX_NAME)
            continue
        ids, landmarks = records.image_ids[:, 0], records.landmark_ids[:, 0]
        for i in np.flatnonzero((index.image_ids != ids) | (index.landmark_ids != landmarks)).tolist():
            findings.add(
                INDEX,
                f"{INDEX_NAME} lists image {format_image_id(index.image_ids[i])} of landmark {index.landmark_ids[i]}"
                f" for it, and it says landmark {landmarks[i]}",
                **records.place(i, data),
            )


def _check_recorded(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """The shards, dataset_info.json, metadata.json and build_report.json fit together."""
    for split, records in splits.items():
        expected = data.split_bytes.get(split)
        # Of damaged records it is said already that they are damaged.
        if len(records) == records.num_records and expected not in (None, records.num_bytes):
            message = f"the records of {split} have {records.num_bytes:,} bytes, and it says num_bytes={expected:,}"
            findings.add(COUNT, message, file=INFO_NAME)
    if data.metadata is not None:
        resolution = data.config_fields.get("resolution")
        if data.image_px not in (None, (resolution, resolution)):
            message = f"its config has resolution {resolution}, and {FEATURES_NAME} {data.image_px}"
            findings.add(INFO, message, file=METADATA_NAME)
        name = f"num_{data.kind.count_name}"
        found = {split: records.num_records for split, records in splits.items()}
        total = data.metadata["counts"].get(name)
        if total != sum(found.values()):
            message = f"{name} is {total}, and the shards hold {sum(found.values()):,}"
            findings.add(COUNT, message, file=METADATA_NAME)
        recorded = {split: counts.get(name) for split, counts in data.metadata["counts"]["splits"].items()}
        for split in {**recorded, **found}:
            if (recorded.get(split) or 0) != found.get(split, 0):
                message = f"{name} of {split} is {recorded.get(split)}, and its shards hold {found.get(split, 0):,}"
                findings.add(COUNT, message, file=METADATA_NAME)
    if data.report is None:
        findings.notes.append(f"There is no readable {REPORT_NAME}: which images were left out is not known.")
        return
    if data.report.get("dataset") != data.name:
        findings.add(INFO, f"it is of {data.report.get('dataset')!r}, not of {data.name}", file=REPORT_NAME)
    for field in ("config", "table_sha256", "max_examples_per_split", "counts"):
        if data.metadata is not None and data.report.get(field) != data.metadata.get(field):
            findings.add(INFO, f"its {field} is not that of {METADATA_NAME}", file=REPORT_NAME)
    num_listed, num_counted = len(data.report["unreadable_images"]), data.report["counts"].get("num_images_unreadable")
    if num_listed != num_counted:
        message = f"it lists {num_listed:,} unreadable images, and counts {num_counted}"
        findings.add(COUNT, message, file=REPORT_NAME)
