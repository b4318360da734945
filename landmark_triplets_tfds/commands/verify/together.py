"""What records say together, and what the files beside the shards say of them.

Images that contradict each other, repetitions, splits that share landmarks, the index of images, and the counts and
fields that dataset_info.json, metadata.json and build_report.json record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.report import REPORT_NAME
from landmark_triplets_tfds.commands.verify.findings import COUNT, IMAGE, INDEX, INFO, REPEATED, RULE, Findings
from landmark_triplets_tfds.commands.verify.prepared import FEATURES_NAME, INFO_NAME, METADATA_NAME, PreparedData
from landmark_triplets_tfds.commands.verify.shards import Records
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out
from landmark_triplets_tfds.triplets.examples import IMAGES

_Rows = npt.NDArray[np.int64]


def find_runs(values: npt.NDArray[Any]) -> tuple[_Rows, _Rows]:
    """Returns where runs of equal values start and where they stop, int64[num_runs] each."""
    is_new = np.ones(len(values), dtype=bool)
    is_new[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(is_new)
    return starts, np.append(starts, len(values))[1:]


def check_together(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
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
        findings.notes.append(f"There is no {INDEX_NAME}: builds on clusters with --nondeterministic_order write none.")
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
