"""The command `inspect`: its arguments, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
import dataclasses
from typing import TYPE_CHECKING

from landmark_triplets_tfds.commands import console
from landmark_triplets_tfds.commands.arguments import build_options, check_at_least, folder, json_flag, option

if TYPE_CHECKING:
    from landmark_triplets_tfds.commands.inspect import Finding, ImageFacts, Inspection, TableFacts


_BAR_WIDTH = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Tell whether a copy of the competition is usable.

    Looks at the kind of copy, at the table of images, at which files are
    missing, and at a random sample of the images, of which it makes
    thumbnails as a build does. Says of each problem what to do about it.

    Exit status: 0 if a dataset can be built from it, 1 if not, 2 if it could
    not be looked at.

    Example:
      landmark-triplets inspect --manual_dir ~/landmarks
    """

    manual_dir: str = option("Folder with the competition's files: extracted, as zip, or as tars.", metavar="DIR")
    images: int = option("Images to look at; 0: none (default: 1000).", default=1000, metavar="N")
    seed: int = option("Of the random sample (default: 0).", default=0, metavar="N")
    json: bool = json_flag()

    def execute(self) -> int:
        check_at_least("--images", self.images, 0)
        check_at_least("--seed", self.seed, 0)
        from landmark_triplets_tfds.commands.inspect import inspect_copy

        result = inspect_copy(folder(self.manual_dir), build_options(), num_images=self.images, seed=self.seed)
        if self.json:
            console.print_json(result.as_json())
        else:
            print("\n".join(_lines(result)))
        return console.OK if result.usable else console.FOUND_WRONG


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
