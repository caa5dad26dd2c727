"""Black bars around a picture, as letterboxes and pillars have them: nothing is there to enhance.

Counted as a part of the picture they would make it seem darker than it is, and be lifted to a grey. Bars lie on
opposite sides, are as wide as each other, and end at a straight edge: a black sky ends otherwise, and so does a black
wall. No torch here.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLACK, _EDGE = 2 / 255, 5 / 255  # what bars have at most, and most of a row within their end has at least
_EDGE_ROWS = 4  # where codecs blur the end: one of them will do
_EDGE_SHARE = 0.5
_LEAST_SHARE = 0.02  # of a side: narrower than that nobody sees what is done to it
_SLACK_SHARE = 0.01  # of a side, by which opposite bars may differ

Pixels = NDArray[np.integer[Any]]


class Box(NamedTuple):
    """What lies within the bars."""

    rows: slice
    columns: slice


def within_bars(pictures: Iterable[Pixels]) -> Box | None:
    """Return what lies within the bars that all pictures `(H, W, C)` of one size have, None where they have none.

    No more pictures are asked for once one has anything bright at its borders.
    """
    brightest: Pixels | None = None
    for picture in pictures:
        if not _may_have_bars(picture):
            return None
        levels = picture.max(axis=2)
        brightest = levels if brightest is None else np.maximum(brightest, levels)
    return None if brightest is None else _box_of(brightest)


def _may_have_bars(picture: Pixels) -> bool:
    sides = (picture[0], picture[-1]), (picture[:, 0], picture[:, -1])
    return any(not any(_above(_BLACK, side).any() for side in pair) for pair in sides)


def _above(share: float, levels: Pixels) -> NDArray[np.bool_]:
    above: NDArray[np.bool_] = levels > share * np.iinfo(levels.dtype).max
    return above


def _box_of(brightest: Pixels) -> Box | None:
    seen = _above(_BLACK, brightest)
    if not seen.any():
        return None
    height, width = seen.shape
    rows, columns = (_extent(np.logical_or.reduce(seen, axis=axis)) for axis in (1, 0))
    bright = _above(_EDGE, brightest[rows, columns])
    whole = Box(slice(0, height), slice(0, width))
    box = Box(
        rows if _are_bars(rows, height, bright) else whole.rows,
        columns if _are_bars(columns, width, bright.T) else whole.columns,
    )
    return None if box == whole else box


def _extent(lines: NDArray[np.bool_]) -> slice:
    return slice(int(lines.argmax()), len(lines) - int(lines[::-1].argmax()))


def _are_bars(lines: slice, length: int, bright: NDArray[np.bool_]) -> bool:
    """Whether what lies before and behind some of so many lines are bars; `bright` is within all that is not black."""
    before, behind = lines.start, length - lines.stop
    return bool(
        min(before, behind) >= max(_LEAST_SHARE * length, 2)
        and abs(before - behind) <= max(_SLACK_SHARE * length, 2)
        and all(end.mean(axis=1).max() > _EDGE_SHARE for end in (bright[:_EDGE_ROWS], bright[-_EDGE_ROWS:]))
    )
