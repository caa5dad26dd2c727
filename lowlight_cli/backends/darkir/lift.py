"""The analytic exposure step before the network: one curve for the whole picture, told to the network.

The curve is that of `tone.exposed`: a camera's own exposure with a soft shoulder, black stays black, white stays white.
Its slope at black is the gain that shadows receive; we speak of it in stops (log2), the *lift*.

Where a dark picture holds lights (lamps, a window, an evening sky) that curve would turn all of them white. There it
gives way, by a *roll-off* between 0 and 1, to log(1 + k x) / log(1 + k) of the same slope at black, which keeps apart
what is bright; and such a picture, exposed for its lights on purpose, is lifted a little less. It gives way as well
where the curve would drown much of what was dark, such as a pavement in the light before a house at night. And where it
gives way the last steps above black lose their tint: beside lamps they hold a veil, an offset of sensor or scanner, and
a wall of (0, 4, 3) of 255 would come out teal. In a picture that is dark all over they hold its colours, which the
network was trained to tell from an offset.

Where nothing is bright at all, a picture is under-exposed whatever it shows: snow or a wide sky two stops under still
looks half bright on average, but nothing in it comes near white. So a picture is lifted at least until its brightest
parts do.

The lift is a deterministic, smooth function of the picture's light, seen through a small area-averaged preview, so
that every tile of a picture gets the same one. Measured on the 20 validation pairs of LOL v1 averaged over 4x4 pixels:
the best single curve per picture reaches 27.5 dB, the lift chosen here blindly 24.3 dB, a gamma to a fixed mean 17 dB.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight_cli.tone import (
    MAX_CURVATURE,
    bisected,
    curvature_of,
    exposed,
    smoothstep,
    smoothstep_of,
    stops_of,
    to_encoded,
    to_linear,
)

TARGET: Final = 0.61  # wanted root mean square of the brightest channel; the best on the validation pairs
MAX_STOPS: Final = 9.0
CAP_WIDTH: Final = 0.75  # stops over which the cap sets in: a hard one would kink the brightness of exposure series
ALONE_BELOW: Final = 0.9  # a picture that misses less than this many stops is well lit and left alone
TRUSTED_ABOVE: Final = 3.2  # one that misses more gets all of them; between, a smooth share
EMPTY: Final = 3e-5  # mean linear light (about 0.1/255) under which there is nothing to lift
STATISTIC_SIDE: Final = 48  # long side in pixels of the preview that the lift is read from
TRAINED_TRUST: Final = 2.4  # stops of lift from which the correction counts in full; less bends exposure series
FULL_TRUST: Final = 3.2  # outside training: where only a share of the correction counts, a network learns to overdo it
LIGHTS_FROM: Final = 0.25  # 8-norm of the preview's brightest sRGB channel from which on a picture holds lights ...
LIGHTS_TO: Final = 0.65  # ... and from which on they rule; of the validation pairs only one lies above 0.21
DROWNED_FROM: Final = 0.03  # share of the preview that the lift alone would turn white from which on it is kept too ...
DROWNED_TO: Final = 0.12  # ... and from which on wholly; two of the validation pairs drown 0.02 and 0.04
DROWNED_STOPS: Final = (1.0, 2.0)  # lift over a part's own distance from white at which it begins to drown, and has
DROWNED_BELOW: Final = (0.25, 0.5)  # linear light of what was dark before; what is brighter is a light
LIGHTS_REDUCE: Final = 0.25  # share of the lift that they take away at most, and between which stops that sets in
LIGHTS_REDUCE_STOPS: Final = (2.0, 6.0)
VEIL: Final = (3 / 255 / 12.92, 9 / 255 / 12.92)  # linear light below and above which a tint is a veil's and a colour
_LUMINANCE: Final = (0.2126, 0.7152, 0.0722)  # of linear sRGB (IEC 61966-2-1)

ROOM_KEPT: Final = 0.4  # stops of room above the brightest parts that stay; well-lit photographs have 0.8 +- 0.35
ROOM_FROM: Final = 1.0  # stops of room from which on a picture is under-exposed whatever it shows ...
ROOM_TO: Final = 3.3  # ... and from which on surely; narrower, and exposure series bend


class Lift(NamedTuple):
    """How a picture is lifted: the gain of its shadows in stops (0: none), and the roll-off of its highlights."""

    stops: float
    roll_off: float = 0.0


def _logarithmic(linear: Tensor, stops: float) -> Tensor:
    """log(1 + k x) / log(1 + k) with a slope at 0, k / log(1 + k), of 2^stops."""

    def is_flatter(log_k: float) -> bool:
        k = math.exp(log_k)
        return k / math.log1p(k) < math.exp2(stops)

    k = math.exp(bisected(is_flatter, math.log(1e-3), math.log(1e8)))
    return torch.log1p(k * linear) / math.log1p(k)


def _brightness(linear: Tensor) -> float:
    """Root mean square of the brightest sRGB channel: steadier across scenes than a mean, for it hardly sees hue."""
    return _norm(linear, 2)


def _missing_stops(linear: Tensor) -> float:
    """Stops of lift after which the preview `(1, 3, h, w)` in linear light is as bright as `TARGET`."""
    if _brightness(linear) >= TARGET:
        return 0.0

    def is_dark(log_curvature: float) -> bool:
        return _brightness(exposed(linear, math.exp(log_curvature))) < TARGET

    return stops_of(math.exp(bisected(is_dark, math.log(1e-3), math.log(MAX_CURVATURE), steps=24)))


def _norm(linear: Tensor, order: int) -> float:
    """A preview's brightest parts, by the brightest sRGB channel: the higher the order the smaller they may be."""
    return float(to_encoded(linear).amax(1).pow(order).mean().pow(1 / order))


def _room(linear: Tensor) -> float:
    """Stops between a preview's brightest parts and white."""
    return -math.log2(max(to_linear(torch.tensor(_norm(linear, 16))).item(), EMPTY))


def _capped(stops: float) -> float:
    """A soft minimum of `stops` and `MAX_STOPS`, shifted by a hair so that no lift stays exactly no lift."""
    excess = math.log1p(math.exp((stops - MAX_STOPS) / CAP_WIDTH)) - math.log1p(math.exp(-MAX_STOPS / CAP_WIDTH))
    return stops - CAP_WIDTH * excess


def drowned(linear: Tensor, stops: Tensor | float) -> Tensor:
    """Return how far each pixel of a preview `(1, 3, h, w)` would drown, `(1, h, w)` in [0, 1].

    Wholly drowned is what was no light and would be white after the exposure curve's `stops`.
    """
    brightest = to_linear(to_encoded(linear).amax(1))
    above = brightest.clamp_min(EMPTY).log() / math.log(2) + stops
    return smoothstep_of(above, *DROWNED_STOPS) * (1 - smoothstep_of(brightest, *DROWNED_BELOW))


def choose_lift(preview: Tensor) -> float:
    """Stops of lift for a scene, from 0 (well lit, or empty) to about `MAX_STOPS`: training's lift.

    `preview` is the picture `(1, 3, h, w)`, sRGB values in [0, 1], at any size; it is averaged down in linear light,
    so that noise and fine texture do not count. The result moves smoothly with exposure.
    """
    linear = _statistic(preview)
    return _tempered(_trusted_stops(linear), linear)


def plan_lift(preview: Tensor) -> Lift:
    """Choose how a picture is lifted: as `choose_lift` does, and seeing what is bright in it.

    Where there is room above the brightest parts the lift is at least what brings them near white; where they are
    bright they are kept from turning white. Training does neither: a crop is lifted as its scene, and the camera
    model's scenes are exposed for what is dark in them.
    """
    linear = _statistic(preview)
    room = _room(linear)
    has_room = smoothstep(room, ROOM_FROM, ROOM_TO)
    stops = _tempered(_trusted_stops(linear, least=max(room - ROOM_KEPT, 0.0) * has_room), linear)
    lights = smoothstep(_norm(linear, 8), LIGHTS_FROM, LIGHTS_TO)
    roll_off = max(lights, smoothstep(float(drowned(linear, stops).mean()), DROWNED_FROM, DROWNED_TO)) * (1 - has_room)
    return Lift(stops * (1 - LIGHTS_REDUCE * roll_off * smoothstep(stops, *LIGHTS_REDUCE_STOPS)), roll_off)


def _trusted_stops(linear: Tensor, *, least: float = 0.0) -> float:
    """The missing stops as far as so many can be trusted, and for the rest of the way `least`."""
    missing = _missing_stops(linear)
    trust = smoothstep(missing, ALONE_BELOW, TRUSTED_ABOVE)
    return trust * missing + (1 - trust) * least


def _tempered(stops: float, linear: Tensor) -> float:
    """Cap a lift, and fade it out for pictures that are all but empty."""
    light = float(linear.mean())
    return _capped(stops) * light**2 / (light**2 + EMPTY**2)


def _statistic(preview: Tensor) -> Tensor:
    """The picture in linear light, averaged down to `STATISTIC_SIDE`."""
    linear = to_linear(preview.detach().float().clamp(0, 1))
    shrink = STATISTIC_SIDE / max(linear.shape[-2:])
    if shrink >= 1:
        return linear.cpu()
    height, width = (max(1, round(side * shrink)) for side in linear.shape[-2:])
    return F.adaptive_avg_pool2d(linear, (height, width)).cpu()


def lift(image: Tensor, stops: float, roll_off: float = 0.0) -> Tensor:
    """Apply a lift to pictures `(..., 3, H, W)`, sRGB values in [0, 1]; 0 stops returns them as they are."""
    if stops <= 0:
        return image
    linear = to_linear(image)
    if not roll_off:
        return to_encoded(exposed(linear, curvature_of(stops)))
    linear = untinted(linear, roll_off)
    return to_encoded(torch.lerp(exposed(linear, curvature_of(stops)), _logarithmic(linear, stops), roll_off))


def untinted(linear: Tensor, share: Tensor | float) -> Tensor:
    """Take the tint from what is all but black in linear light `(..., 3, H, W)`, by a share; luminance stays."""
    red, green, blue = linear.unbind(-3)
    grey = (_LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue).unsqueeze(-3)
    return torch.lerp(linear, grey, share * (1 - smoothstep_of(linear.amax(-3, keepdim=True), *VEIL)))


def run_lifted(
    network: Callable[[Tensor], Tensor],
    lifted: Tensor,
    stops: Tensor | None,
    *,
    unshuffle: int = 1,
    full_trust: float = TRAINED_TRUST,
) -> Tensor:
    """Run a conditioned network on lifted pictures `(N, 3, H, W)`; the result has their shape and is not clamped.

    `stops` `(N,)` are the lifts, which the network sees as one more, constant channel (None: it has no such channel).
    With `unshuffle` s > 1 each s x s block of pixels becomes channels and the network works at 1/s of the size: four
    to six times as fast on a CPU for s = 2, and as good where noise hides the finest detail anyway. H and W must be
    multiples of s. A picture that needs no lift comes back as it is, bit for bit; the correction's share grows with the
    lift until it is whole at `full_trust` stops.
    """
    folded = F.pixel_unshuffle(lifted, unshuffle) if unshuffle > 1 else lifted
    if stops is not None:
        told = (stops / MAX_STOPS).to(folded).view(-1, 1, 1, 1).expand(len(folded), 1, *folded.shape[-2:])
        folded = torch.cat([folded, told], dim=1)
    result: Tensor = network(folded)
    result = F.pixel_shuffle(result, unshuffle) if unshuffle > 1 else result
    if stops is None:
        return result
    trust = _trust(stops, full_trust).to(lifted).view(-1, 1, 1, 1)
    return lifted + trust * (result - lifted)


def _trust(stops: Tensor, full: float) -> Tensor:
    """How much of the network's correction a picture gets: none when it is well lit, all from `full` stops on."""
    return smoothstep_of(stops, 0.0, full)
