"""Contact sheets: labelled pictures in lines and columns, as one PNG to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lowlight_cli.atomic import atomic_file

Thumbnail = NDArray[np.uint8]

_GAP, _LABEL_HEIGHT, _TEXT_SIZE = 6, 20, 13
_PAPER, _INK = (24, 24, 24), (230, 230, 230)


@dataclass(frozen=True)
class Cell:
    """One picture of a sheet, `(h, w, 3)` sRGB in 8 bits or None for a gap, and the words below it."""

    picture: Thumbnail | None
    label: str


def write_sheet(target: Path, lines: Sequence[Sequence[Cell]], *, overwrite: bool = False) -> None:
    """Write lines of labelled pictures as one PNG; every column is as wide as its widest picture.

    Raises OutputError when the file cannot be written.
    """
    columns = max((len(line) for line in lines), default=0)
    widths = [max((_size(line[c])[1] for line in lines if c < len(line)), default=0) for c in range(columns)]
    heights = [max((_size(cell)[0] for cell in line), default=0) + _LABEL_HEIGHT for line in lines]
    size = (sum(widths) + _GAP * (columns + 1), sum(heights) + _GAP * (len(lines) + 1))
    paper = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(_TEXT_SIZE)
    top = _GAP
    for line, height in zip(lines, heights, strict=True):
        left = _GAP
        for cell, width in zip(line, widths, strict=False):
            if cell.picture is not None:
                paper.paste(Image.fromarray(cell.picture), (left, top))
            place = (left, top + height - _LABEL_HEIGHT + 2)
            draw.text(place, _shortened(cell.label, font, width), font=font, fill=_INK)
            left += width + _GAP
        top += height + _GAP
    with atomic_file(target, overwrite=overwrite) as file:
        paper.save(file, format="PNG")


def _size(cell: Cell) -> tuple[int, int]:
    return (0, 0) if cell.picture is None else (cell.picture.shape[0], cell.picture.shape[1])


def _shortened(label: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """Cut a label from the left, where paths differ least, until it fits."""
    printable = label.encode("utf-8", "replace").decode("utf-8").replace("\n", " ")
    if font.getlength(printable) <= width:
        return printable
    while printable and font.getlength(f"…{printable}") > width:
        printable = printable[1:]
    return f"…{printable}"
