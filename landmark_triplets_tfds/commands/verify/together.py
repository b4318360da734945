"""What records say together: images that contradict each other, repetitions, splits, and the index of images.

What the files beside the shards say, compared with each other and with the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.report import IMAGES, NOUN_IN_JSON, REPORT_NAME
from landmark_triplets_tfds.commands.verify.findings import COUNT, IMAGE, INDEX, INFO, REPEATED, RULE, Findings
from landmark_triplets_tfds.commands.verify.prepared import (
    FEATURES_NAME,
    IMAGE_FEATURES,
    INFO_NAME,
    METADATA_NAME,
    PreparedData,
)
from landmark_triplets_tfds.commands.verify.shards import Records, ShardResult
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import ImageIndexError
from landmark_triplets_tfds.training.records import INDEX_NAME, read_image_index
from landmark_triplets_tfds.triplets.draws import TRAIN, VALIDATION, is_held_out

_Words = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class RecordPlaces:
    """Says where a record is, for messages."""

    data: PreparedData
    records: Records

    def place(self, number: int) -> dict[str, Any]:
        """Returns shard, record and key of a record, by its number in ``records``, as `Findings.add` takes them."""
        return {
            "file": self.data.shards[self.records.shards[number]].name,
            "record": int(self.records.numbers[number]),
            "key": format_image_id(self.records.image_ids[number, 0]),
        }

    def describe(self, number: int) -> str:
        """Returns where a record is, in words."""
        place = self.place(number)
        return f"{place['file']}, record {place['record']:,}"


def check_together(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """Adds what is wrong with the records of all splits, seen together."""
    everything = RecordPlaces(data, Records.join(list(splits.values())))
    _check_same_everywhere(everything, findings)
    _check_repetitions(data, splits, findings)
    _check_splits(data, splits, findings)
    if data.noun == IMAGES:
        _check_index(data, splits, findings)


def _check_same_everywhere(places: RecordPlaces, findings: Findings) -> None:
    """An image has one landmark and one thumbnail, however many records hold it."""
    records, names = places.records, IMAGE_FEATURES[places.data.noun]
    width = len(names)
    ids = records.image_ids.ravel()
    order = np.argsort(ids, kind="stable")
    labeled = order[records.landmark_ids.ravel()[order] >= 0]  # an image may be in an unlabeled split too
    for kind, values, among in (
        (RULE, records.landmark_ids.ravel(), labeled),
        (IMAGE, records.digests.ravel(), order),
    ):
        for start, stop in _find_contradictions(ids[among], values[among]):
            group = among[start:stop]
            found, first, counts = np.unique(values[group], return_index=True, return_counts=True)
            usual = max(range(len(found)), key=lambda i: (counts[i], -first[i]))
            elsewhere = places.describe(int(group[first[usual]]) // width)
            for at in group[values[group] != found[usual]].tolist():
                what = (
                    f"shows landmark {values[at]}, and landmark {found[usual]} in {elsewhere}"
                    if kind == RULE
                    else f"differs from the image stored under the same id in {elsewhere}"
                )
                message = f"{names[at % width]}, image {format_image_id(ids[at])}, {what}"
                findings.add(kind, message, **places.place(at // width))


def _find_contradictions(ids: _Words, values: _Words) -> list[tuple[int, int]]:
    """Returns the runs of equal ids, as [start, stop), whose values are not all the same."""
    if not len(ids):
        return []
    same_id = ids[1:] == ids[:-1]
    wrong = np.flatnonzero(same_id & (values[1:] != values[:-1]))
    starts = np.flatnonzero(np.concatenate([[True], ~same_id]))
    stops = np.append(starts[1:], len(ids))
    runs = np.unique(np.searchsorted(starts, wrong, side="right") - 1)
    return list(zip(starts[runs].tolist(), stops[runs].tolist(), strict=True))


def _check_repetitions(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """An anchor has as many triplets as the config says, a single image one record."""
    if data.config_fields.get("triplets_file"):
        return  # a file of triplets says itself how often an anchor is one
    per_anchor = data.config_fields.get("triplets_per_anchor", 1)
    for records in splits.values():
        if not len(records):
            continue
        places = RecordPlaces(data, records)
        keys = records.image_ids[:, 0]
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.concatenate([[True], keys[order][1:] != keys[order][:-1]]))
        stops = np.append(starts[1:], len(keys))
        crowded = stops - starts > per_anchor
        for start, stop in zip(starts[crowded].tolist(), stops[crowded].tolist(), strict=True):
            for at in order[start + per_anchor : stop].tolist():
                first = places.describe(int(order[start]))
                already = "is its key already" if per_anchor == 1 else f"begin the {per_anchor} triplets of its anchor"
                findings.add(REPEATED, f"in {first} {already}", **places.place(at))
        limit = data.config_fields.get("images_per_landmark")
        if isinstance(limit, int):
            _check_sample_size(places, order[starts], limit, findings)


def _check_sample_size(places: RecordPlaces, firsts: _Words, limit: int, findings: Findings) -> None:
    """Adds landmarks with more anchors, or images, than the config allows; ``firsts``: a record of each."""
    found = places.records.landmark_ids[firsts, 0]
    landmarks, counts = np.unique(found[found >= 0], return_counts=True)
    for landmark, count in zip(landmarks[counts > limit], counts[counts > limit], strict=True):
        findings.add(
            RULE,
            f"landmark {landmark} has {count:,} {'anchors' if places.records.image_ids.shape[1] > 1 else 'images'},"
            f" and the config allows images_per_landmark={limit}",
        )


def _check_splits(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """No landmark is in two splits, and each is where the hash of its id puts it."""
    labeled = {split: records for split, records in splits.items() if (records.landmark_ids >= 0).any()}
    percent = data.config_fields.get("validation_percent", 0)
    if isinstance(percent, int | float) and percent and set(labeled) <= {TRAIN, VALIDATION}:
        for split, records in labeled.items():
            landmarks = np.unique(records.landmark_ids)
            wrong = landmarks[is_held_out(landmarks, percent) != (split == VALIDATION)]
            places = RecordPlaces(data, records)
            for at in np.flatnonzero(np.isin(records.landmark_ids, wrong).any(axis=1)).tolist():
                found = sorted(set(records.landmark_ids[at].tolist()) & set(wrong.tolist()))
                findings.add(
                    RULE,
                    f"landmark {', '.join(map(str, found))} belongs to the other split than {split},"
                    f" by validation_percent={percent}",
                    **places.place(at),
                )
        return
    for (first, some), (second, others) in itertools.combinations(labeled.items(), 2):
        for what, values, more in (
            ("landmark", some.landmark_ids, others.landmark_ids),
            ("image", some.image_ids, others.image_ids),
        ):
            for value in np.intersect1d(values, more):
                shown = format_image_id(value) if what == "image" else value
                findings.add(RULE, f"{what} {shown} is in both splits, {first} and {second}")


def _check_index(data: PreparedData, splits: Mapping[str, Records], findings: Findings) -> None:
    """index.npz lists the records of each split, in their order."""
    if not (data.folder / INDEX_NAME).exists():
        findings.note(f"There is no {INDEX_NAME}: builds on clusters with --nondeterministic_order write none.")
        return
    for split, records in splits.items():
        try:
            index = read_image_index(data.folder, split)
        except ImageIndexError as error:
            findings.add(INDEX, str(error), file=INDEX_NAME)
            return
        lengths = [shard.num_records for shard in data.shards if shard.split == split and shard.num_records is not None]
        if len(lengths) < sum(shard.split == split for shard in data.shards):
            continue  # what place in the split a record has is not known
        if len(index) != sum(lengths):
            message = f"it lists {len(index):,} records of {split}, which has {sum(lengths):,}"
            findings.add(INDEX, message, file=INDEX_NAME)
            continue
        first_shard = next(i for i, shard in enumerate(data.shards) if shard.split == split)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        at = starts[records.shards - first_shard] + records.numbers
        inside = at < len(index)
        places = RecordPlaces(data, records)
        listed_ids, listed_landmarks = index.image_ids[at[inside]], index.landmark_ids[at[inside]]
        wrong = (listed_ids != records.image_ids[inside, 0]) | (listed_landmarks != records.landmark_ids[inside, 0])
        for i in np.flatnonzero(wrong).tolist():
            findings.add(
                INDEX,
                f"{INDEX_NAME} lists image {format_image_id(listed_ids[i])} of landmark {listed_landmarks[i]} for it,"
                f" and it says landmark {records.landmark_ids[inside][i, 0]}",
                **places.place(int(np.flatnonzero(inside)[i])),
            )


def check_recorded(data: PreparedData, results: Iterable[ShardResult], findings: Findings) -> None:
    """Adds what does not fit together in dataset_info.json, metadata.json, build_report.json and the shards."""
    results = list(results)
    _check_sizes(data, results, findings)
    num_records = dict.fromkeys(data.splits(), 0)
    for result in results:
        num_records[result.shard.split] += result.num_records
    resolution = data.config_fields.get("resolution")
    if data.image_px and resolution is not None and data.image_px != (resolution, resolution):
        findings.add(
            INFO, f"its config has resolution {resolution}, and {FEATURES_NAME} {data.image_px}", file=METADATA_NAME
        )
    _check_counts(METADATA_NAME, data, data.metadata.get("counts"), num_records, findings)
    if data.report is None:
        findings.note(f"There is no readable {REPORT_NAME}: which images were left out is not known.")
        return
    if data.report.get("dataset") != data.name:
        findings.add(INFO, f"it is of {data.report.get('dataset')!r}, not of {data.name}", file=REPORT_NAME)
    for field in ("config", "table_sha256", "max_examples_per_split", "counts"):
        if data.metadata and data.report.get(field) != data.metadata.get(field):
            findings.add(INFO, f"its {field} is not that of {METADATA_NAME}", file=REPORT_NAME)
    num_listed = len(data.report.get("unreadable_images") or [])
    counts = data.report.get("counts")
    if isinstance(counts, dict) and num_listed != counts.get("num_images_unreadable"):
        findings.add(
            COUNT,
            f"it lists {num_listed:,} unreadable images, and counts {counts.get('num_images_unreadable')}",
            file=REPORT_NAME,
        )


def _check_sizes(data: PreparedData, results: list[ShardResult], findings: Findings) -> None:
    """The sizes of the records add up to those of the splits; a damaged record is said to be damaged already."""
    for split, expected in data.split_bytes.items():
        of_split = [result for result in results if result.shard.split == split]
        found = sum(result.num_bytes for result in of_split)
        if found != expected and not any(result.findings.num_problems for result in of_split):
            findings.add(
                COUNT,
                f"the records of {split} have {found:,} bytes, and it says num_bytes={expected:,}",
                file=INFO_NAME,
            )


def _check_counts(
    file: str, data: PreparedData, counts: Any, num_records: Mapping[str, int], findings: Findings
) -> None:
    if not isinstance(counts, dict):
        if data.metadata:
            findings.add(INFO, "it has no counts", file=file)
        return
    name = f"num_{NOUN_IN_JSON[data.noun]}"
    if counts.get(name) != sum(num_records.values()):
        findings.add(
            COUNT, f"{name} is {counts.get(name)}, and the shards hold {sum(num_records.values()):,}", file=file
        )
    splits = counts.get("splits")
    if isinstance(splits, dict) and len(num_records) > 1:
        for split, found in num_records.items():
            recorded = (splits.get(split) or {}).get(name)
            if recorded != found:
                findings.add(COUNT, f"{name} of {split} is {recorded}, and its shards hold {found:,}", file=file)
