"""The records against the plan that a build follows: each planned example is there, or its images explain why not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.assembly import plan_in_chunks
from landmark_triplets_tfds.build_report import REPORT_NAME, TRIPLETS
from landmark_triplets_tfds.builder_config import LandmarkBuilderConfig
from landmark_triplets_tfds.dataset_checks import RecordPlaces
from landmark_triplets_tfds.example_plan import ExampleCounts, ExamplePlan
from landmark_triplets_tfds.findings import PLAN, Findings
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.prepared_data import ID_FEATURES, PreparedData
from landmark_triplets_tfds.shard_checks import Records
from landmark_triplets_tfds.split_plan import images_of_split, plan_split
from landmark_triplets_tfds.table_selection import Selection

_Ids = npt.NDArray[np.uint64]


def check_plan(
    data: PreparedData,
    splits: Mapping[str, Records],
    selection: Selection,
    config: LandmarkBuilderConfig,
    findings: Findings,
) -> None:
    """The records are those that a build makes, with the recorded unreadable images left out."""
    unreadable = (data.report or {}).get("unreadable_images")
    if not isinstance(unreadable, list):
        findings.note(f"Without {REPORT_NAME}, what a build would make is not compared.")
        return
    unreadable_ids = np.array([int(str(image["image_id"]), 16) for image in unreadable], dtype=np.uint64)
    cap = data.metadata.get("max_examples_per_split")
    for split, records in splits.items():
        table = images_of_split(selection, split).table
        is_unreadable = np.isin(table.image_ids, unreadable_ids)
        plan_ids = _plan_ids(table, plan_split(selection, config, split), cap, is_unreadable)
        _compare_with_plan(RecordPlaces(data, records), plan_ids, split, findings)


def _plan_ids(
    table: LandmarkTable,
    plan: ExamplePlan,
    cap: int | None,
    is_unreadable: npt.NDArray[np.bool_],
) -> _Ids:
    """Returns uint64[n, k]: the images of each example that a build makes of a split."""
    num_examples = plan.num_examples if cap is None else min(cap, plan.num_examples)

    def get_thumbnail(row: int) -> bytes | None:
        return None if is_unreadable[row] else b"readable"

    parts: list[_Ids] = []
    for first, rows in plan_in_chunks(plan, num_examples):
        odd = is_unreadable[rows].any(axis=1)
        parts.append(table.image_ids[rows[~odd]])
        for i in np.flatnonzero(odd).tolist():
            example = plan.make(first + i, rows[i].tolist(), get_thumbnail, ExampleCounts())
            if example is not None:
                names = ID_FEATURES[TRIPLETS] if rows.shape[1] > 1 else ("image_id",)
                parts.append(np.array([[int(example[name], 16) for name in names]], dtype=np.uint64))
    return np.concatenate(parts)


def _compare_with_plan(places: RecordPlaces, planned: _Ids, split: str, findings: Findings) -> None:
    found = places.records.image_ids
    both = np.concatenate([planned, found])
    order = np.lexsort(both.T[::-1])
    # Equal lines stand beside each other; each planned one may be found once.
    is_new = np.concatenate([[True], (both[order][1:] != both[order][:-1]).any(axis=1)])
    group = np.empty(len(both), dtype=np.int64)
    group[order] = np.cumsum(is_new) - 1
    of_planned, of_found = group[: len(planned)], group[len(planned) :]
    num_planned = np.bincount(of_planned, minlength=len(both))
    num_found = np.bincount(of_found, minlength=len(both))
    surplus = np.flatnonzero(num_found[of_found] > num_planned[of_found])
    missing = np.flatnonzero(num_planned[of_planned] > num_found[of_planned])
    surplus_keys = found[surplus, 0]
    for number in surplus.tolist():
        expected = planned[missing[planned[missing, 0] == found[number, 0]]]
        findings.add(PLAN, _describe_surplus(found[number], expected), **places.place(number))
    for line in missing[~np.isin(planned[missing, 0], surplus_keys)].tolist():
        key = format_image_id(planned[line, 0])
        findings.add(
            PLAN, f"the example with key {key} is planned for {split}, and neither there nor left out", key=None
        )


def _describe_surplus(found: _Ids, expected: _Ids) -> str:
    if not len(expected) or len(found) == 1:
        return "no build would make it from this table"
    wrong = next(i for i in (1, 2) if found[i] != expected[0, i])
    name = ID_FEATURES[TRIPLETS][wrong]
    return f"{name} is {format_image_id(found[wrong])}, and the plan has {format_image_id(expected[0, wrong])}"
