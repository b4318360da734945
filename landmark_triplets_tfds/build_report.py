"""What a build made, what it left out, and why."""

from __future__ import annotations

from collections import Counter
import dataclasses
from typing import Any

from landmark_triplets_tfds.landmarks import format_image_id

NO_READABLE_ANCHOR = "unreadable anchor"
NO_READABLE_POSITIVE = "no readable positive"
NO_READABLE_NEGATIVE = "no readable negative"

_NUM_FILES_SHOWN = 5


@dataclasses.dataclass(frozen=True, order=True)
class UnreadableImage:
    """An image the build went on without."""

    image_id: int
    reason: str
    detail: str
    location: str

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail and self.detail != self.location else ""
        return f"{self.location}: {self.reason}{detail}"


@dataclasses.dataclass
class BuildReport:
    """Counts of one build, filled in while it runs.

    Attributes:
      num_images: rows of the table.
      num_landmarks: different landmarks in the table.
      num_images_read: distinct images looked at.
      num_triplets: triplets written.
      num_redrawn: of these, the ones with a positive or negative drawn again because the first was unreadable.
      left_out: planned triplets that were not written, by reason.
      unreadable: the images without readable pixels, in order of their ids.
      seconds: wall time of the build.
    """

    num_images: int
    num_landmarks: int
    num_images_read: int = 0
    num_triplets: int = 0
    num_redrawn: int = 0
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)
    unreadable: list[UnreadableImage] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def counts(self) -> dict[str, Any]:
        """Returns what is the same for every build of the same dataset, ready for JSON."""
        return {
            "num_images": self.num_images,
            "num_landmarks": self.num_landmarks,
            "num_images_read": self.num_images_read,
            "num_images_unreadable": len(self.unreadable),
            "num_images_unreadable_by_reason": dict(sorted(Counter(i.reason for i in self.unreadable).items())),
            "num_triplets": self.num_triplets,
            "num_triplets_redrawn": self.num_redrawn,
            "num_triplets_left_out": self.left_out.total(),
            "num_triplets_left_out_by_reason": dict(sorted(self.left_out.items())),
            "unreadable_image_ids": [format_image_id(image.image_id) for image in self.unreadable],
        }

    def summary(self, name: str, folder: str) -> str:
        """Returns the few lines shown when a build has ended."""
        rate = self.num_triplets / self.seconds if self.seconds else 0.0
        lines = [
            f"Built {name}: {self.num_triplets:,} triplets from {self.num_images_read:,} distinct images in"
            f" {self.seconds:,.1f} s ({rate:,.0f} triplets/s).",
            f"It is in {folder}",
        ]
        if self.unreadable:
            reasons = Counter(image.reason for image in self.unreadable)
            listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
            lines.append(f"Unreadable images: {len(self.unreadable):,} ({listed}).")
            lines += [f"  {image}" for image in self.unreadable[:_NUM_FILES_SHOWN]]
            if len(self.unreadable) > _NUM_FILES_SHOWN:
                lines.append(f"  ... and {len(self.unreadable) - _NUM_FILES_SHOWN:,} more")
            lines.append(f"Triplets that drew another image instead: {self.num_redrawn:,}.")
        if self.left_out:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.most_common())
            lines.append(f"Triplets left out: {self.left_out.total():,} ({listed}).")
        return "\n".join(lines)
