"""How far a result goes: strength, exposure and the protection of highlights, pixel by pixel.

The curve of more exposure, in linear light, is f(x) = (1 - exp(-a x)) / (1 - exp(-a)) of a *curvature* a: black stays
black, white stays white, it rises monotonically, a = 0 is the identity, and for large a it is a camera's own exposure
with a soft shoulder. Its slope at black, a / (1 - exp(-a)), is the gain of shadows; in stops it is that gain's log2.
"""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from lowlight_cli.settings import Tone

MAX_CURVATURE: Final = 4096.0

# Where the input counts as a highlight (its brightest channel, sRGB-encoded): not at all, and wholly.
_HIGHLIGHT_FROM, _HIGHLIGHT_TO = 0.6, 0.95
# With highlights protected wholly, what has less light in the input than `_RESERVED` ends there at most; what the
# result has above `_KNEE` makes room.
_RESERVED, _KNEE = 0.85, 0.5


def apply_tone(original: Tensor, result: Tensor, tone: Tone) -> Tensor:
    """Return `result` with `tone` applied; `original` is the input at the same place.

    Both are `(N, 3, H, W)`, sRGB-encoded in [0, 1], and so is what comes back. More exposure is the curve of that many
    stops, less a factor of 2^stops, in linear light. Strength comes last: 0 returns the original, exactly.
    """
    if tone.exposure > 0:
        result = to_encoded(exposed(to_linear(result), curvature_of(tone.exposure)))
    elif tone.exposure:
        result = to_encoded(to_linear(result) * 2.0**tone.exposure)
    if tone.protect_highlights:
        result = _protected(original, result, tone.protect_highlights)
    if tone.strength < 1:
        result = torch.lerp(original, result, tone.strength)
    return result.clamp(0, 1)


def _protected(original: Tensor, result: Tensor, amount: float) -> Tensor:
    """Give highlights the input's colour back, and keep them apart from what was made bright, by `amount` in (0, 1].

    How bright each pixel ends is decided by its brightest channel. Where the result is the brighter one, a ceiling
    rises with the input, and below it lies a shoulder that begins at the knee: so what is brighter in the input never
    ends darker than what was made bright from less, as a mere blend with the input would let it, all around a lamp.
    """
    before, after = original.amax(1, keepdim=True), result.amax(1, keepdim=True)
    share = smoothstep_of(before, _HIGHLIGHT_FROM, _HIGHLIGHT_TO) * amount
    ceiling = 1 - amount * (1 - before.clamp_min(_RESERVED))
    above = ((after - _KNEE) / (1 - _KNEE)).clamp(0, 1)
    shoulder = _KNEE + above / (above / (ceiling - _KNEE) + (1 - above) / (1 - _KNEE))
    lowered = torch.where(after > _KNEE, shoulder, after).maximum(torch.minimum(before, after))
    wanted = torch.where(after < before, torch.lerp(after, before, share), lowered)
    mixed = torch.lerp(result, original, share)
    return mixed * (wanted / mixed.amax(1, keepdim=True).clamp_min(1e-6))


def exposed(linear: Tensor, curvature: float) -> Tensor:
    """Raise linear light in [0, 1] along the curve of a curvature; any shape."""
    if curvature < 1e-4:
        return linear
    return torch.expm1(-curvature * linear) / math.expm1(-curvature)


def stops_of(curvature: float) -> float:
    """Return the stops by which the curve of a curvature raises shadows."""
    return math.log2(curvature / -math.expm1(-curvature)) if curvature > 1e-4 else 0.0


def curvature_of(stops: float) -> float:
    """Invert `stops_of`, which rises monotonically, as far as `MAX_CURVATURE`."""
    return bisected(lambda curvature: stops_of(curvature) < stops, 0.0, MAX_CURVATURE)


def bisected(is_below: Callable[[float], bool], low: float, high: float, *, steps: int = 60) -> float:
    """Return the number between `low` and `high` where `is_below` turns from true to false."""
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def smoothstep(value: float, first: float, last: float) -> float:
    """Return 0 up to `first`, 1 from `last` on, without a kink between them; `first` may be the larger one."""
    share = min(max((value - first) / (last - first), 0.0), 1.0)
    return share * share * (3 - 2 * share)


def smoothstep_of(values: Tensor, first: float, last: float) -> Tensor:
    """Return the `smoothstep` of each value; any shape."""
    share = ((values - first) / (last - first)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def to_linear(encoded: Tensor) -> Tensor:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_encoded(linear: Tensor) -> Tensor:
    """SRGB values of linear light; the inverse of `to_linear`."""
    power = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)
