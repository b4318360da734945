"""Rows of pictures with captions on one sheet: how `preview` and `show_triplets` look. Knows nothing of datasets.

Pillow draws: it is a tenth of matplotlib, puts pixels where they are told to be, and its images are shown by notebooks
as they are. Its own font is used, so that a sheet looks the same on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from landmark_triplets_tfds.errors import CommandError

if TYPE_CHECKING:
    from PIL import Image, ImageFont

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
