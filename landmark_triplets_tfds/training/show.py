"""Triplets and images as pictures, for notebooks and the command `preview`: rows of pictures with captions on a sheet.

TFDS's own ``show_examples`` refuses datasets with several images in an example. Pillow draws: it is a tenth of
matplotlib, puts pixels where they are told to be, and notebooks show its images as they are. Its own font is used, so
that a sheet looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps
import simplejpeg

from landmark_triplets_tfds.triplets.examples import IMAGES, TRIPLETS, ExampleKind

_HEADINGS = ("anchor", "positive: same landmark", "negative: another one")
_IMAGES_PER_ROW = 4

# Okabe and Ito's palette, whose colours are told apart by colour-blind people too (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE = "#0072b2", "#d55e00"
_INK, _FAINT, _EDGE, _PAPER = "#1a1a1a", "#6b6b6b", "#dddddd", "white"

# Everything in px.
_SIDE = 240  # of a picture, about: the nearest whole multiple of its pixels
_MAX_SIDE = 320
_MARGIN, _GAP, _ROW_GAP = 24, 12, 24
_BAR_HEIGHT, _BAR_GAP = 4, 7
_TITLE_SIZE, _HEADING_SIZE, _ID_SIZE, _NOTE_SIZE = 22, 17, 16, 15
_LINE_HEIGHT = 1.35  # of the size of the letters


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
    rows = []
    for features in _take(TRIPLETS, examples, num):
        anchor, positive, negative = _read_cells(TRIPLETS, features)
        if not negative.note or negative.note != anchor.note:  # a triplet that breaks the rules should look like it
            negative = dataclasses.replace(negative, colour=ORANGE)
        rows.append([anchor, positive, negative])
    return _draw_sheet(rows, title, _HEADINGS)


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
    groups: dict[str, list[_Cell]] = {}
    for features in _take(IMAGES, examples, num):
        (cell,) = _read_cells(IMAGES, features)
        groups.setdefault(cell.note, []).append(cell)
    cells = list(itertools.chain(*_alternate_colours(groups.values())))
    return _draw_sheet([cells[at : at + _IMAGES_PER_ROW] for at in range(0, len(cells), _IMAGES_PER_ROW)], title)


def draw_rows(rows: Sequence[Sequence[Mapping[str, Any]]], title: str = "") -> Image.Image:
    """Draws chosen examples: each row is a triplet, or some images of the same landmark."""
    if rows[0][0].keys() >= TRIPLETS.feature_names:
        return show_triplets(itertools.chain(*rows), len(rows), title=title)
    cells = [[cell for example in row for cell in _read_cells(IMAGES, example)] for row in rows]
    return _draw_sheet(_alternate_colours(cells), title)


def draw_results(rows: Sequence[tuple[Mapping[str, Any], Sequence[tuple[Mapping[str, Any], bool]]]]) -> Image.Image:
    """Draws queries, examples of ``landmark_images``, each with its results, best first, and if they are right."""
    cells = []
    for query, results in rows:
        (cell,) = _read_cells(IMAGES, query)
        cells.append([dataclasses.replace(cell, note="", colour=_FAINT)])
        for result, is_right in results:
            (cell,) = _read_cells(IMAGES, result)
            note, colour = ("right", BLUE) if is_right else ("wrong", ORANGE)
            cells[-1].append(dataclasses.replace(cell, note=note, colour=colour, is_framed=True))
    headings = ["query", *(f"result {rank}" for rank in range(1, max(map(len, cells))))]
    return _draw_sheet(cells, "", headings)


# --- Examples in all the forms in which training code has them


@dataclasses.dataclass(frozen=True)
class _Cell:
    """A picture, uint8[height, width, 1 or 3], and what is written below it; '' for what is not known."""

    pixels: npt.NDArray[np.uint8]
    image_id: str
    note: str
    colour: str = BLUE  # of the note, and of the bar below the picture
    is_framed: bool = False  # the bar goes around the picture


def _take(kind: ExampleKind, examples: Iterable[Any], num: int) -> list[Mapping[str, Any]]:
    """Returns the features of the first examples, taken out of batches where they are in such."""
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    if isinstance(examples, Mapping):  # one example or batch
        examples = [examples]
    taken = list(itertools.islice((single for example in examples for single in _unbatch(kind, example)), num))
    if not taken:
        raise ValueError("there is no example to show.")
    return taken


def _unbatch(kind: ExampleKind, example: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the features of the examples of a batch, or of an example by itself."""
    features = example if isinstance(example, Mapping) else _name_features(kind, example)
    if not all(name in features for name in kind.image_features):
        other = TRIPLETS if kind is IMAGES else IMAGES
        is_other = all(name in features for name in other.image_features)
        raise ValueError(
            f"expected {kind.noun} ({', '.join(kind.image_features)}), got {', '.join(map(str, features))}."
            + (f" Use show_{other.noun} for {other.noun}." if is_other else "")
        )
    images = features[kind.image_features[0]]
    if np.ndim(images) != 4:
        yield features
    else:
        yield from ({name: values[number] for name, values in features.items()} for number in range(len(images)))


def _name_features(kind: ExampleKind, example: Any) -> dict[str, Any]:
    """Returns the features of a pair as from ``as_supervised=True``."""
    if not isinstance(example, list | tuple) or len(example) != 2:
        raise ValueError(f"expected a dict of features or a pair as from as_supervised=True, got {_describe(example)}.")
    images, landmark_id = example
    if kind is IMAGES:
        images = (images,)
    elif not isinstance(images, list | tuple) or len(images) != kind.num_images:
        raise ValueError(f"expected ((anchor, positive, negative), landmark_id), got {_describe(example)}.")
    return dict(zip(kind.image_features, images, strict=True)) | {"landmark_id": landmark_id}


def _read_cells(kind: ExampleKind, features: Mapping[str, Any]) -> list[_Cell]:
    """Returns the images of an example, in their order, with what is known of them."""
    names = zip(kind.image_features, kind.id_features, kind.landmark_features, strict=True)
    return [
        _Cell(
            pixels=_as_pixels(features[image]),
            image_id=_as_text(features.get(image_id, "")),
            note=_describe_landmark(features.get(landmark)),
        )
        for image, image_id, landmark in names
    ]


def _describe(example: Any) -> str:
    return f"a {type(example).__name__}" + (f" of {len(example)}" if isinstance(example, Sequence) else "")


def _describe_landmark(landmark_id: Any) -> str:
    if landmark_id is None:
        return ""
    number = int(np.asarray(landmark_id))
    return f"landmark {number}" if number >= 0 else "no landmark"


def _as_text(value: Any) -> str:
    item = np.asarray(value).item()
    return item.decode() if isinstance(item, bytes) else str(item)


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
    if array.dtype != np.uint8:
        array = array.astype(np.float64)
        if array.min() < 0:
            array = (array + 1) * 127.5
        elif array.max() <= 1:
            array = array * 255
        array = np.clip(np.rint(array), 0, 255).astype(np.uint8)
    return array


# --- The sheet


def _alternate_colours(groups: Iterable[Sequence[_Cell]]) -> list[list[_Cell]]:
    """Returns groups in two colours, so that it can be seen where one ends."""
    return [
        [dataclasses.replace(cell, colour=(BLUE, ORANGE)[number % 2]) for cell in group]
        for number, group in enumerate(groups)
    ]


def _draw_sheet(rows: Sequence[Sequence[_Cell]], title: str, headings: Sequence[str] = ()) -> Image.Image:
    """Draws at least one row, a title above, if there is one, and headings of the columns, if there are some."""
    pictures = [[_frame(cell) for cell in row] for row in rows]
    column = max(_width_of("0" * 16, _ID_SIZE), *(picture.width for row in pictures for picture in row)) + _GAP
    text_top = max(picture.height for row in pictures for picture in row) + _BAR_GAP
    note_top = text_top + any(cell.image_id for row in rows for cell in row) * _line(_ID_SIZE)
    row_height = note_top + any(cell.note for row in rows for cell in row) * _line(_NOTE_SIZE) + _ROW_GAP
    top = _MARGIN + (_line(_TITLE_SIZE) + 14 if title else 0) + (_line(_HEADING_SIZE) + 4 if headings else 0)
    width = max(max(map(len, rows)) * column - _GAP, _width_of(title, _TITLE_SIZE)) + 2 * _MARGIN
    left = _MARGIN + _BAR_HEIGHT  # of pictures within their frames, and of all text

    sheet = Image.new("RGB", (width, top + len(rows) * row_height - _ROW_GAP + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, title, left, _MARGIN, _TITLE_SIZE, _INK)
    for number, heading in enumerate(headings):
        _write(pen, heading, left + number * column, top - 4 - _line(_HEADING_SIZE), _HEADING_SIZE, _FAINT)
    for row_number, row in enumerate(rows):
        y = top + row_number * row_height
        for number, cell in enumerate(row):
            x = left + number * column
            sheet.paste(pictures[row_number][number], (x - _BAR_HEIGHT, y))
            _write(pen, cell.image_id, x, y + text_top, _ID_SIZE, _INK)
            _write(pen, cell.note, x, y + note_top, _NOTE_SIZE, cell.colour)
    return sheet


def _frame(cell: _Cell) -> Image.Image:
    """Returns the picture, a small one enlarged to whole blocks for pixels, with the bar below or around it."""
    picture = Image.fromarray(np.broadcast_to(cell.pixels, (*cell.pixels.shape[:2], 3)))
    longer = max(picture.size)
    if longer > _MAX_SIDE:
        picture = ImageOps.contain(picture, (_SIDE, _SIDE), Image.Resampling.BOX)
    else:
        picture = ImageOps.scale(picture, max(1, round(_SIDE / longer)), Image.Resampling.NEAREST)
    picture = ImageOps.expand(picture, 1, _EDGE)  # else white ones would vanish
    picture = ImageOps.expand(picture, (0, 0, 0, _BAR_HEIGHT), cell.colour)
    others = (_BAR_HEIGHT, _BAR_HEIGHT, _BAR_HEIGHT, 0)
    return ImageOps.expand(picture, others, cell.colour if cell.is_framed else _PAPER)


def _write(pen: ImageDraw.ImageDraw, text: str, x: int, y: int, size: int, colour: str) -> None:
    """Writes a line; its letters stand on the same height whichever they are."""
    pen.text((x, y + size), text, fill=colour, font=ImageFont.load_default(size), anchor="ls")


def _width_of(text: str, size: int) -> int:
    return round(ImageFont.load_default(size).getlength(text))


def _line(size: int) -> int:
    return round(size * _LINE_HEIGHT)
