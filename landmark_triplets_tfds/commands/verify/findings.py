"""What `verify` finds: problems, each with the place that has it, and notes on what could not be compared.

A damaged disk can make a problem of every record. So all are counted, and of each kind only the first ones are kept.
"""

from __future__ import annotations

from collections import Counter
import dataclasses
from typing import Any

# Kinds of problems, in the order in which they are shown.
INFO = "dataset information"
FILE = "files"
SHA256 = "published sha256"
CHECKSUM = "record checksums"
CONTENT = "content of records"
IMAGE = "stored images"
RULE = "rules of triplets and splits"
REPEATED = "repeated records"
COUNT = "counts"
INDEX = "index of images"
TABLE = "table of images"
PLAN = "planned examples"
SOURCE = "images made again"

KINDS = (INFO, FILE, SHA256, CHECKSUM, CONTENT, IMAGE, RULE, REPEATED, COUNT, INDEX, TABLE, PLAN, SOURCE)

# Of each kind, in a shard as in all of them.
NUM_KEPT = 100


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
      kind: one of the above.
      message: what is wrong, as part of a sentence.
      file: the name of the shard or file that has it; None: it is in no single one.
      record: the number of the record in the shard, from 0.
      key: of the record, as far as it is known: an image_id.
    """

    kind: str
    message: str
    file: str | None = None
    record: int | None = None
    key: str | None = None

    def __str__(self) -> str:
        record = None if self.record is None else f"record {self.record:,}"
        key = None if self.key is None else f"key {self.key}"
        place = ", ".join(part for part in (self.file, record, key) if part)
        return f"{place}: {self.message}" if place else self.message


class Findings:
    """Problems and notes found so far.

    Attributes:
      counts: problems by kind.
      by_kind: the first `NUM_KEPT` problems of each kind that has any, in the order of the kinds.
      problems: the same in one list.
      notes: sentences about what is not compared and why, or about what is odd and does no harm.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.notes: list[str] = []
        self._kept: dict[str, list[Problem]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, message: str, **place: Any) -> None:
        """Adds a problem; its place as `Problem` has it."""
        self.counts[kind] += 1
        if len(self._kept[kind]) < NUM_KEPT:
            self._kept[kind].append(Problem(kind, message, **place))

    def take_over(self, other: Findings) -> None:
        """Adds what was found elsewhere."""
        for kind, problems in self._kept.items():
            problems += other._kept[kind][: NUM_KEPT - len(problems)]
        self.counts += other.counts
        self.notes += other.notes

    @property
    def by_kind(self) -> dict[str, list[Problem]]:
        return {kind: problems for kind, problems in self._kept.items() if problems}

    @property
    def problems(self) -> list[Problem]:
        return [problem for problems in self._kept.values() for problem in problems]

    @property
    def num_problems(self) -> int:
        return self.counts.total()
