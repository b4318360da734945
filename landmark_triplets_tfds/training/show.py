"""Triplets and images as pictures, for notebooks: ``show_triplets(ds)`` and ``show_images(ds)``.

TFDS's own ``show_examples`` refuses datasets with several images in an example.

Rows of pictures with captions on one sheet: how `preview` and `show_triplets` look. Knows nothing of datasets.

Pillow draws: it is a tenth of matplotlib, puts pixels where they are told to be, and its images are shown by notebooks
as they are. Its own font is used, so that a sheet looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from landmark_triplets_tfds.errors import CommandError

if TYPE_CHECKING:
    from PIL import Image, ImageFont


_ROLES = ("anchor", "positive", "negative")
_HEADINGS = ("anchor", "positive: same landmark", "negative: another one")
_IMAGES_PER_ROW = 4


def show_triplets(examples: Iterable[Any], num: int = 4, *, title: str = "") -> Image.Image:
    """Draws triplets: a row for each, with anchor, positive and negative, and what is known of their ids.

    A notebook shows the picture if this is the last line of a cell; ``.save("triplets.png")`` keeps it.

    Args:
      examples: a tf.data.Dataset from ``tfds.load``, also with ``as_supervised=True``, with batches or without; or
        anything that gives examples, such as a `FreshTriplets`, a DataLoader or a list. An example is a dict with
        ``anchor_img``, ``positive_img`` and ``negative_img``, or ((anchor, positive, negative), landmark_id). Images
        may be stored bytes, uint8, or floats of 0 to 1, -1 to 1 or 0 to 255.
      num: of the first triplets.
      title: written above them.

    Raises:
      ValueError: if there is no example, or it is none of these.
    """
    triplets = [_as_triplet(example) for example in _take(examples, num)]
    return draw_sheet([Row(_triplet_cells(triplet)) for triplet in triplets], title, _HEADINGS)


def show_images(examples: Iterable[Any], num: int = 12, *, title: str = "") -> Image.Image:
    """Draws single images with their ids and landmarks, those of a landmark side by side.

    Args:
      examples: as for `show_triplets`, of ``landmark_images``: dicts with ``image``, or (image, landmark_id), or
        batches of these.
      num: of the first images.
      title: written above them.

    Raises:
      ValueError: if there is no example, or it is none of these.
    """
    images = [_as_image(example) for example in _take(examples, num)]
    groups: dict[str, list[dict[str, Any]]] = {}
    for image in images:
        groups.setdefault(image["landmark"], []).append(image)
    cells = [
        Cell(_as_pixels(image["image"]), image["id"], image["landmark"], (BLUE, ORANGE)[number % 2])
        for number, group in enumerate(groups.values())
        for image in group
    ]
    rows = [Row(cells[at : at + _IMAGES_PER_ROW]) for at in range(0, len(cells), _IMAGES_PER_ROW)]
    return draw_sheet(rows, title)


def draw_rows(rows: Sequence[Sequence[Any]], title: str = "") -> Image.Image:
    """Draws chosen examples: each row is a triplet, or some images of the same landmark."""
    if isinstance(rows[0][0], Mapping) and "image" in rows[0][0]:
        drawn = []
        for number, row in enumerate(rows):
            images = [_as_image(example) for example in row]
            colour = (BLUE, ORANGE)[number % 2]
            drawn.append(Row([Cell(_as_pixels(i["image"]), i["id"], i["landmark"], colour) for i in images]))
        return draw_sheet(drawn, title)
    return show_triplets([example for row in rows for example in row], sum(map(len, rows)), title=title)


def _triplet_cells(triplet: Mapping[str, Any]) -> list[Cell]:
    same, other = triplet["landmark"], triplet["negative_landmark"]
    is_other = not other or other != same  # a triplet that breaks the rules should look like it
    return [
        Cell(
            pixels=_as_pixels(triplet[role]),
            image_id=triplet[f"{role}_id"],
            note=other if role == "negative" else same,
            colour=ORANGE if role == "negative" and is_other else BLUE,
        )
        for role in _ROLES
    ]


def _take(examples: Iterable[Any], num: int) -> list[Any]:
    """Returns the first examples, taken out of batches where they are in such."""
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    if isinstance(examples, Mapping):  # one example or batch
        examples = [examples]
    take = getattr(examples, "take", None)
    if take is not None and hasattr(examples, "as_numpy_iterator"):  # a tf.data.Dataset
        examples = take(num).as_numpy_iterator()
    taken = list(itertools.islice((single for example in examples for single in _unbatch(example)), num))
    if not taken:
        raise ValueError("there is no example to show.")
    return taken


def _unbatch(example: Any) -> Iterator[Any]:
    """Yields the examples of a batch; an example by itself."""
    leaves = list(_leaves(example))
    if not leaves or max(np.ndim(leaf) for leaf in leaves if not isinstance(leaf, bytes | str)) < 4:
        yield example
        return
    for i in range(len(leaves[0])):
        yield _map_leaves(example, i)


def _leaves(example: Any) -> Iterator[Any]:
    if isinstance(example, Mapping):
        example = list(example.values())
    if isinstance(example, list | tuple):
        for part in example:
            yield from _leaves(part)
    else:
        yield example


def _map_leaves(example: Any, index: int) -> Any:
    if isinstance(example, Mapping):
        return {name: _map_leaves(part, index) for name, part in example.items()}
    if isinstance(example, tuple):
        return tuple(_map_leaves(part, index) for part in example)
    return example[index]


def _as_triplet(example: Any) -> dict[str, Any]:
    if isinstance(example, Mapping):
        if not all(f"{role}_img" in example for role in _ROLES):
            raise ValueError(
                f"expected triplets with anchor_img, positive_img and negative_img, got {', '.join(map(str, example))}."
                + (" Use show_images for single images." if "image" in example else "")
            )
        triplet: dict[str, Any] = {role: example[f"{role}_img"] for role in _ROLES}
        triplet |= {f"{role}_id": _as_text(example.get(f"{role}_id", "")) for role in _ROLES}
        landmarks = example.get("landmark_id"), example.get("negative_landmark_id")
    else:
        images, landmark = _split_supervised(example)
        if not isinstance(images, list | tuple) or len(images) != len(_ROLES):
            raise ValueError(f"expected ((anchor, positive, negative), landmark_id), got {_describe(example)}.")
        triplet = dict(zip(_ROLES, images, strict=True)) | {f"{role}_id": "" for role in _ROLES}
        landmarks = landmark, None
    return triplet | dict(zip(("landmark", "negative_landmark"), map(_describe_landmark, landmarks), strict=True))


def _as_image(example: Any) -> dict[str, Any]:
    if isinstance(example, Mapping):
        if "image" not in example:
            raise ValueError(
                f"expected images with the feature image, got {', '.join(map(str, example))}."
                + (" Use show_triplets for triplets." if "anchor_img" in example else "")
            )
        image, landmark = example["image"], example.get("landmark_id")
        return {"image": image, "id": _as_text(example.get("image_id", "")), "landmark": _describe_landmark(landmark)}
    image, landmark = _split_supervised(example)
    return {"image": image, "id": "", "landmark": _describe_landmark(landmark)}


def _split_supervised(example: Any) -> tuple[Any, Any]:
    if isinstance(example, list | tuple) and len(example) == 2:
        return example[0], example[1]
    raise ValueError(f"expected a dict of features or a pair as from as_supervised=True, got {_describe(example)}.")


def _describe(example: Any) -> str:
    return f"a {type(example).__name__}" + (f" of {len(example)}" if isinstance(example, Sequence) else "")


def _describe_landmark(landmark_id: Any) -> str:
    if landmark_id is None:
        return ""
    number = int(np.asarray(landmark_id))
    return f"landmark {number}" if number >= 0 else "no landmark"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes | str):
        return value.decode() if isinstance(value, bytes) else value
    return _as_text(np.asarray(value).item())


def _as_pixels(image: Any) -> npt.NDArray[np.uint8]:
    """Returns uint8[height, width, 1 or 3] of an image in any of the forms that training code uses."""
    if isinstance(image, bytes | np.bytes_):
        try:
            pixels: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(bytes(image), "RGB", fastdct=True)
        except ValueError as error:
            raise ValueError(f"an image is {len(image):,} bytes that are no JPEG ({error}).") from None
        return pixels
    array = np.asarray(image)
    if array.ndim == 0 and array.dtype == object:
        return _as_pixels(array.item())
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):  # PyTorch puts channels first
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(f"an image must be [height, width, 1 or 3], got an array of shape {array.shape}.")
    if array.dtype == np.uint8:
        return array
    values = array.astype(np.float64)
    if values.min() < 0:
        values = (values + 1) * 127.5
    elif values.max() <= 1:
        values = values * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# Okabe and Ito's palette, whose colours are told apart by colour-blind people too (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE = "#0072b2", "#d55e00"
_INK, _FAINT, _EDGE, _PAPER = "#1a1a1a", "#6b6b6b", "#dddddd", "white"

# Everything in px.
_SIDE = 240  # of a picture, about: the nearest whole multiple of its pixels
_MAX_SIDE = 320
_MARGIN, _GAP, _ROW_GAP = 28, 20, 24
_BAR_HEIGHT, _BAR_GAP = 4, 9
_TITLE_SIZE, _HEADING_SIZE, _ID_SIZE, _NOTE_SIZE = 22, 17, 16, 15
_LINE_HEIGHT = 1.35  # of the size of the letters


@dataclasses.dataclass(frozen=True)
class Cell:
    """A picture and what is written below it.

    Attributes:
      pixels: uint8[height, width, 1 or 3].
      image_id: the first line; '' leaves the line out.
      note: the second line, in the colour.
      colour: of the bar below the picture and of the note.
    """

    pixels: npt.NDArray[np.uint8]
    image_id: str = ""
    note: str = ""
    colour: str = BLUE


@dataclasses.dataclass(frozen=True)
class Row:
    """Pictures side by side, with a heading above them if there is one."""

    cells: Sequence[Cell]
    heading: str = ""


def draw_sheet(rows: Sequence[Row], title: str = "", headings: Sequence[str] = ()) -> Image.Image:
    """Draws a sheet.

    Args:
      rows: at least one; all pictures in them have the same size.
      title: written at the top; '' for none.
      headings: of the columns; empty: none.

    Raises:
      CommandError: if Pillow is not installed.
    """
    pillow = _Pillow()
    side_px = _displayed_size(rows[0].cells[0].pixels)
    width, height = max(side_px[1], pillow.width_of("0" * 16, _ID_SIZE)), side_px[0]
    num_columns = max(len(row.cells) for row in rows)
    has_ids = any(cell.image_id for row in rows for cell in row.cells)
    has_notes = any(cell.note for row in rows for cell in row.cells)
    caption = _BAR_HEIGHT + _BAR_GAP + has_ids * _line(_ID_SIZE) + has_notes * _line(_NOTE_SIZE)
    above = [_line(_HEADING_SIZE) if row.heading else 0 for row in rows]
    top = _MARGIN + (_line(_TITLE_SIZE) + 14 if title else 0) + (_line(_HEADING_SIZE) + 4 if headings else 0)
    sheet_width = 2 * _MARGIN + num_columns * (width + _GAP) - _GAP
    if title:
        sheet_width = max(sheet_width, 2 * _MARGIN + pillow.width_of(title, _TITLE_SIZE))
    sheet_height = top + sum(above) + len(rows) * (height + caption + _ROW_GAP) - _ROW_GAP + _MARGIN

    sheet: Image.Image = pillow.image.new("RGB", (sheet_width, sheet_height), _PAPER)
    pen = _Pen(pillow, sheet)
    if title:
        pen.write(title, _MARGIN, _MARGIN, _TITLE_SIZE, _INK)
    for column, heading in enumerate(headings):
        pen.write(heading, _MARGIN + column * (width + _GAP), top - 4 - _line(_HEADING_SIZE), _HEADING_SIZE, _FAINT)
    y = top
    for row, space in zip(rows, above, strict=True):
        if row.heading:
            pen.write(row.heading, _MARGIN, y - 4, _HEADING_SIZE, _FAINT)
        y += space
        for column, cell in enumerate(row.cells):
            pen.draw_cell(cell, _MARGIN + column * (width + _GAP), y, side_px)
        y += height + caption + _ROW_GAP
    return sheet


class _Pen:
    """Draws on a sheet. Places are those of the left upper corner."""

    def __init__(self, pillow: _Pillow, sheet: Image.Image):
        self._pillow = pillow
        self._sheet = sheet
        self._draw = pillow.draw.Draw(sheet)

    def write(self, text: str, x: int, y: int, size: int, colour: str) -> None:
        """Writes a line; its letters stand on the same height whichever they are."""
        self._draw.text((x, y + size), text, fill=colour, font=self._pillow.font(size), anchor="ls")

    def draw_cell(self, cell: Cell, x: int, y: int, side_px: tuple[int, int]) -> None:
        """Draws a picture of this height and width with its caption."""
        height, width = side_px
        self._sheet.paste(self._pillow.scale(cell.pixels, side_px), (x, y))
        self._draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_EDGE)  # else white ones would vanish
        y += height
        self._draw.rectangle((x - 1, y, x + width, y + _BAR_HEIGHT - 1), fill=cell.colour)
        y += _BAR_HEIGHT + _BAR_GAP
        if cell.image_id:
            self.write(cell.image_id, x, y - 2, _ID_SIZE, _INK)
            y += _line(_ID_SIZE)
        if cell.note:
            self.write(cell.note, x, y - 2, _NOTE_SIZE, cell.colour)


def _line(size: int) -> int:
    return round(size * _LINE_HEIGHT)


def _displayed_size(pixels: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Returns height and width of a picture on the sheet; a small one becomes whole blocks for pixels."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer > _MAX_SIDE:
        return max(1, round(height * _SIDE / longer)), max(1, round(width * _SIDE / longer))
    factor = max(1, round(_SIDE / longer))
    return height * factor, width * factor


class _Pillow:
    """The parts of Pillow that are used, imported when something is drawn."""

    def __init__(self) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise CommandError(
                f"Pictures are drawn by Pillow, which cannot be imported ({error}): pip install pillow."
            ) from error
        self.image = Image
        self.draw = ImageDraw
        self._image_font = ImageFont

    def font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return self._image_font.load_default(size)

    def width_of(self, text: str, size: int) -> int:
        return round(self.font(size).getlength(text))

    def scale(self, pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
        picture = self.image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        enlarges = size[0] >= picture.height
        method = self.image.Resampling.NEAREST if enlarges else self.image.Resampling.BOX
        return picture.resize((size[1], size[0]), method)
