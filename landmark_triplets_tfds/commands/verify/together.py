"""What records say together, and what the files beside the shards say of them.

Images that contradict each other, repetitions, another order than that of builds, splits that share landmarks; the
index of images, the list of triplets, and the counts and fields that dataset_info.json, metadata.json and
build_report.json record.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
import os
import re

import numpy as np
from tensorflow_datasets.core.hashing import Hasher

from landmark_triplets_tfds.build.hooks import FEATURES_NAME, INFO_NAME, METADATA_NAME
from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands.prepared import SHARD_PATTERN, PreparedData
from landmark_triplets_tfds.commands.verify.records import Findings, Kind, Records, find_runs
from landmark_triplets_tfds.common import file_access
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_indexes
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS
from landmark_triplets_tfds.triplets.triplets_file import CSV_HEADER, csv_name, format_csv_line

_KEY_PATTERN = re.compile(r"(.{16})(?:/([1-9][0-9]{0,9}))?")


def check_files(data: PreparedData, findings: Findings) -> None:
    """The files that describe the dataset can be read, and there are no shards but those that TFDS reads."""
    for name, what in data.damage.items():
        findings.add(Kind.INFO, what, file=name)
    if INFO_NAME in data.damage or FEATURES_NAME in data.damage:
        what = "Which shards TFDS reads, and how many records are in each: it opens no such folder."
        findings.not_checked.append(what)
    told = {METADATA_NAME: "What the config asks for", REPORT_NAME: "Which images were left out, and why"}
    findings.not_checked += [
        f"{what}: {name} is missing or damaged." for name, what in told.items() if name in data.damage
    ]
    listed = {shard.name for shard in data.shards}
    for name in sorted(path.name for path in data.folder.iterdir()):
        if name not in listed and SHARD_PATTERN.fullmatch(name):
            findings.add(Kind.FILE, f"{INFO_NAME} lists no such shard", file=name)


def check_together(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """Adds what is wrong with the records of all splits, seen together and with the files beside them."""
    _check_recorded(data, splits, findings)
    if splits:
        _check_same_everywhere(data, Records.join(list(splits.values())), findings)
    for split, records in splits.items():
        if data.metadata is not None:
            _check_repetitions(data, records, findings)
            _check_order(data, split, records, findings)
        if split in (TRAIN, VALIDATION):
            _check_side(data, split, records, findings)
        if data.kind == TRIPLETS:
            _check_list(data, split, records, findings)
    if data.kind == IMAGES:
        _check_index(data, splits, findings)


def _check_same_everywhere(data: PreparedData, records: Records, findings: Findings) -> None:
    """An image has one landmark and one thumbnail, however many records hold it."""
    names = data.kind.image_features
    ids, landmarks, digests = records.image_ids.ravel(), records.landmark_ids.ravel(), records.digests.ravel()
    order = np.argsort(ids, kind="stable")
    labeled = order[landmarks[order] >= 0]  # an image may be in an unlabeled split too
    for kind, values, among in ((Kind.RULE, landmarks, labeled), (Kind.IMAGE, digests, order)):
        starts, stops = find_runs(ids[among])
        lowest, highest = (ufunc.reduceat(values[among], starts) for ufunc in (np.minimum, np.maximum))
        for run in np.flatnonzero(lowest != highest).tolist():
            group = among[starts[run] : stops[run]]
            found, first, counts = np.unique(values[group], return_index=True, return_counts=True)
            usual = max(range(len(found)), key=lambda i: (counts[i], -first[i]))
            elsewhere = _describe_place(data, records, int(group[first[usual]]) // len(names))
            for at in group[values[group] != found[usual]].tolist():
                what = f"differs from the image stored under the same id in {elsewhere}"
                if kind == Kind.RULE:
                    what = f"shows landmark {values[at]}, and landmark {found[usual]} in {elsewhere}"
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
            findings.add(Kind.REPEATED, f"in {first} {already}", **records.place(at, data))
    limit = data.config_fields.get("images_per_landmark")
    if not isinstance(limit, int):
        return
    found = records.landmark_ids[order[starts], 0]  # of each anchor or image once
    landmarks, counts = np.unique(found[found >= 0], return_counts=True)
    what = "images" if data.kind == IMAGES else "anchors"
    for landmark, count in zip(landmarks[counts > limit], counts[counts > limit], strict=True):
        allowed = f"the config allows images_per_landmark={limit}"
        findings.add(Kind.RULE, f"landmark {landmark} has {count:,} {what}, and {allowed}")


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
        findings.add(Kind.RULE, message, **records.place(at, data))


def _check_order(data: PreparedData, split: str, records: Records, findings: Findings) -> None:
    """Records are in the order of the hashes of their keys, in which TFDS puts them.

    Which one of several triplets of an anchor a record is, it does not say. It counts as the first that may follow the
    record in front of it: if none may, the records are in no order, whichever they are.
    """
    ids, fields = records.image_ids[:, 0].tolist(), data.config_fields
    num_of = Counter(ids) if fields.get("triplets_file") else dict.fromkeys(ids, fields.get("triplets_per_anchor", 1))
    if fields.get("triplets_file") and data.counts.get("num_triplets_left_out"):
        findings.notes.append(f"the order of {split} not checked, since some triplets of its file were left out")
        return
    hash_key, several, before = Hasher(split).hash_key, dict[int, list[int]](), -1
    for number, image_id in enumerate(ids):
        hashes = several.get(image_id)
        if hashes is None:
            key = format_image_id(image_id)
            hashes = sorted(hash_key(f"{key}/{k}" if k else key) for k in range(num_of[image_id]))
            if len(hashes) > 1:
                several[image_id] = hashes
        at = bisect.bisect_right(hashes, before)
        if at == len(hashes):
            message = "it is behind a record that builds put after it"
            findings.add(Kind.ORDER, message, **records.place(number, data))
            at = 0
        before = hashes[at]


def _check_list(data: PreparedData, split: str, records: Records, findings: Findings) -> None:
    """triplets.csv, which builds write if they are asked to, lists each record once, with a key of its own."""
    name = csv_name(split)
    try:
        with file_access.open_file(os.fspath(data.folder / name)) as file:
            header, *lines = file.read().decode(errors="replace").replace("\r\n", "\n").split("\n")
    except FileNotFoundError:
        if data.report and data.report["build_options"].get("triplets_csv"):
            findings.add(Kind.FILE, f"it is missing, and {REPORT_NAME} says that it was written", file=name)
        return
    except OSError as error:
        findings.add(Kind.FILE, f"it cannot be read ({error})", file=name)
        return
    if header + "\n" != CSV_HEADER or lines[-1:] != [""]:
        findings.add(Kind.LIST, f"it does not begin with {CSV_HEADER.strip()}, or is cut off", file=name)
    names = (*data.kind.id_features, *data.kind.landmark_features)
    expected = Counter(
        format_csv_line("", dict(zip(names, (*map(format_image_id, ids), *landmarks), strict=True))).strip(",\n")
        for ids, landmarks in zip(records.image_ids.tolist(), records.landmark_ids.tolist(), strict=True)
    )
    keys, num_keys = set[str](), data.config_fields.get("triplets_per_anchor", 1)
    for number, line in enumerate(lines[:-1], 2):
        key, _, triplet = line.partition(",")
        is_key = _KEY_PATTERN.fullmatch(key)
        if expected[triplet] < 1 or not is_key or is_key[1] != triplet[:16] or key in keys:
            findings.add(Kind.LIST, f"line {number:,} is of no record, or its key is not its own", file=name)
        elif int(is_key[2] or 0) >= num_keys and not data.config_fields.get("triplets_file"):
            message = f"line {number:,}: there is no triplet {key} by triplets_per_anchor={num_keys}"
            findings.add(Kind.LIST, message, file=name)
        expected[triplet] -= 1
        keys.add(key)
    if missing := sum(max(count, 0) for count in expected.values()):
        findings.add(Kind.LIST, f"it lacks {missing:,} records of {split}", file=name)


def _check_index(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """index.npz lists the records of each split, in their order."""
    try:
        indexes = read_image_indexes(data.folder)
    except ImageIndexError as error:
        findings.add(Kind.INDEX, str(error), file=INDEX_NAME)
        findings.not_checked.append(f"Whether {INDEX_NAME} lists the records: it is missing or damaged.")
        return
    if indexes.keys() != splits.keys():
        message = f"it has the splits {', '.join(indexes)}, and the dataset {', '.join(splits)}"
        findings.add(Kind.INDEX, message, file=INDEX_NAME)
    for split, records in splits.items():
        index = indexes.get(split)
        if index is None:
            continue
        if len(index) != len(records):
            message = f"it lists {len(index):,} records of {split}, of which {len(records):,} are there to be compared"
            findings.add(Kind.INDEX, message, file=INDEX_NAME)
            continue
        ids, landmarks = records.image_ids[:, 0], records.landmark_ids[:, 0]
        for i in np.flatnonzero((index.image_ids != ids) | (index.landmark_ids != landmarks)).tolist():
            listed = f"image {format_image_id(index.image_ids[i])} of landmark {index.landmark_ids[i]}"
            message = f"{INDEX_NAME} lists {listed} for it, and it says landmark {landmarks[i]}"
            findings.add(Kind.INDEX, message, **records.place(i, data))


def _check_recorded(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """The shards, dataset_info.json, metadata.json and build_report.json fit together."""
    for split, records in splits.items():
        expected = data.split_bytes.get(split)
        # Of damaged records it is said already that they are damaged.
        if len(records) == records.num_records and expected not in (None, records.num_bytes):
            message = f"the records of {split} have {records.num_bytes:,} bytes, and it says num_bytes={expected:,}"
            findings.add(Kind.COUNT, message, file=INFO_NAME)
    if data.metadata is not None:
        resolution = data.config_fields.get("resolution")
        if data.image_px not in (None, (resolution, resolution)):
            message = f"its config has resolution {resolution}, and {FEATURES_NAME} {data.image_px}"
            findings.add(Kind.INFO, message, file=METADATA_NAME)
        name = f"num_{data.kind.count_name}"
        held = {split: records.num_records for split, records in splits.items()}
        recorded = {split: counts.get(name) for split, counts in data.counts["splits"].items()}
        counted = [("", data.counts.get(name), sum(held.values()))]
        counted += [(f" of {split}", recorded.get(split), held.get(split, 0)) for split in {**recorded, **held}]
        for where, says, holds in counted:
            if (says or 0) != holds:
                message = f"{name}{where} is {says}, and the shards hold {holds:,}"
                findings.add(Kind.COUNT, message, file=METADATA_NAME)
    if data.report is None:
        return
    if data.report.get("dataset") != data.name:
        findings.add(Kind.INFO, f"it is of {data.report.get('dataset')!r}, not of {data.name}", file=REPORT_NAME)
    for field in ("config", "table_sha256", "max_examples_per_split", "counts"):
        if data.metadata is not None and data.report.get(field) != data.metadata.get(field):
            findings.add(Kind.INFO, f"its {field} is not that of {METADATA_NAME}", file=REPORT_NAME)
    num_listed, num_counted = len(data.report["unreadable_images"]), data.report["counts"].get("num_images_unreadable")
    if num_listed != num_counted:
        message = f"it lists {num_listed:,} unreadable images, and counts {num_counted}"
        findings.add(Kind.COUNT, message, file=REPORT_NAME)
