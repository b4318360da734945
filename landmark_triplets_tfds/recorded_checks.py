"""What the files beside the shards say, compared with each other and with the records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from landmark_triplets_tfds.build_report import NOUN_IN_JSON, REPORT_NAME
from landmark_triplets_tfds.findings import COUNT, INFO, Findings
from landmark_triplets_tfds.prepared_data import FEATURES_NAME, INFO_NAME, METADATA_NAME, PreparedData
from landmark_triplets_tfds.shard_checks import ShardResult


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
