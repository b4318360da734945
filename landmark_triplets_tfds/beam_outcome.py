"""What a build on a cluster found out, beside its examples: counts and unreadable images.

Workers make small outcomes, the engine adds them up, one worker writes the sum as a file into the folder of the
unfinished dataset, and the program that started it all reads it there. Beam's metrics would be no replacement: engines
report what was attempted, and a bundle that is tried again counts twice.
"""

from __future__ import annotations

from collections import Counter
import dataclasses
import json

from etils import epath

from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.example_plan import ExampleCounts


@dataclasses.dataclass
class Outcome:
    """Part of what a build found out. Adding a part twice changes its counts, but never its sets of images.

    Attributes:
      counts: of examples.
      unreadable: reason and detail, by row of the table.
      redrawn: rows of the images that were looked at for redraws, readable or not.
    """

    counts: ExampleCounts = dataclasses.field(default_factory=ExampleCounts)
    unreadable: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    redrawn: set[int] = dataclasses.field(default_factory=set)

    def add(self, other: Outcome) -> None:
        self.counts.add(other.counts)
        self.unreadable.update(other.unreadable)
        self.redrawn.update(other.redrawn)

    def note(self, row: int, error: UnreadableImageError) -> None:
        self.unreadable[row] = (error.reason, error.detail)

    def errors(self) -> dict[int, UnreadableImageError]:
        """Returns why, by row, for every unreadable image."""
        return {row: UnreadableImageError(*parts) for row, parts in self.unreadable.items()}

    def write(self, path: epath.Path) -> None:
        content = {
            "num_made": self.counts.num_made,
            "num_redrawn": self.counts.num_redrawn,
            "left_out": dict(self.counts.left_out),
            "unreadable": [[row, *parts] for row, parts in self.unreadable.items()],
            "redrawn": sorted(self.redrawn),
        }
        path.write_text(json.dumps(content))

    @classmethod
    def read(cls, path: epath.Path) -> Outcome:
        content = json.loads(path.read_text())
        return cls(
            counts=ExampleCounts(content["num_made"], content["num_redrawn"], Counter(content["left_out"])),
            unreadable={row: (reason, detail) for row, reason, detail in content["unreadable"]},
            redrawn=set(content["redrawn"]),
        )
