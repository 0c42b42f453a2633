"""contact_sheet.png: images in the order of their scores, and where the threshold falls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anogan.report.text import drawable, font_file

SIDE = 160  # pixels, the longer one of a thumbnail
PAD, LINE = 8, 15  # pixels around a cell, and of a line of text
COLUMNS = 10
BAND = 28  # pixels, the height of the line that is the threshold
BLUE, ORANGE, INK = "#0072b2", "#d55e00", "#1c2126"
CELL = SIDE + 2 * LINE + PAD


class Cell(NamedTuple):
    """One image on the sheet."""

    picture: np.ndarray  # uint8 (h, w, 1 or 3)
    name: str
    score: float
    label: str  # and kind; empty where unknown


def contact_sheet(cells: Sequence[Cell], threshold: float | None) -> np.ndarray:
    """Draw cells, the most anomalous first: uint8 (H, W, 3), a line where the threshold falls."""
    font = ImageFont.truetype(str(font_file()), 11)
    above = len(cells) if threshold is None else sum(c.score > threshold for c in cells)
    parts = [cells[:above], cells[above:]]
    rows = [-(-len(part) // COLUMNS) for part in parts]
    band = 0 if threshold is None else BAND
    columns = min(COLUMNS, max(map(len, parts)))
    width = max(columns * (SIDE + PAD) + PAD, 3 * SIDE)
    sheet = Image.new("RGB", (width, sum(rows) * CELL + band + PAD), "white")
    draw = ImageDraw.Draw(sheet)
    colours = INK if threshold is None else ORANGE, BLUE
    for part, top, colour in zip(parts, (0, rows[0] * CELL + band), colours, strict=True):
        for i, cell in enumerate(part):
            x, y = i % COLUMNS * (SIDE + PAD) + PAD, top + i // COLUMNS * CELL + PAD
            _draw_cell(sheet, draw, cell, x, y, colour, font)
    if threshold is not None:
        y = rows[0] * CELL + PAD // 2
        draw.rectangle((0, y, width, y + BAND - PAD), fill=INK)
        text = f"threshold {threshold:.4g}: above it called anomalous, below normal"
        draw.text((PAD, y + 3), text, "white", font)
    return np.asarray(sheet)


def _draw_cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    cell: Cell,
    x: int,
    y: int,
    colour: str,
    font: ImageFont.FreeTypeFont,
) -> None:
    picture = Image.fromarray(cell.picture[..., 0] if cell.picture.shape[2] == 1 else cell.picture)
    if (factor := SIDE // max(picture.size)) > 1:
        size = picture.width * factor, picture.height * factor
        picture = picture.resize(size, Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE))
    sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + SIDE - picture.height))
    name, second = drawable(cell.name), f"{cell.score:.4g}"
    second += f"  {drawable(cell.label)}" if cell.label else ""
    while font.getlength(name) > SIDE:  # the end of a name says more
        name = f"…{name[2:]}"
    while font.getlength(second) > SIDE:
        second = f"{second[:-2]}…"
    draw.text((x, y + SIDE + 1), name, INK, font)
    draw.text((x, y + SIDE + LINE + 1), second, colour, font)
