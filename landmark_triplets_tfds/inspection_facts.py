"""What there is to know of a copy of the competition: its kind, its table, and what its images are like.

Whether an image is readable is decided by making a thumbnail of it, as a build does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses
import os
from typing import Any

import numpy as np

from landmark_triplets_tfds.archive_source import ArchiveSource
from landmark_triplets_tfds.errors import UnreadableImageError
from landmark_triplets_tfds.image_header import read_header
from landmark_triplets_tfds.landmarks import LandmarkTable
from landmark_triplets_tfds.layout import IMAGES_NAME
from landmark_triplets_tfds.sources import ImageSource
from landmark_triplets_tfds.tar_source import TarSource
from landmark_triplets_tfds.thumbnails import ThumbnailSpec, make_thumbnail

_SHORT_SIDES_PX = (128, 256, 512)

# Upper ends of the bins of images per landmark; the last one is open.
_HISTOGRAM_ENDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_PROGRESSIVE = 0xC2  # the start-of-frame marker of a progressive JPEG


@dataclasses.dataclass(frozen=True)
class SourceFacts:
    """What kind of copy was found ('folder', 'zip' or 'tars'), where its images and its table are."""

    kind: str
    location: str
    table: str
    num_archives: int | None = None
    num_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class TableFacts:
    """What the table says.

    Attributes:
      histogram: (lowest, highest or None, number of landmarks) by how many images a landmark has.
    """

    num_images: int
    num_landmarks: int
    min_images_per_landmark: int
    median_images_per_landmark: float
    mean_images_per_landmark: float
    max_images_per_landmark: int
    num_landmarks_with_single_image: int
    histogram: list[tuple[int, int | None, int]]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What images are like. Shares are of the readable ones in the sample; quantiles are minimum, median, maximum.

    Attributes:
      num_missing: of all images in the table, how many have no file.
      num_looked_at: images in the sample, which is drawn from those that have one.
      num_unreadable: of these, by reason.
      short_side_px, long_side_px, num_bytes: quantiles.
      short_side_below_px: by number of pixels, the share with a shorter short side.
      common_sizes: (width, height, share) of the most common ones.
    """

    num_missing: int
    num_looked_at: int
    num_unreadable: dict[str, int]
    max_unreadable_share: float
    width_px: list[float]
    height_px: list[float]
    num_bytes: list[float]
    mean_bytes: float
    short_side_below_px: dict[str, float]
    common_sizes: list[tuple[int, int, float]]
    grey_share: float
    progressive_share: float
    not_jpeg_share: float
    estimated_total_bytes: int


@dataclasses.dataclass(frozen=True)
class SeenImage:
    """One image of the sample; ``error`` says why, if it is unreadable."""

    num_bytes: int = 0
    width: int = 0
    height: int = 0
    is_jpeg: bool = True
    is_grey: bool = False
    is_progressive: bool = False
    error: UnreadableImageError | None = None


def look_at_image(source: ImageSource, image_id: int) -> SeenImage:
    """Reads an image and makes a thumbnail of it."""
    try:
        content = source.read(image_id)
        header = read_header(content)
        thumbnail = read_header(make_thumbnail(content, ThumbnailSpec()))
    except UnreadableImageError as error:
        return SeenImage(error=error.without_traceback())
    return SeenImage(
        num_bytes=len(content),
        width=header.width,
        height=header.height,
        is_jpeg=content.startswith(b"\xff\xd8"),
        is_grey=thumbnail.colorspace == "Gray",
        is_progressive=header.frame_marker == _PROGRESSIVE,
    )


def describe_source(source: ImageSource) -> SourceFacts:
    """Describes a source that is prepared."""
    if not isinstance(source, ArchiveSource):
        folder = os.path.dirname(source.table_path)  # noqa: PTH120
        return SourceFacts("folder", f"{folder}/{IMAGES_NAME}", source.table_path)
    archives = source.index().archives
    kind = "tars" if isinstance(source, TarSource) else "zip"
    num_bytes = sum(archive["size"] for archive in archives)
    return SourceFacts(kind, source.archive, source.table_path, len(archives), num_bytes)


def describe_table(table: LandmarkTable) -> TableFacts:
    """Counts what the table holds."""
    sizes = np.diff(table.block_starts)
    lowest = [1, *(end + 1 for end in _HISTOGRAM_ENDS)]
    highest = [*_HISTOGRAM_ENDS, None]
    counts = np.bincount(np.searchsorted(_HISTOGRAM_ENDS, sizes), minlength=len(lowest)).tolist()
    last = max(number for number, count in enumerate(counts) if count)
    return TableFacts(
        num_images=table.num_images,
        num_landmarks=table.num_landmarks,
        min_images_per_landmark=int(sizes.min()),
        median_images_per_landmark=float(np.median(sizes)),
        mean_images_per_landmark=round(float(sizes.mean()), 2),
        max_images_per_landmark=int(sizes.max()),
        num_landmarks_with_single_image=table.num_landmarks_without_pair,
        histogram=list(zip(lowest, highest, counts, strict=True))[: last + 1],
        fingerprint=table.fingerprint,
    )


def describe_images(num_images: int, num_present: int, seen: Sequence[SeenImage]) -> ImageFacts:
    """Sums up a sample of ``num_present`` images that have a file, out of ``num_images``."""
    good = [each for each in seen if each.error is None]
    reasons = Counter(each.error.reason for each in seen if each.error is not None)
    sizes = [(each.width, each.height) for each in good if each.width]  # a GIF's are not known
    short = np.array([min(size) for size in sizes])
    num_bytes = np.array([each.num_bytes for each in good])
    mean_bytes = float(num_bytes.mean()) if good else 0.0
    return ImageFacts(
        num_missing=num_images - num_present,
        num_looked_at=len(seen),
        num_unreadable=dict(reasons.most_common()),
        max_unreadable_share=round(_upper_bound(reasons.total(), len(seen)), 5),
        width_px=_quantiles([width for width, _ in sizes]),
        height_px=_quantiles([height for _, height in sizes]),
        num_bytes=_quantiles(num_bytes.tolist()),
        mean_bytes=round(mean_bytes, 1),
        short_side_below_px={str(px): _share(int((short < px).sum()), len(sizes)) for px in _SHORT_SIDES_PX},
        common_sizes=[(*size, _share(count, len(sizes))) for size, count in Counter(sizes).most_common(3)],
        grey_share=_share(sum(each.is_grey for each in good), len(good)),
        progressive_share=_share(sum(each.is_progressive for each in good), len(good)),
        not_jpeg_share=_share(sum(not each.is_jpeg for each in good), len(good)),
        estimated_total_bytes=round(mean_bytes * num_present),
    )


def _quantiles(values: list[Any]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0, 0.5, 1])] if values else []


def _share(count: int, total: int) -> float:
    return round(count / total, 5) if total else 0.0


def _upper_bound(count: int, total: int) -> float:
    """Returns the upper end of Wilson's 95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    if not total:
        return 1.0
    z2 = 1.96**2
    share = count / total
    center, spread = share + z2 / (2 * total), 1.96 * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5
    return float((center + spread) / (1 + z2 / total))
