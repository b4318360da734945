"""Is a copy of the competition usable? What is wrong with it, what is good to know, and what to do.

What there is to know of a copy of the competition: its kind, its table, and what its images are like.

Whether an image is readable is decided by making a thumbnail of it, as a build does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands.console import progress, progress_of_listing
from landmark_triplets_tfds.common.file_access import ADVICE
from landmark_triplets_tfds.competition.archive import ArchiveSource
from landmark_triplets_tfds.competition.folder import FolderSource
from landmark_triplets_tfds.competition.layout import IMAGES_NAME
from landmark_triplets_tfds.competition.source import ImageSource, find_source
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.errors import ArchiveError, LandmarkTableError, SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.header import read_header
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.draws import choose_rows, look_at

_NUM_EXAMPLES = 3
_PARTIAL_CONFIG = """'{"name": "128px_partial", "missing_images": "drop"}'"""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something to know.

    Attributes:
      kind: a word that programs can go by.
      message: what was found.
      advice: what to do about it, or ''.
    """

    kind: str
    message: str
    advice: str = ""


@dataclasses.dataclass
class Inspection:
    """All that was found out; what could not be looked at is None.

    Attributes:
      problems: what makes a build fail, or lose more than it may.
      notes: what is good to know.
    """

    manual_dir: str
    source: SourceFacts | None = None
    table: TableFacts | None = None
    images: ImageFacts | None = None
    problems: list[Finding] = dataclasses.field(default_factory=list)
    notes: list[Finding] = dataclasses.field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """Returns what `--json` prints; docs/command.md documents it."""
        return {"schema_version": 1, "usable": self.usable} | dataclasses.asdict(self)


def inspect_copy(manual_dir: epath.Path, options: BuildOptions, *, num_images: int, seed: int) -> Inspection:
    """Inspects a copy of the competition.

    Args:
      manual_dir: the folder.
      options: how many threads may read, where indexes are kept, and what share of images may be unreadable.
      num_images: to look at.
      seed: of the random sample.

    Returns:
      What was found. Deterministic in the files and the arguments.

    Raises:
      NotADirectoryError, FileNotFoundError: if there is no such folder.
    """
    if not manual_dir.exists():
        raise FileNotFoundError(f"The folder {manual_dir} does not exist.")
    if not manual_dir.is_dir():
        raise NotADirectoryError(
            f"{manual_dir} is a file, not a folder. Name the folder that holds it: --manual_dir {manual_dir.parent}"
        )
    result = Inspection(os.fspath(manual_dir))
    num_readers = options.num_readers("://" in os.fspath(manual_dir))
    try:
        source = find_source(manual_dir, options.bank)
        with progress_of_listing("Indexing archives", " archives") as advance:
            source.prepare(num_readers, advance)
        result.source = describe_source(source)
        table = source.read_table()
    except (SourceLayoutError, LandmarkTableError) as error:
        result.problems.append(_as_finding(error))
        return result
    result.table = describe_table(table)
    _judge_table(result)
    with progress_of_listing("Listing images", " folders") as advance:
        present = source.find_present(table.image_ids, num_readers, advance)
    ids = table.image_ids[present]
    sample = ids[choose_rows(ids, num_images, seed)].tolist()
    with progress(len(sample), "Looking at images", " images") as bar:
        seen = list(look_at(sample, lambda image_id: look_at_image(source, image_id), num_readers, bar.update))
    result.images = describe_images(table.num_images, int(present.sum()), seen)
    _judge_missing(result, source, table, present, options)
    _judge_unreadable(result, source, sample, seen, len(ids), options)
    return result


# --- What it means


def _as_finding(error: Exception) -> Finding:
    """Takes the first paragraph of an error as the message and the rest as advice."""
    message, _, advice = str(error).partition("\n\n")
    if isinstance(error, LandmarkTableError):
        return Finding("table", message, advice or "Fetch the table again, or mend that line.")
    return Finding("archive" if isinstance(error, ArchiveError) else "layout", message, advice.strip())


def _judge_table(result: Inspection) -> None:
    assert result.table is not None  # noqa: S101 - for the type checker
    table = result.table
    num_single = table.num_landmarks_with_single_image
    if table.num_landmarks < 2 or num_single == table.num_landmarks:
        what = "a single landmark" if table.num_landmarks < 2 else "a single image for every landmark"
        result.problems.append(
            Finding("no_triplets", f"The table has {what}, so there are no triplets.", "Use a larger table.")
        )
    elif num_single:
        result.notes.append(
            Finding(
                "single_images",
                f"{num_single:,} landmarks have a single image: they give no triplets of their own, but serve as"
                " negatives.",
            )
        )


def _judge_missing(
    result: Inspection, source: ImageSource, table: LandmarkTable, present: npt.NDArray[np.bool_], options: BuildOptions
) -> None:
    num_missing = int((~present).sum())
    if not num_missing:
        return
    share = num_missing / table.num_images
    missing_id = int(table.image_ids[~present][0])
    message = (
        f"{num_missing:,} of the {table.num_images:,} images have no file ({share:.1%}), such as"
        f" {source.locate(missing_id)}."
    )
    is_problem = num_missing > options.max_num_unreadable(table.num_images)
    if not present.any():
        advice = f"Is {source.table_path} the table of these images? {_describe_neighbours(source, missing_id)}".strip()
    elif is_problem:
        advice = "Fetch the rest; or leave these images out, with a config such as\n  --config " + _PARTIAL_CONFIG
    else:
        advice = "A build goes on without them: it draws other images in their place and lists them in its report."
    (result.problems if is_problem else result.notes).append(Finding("missing", message, advice))


def _describe_neighbours(source: ImageSource, image_id: int) -> str:
    """Says what is where a missing image should be."""
    if not isinstance(source, FolderSource):
        return ""
    folder = epath.Path(source.locate(image_id)).parent
    while not folder.exists():
        folder = folder.parent
    names = sorted(path.name for path in folder.iterdir())[:_NUM_EXAMPLES]
    return f"{folder} holds {', '.join(names)}{', ...' if len(names) == _NUM_EXAMPLES else ''}." if names else ""


def _judge_unreadable(
    result: Inspection,
    source: ImageSource,
    sample: list[int],
    seen: list[SeenImage],
    num_present: int,
    options: BuildOptions,
) -> None:
    broken = [(image_id, each.error) for image_id, each in zip(sample, seen, strict=True) if each.error is not None]
    if not broken:
        return
    share = len(broken) / len(seen)
    reasons = Counter(error.reason for _, error in broken)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    examples = "".join(
        f"\n  {source.locate(image_id)}: {error.reason}{f' ({error.detail})' if error.detail else ''}"
        for image_id, error in broken[:_NUM_EXAMPLES]
    )
    advice = next((ADVICE[error.detail] for _, error in broken if error.detail in ADVICE), "Fetch these files again.")
    # A build counts the unreadable images of its plan; of all images, there are about so many.
    is_problem = share * num_present > options.max_num_unreadable(num_present)
    if not is_problem:
        advice += " A build goes on without them: it draws other images in their place and lists them in its report."
    finding = Finding(
        "unreadable",
        f"{len(broken):,} of {len(seen):,} images looked at ({share:.1%}) are unreadable: {listed}.{examples}",
        advice,
    )
    (result.problems if is_problem else result.notes).append(finding)


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
