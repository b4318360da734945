"""What a build made, what it left out, and why.

``build_report.json`` beside the dataset's files holds all of it (docs/build_report.md documents the fields); the counts
are in ``DatasetInfo.metadata`` too, and the terminal shows a few lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import contextlib
import dataclasses
import importlib.metadata
import itertools
import platform
import time
from typing import Any

from landmark_triplets_tfds.errors import TooManyUnreadableError
from landmark_triplets_tfds.landmarks import LandmarkTable, format_image_id
from landmark_triplets_tfds.thumbnails import CODEC_DISTRIBUTIONS

REPORT_NAME = "build_report.json"
SCHEMA_VERSION = 1
IMPORT_STAGE = "import_tensorflow"

NO_READABLE_ANCHOR = "unreadable anchor"
NO_READABLE_POSITIVE = "no readable positive"
NO_READABLE_NEGATIVE = "no readable negative"

_NUM_FILES_SHOWN = 5
_DISTRIBUTIONS = (
    "landmark_triplets_tfds",
    "tensorflow-datasets",
    "numpy",
    *itertools.chain(*CODEC_DISTRIBUTIONS),
)


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
class TripletCounts:
    """What became of planned triplets.

    Attributes:
      num_made: triplets made.
      num_redrawn: of these, the ones with a positive or negative drawn again because the first was unreadable.
      left_out: the ones that were not made, by reason.
    """

    num_made: int = 0
    num_redrawn: int = 0
    left_out: Counter[str] = dataclasses.field(default_factory=Counter)

    def add(self, other: TripletCounts) -> None:
        self.num_made += other.num_made
        self.num_redrawn += other.num_redrawn
        self.left_out += other.left_out


@dataclasses.dataclass
class BuildReport:
    """Counts of one build, filled in while it runs.

    Attributes:
      table: the images that were sampled from.
      num_images_dropped: rows of train.csv that ``missing_images='drop'`` took out before.
      num_landmarks_dropped: landmarks that went with them.
      num_images_read: distinct images looked at.
      triplets: what became of the planned triplets.
      unreadable: the images without readable pixels, in order of their ids.
      seconds: wall time of each stage; stages do not overlap.
      num_thumbnails_made: images that were decoded and encoded; the others were in the bank.
      bank: path of the bank file; None: the build went without.
      num_bank_bytes: its size.
    """

    table: LandmarkTable
    num_images_dropped: int = 0
    num_landmarks_dropped: int = 0
    num_images_read: int = 0
    triplets: TripletCounts = dataclasses.field(default_factory=TripletCounts)
    unreadable: list[UnreadableImage] = dataclasses.field(default_factory=list)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    num_thumbnails_made: int = 0
    bank: str | None = None
    num_bank_bytes: int = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall time of the block to ``seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def working_seconds(self) -> float:
        """Returns the wall time of the build without the import of TensorFlow, which is no work on images."""
        return sum(seconds for name, seconds in self.seconds.items() if name != IMPORT_STAGE)

    def counts(self) -> dict[str, Any]:
        """Returns what is the same for every build of the same dataset, ready for JSON."""
        return {
            "num_images": self.table.num_images,
            "num_landmarks": self.table.num_landmarks,
            "num_landmarks_without_pair": self.table.num_landmarks_without_pair,
            "num_images_dropped": self.num_images_dropped,
            "num_landmarks_dropped": self.num_landmarks_dropped,
            "num_images_read": self.num_images_read,
            "num_images_unreadable": len(self.unreadable),
            "num_images_unreadable_by_reason": dict(sorted(Counter(i.reason for i in self.unreadable).items())),
            "num_triplets": self.triplets.num_made,
            "num_triplets_redrawn": self.triplets.num_redrawn,
            "num_triplets_left_out": self.triplets.left_out.total(),
            "num_triplets_left_out_by_reason": dict(sorted(self.triplets.left_out.items())),
        }

    def as_json(self) -> dict[str, Any]:
        """Returns the part of build_report.json that is known here; the builder adds what was asked for."""
        seconds = self.working_seconds()
        return {
            "schema_version": SCHEMA_VERSION,
            "counts": self.counts(),
            "unreadable_images": [
                dataclasses.asdict(image) | {"image_id": format_image_id(image.image_id)} for image in self.unreadable
            ],
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "images_per_second": round(self.num_images_read / seconds, 1) if seconds else None,
            "triplets_per_second": round(self.triplets.num_made / seconds, 1) if seconds else None,
            "num_thumbnails_made": self.num_thumbnails_made,
            "bank": self.bank,
            "num_bank_bytes": self.num_bank_bytes,
            "versions": _versions(),
        }

    def summary(self, name: str, folder: str) -> str:
        """Returns the few lines shown when a build has ended."""
        seconds = self.working_seconds()
        rate = f" ({self.triplets.num_made / seconds:,.0f} triplets/s)" if seconds else ""
        lines = [
            f"Built {name}: {self.triplets.num_made:,} triplets from {self.num_images_read:,} distinct images in"
            f" {seconds:,.1f} s{rate}.",
            f"  in {folder}",
        ]
        if self.num_images_dropped:
            lines.append(
                f"  Dropped as missing before sampling: {self.num_images_dropped:,} images,"
                f" {self.num_landmarks_dropped:,} landmarks."
            )
        if self.unreadable:
            lines.append(f"  Unreadable images: {describe_unreadable(self.unreadable)}")
            lines.append(f"  Triplets that drew another image instead: {self.triplets.num_redrawn:,}.")
        if self.triplets.left_out:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in self.triplets.left_out.most_common())
            lines.append(f"  Triplets left out: {self.triplets.left_out.total():,} ({listed}).")
        if self.unreadable:
            lines.append(f"  All of them, with reasons: {folder}/{REPORT_NAME}")
        if self.bank:
            num_reused = self.num_images_read - self.num_thumbnails_made
            lines.append(
                f"  Thumbnails are kept for the next build in {self.bank} ({self.num_bank_bytes / 1e6:,.0f} MB;"
                f" {num_reused:,} came from there). It may be deleted at any time."
            )
        return "\n".join(lines)


def describe_unreadable(images: list[UnreadableImage]) -> str:
    """Returns how many images are unreadable, by reason, and the first few of them on lines of their own."""
    reasons = Counter(image.reason for image in images)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    lines = [f"{len(images):,} ({listed})."]
    lines += [f"    {image}" for image in images[:_NUM_FILES_SHOWN]]
    if len(images) > _NUM_FILES_SHOWN:
        lines.append(f"    ... and {len(images) - _NUM_FILES_SHOWN:,} more")
    return "\n".join(lines)


def check_num_unreadable(images: list[UnreadableImage], limit: int, num_images: int) -> None:
    """Ends a build that would be made from too little.

    Args:
      images: the unreadable ones found so far.
      limit: how many there may be.
      num_images: in the plan, for the message.

    Raises:
      TooManyUnreadableError: if there are more than ``limit``.
    """
    if len(images) > limit:
        # How many there are in all is not known yet; twice what was found, and one in ten at least, may be enough.
        share = min(1.0, max(0.1, 2 * len(images) / num_images))
        raise TooManyUnreadableError(
            f"Stopped, and nothing was published: of the {num_images:,} images of this dataset more than {limit:,}"
            f" (the limit) are unreadable. So far: {describe_unreadable(images)}\n"
            "Fetch these files again. If the copy is known to be partial, use a config with missing_images='drop'; to"
            f" build nevertheless, allow a larger share, such as LANDMARK_TRIPLETS_MAX_UNREADABLE={share:.0%}."
        )


def _versions() -> dict[str, str]:
    """Returns the versions of everything that decides bytes, and the platform."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
