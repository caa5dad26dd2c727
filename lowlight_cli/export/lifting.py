"""DarkIR's lift in tensors alone: `backends.darkir.lift` decides with Python's numbers, which no graph records.

The same decisions, written without branches: sizes become masks over maps of fixed size, bisections run a fixed number
of steps, and both sides of a choice are computed. Scalars are float64, as Python's are.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lowlight_cli.backends.darkir import lift
from lowlight_cli.tone import MAX_CURVATURE, smoothstep_of, to_encoded, to_linear


def planned_lift(picture: Tensor, *, preview_side: int) -> tuple[Tensor, Tensor]:
    """Return stops and roll-off, `(1,)` each, that the backend plans for a picture `(1, 3, H, W)`; see `plan_lift`."""
    preview, height, width = _averaged(picture, *_sides(picture), side=preview_side)
    linear, height, width = _averaged(to_linear(preview.clamp(0, 1)), height, width, side=lift.STATISTIC_SIDE)
    linear = linear.double()
    pixels = height * width
    room = -to_linear(_norm(linear, pixels, 16)).clamp_min(lift.EMPTY).log() / math.log(2)
    has_room = smoothstep_of(room, lift.ROOM_FROM, lift.ROOM_TO)
    missing = _missing_stops(linear, pixels)
    trust = smoothstep_of(missing, lift.ALONE_BELOW, lift.TRUSTED_ABOVE)
    wanted = trust * missing + (1 - trust) * (room - lift.ROOM_KEPT).clamp_min(0) * has_room
    # In units of EMPTY: the translation to ONNX takes the addition of its square, 9e-10, for one of nothing.
    light = (linear.sum() / (3 * pixels) / lift.EMPTY).square()
    excess = ((wanted - lift.MAX_STOPS) / lift.CAP_WIDTH).exp().add(1).log()
    excess = excess - math.log1p(math.exp(-lift.MAX_STOPS / lift.CAP_WIDTH))
    stops = (wanted - lift.CAP_WIDTH * excess) * light / (light + 1)
    lights = smoothstep_of(_norm(linear, pixels, 8), lift.LIGHTS_FROM, lift.LIGHTS_TO)
    # The zeros around the picture are too dark to drown.
    share = lift.drowned(linear, stops).sum() / pixels
    drowned = smoothstep_of(share, lift.DROWNED_FROM, lift.DROWNED_TO)
    roll_off = torch.maximum(lights, drowned) * (1 - has_room)
    stops = stops * (1 - lift.LIGHTS_REDUCE * roll_off * smoothstep_of(stops, *lift.LIGHTS_REDUCE_STOPS))
    return stops.view(1), roll_off.view(1)


def lifted(picture: Tensor, stops: Tensor, roll_off: Tensor) -> Tensor:
    """Apply a lift of `(1,)` stops above 0 with a roll-off to a picture; see `lift.lift`."""
    curvature = _bisected(lambda curvature: _stops(curvature) < stops, stops, low=0.0, high=MAX_CURVATURE)
    curvature = curvature.clamp_min(1e-6).to(picture.dtype)
    roll_off = roll_off.to(picture.dtype)
    linear = lift.untinted(to_linear(picture), roll_off)
    curved = _expm1(-curvature * linear) / _expm1(-curvature)
    return to_encoded(torch.lerp(curved, _logarithmic(linear, stops), roll_off))


def _bisected(
    is_below: Callable[[Tensor], Tensor], like: Tensor, *, low: float, high: float, steps: int = 44
) -> Tensor:
    """Return a tensor `like` another between `low` and `high`, found as `tone.bisected` finds a number."""
    least, most = torch.full_like(like, low), torch.full_like(like, high)
    for _ in range(steps):
        middle = (least + most) / 2
        below = is_below(middle)
        least, most = torch.where(below, middle, least), torch.where(below, most, middle)
    return (least + most) / 2


def _logarithmic(linear: Tensor, stops: Tensor) -> Tensor:
    def is_flatter(log_k: Tensor) -> Tensor:
        k = log_k.exp()
        return k / (1 + k).log() < torch.exp2(stops)

    k = _bisected(is_flatter, stops, low=math.log(1e-3), high=math.log(1e8)).exp()
    # In float64, for want of log1p: a slight lift has a small k.
    curved: Tensor = (1 + k * linear.double()).log() / (1 + k).log()
    return curved.to(linear.dtype)


def _expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 without losing digits near 0, of operators that ONNX has."""
    half = (x / 2).tanh()
    return 2 * half / (1 - half)


def _stops(curvature: Tensor) -> Tensor:
    return (curvature / -_expm1(-curvature)).log() / math.log(2)


def _brightness(linear: Tensor, pixels: Tensor) -> Tensor:
    return _norm(linear, pixels, 2)


def _norm(linear: Tensor, pixels: Tensor, order: int) -> Tensor:
    return (to_encoded(linear).amax(1).pow(order).sum() / pixels).pow(1 / order)


def _missing_stops(linear: Tensor, pixels: Tensor) -> Tensor:
    def is_dark(log_curvature: Tensor) -> Tensor:
        curvature = log_curvature.exp()
        curved = _expm1(-curvature * linear) / _expm1(-curvature)
        return _brightness(curved, pixels) < lift.TARGET

    stops = _stops(_bisected(is_dark, pixels, low=math.log(1e-3), high=math.log(MAX_CURVATURE), steps=24).exp())
    return torch.where(_brightness(linear, pixels) >= lift.TARGET, torch.zeros_like(stops), stops)


def _sides(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return height and width as float64 tensors, which a graph computes anew for every picture."""
    height, width = (torch.arange(side)[-1].add(1).double() for side in picture.shape[-2:])
    return height, width


def _averaged(picture: Tensor, height: Tensor, width: Tensor, *, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Average the upper left `height` x `width` of a map so that its long side is at most `side`.

    The result lies in the upper left of a `side` x `side` map of zeros; its height and width come with it.
    """
    shrink = (side / torch.maximum(height, width)).clamp_max(1.0)
    small = [(length * shrink).round().clamp_min(1.0) for length in (height, width)]
    down = _cells(picture.shape[-2], height, small[0], side).to(picture.dtype)
    across = _cells(picture.shape[-1], width, small[1], side).to(picture.dtype)
    return down @ picture @ across.t(), small[0], small[1]


def _cells(room: int, length: Tensor, count: Tensor, side: int) -> Tensor:
    """Return the matrix `(side, room)` whose first `count` rows average `length` numbers as adaptive pooling does."""
    cell, place = torch.arange(side).double()[:, None], torch.arange(room).double()[None]
    # Sides and their products are whole numbers far below 2^53, and quotients that are whole are exact.
    start, end = (cell * length / count).floor(), ((cell + 1) * length / count).ceil()
    inside = (place >= start) & (place < end) & (cell < count)
    return inside.double() / (end - start)
