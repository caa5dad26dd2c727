"""Black bars around a picture, as letterboxes and pillars have them: nothing is there to enhance.

Counted as a part of the picture they would make it seem darker than it is, and be lifted to a grey. Bars lie on
opposite sides, are as wide as each other, and end at a straight edge: a black sky ends otherwise, and so does a black
wall. No torch here.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_LEAST_SHARE = 0.02  # of a side: narrower than that nobody sees what is done to it
_SLACK_SHARE = 0.01  # of a side, by which opposite bars may differ
_EDGE = 4  # rows within a bar's end, where codecs blur it, of which ...
_EDGE_SHARE = 0.5  # ... so much must be brighter than black in one of them
_BLACK_SHARE = 2 / 255

Pixels = NDArray[np.integer[Any]]


class Box(NamedTuple):
    """What lies within the bars."""

    rows: slice
    columns: slice


def within_bars(pictures: Iterable[Pixels]) -> Box | None:
    """Return what lies within the bars that all pictures `(H, W, C)` of one size have, None where they have none.

    No more pictures are asked for once one has anything bright at its borders.
    """
    seen: NDArray[np.bool_] | None = None
    for picture in pictures:
        black = np.iinfo(picture.dtype).max * _BLACK_SHARE
        if seen is None:
            seen = np.zeros(picture.shape[:2], np.bool_)
        if not _may_have_bars(picture, black):
            return None
        seen |= (picture > black).any(axis=2)
    return None if seen is None else _box_of(seen)


def _may_have_bars(picture: Pixels, black: float) -> bool:
    sides = (picture[0], picture[-1]), (picture[:, 0], picture[:, -1])
    return any(all((side <= black).all() for side in pair) for pair in sides)


def _box_of(seen: NDArray[np.bool_]) -> Box | None:
    if not seen.any():
        return None
    rows, columns = (_extent(np.logical_or.reduce(seen, axis=axis)) for axis in (1, 0))
    inner = seen[rows, columns]
    box = Box(
        rows if _are_bars(rows, seen.shape[0], inner) else slice(0, seen.shape[0]),
        columns if _are_bars(columns, seen.shape[1], inner.T) else slice(0, seen.shape[1]),
    )
    return None if box == Box(slice(0, seen.shape[0]), slice(0, seen.shape[1])) else box


def _extent(lines: NDArray[np.bool_]) -> slice:
    return slice(int(lines.argmax()), len(lines) - int(lines[::-1].argmax()))


def _are_bars(lines: slice, length: int, inner: NDArray[np.bool_]) -> bool:
    before, behind = lines.start, length - lines.stop
    return bool(
        min(before, behind) >= max(_LEAST_SHARE * length, 2)
        and abs(before - behind) <= max(_SLACK_SHARE * length, 2)
        and all(edge.mean(axis=1).max() > _EDGE_SHARE for edge in (inner[:_EDGE], inner[-_EDGE:]))
    )
