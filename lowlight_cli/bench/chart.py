"""Speeds as bars, in a PNG."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lowlight_cli.bench.rows import BenchRow, Report

_WIDTH, _BAR, _GAP, _MARGIN = 900, 18, 10, 16
_LABEL, _VALUE = 270, 190  # columns left and right of the bars, in pixels
_PAPER, _INK, _PALE, _FILL = "white", (40, 40, 40), (150, 150, 150), (44, 110, 170)


def draw_chart(report: Report) -> bytes:
    """Return a PNG with one bar for each row: what is done per second, and the quartiles as a thin line.

    Bars of one kind share a scale; the calibration is left out.
    """
    groups = _groups([row for row in report.rows if row.kind != "calibration"])
    rows = sum(len(group) for group in groups)
    height = 2 * _MARGIN + 24 + rows * (_BAR + _GAP) + len(groups) * 26
    picture = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    title = f"{report.machine.described}, torch {report.machine.torch}"
    pen.text((_MARGIN, _MARGIN), title, font=font, fill=_INK)
    top = _MARGIN + 24
    for group in groups:
        pen.text((_MARGIN, top + 4), f"{group[0].kind}: {group[0].unit} per second", font=font, fill=_PALE)
        top += 26
        fullest = max(row.per_second * (1 + row.spread) for row in group)
        for row in group:
            _draw_bar(pen, row, top=top, scale=(_WIDTH - _LABEL - _VALUE) / fullest, font=font)
            top += _BAR + _GAP
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def _groups(rows: Sequence[BenchRow]) -> list[list[BenchRow]]:
    kinds = dict.fromkeys(row.kind for row in rows)
    return [[row for row in rows if row.kind == kind] for kind in kinds]


def _draw_bar(
    pen: ImageDraw.ImageDraw,
    row: BenchRow,
    *,
    top: int,
    scale: float,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    length = row.per_second * scale
    middle = top + _BAR // 2
    pen.text((_MARGIN, top), f"{row.name}  {row.size}", font=font, fill=_INK)
    pen.rectangle((_LABEL, top, _LABEL + max(length, 1), top + _BAR), fill=_FILL)
    pen.line((_LABEL + length * (1 - row.spread), middle, _LABEL + length * (1 + row.spread), middle), fill=_INK)
    pen.text(
        (_LABEL + length * (1 + row.spread) + 8, top),
        f"{row.per_second:.3g}  ({row.median:.3g} s)",
        font=font,
        fill=_INK,
    )
