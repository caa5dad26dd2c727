"""How far a result goes: strength, exposure and the protection of highlights, pixel by pixel."""

import torch
from torch import Tensor

from lowlight_cli.settings import Tone

# Where the input counts as a highlight (its brightest channel, sRGB-encoded): not at all, and wholly.
_HIGHLIGHT_FROM, _HIGHLIGHT_TO = 0.6, 0.95


def apply_tone(original: Tensor, result: Tensor, tone: Tone) -> Tensor:
    """Return `result` with `tone` applied; `original` is the input at the same place.

    Both are `(N, 3, H, W)`, sRGB-encoded in [0, 1], and so is what comes back. Exposure is a factor of 2^stops in
    linear light. Protection moves highlights of the original back to the original, along a smoothstep of its
    brightest channel. Strength comes last: 0 returns the original, exactly.
    """
    if tone.exposure:
        result = to_encoded(to_linear(result) * 2.0**tone.exposure)
    if tone.protect_highlights:
        brightest = original.amax(1, keepdim=True)
        share = ((brightest - _HIGHLIGHT_FROM) / (_HIGHLIGHT_TO - _HIGHLIGHT_FROM)).clamp(0, 1)
        share = share * share * (3 - 2 * share) * tone.protect_highlights
        result = torch.lerp(result, original, share)
    if tone.strength < 1:
        result = torch.lerp(original, result, tone.strength)
    return result.clamp(0, 1)


def to_linear(encoded: Tensor) -> Tensor:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055).clamp_min(0) ** 2.4)


def to_encoded(linear: Tensor) -> Tensor:
    """SRGB values of linear light; the inverse of `to_linear`."""
    power = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, linear * 12.92, power)
