"""The command `inspect`: is a copy of the competition usable, what is wrong with it, and what to do?

What there is to know of a copy is its kind, its table, which files are missing, and what its images are like. It is
found out as one object for JSON, and the text is printed from that. Whether an image is readable is decided by making a
thumbnail of it, as a build does; how many may not be, by the same rule as in a build.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
import dataclasses
import functools
import itertools
import os
from typing import Any

from etils import epath
import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.build.options import BuildOptions
from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.common.checks import list_some
from landmark_triplets_tfds.common.file_access import ADVICE
from landmark_triplets_tfds.competition.archive import ArchiveSource
from landmark_triplets_tfds.competition.layout import IMAGES_NAME
from landmark_triplets_tfds.competition.selection import open_copy
from landmark_triplets_tfds.competition.source import FolderSource, ImageSource
from landmark_triplets_tfds.competition.tables import LandmarkTable
from landmark_triplets_tfds.competition.tar_archives import TarSource
from landmark_triplets_tfds.errors import (
    ArchiveError,
    LandmarkTableError,
    SourceLayoutError,
    UnreadableImageError,
    advise_on_unreadable,
)
from landmark_triplets_tfds.thumbnails.header import PROGRESSIVE, read_header
from landmark_triplets_tfds.thumbnails.thumbnail import ThumbnailSpec, make_thumbnail
from landmark_triplets_tfds.triplets.draws import choose_rows

_SHORT_SIDES_PX = (128, 256, 512)

# Upper ends of the bins of images per landmark; the last one is open.
_HISTOGRAM_ENDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_NUM_EXAMPLES = 3
_BAR_WIDTH = 40

_BUILD_GOES_ON = "A build goes on without them: it draws other images in their place and lists them in its report."
_PARTIAL_CONFIG = """'{"name": "128px_partial", "missing_images": "drop"}'"""


def run(arguments: argparse.Namespace) -> int:
    """Inspects a copy and shows what was found."""
    options = console.build_options()
    found = inspect_copy(arguments.manual_dir, options, num_images=arguments.images, seed=arguments.seed)
    console.show_found(found, _lines(found), as_json=arguments.json)
    return console.OK if found["usable"] else console.FOUND_WRONG


def inspect_copy(manual_dir: epath.Path, options: BuildOptions, *, num_images: int, seed: int) -> dict[str, Any]:
    """Inspects a copy of the competition, and so many of its images.

    Returns:
      What `--json` prints; docs/commands.md documents it. Deterministic in the files and the arguments.

    Raises:
      NotADirectoryError, FileNotFoundError: if there is no such folder.
    """
    if not manual_dir.exists():
        raise FileNotFoundError(f"The folder {manual_dir} does not exist.")
    if not manual_dir.is_dir():
        raise NotADirectoryError(
            f"{manual_dir} is a file, not a folder. Name the folder that holds it: --manual_dir {manual_dir.parent}"
        )
    found: dict[str, Any] = {"schema_version": 1, "usable": False, "manual_dir": os.fspath(manual_dir)}
    found |= {"source": None, "table": None, "images": None, "problems": [], "notes": []}
    num_readers = options.num_readers_of(manual_dir)
    try:
        source = open_copy(manual_dir, options.bank, num_readers)
        found["source"] = _describe_source(source)
        is_verified = found["source"]["num_verified"] == found["source"]["num_archives"]  # which is shown with the copy
        for remark in source.remarks()[int(is_verified) :]:
            _add(found, "verification", remark)
        table = source.read_table()
    except (SourceLayoutError, LandmarkTableError) as error:
        _add_error(found, error)
        return found
    found["table"] = _describe_table(table)
    if table.num_landmarks < 2 or table.num_landmarks_without_pair == table.num_landmarks:
        what = "a single landmark" if table.num_landmarks < 2 else "a single image for every landmark"
        message = f"The table has {what}, so there are no triplets."
        _add(found, "no_triplets", message, "Use a larger table.", is_problem=True)
    elif num_single := table.num_landmarks_without_pair:
        message = "landmarks have a single image: they give no triplets of their own, but serve as negatives."
        _add(found, "single_images", f"{num_single:,} {message}")

    present = source.find_present(table.image_ids, num_readers)
    ids = table.image_ids[present]
    num_missing = table.num_images - len(ids)
    if num_missing:
        is_problem = not len(ids) or num_missing > options.max_num_unreadable(table.num_images)
        message, advice = _describe_missing(source, table, present)
        _add(found, "missing", message, advice if is_problem else _BUILD_GOES_ON, is_problem=is_problem)

    sample = ids[choose_rows(ids, num_images, seed)].tolist()
    look = functools.partial(_look_at, source)
    seen = list(console.look_at_images(look, sample, num_readers, "Looking at images"))
    found["images"] = {"num_missing": num_missing} | _describe_images(seen, len(ids))
    broken = [(image_id, each) for image_id, each in zip(sample, seen, strict=True) if not isinstance(each, _Image)]
    if broken:
        # A build counts the unreadable images of its plan; of all images, there are about so many.
        is_problem = len(broken) / len(seen) * len(ids) > options.max_num_unreadable(len(ids))
        message, advice = _describe_unreadable(source, broken, len(seen))
        advice = advice if is_problem else f"{advice} {_BUILD_GOES_ON}"
        _add(found, "unreadable", message, advice, is_problem=is_problem)
    found["usable"] = not found["problems"]
    return found


# --- What there is to know


@dataclasses.dataclass(frozen=True)
class _Image:
    """A readable image of the sample."""

    num_bytes: int
    width: int
    height: int
    is_jpeg: bool
    is_grey: bool
    is_progressive: bool


def _look_at(source: ImageSource, image_id: int) -> _Image | UnreadableImageError:
    try:
        content = source.read(image_id)
        header = read_header(content)
        thumbnail = read_header(make_thumbnail(content, ThumbnailSpec()))
    except UnreadableImageError as error:
        return error.without_traceback()
    return _Image(
        num_bytes=len(content),
        width=header.width,
        height=header.height,
        is_jpeg=content.startswith(b"\xff\xd8"),
        is_grey=thumbnail.num_components == 1,
        is_progressive=header.frame_marker in PROGRESSIVE,
    )


def _describe_source(source: ImageSource) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "folder", "location": "", "table": source.table_path, "num_verified": None}
    if isinstance(source, ArchiveSource):
        sizes = [archive["size"] for archive in source.index().archives]
        facts |= {"kind": "zip", "location": source.archive}
        if isinstance(source, TarSource):
            facts |= {"kind": "tars", "num_verified": len(source.verified()[0])}
        return facts | {"num_archives": len(sizes), "num_bytes": sum(sizes)}
    folder = os.path.dirname(source.table_path)  # noqa: PTH120
    return facts | {"location": f"{folder}/{IMAGES_NAME}", "num_archives": None, "num_bytes": None}


def _describe_table(table: LandmarkTable) -> dict[str, Any]:
    sizes = np.diff(table.block_starts)
    lowest = [1, *(end + 1 for end in _HISTOGRAM_ENDS)]
    counts = np.bincount(np.searchsorted(_HISTOGRAM_ENDS, sizes), minlength=len(lowest)).tolist()
    last = max(number for number, count in enumerate(counts) if count)
    return {
        "num_images": table.num_images,
        "num_landmarks": table.num_landmarks,
        "min_images_per_landmark": int(sizes.min()),
        "median_images_per_landmark": float(np.median(sizes)),
        "mean_images_per_landmark": round(float(sizes.mean()), 2),
        "max_images_per_landmark": int(sizes.max()),
        "num_landmarks_with_single_image": table.num_landmarks_without_pair,
        "histogram": list(zip(lowest, [*_HISTOGRAM_ENDS, None], counts, strict=True))[: last + 1],
        "fingerprint": table.fingerprint,
    }


def _describe_images(seen: list[_Image | UnreadableImageError], num_present: int) -> dict[str, Any]:
    """Sums up a sample of ``num_present`` images that have a file. Shares are of the readable ones."""
    good = [each for each in seen if isinstance(each, _Image)]
    reasons = Counter(each.reason for each in seen if isinstance(each, UnreadableImageError))
    sizes = [(each.width, each.height) for each in good if each.width]  # a GIF's are not known
    num_bytes = [each.num_bytes for each in good]
    mean_bytes = sum(num_bytes) / len(good) if good else 0.0
    return {
        "num_looked_at": len(seen),
        "num_unreadable": dict(reasons.most_common()),
        "max_unreadable_share": round(_upper_bound(reasons.total(), len(seen)), 5),
        "width_px": _quantiles([width for width, _ in sizes]),
        "height_px": _quantiles([height for _, height in sizes]),
        "num_bytes": _quantiles(num_bytes),
        "mean_bytes": round(mean_bytes, 1),
        "short_side_below_px": {str(px): _share([min(size) < px for size in sizes]) for px in _SHORT_SIDES_PX},
        "common_sizes": [(*size, round(count / len(sizes), 5)) for size, count in Counter(sizes).most_common(3)],
        "grey_share": _share([each.is_grey for each in good]),
        "progressive_share": _share([each.is_progressive for each in good]),
        "not_jpeg_share": _share([not each.is_jpeg for each in good]),
        "estimated_total_bytes": round(mean_bytes * num_present),
    }


def _quantiles(values: list[int]) -> list[float]:
    """Returns minimum, median and maximum."""
    return [float(value) for value in np.quantile(values, [0, 0.5, 1])] if values else []


def _share(values: list[bool]) -> float:
    return round(sum(values) / len(values), 5) if values else 0.0


def _upper_bound(count: int, total: int) -> float:
    """Returns the upper end of Wilson's 95 % interval of a share (E. B. Wilson, JASA 22, 1927)."""
    if not total:
        return 1.0
    z2 = 1.96**2
    share = count / total
    center, spread = share + z2 / (2 * total), 1.96 * (share * (1 - share) / total + z2 / (4 * total**2)) ** 0.5
    return float((center + spread) / (1 + z2 / total))


# --- What it means


def _add(found: dict[str, Any], kind: str, message: str, advice: str = "", *, is_problem: bool = False) -> None:
    """Adds a word that programs can go by, what was found, and what to do about it."""
    found["problems" if is_problem else "notes"].append({"kind": kind, "message": message, "advice": advice})


def _add_error(found: dict[str, Any], error: Exception) -> None:
    """Takes the first paragraph of an error as the message and the rest as advice."""
    message, _, advice = str(error).partition("\n\n")
    kind = "archive" if isinstance(error, ArchiveError) else "layout"
    if isinstance(error, LandmarkTableError):
        kind, advice = "table", advice or "Fetch the table again, or mend that line."
    _add(found, kind, message, advice.strip(), is_problem=True)


def _describe_missing(source: ImageSource, table: LandmarkTable, present: npt.NDArray[np.bool_]) -> tuple[str, str]:
    """Returns what is missing, and what to do if a build would fail for that."""
    num_missing, location = int((~present).sum()), source.locate(int(table.image_ids[~present][0]))
    message = (
        f"{num_missing:,} of the {table.num_images:,} images have no file ({num_missing / table.num_images:.1%}), such"
        f" as {location}."
    )
    if present.any():
        advice = f"Fetch the rest; or leave these images out, with a config such as\n  --config {_PARTIAL_CONFIG}"
        return message, advice
    advice = f"Is {source.table_path} the table of these images?"
    if isinstance(source, FolderSource):
        folder = next(parent for parent in epath.Path(location).parents if parent.exists())
        names = sorted(path.name for path in folder.iterdir())
        advice += f" {folder} holds {list_some(names, _NUM_EXAMPLES) or 'nothing'}."
    return message, advice


def _describe_unreadable(
    source: ImageSource, broken: list[tuple[int, UnreadableImageError]], num_seen: int
) -> tuple[str, str]:
    """Returns what is unreadable of the images looked at, and what to do about it."""
    reasons = Counter(error.reason for _, error in broken)
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
    share = len(broken) / num_seen
    message = f"{len(broken):,} of {num_seen:,} images looked at ({share:.1%}) are unreadable: {listed}."
    for image_id, error in broken[:_NUM_EXAMPLES]:
        detail = f" ({error.detail})" if error.detail else ""
        message += f"\n  {source.locate(image_id)}: {error.reason}{detail}"
    advice = next((ADVICE[error.detail] for _, error in broken if error.detail in ADVICE), None)
    return message, advice or advise_on_unreadable(reasons)


# --- How it is shown


def _lines(found: dict[str, Any]) -> Iterator[str]:
    source, table, images = found["source"], found["table"], found["images"]
    if source is not None:
        yield from _section("Copy", _source_lines(source))
    if table is not None:
        yield from _section("Table", _table_lines(table))
        yield ""
    if images is not None:
        yield from _section("Images", _image_lines(images, table["num_images"]))
    if source is not None:
        yield ""
    for label, style, findings in (("Note", "yellow", found["notes"]), ("Problem", "red", found["problems"])):
        for finding in findings:
            text = console.fill(f"{label}: {finding['message']}", indent=0)
            yield text.replace(label, console.styled(label, style), 1)
            if finding["advice"]:
                yield console.fill(finding["advice"])
            yield ""
    if found["usable"]:
        command = f"landmark-triplets forecast --manual_dir {found['manual_dir']}"
        yield f"{console.styled('Usable.', 'green')} Next: {command}"
    else:
        yield console.styled("Not usable as it is.", "red")


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    head = console.styled(f"{title:<8}", "bold")
    for line in lines:
        yield f"{head}{line}".rstrip()
        head = " " * 8


def _source_lines(source: dict[str, Any]) -> Iterator[str]:
    size = "" if source["num_bytes"] is None else f", {console.format_bytes(source['num_bytes'])}"
    many = f" ({source['num_archives']:,} of them{size})" if source["kind"] == "tars" else size
    yield f"{source['kind']} {source['location']}{many}"
    yield f"table {source['table']}"
    if source["num_verified"] is not None:
        yield f"{source['num_verified']:,} of {source['num_archives']:,} tars verified by MD5 lists"


def _table_lines(table: dict[str, Any]) -> Iterator[str]:
    yield f"{table['num_images']:,} images of {table['num_landmarks']:,} landmarks"
    yield (
        f"images per landmark: {table['min_images_per_landmark']:,} to {table['max_images_per_landmark']:,},"
        f" median {table['median_images_per_landmark']:g}, mean {table['mean_images_per_landmark']:.1f};"
        f" {table['num_landmarks_with_single_image']:,} with a single one"
    )
    yield ""
    # A bar for each bin, from the first that has a landmark on.
    bins = list(itertools.dropwhile(lambda each: not each[2], table["histogram"]))
    most = max(count for _, _, count in bins)
    rows, bars = [("images", "landmarks")], [""]
    for lowest, highest, count in bins:
        name = f"{lowest}" if highest == lowest else f"{lowest}-{highest}" if highest else f"{lowest} or more"
        rows.append((name, f"{count:,}"))
        bars.append(console.bar(count / most, _BAR_WIDTH))
    for line, bar in zip(console.format_table(rows, indent=0, gap=2), bars, strict=True):
        yield f"{line}  {bar}".rstrip()


def _image_lines(images: dict[str, Any], num_images: int) -> Iterator[str]:
    num_missing, num_seen = images["num_missing"], images["num_looked_at"]
    yield f"{_count(num_missing, num_images)} of {num_images:,} missing"
    if not num_seen:
        return
    is_sample = num_seen < num_images - num_missing
    sample = f"a random sample of {num_seen:,}" if is_sample else f"all {num_seen:,}"
    bound = f" (so of all, most likely under {images['max_unreadable_share']:.1%})" if is_sample else ""
    yield f"looked at {sample}: {_count(sum(images['num_unreadable'].values()), num_seen)} unreadable{bound}"
    if images["width_px"]:
        (width_low, width, width_high), (height_low, height, height_high) = images["width_px"], images["height_px"]
        yield (
            f"{width_low:,.0f} to {width_high:,.0f} px wide (median {width:,.0f}),"
            f" {height_low:,.0f} to {height_high:,.0f} px high (median {height:,.0f})"
        )
        common = ", ".join(f"{wide} x {high} ({share:.0%})" for wide, high, share in images["common_sizes"])
        yield f"most common: {common}"
        short = ", ".join(f"{px} px {share:.1%}" for px, share in images["short_side_below_px"].items())
        yield f"short side below: {short}"
    if images["num_bytes"]:
        low, median, high = map(console.format_bytes, images["num_bytes"])
        total = console.format_bytes(images["estimated_total_bytes"])
        yield f"files of {low} to {high} (median {median}); about {total} in all"
        yield (
            f"grey {images['grey_share']:.1%}, progressive {images['progressive_share']:.1%},"
            f" PNG or GIF {images['not_jpeg_share']:.1%}"
        )


def _count(count: int, total: int) -> str:
    return f"{count:,} ({count / total:.2%})" if count else "none"
