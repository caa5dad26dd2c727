"""The loss of a fit over its steps, drawn as a small picture."""

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

_WIDTH, _HEIGHT, _MARGIN = 720, 400, 48
_INK, _LINE, _GRID = (60, 60, 60), (20, 90, 170), (225, 225, 225)


def draw_curve(values: Sequence[float]) -> bytes:
    """Return a PNG of positive values over their number, on a logarithmic scale; at least one value."""
    logs = [math.log10(max(value, 1e-6)) for value in values]
    bottom, top = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    right, down = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def row(power: float) -> float:
        return _MARGIN + down * (top - power) / (top - bottom)

    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    for power in range(bottom, top + 1):
        pen.line((_MARGIN, row(power), _MARGIN + right, row(power)), fill=_GRID)
        pen.text((6, row(power) - 6), f"{10.0**power:g}", fill=_INK)
    points = [(_MARGIN + right * index / max(len(logs) - 1, 1), row(value)) for index, value in enumerate(logs)]
    pen.line([*points, points[-1]], fill=_LINE, width=2)
    pen.text((_MARGIN, 14), f"loss over {len(values)} steps, {values[0]:.4g} to {values[-1]:.4g}", fill=_INK)
    content = io.BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()
