"""Calm light: brightness and colour that waver from frame to frame are smoothed in time; motion is not.

What wavers is known from tiny pictures: the logarithm of each frame before (`shown`) and after (`made`) enhancement,
averaged over cells. From those of the frames around it, a frame gets a correction of two parts:

- *Global.* The median over cells of made(k) - made(k-1) tells how much brighter the result became, and things that
  move do not disturb a median. Summed up it is the light's path in time; a straight line fitted to the path around the
  frame is where the light ought to be. A line, so that fades are followed without lag; its slope is shrunk towards
  zero as far as chance explains it (James and Stein's factor), so that noise alone gives the quieter mean.
- *Local.* What a cell is beside the path is averaged in time, but only over frames in which, without a break, it and
  the cells around it showed the same thing: where something moves nothing is mixed, and nothing ghosts.

Frames beyond a cut or a lasting step of the light do not count. All of it is a pure function of the window, so a run
that goes on after a kill needs nothing but the tiny pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOOK_AHEAD = 12
"""Frames after a frame that its correction depends on."""
LOOK_BACK = 24
"""Frames before it."""
LIGHT_FLOOR = 0.02
"""What is added to light before its logarithm is taken: below it, light is noise."""

_CELLS, _CELL_PIXELS = 32, 8  # along the long side: at most so many cells, and none smaller
_CUT = 0.25  # typical change of a cell's log light, beyond the common change, that makes another picture
_STEP = 0.15  # lasting change of the common log light between neighbours that is no wavering
_STEP_FRAMES = 6
_BEND, _BEND_FRAMES = 0.06, 5  # how far so many frames together may lie beside the line
_SAME = 0.08  # change of a cell's log light, beyond the common change, up to which it shows the same thing
_MOST_GLOBAL, _MOST_LOCAL = 0.4, 0.2

Cells = NDArray[np.float32]


@dataclass(frozen=True)
class Light:
    """A frame's light: log cells `(3, h, w)` before and after enhancement, and how it follows the frame before.

    `change` is the common change `(3,)` of the log light of the result; `is_cut` says that another picture begins.
    """

    shown: Cells
    made: Cells
    change: Cells
    is_cut: bool


def light_cells(picture: Tensor) -> Tensor:
    """Return the log light of a picture `(1, 3, H, W)` in [0, 1], `(3, h, w)`, on its device."""
    side = _cell_side(*picture.shape[-2:])
    rows = _summed(picture[0].float(), -2, side)
    means = _summed(rows, -1, side) / _counts(*picture.shape[-2:], picture.device)
    return (means.clamp_min(0) + LIGHT_FLOOR).log()


def compare_light(shown: Tensor, made: Tensor, before: Light | None = None) -> Light:
    """Return a frame's light from its cells before and after enhancement, compared with the frame before it."""
    shown_cells, made_cells = shown.cpu().numpy(), made.cpu().numpy()
    if before is None or before.shown.shape != shown_cells.shape:
        return Light(shown_cells, made_cells, np.zeros(3, np.float32), is_cut=True)
    change = _median((made_cells - before.made).reshape(3, -1)).astype(np.float32)
    return Light(shown_cells, made_cells, change, is_another_picture((shown_cells - before.shown).mean(0)))


def is_another_picture(moved: Cells) -> bool:
    """Tell whether another picture begins where the log light of the cells changes by `moved`, `(h, w)`."""
    return float(np.mean(np.abs(moved - _median(moved.reshape(-1))))) > _CUT


def correction(window: Sequence[Light], place: int, *, strength: float = 1.0) -> Cells:
    """Return what to add to the log light of the frame at `place`, `(3, h, w)`; zeros where nothing wavers.

    `window` holds up to `LOOK_BACK` frames before the frame, itself, and up to `LOOK_AHEAD` after.
    """
    first, last = _scene(window, place)
    path = np.cumsum([light.change for light in window[first : last + 1]], axis=0)
    first, last, path = _between_steps(path, first, place)
    wanted = _fitted(path, place - first)
    common = np.clip(wanted - path[place - first], -_MOST_GLOBAL, _MOST_GLOBAL)
    local = _local(window[first : last + 1], path, place - first)
    total: Cells = (strength * (common[:, None, None] + local)).astype(np.float32)
    return total


def apply_correction(result: Tensor, log_gain: Cells) -> Tensor:
    """Return `result`, `(1, 3, H, W)` in [0, 1], with its log light moved by the cells of `log_gain`; float32."""
    height, width = result.shape[-2:]
    cells = torch.from_numpy(log_gain).to(result.device).exp()
    # Bilinear interpolation as two small matrix products: several times as fast as F.interpolate on a CPU.
    down = _interpolation(height, cells.shape[-2], _cell_side(height, width), result.device)
    across = _interpolation(width, cells.shape[-1], _cell_side(height, width), result.device)
    return (down @ (cells @ across.T)).mul_(result[0]).clamp_(0, 1)[None]


@lru_cache(maxsize=8)
def _interpolation(length: int, cells: int, side: int, device: torch.device) -> Tensor:
    """Return the matrix `(length, cells)` that interpolates linearly between the cells' centres."""
    place = ((torch.arange(length, device=device) + 0.5) / side - 0.5).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells, device=device)).abs()).clamp_min(0)


def _cell_side(height: int, width: int) -> int:
    """Return the side of a frame's cells in pixels; the last ones of a line or column may be narrower."""
    return max(_CELL_PIXELS, -(-max(height, width) // _CELLS))


def _summed(values: Tensor, dim: int, side: int) -> Tensor:
    """Sum over every `side` values along a dimension, and over what is left at its end.

    Sums that run along memory cost a sixth of what adaptive pooling does on a CPU.
    """
    whole, left = divmod(values.shape[dim], side)
    parts = []
    if whole:
        shape = list(values.shape)
        shape[dim : dim + 1 or None] = [whole, side]
        parts.append(values.narrow(dim, 0, whole * side).view(shape).sum(dim))
    if left:
        parts.append(values.narrow(dim, whole * side, left).sum(dim, keepdim=True))
    return torch.cat(parts, dim)


@lru_cache(maxsize=8)
def _counts(height: int, width: int, device: torch.device) -> Tensor:
    """Return how many pixels each cell has, `(h, w)`."""
    side = _cell_side(height, width)
    return _summed(_summed(torch.ones(height, width, device=device), -2, side), -1, side)


def _median(values: Cells) -> Cells:
    """Return the (upper) median along the last axis; `np.median` sorts more than it must."""
    middle = values.shape[-1] // 2
    found: Cells = np.partition(values, middle, axis=-1)[..., middle]
    return found


def _scene(window: Sequence[Light], place: int) -> tuple[int, int]:
    """Return the first and last place of the frames around `place` with no cut between."""
    first = place
    while first > 0 and not window[first].is_cut:
        first -= 1
    last = place
    while last + 1 < len(window) and not window[last + 1].is_cut:
        last += 1
    return first, last


def _between_steps(path: Cells, first: int, place: int) -> tuple[int, int, Cells]:
    """Narrow the frames to those between the lasting steps of the path nearest to `place`."""
    level = path.mean(axis=1)
    change = np.abs(np.diff(level))
    low, high = 0, len(level)
    for at in np.flatnonzero(change > max(_STEP * 2 / 3, 3 * float(np.median(change)) if len(change) else 0)) + 1:
        before, after = level[max(at - _STEP_FRAMES, 0) : at], level[at : at + _STEP_FRAMES]
        if abs(after.mean() - before.mean()) > _STEP:
            if first + at <= place:
                low = max(low, int(at))
            else:
                high = min(high, int(at))
    return first + low, first + high - 1, path[low:high]


def _fitted(path: Cells, place: int) -> Cells:
    """Return the value at `place` of the line through a path `(n, 3)`, its slope shrunk by what chance explains.

    Where the path bends by more than wavering does, as at the ends of a fade, the line is fitted to half as many
    frames, and again.
    """
    count = len(path)
    mean: Cells = path.mean(axis=0)
    if count < 4:
        return mean.astype(np.float32)
    time = np.arange(count) - (count - 1) / 2
    spread = float((time**2).sum())
    slope = time @ path / spread
    rest = (path - mean - time[:, None] * slope).astype(np.float32)
    if count > 2 * _BEND_FRAMES and float(np.abs(_moving_mean(rest, _BEND_FRAMES)).max()) > _BEND:
        first = max(0, place - count // 4)
        return _fitted(path[first : place + count // 4 + 1], place - first)
    variance = (rest**2).sum(axis=0) / (count - 2) / spread
    kept = np.clip(1 - 4 * variance / np.maximum(slope**2, 1e-12), 0, 1)
    fitted: Cells = (mean + kept * slope * time[place]).astype(np.float32)
    return fitted


def _moving_mean(values: Cells, count: int) -> Cells:
    summed = np.cumsum(np.pad(values, ((1, 0), (0, 0))), axis=0, dtype=np.float32)
    return ((summed[count:] - summed[:-count]) / count).astype(np.float32)


def _local(window: Sequence[Light], path: Cells, place: int) -> Cells:
    """Return the correction of each cell `(3, h, w)`, beyond the common one.

    Measured from the path, so that what a median gets wrong of one frame leaves the sum of both corrections.
    """
    weight = _sameness(np.stack([light.shown for light in window]), place)
    rest = np.stack([light.made for light in window]) - path[:, :, None, None]
    steady = (weight * rest).sum(axis=0) / weight.sum(axis=0)
    local: Cells = np.clip(steady - rest[place], -_MOST_LOCAL, _MOST_LOCAL).astype(np.float32)
    return local


def _sameness(shown: Cells, place: int) -> Cells:
    """Return how surely each cell shows, since frame `place` or until it, what it shows there: `(n, 1, h, w)`, 0..1."""
    moved = shown - shown[place]
    moved -= _median(moved.reshape(*moved.shape[:2], -1))[..., None, None]
    distance = np.abs(moved).max(axis=1)
    # What moves touches the cells around it too.
    wide = np.pad(distance, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = np.maximum(np.maximum(wide[:, :-2], wide[:, 1:-1]), wide[:, 2:])
    distance = np.maximum(np.maximum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])
    # And what has moved away counts as moved when it comes back: nothing is known of the time between.
    distance[place:] = np.maximum.accumulate(distance[place:])
    distance[: place + 1] = np.maximum.accumulate(distance[place::-1])[::-1]
    weight: Cells = np.exp(-((distance / _SAME) ** 2))[:, None]
    return weight
