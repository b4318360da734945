"""Whether a prepared dataset is what a build has made of the competition's files, and still is: all checks, in order.

The records are read once, by several processes. What they say is kept as numbers, some 70 bytes an image, so that the
rest is arithmetic: images that contradict each other, repetitions, the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import time
from typing import Any

from etils import epath

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.verify.findings import Findings
from landmark_triplets_tfds.commands.verify.prepared import PreparedData, read_prepared_data
from landmark_triplets_tfds.commands.verify.published import compare_hashes
from landmark_triplets_tfds.commands.verify.shards import Records, ShardResult, check_shards
from landmark_triplets_tfds.commands.verify.source import SourceOptions, check_against_source
from landmark_triplets_tfds.commands.verify.together import check_recorded, check_together

SCHEMA_VERSION = 1


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
            "num_problems_by_kind": {kind: self.findings.counts[kind] for kind in self.findings.by_kind()},
            "problems": [
                dataclasses.asdict(problem) for problems in self.findings.by_kind().values() for problem in problems
            ],
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
    results: list[ShardResult] = []
    with console.progress(len(data.shards), "Reading shards", " shards") as bar:
        for result in check_shards(data, num_processes):
            results.append(result)
            findings.take_over(result.findings)
            bar.update()
    check_recorded(data, results, findings)
    hashes = {result.shard.name: result.sha256 for result in results if result.sha256}
    if published is not None:
        compare_hashes(published, hashes, folder, findings)
    splits = {
        split: Records.join([result.records for result in results if result.shard.split == split])
        for split in data.splits()
    }
    if splits:
        check_together(data, splits, findings)
        if source is not None:
            check_against_source(data, splits, source, findings)
    num_records = {
        split: sum(result.num_records for result in results if result.shard.split == split) for split in splits
    }
    return Verification(
        data=data,
        findings=findings,
        hashes=hashes,
        num_records=num_records,
        num_bytes=sum(result.num_bytes for result in results),
        seconds=time.perf_counter() - started,
    )
