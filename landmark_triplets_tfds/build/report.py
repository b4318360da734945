"""What a build made, what it left out, and why.

``build_report.json`` beside the dataset's files holds all of it (docs/configs.md documents the fields); the counts
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

from landmark_triplets_tfds.competition.selection import Selection
from landmark_triplets_tfds.competition.tables import format_image_id
from landmark_triplets_tfds.errors import TooManyUnreadableError, advise_on_unreadable
from landmark_triplets_tfds.thumbnails.thumbnail import CODEC_DISTRIBUTIONS
from landmark_triplets_tfds.triplets.examples import TRIPLETS, ExampleKind
from landmark_triplets_tfds.triplets.plan import ExampleCounts

REPORT_NAME = "build_report.json"
SCHEMA_VERSION = 1

_NUM_FILES_SHOWN = 5
_DISTRIBUTIONS = ("landmark_triplets_tfds", "tensorflow-datasets", "numpy", *itertools.chain(*CODEC_DISTRIBUTIONS))


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
      selection: the images that were sampled from, and which were taken out of train.csv before.
      kind: what an example is.
      num_images_read: distinct images looked at.
      splits: what became of the planned examples, by split.
      unreadable: images without readable pixels, in order of their ids.
      seconds: wall time of each stage; stages do not overlap.
      num_thumbnails_made: images that were decoded and encoded; the others were in the bank.
      bank: folder of the bank; None: the build went without.
    """

    selection: Selection
    kind: ExampleKind
    num_images_read: int = 0
    splits: dict[str, ExampleCounts] = dataclasses.field(default_factory=dict)
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

    def examples(self) -> ExampleCounts:
        """Returns what became of the examples of all splits."""
        left_out: Counter[str] = Counter()
        for counts in self.splits.values():
            left_out += counts.left_out
        num_made = sum(counts.num_made for counts in self.splits.values())
        return ExampleCounts(num_made, sum(counts.num_redrawn for counts in self.splits.values()), left_out)

    def working_seconds(self) -> float:
        """Returns the wall time of the build."""
        return sum(self.seconds.values())

    def counts(self) -> dict[str, Any]:
        """Returns what is the same for every build of the same dataset, ready for JSON."""
        table, without_excluded, whole = self.selection.images.table, self.selection.not_excluded, self.selection.whole
        unlabeled = {split: images.table.num_images for split, images in self.selection.unlabeled.items()}
        return {
            "num_images": table.num_images,
            "num_landmarks": table.num_landmarks,
            "num_landmarks_without_pair": table.num_landmarks_without_pair,
            "num_images_excluded": whole.num_images - without_excluded.num_images,
            "num_landmarks_excluded": whole.num_landmarks - without_excluded.num_landmarks,
            "num_images_dropped": without_excluded.num_images - table.num_images,
            "num_landmarks_dropped": without_excluded.num_landmarks - table.num_landmarks,
            **({"num_images_unlabeled": unlabeled} if unlabeled else {}),
            "num_images_read": self.num_images_read,
            "num_images_unreadable": len(self.unreadable),
            "num_images_unreadable_by_reason": dict(sorted(Counter(i.reason for i in self.unreadable).items())),
            **self._describe_examples(self.examples()),
            "splits": {split: self._describe_examples(counts) for split, counts in self.splits.items()},
        }

    def _describe_examples(self, counts: ExampleCounts) -> dict[str, Any]:
        prefix = f"num_{self.kind.count_name}"
        redrawn = {f"{prefix}_redrawn": counts.num_redrawn} if self.kind is TRIPLETS else {}
        return {
            prefix: counts.num_made,
            **redrawn,
            f"{prefix}_left_out": counts.left_out.total(),
            f"{prefix}_left_out_by_reason": dict(sorted(counts.left_out.items())),
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
            f"{self.kind.count_name}_per_second": round(self.examples().num_made / seconds, 1) if seconds else None,
            "num_thumbnails_made": self.num_thumbnails_made,
            "bank": self.bank,
            "num_bank_bytes": self.num_bank_bytes,
            "versions": versions(),
        }

    def summary(self, name: str, folder: str) -> str:
        """Returns the few lines shown when a build has ended."""
        seconds, counts, total = self.working_seconds(), self.counts(), self.examples()
        rate = f" ({total.num_made / seconds:,.0f} {self.kind.noun}/s)" if seconds else ""
        source = f" from {self.num_images_read:,} distinct images" if self.kind is TRIPLETS else ""
        made = f"{total.num_made:,} {self.kind.noun}{source}"
        lines = [f"Built {name}: {made} in {seconds:,.1f} s{rate}.", f"  in {folder}"]
        if any("\ud800" <= character <= "\udfff" for character in folder):  # as Python has bytes that are not UTF-8
            lines.append("  TensorFlow cannot read it there, since the path is not UTF-8: move it to another folder.")
        if len(self.splits) > 1:
            listed = ", ".join(f"{split} {split_counts.num_made:,}" for split, split_counts in self.splits.items())
            lines.append(f"  Splits: {listed} {self.kind.noun}.")
        for split, count in counts.get("num_images_unlabeled", {}).items():
            if not count:
                lines.append(f"  No split {split}: there is no folder {split}/ with images beside train/.")
        for what, why in (("excluded", "Excluded landmarks"), ("dropped", "Dropped as missing before sampling")):
            if counts[f"num_images_{what}"]:
                lines.append(
                    f"  {why}: {counts[f'num_images_{what}']:,} images, {counts[f'num_landmarks_{what}']:,} landmarks."
                )
        if self.unreadable:
            lines.append(f"  Unreadable images: {describe_unreadable(self.unreadable)}")
            if self.kind is TRIPLETS:
                lines.append(f"  Triplets that drew another image instead: {total.num_redrawn:,}.")
        if total.left_out:
            listed = ", ".join(f"{count:,} {reason}" for reason, count in total.left_out.most_common())
            lines.append(f"  {self.kind.noun.capitalize()} left out: {total.left_out.total():,} ({listed}).")
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
    """Raises TooManyUnreadableError if, of ``num_images`` in the plan, more than ``limit`` are unreadable so far."""
    if len(images) > limit:
        # How many there are in all is not known yet; twice what was found, and one in ten at least, may be enough.
        share = min(1.0, max(0.1, 2 * len(images) / num_images))
        advice = advise_on_unreadable({image.reason for image in images})
        raise TooManyUnreadableError(
            f"Stopped, and nothing was published: of the {num_images:,} images of this dataset more than {limit:,}"
            f" (the limit) are unreadable. So far: {describe_unreadable(images)}\n"
            f"{advice} If the copy is known to be partial, use a config with missing_images='drop'; to build"
            f" nevertheless, allow a larger share, such as LANDMARK_TRIPLETS_MAX_UNREADABLE={share:.0%}."
        )


def versions() -> dict[str, str]:
    """Returns the versions of everything that decides bytes, and the platform."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
