"""The command `inspect`: is a copy of the competition usable, what is wrong with it, and what to do?

What there is to know of a copy is its kind, its table, which files are missing, and what its images are like. Whether
an image is readable is decided by making a thumbnail of it, as a build does; how many may not be, by the same rule as
in a build.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import os
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.common.file_access import ADVICE
from landmark_triplets_tfds.common.progress import listing_bar, progress_bar
from landmark_triplets_tfds.competition.archive import ArchiveSource
from landmark_triplets_tfds.competition.folder import FolderSource
from landmark_triplets_tfds.competition.layout import IMAGES_NAME
from landmark_triplets_tfds.competition.source import ImageSource, open_copy
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.errors import ArchiveError, LandmarkTableError, SourceLayoutError, UnreadableImageError
from landmark_triplets_tfds.thumbnails.header import read_header
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.draws import choose_rows

_SHORT_SIDES_PX = (128, 256, 512)

# Upper ends of the bins of images per landmark; the last one is open.
_HISTOGRAM_ENDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_PROGRESSIVE = 0xC2  # the start-of-frame marker of a progressive JPEG
_NUM_EXAMPLES = 3
_BAR_WIDTH = 40

_BUILD_GOES_ON = "A build goes on without them: it draws other images in their place and lists them in its report."
_PARTIAL_CONFIG = """'{"name": "128px_partial", "missing_images": "drop"}'"""


def run(arguments: argparse.Namespace) -> int:
    """Inspects a copy and shows what was found."""
    console.check_at_least("--images", arguments.images, 0)
    console.check_at_least("--seed", arguments.seed, 0)
    manual_dir = epath.Path(arguments.manual_dir).expanduser()
    result = inspect_copy(manual_dir, console.build_options(), num_images=arguments.images, seed=arguments.seed)
    if arguments.json:
        console.print_json(result.as_json())
    else:
        print("\n".join(_lines(result)))
    return console.OK if result.usable else console.FOUND_WRONG


# --- What there is to know


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

    def add(self, finding: Finding, *, is_problem: bool) -> None:
        """Adds a problem or a note."""
        (self.problems if is_problem else self.notes).append(finding)

    def as_json(self) -> dict[str, Any]:
        """Returns what `--json` prints; docs/commands.md documents it."""
        return {"schema_version": 1, "usable": self.usable} | dataclasses.asdict(self)


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
    num_readers = options.num_readers_of(result.manual_dir)
    try:
        source = open_copy(manual_dir, options.bank, num_readers)
        result.source = describe_source(source)
        table = source.read_table()
    except (SourceLayoutError, LandmarkTableError) as error:
        result.add(_as_finding(error), is_problem=True)
        return result
    result.table = describe_table(table)
    _judge_table(result, result.table)
    with listing_bar("Listing images", " folders") as advance:
        present = source.find_present(table.image_ids, num_readers, advance)
    _judge_missing(result, source, table, present, options)
    ids = table.image_ids[present]
    sample = ids[choose_rows(ids, num_images, seed)].tolist()
    seen = _look_at(source, sample, num_readers)
    result.images = describe_images(table.num_images, len(ids), seen)
    _judge_unreadable(result, source, sample, seen, len(ids), options)
    return result


def _look_at(source: ImageSource, image_ids: list[int], num_threads: int) -> list[SeenImage]:
    """Looks at images, some at a time."""
    pool = ThreadPoolExecutor(num_threads)
    try:
        with progress_bar(len(image_ids), "Looking at images", " images") as bar:
            seen = []
            for image in pool.map(lambda image_id: look_at_image(source, image_id), image_ids):
                seen.append(image)
                bar.update()
            return seen
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# --- How it is found out


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


# --- What it means


def _as_finding(error: Exception) -> Finding:
    """Takes the first paragraph of an error as the message and the rest as advice."""
    message, _, advice = str(error).partition("\n\n")
    if isinstance(error, LandmarkTableError):
        return Finding("table", message, advice or "Fetch the table again, or mend that line.")
    return Finding("archive" if isinstance(error, ArchiveError) else "layout", message, advice.strip())


def _judge_table(result: Inspection, table: TableFacts) -> None:
    num_single = table.num_landmarks_with_single_image
    if table.num_landmarks < 2 or num_single == table.num_landmarks:
        what = "a single landmark" if table.num_landmarks < 2 else "a single image for every landmark"
        message = f"The table has {what}, so there are no triplets."
        result.add(Finding("no_triplets", message, "Use a larger table."), is_problem=True)
    elif num_single:
        message = (
            f"{num_single:,} landmarks have a single image: they give no triplets of their own, but serve as negatives."
        )
        result.add(Finding("single_images", message), is_problem=False)


def _judge_missing(
    result: Inspection, source: ImageSource, table: LandmarkTable, present: npt.NDArray[np.bool_], options: BuildOptions
) -> None:
    num_missing = int((~present).sum())
    if not num_missing:
        return
    missing_id = int(table.image_ids[~present][0])
    message = (
        f"{num_missing:,} of the {table.num_images:,} images have no file ({num_missing / table.num_images:.1%}), such"
        f" as {source.locate(missing_id)}."
    )
    is_problem = num_missing > options.max_num_unreadable(table.num_images)
    if not present.any():
        advice = f"Is {source.table_path} the table of these images? {_describe_neighbours(source, missing_id)}".strip()
    elif is_problem:
        advice = "Fetch the rest; or leave these images out, with a config such as\n  --config " + _PARTIAL_CONFIG
    else:
        advice = _BUILD_GOES_ON
    result.add(Finding("missing", message, advice), is_problem=is_problem)


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
        advice += f" {_BUILD_GOES_ON}"
    message = f"{len(broken):,} of {len(seen):,} images looked at ({share:.1%}) are unreadable: {listed}.{examples}"
    result.add(Finding("unreadable", message, advice), is_problem=is_problem)


# --- How it is shown


def _lines(result: Inspection) -> Iterator[str]:
    if result.source is not None:
        source = result.source
        size = "" if source.num_bytes is None else f", {console.format_bytes(source.num_bytes)}"
        many = f" ({source.num_archives:,} of them{size})" if source.kind == "tars" else size
        yield from _section("Copy", [f"{source.kind} {source.location}{many}", f"table {source.table}"])
    if result.table is not None:
        yield from _section("Table", _table_lines(result.table))
        yield ""
        yield from _histogram(result.table)
        yield ""
    if result.images is not None and result.table is not None:
        yield from _section("Images", _image_lines(result.images, result.table.num_images))
    if result.source is not None:
        yield ""
    for finding in result.notes:
        yield from _finding_lines(finding, "Note", "yellow")
    for finding in result.problems:
        yield from _finding_lines(finding, "Problem", "red")
    if result.usable:
        yield console.styled("Usable.", "green") + " Next: landmark-triplets forecast --manual_dir " + result.manual_dir
    else:
        yield console.styled("Not usable as it is.", "red")


def _section(title: str, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        head = console.styled(f"{title:<8}", "bold") if number == 0 else " " * 8
        yield f"{head}{line}"


def _table_lines(table: TableFacts) -> list[str]:
    return [
        f"{table.num_images:,} images of {table.num_landmarks:,} landmarks",
        f"images per landmark: {table.min_images_per_landmark:,} to {table.max_images_per_landmark:,},"
        f" median {table.median_images_per_landmark:g}, mean {table.mean_images_per_landmark:.1f};"
        f" {table.num_landmarks_with_single_image:,} with a single one",
    ]


def _histogram(table: TableFacts) -> Iterator[str]:
    """Yields a bar for each bin, in eighths of a character where they can be shown."""
    most = max(count for _, _, count in table.histogram)
    rows = []
    first = next(number for number, (_, _, count) in enumerate(table.histogram) if count)
    for lowest, highest, count in table.histogram[first:]:
        name = f"{lowest}" if highest == lowest else f"{lowest}-{highest}" if highest else f"{lowest} or more"
        rows.append((name, f"{count:,}", console.bar(count / most, _BAR_WIDTH)))
    name_width = max(len("images"), *(len(name) for name, _, _ in rows))
    count_width = max(len("landmarks"), *(len(count) for _, count, _ in rows))
    yield console.styled(f"        {'images':<{name_width}}  {'landmarks':>{count_width}}", "dim")
    for name, count_text, bar in rows:
        yield f"        {name:<{name_width}}  {count_text:>{count_width}}  {bar}".rstrip()


def _image_lines(images: ImageFacts, num_images: int) -> list[str]:
    missing = f"{images.num_missing:,} ({images.num_missing / num_images:.2%})" if images.num_missing else "none"
    lines = [f"{missing} of {num_images:,} missing"]
    if not images.num_looked_at:
        return lines
    num_unreadable = sum(images.num_unreadable.values())
    unreadable = f"{num_unreadable:,} ({num_unreadable / images.num_looked_at:.2%})" if num_unreadable else "none"
    is_sample = images.num_looked_at < num_images - images.num_missing
    sample = f"a random sample of {images.num_looked_at:,}" if is_sample else f"all {images.num_looked_at:,}"
    bound = f" (so of all, most likely under {images.max_unreadable_share:.1%})" if is_sample else ""
    lines.append(f"looked at {sample}: {unreadable} unreadable{bound}")
    if num_unreadable == images.num_looked_at:
        return lines
    if images.width_px:
        (width_low, width, width_high), (height_low, height, height_high) = images.width_px, images.height_px
        lines.append(
            f"{width_low:,.0f} to {width_high:,.0f} px wide (median {width:,.0f}),"
            f" {height_low:,.0f} to {height_high:,.0f} px high (median {height:,.0f})"
        )
        common = ", ".join(f"{wide} x {high} ({share:.0%})" for wide, high, share in images.common_sizes)
        lines.append(f"most common: {common}")
        short = ", ".join(f"{px} px {share:.1%}" for px, share in images.short_side_below_px.items())
        lines.append(f"short side below: {short}")
    low, median, high = map(console.format_bytes, images.num_bytes)
    total = console.format_bytes(images.estimated_total_bytes)
    lines.append(f"files of {low} to {high} (median {median}); about {total} in all")
    lines.append(
        f"grey {images.grey_share:.1%}, progressive {images.progressive_share:.1%},"
        f" PNG or GIF {images.not_jpeg_share:.1%}"
    )
    return lines


def _finding_lines(finding: Finding, label: str, style: str) -> Iterator[str]:
    text = console.fill(f"{label}: {finding.message}", indent=0)
    yield text.replace(label, console.styled(label, style), 1)
    if finding.advice:
        yield console.fill(finding.advice, indent=2)
    yield ""
