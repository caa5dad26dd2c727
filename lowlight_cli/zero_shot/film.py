"""Fit one ZERO-IG to a film: to a few frames that differ most, so that it knows every scene; then it runs on all."""

from collections.abc import Generator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight_cli.bars import within_bars
from lowlight_cli.device import bound_threads, choose_device
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.errors import InputError
from lowlight_cli.settings import Compute, check_compiling
from lowlight_cli.tiling import TensorSource
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.facts import ClipFacts
from lowlight_cli.video.reading import frames_around
from lowlight_cli.video.settings import Span
from lowlight_cli.zero_shot.fit import Fit, Step
from lowlight_cli.zero_shot.fitted import fitted_enhancer
from lowlight_cli.zero_shot.settings import ZeroShot

_LOOKS, _CHOSEN = 12, 6  # frames that are looked at, evenly over the film, and frames that are fitted
_THUMBNAIL = 16


def fit_to_film(
    facts: ClipFacts, span: Span, settings: ZeroShot, *, compute: Compute, denoise: float | None = None
) -> Generator[Step, None, Enhancer]:
    """Yield the steps of the fit; the generator's own result is the enhancer for every frame.

    Raises InputError when no frame of the span can be read, NumericsError as `Fit.run` does, and DeviceError.
    """
    device = choose_device(compute.device)
    check_compiling(compute.compile, device.type)
    bound_threads()
    frames = different_frames(look_around(facts, span), count=_CHOSEN)
    fit = Fit([TensorSource(frame) for frame in frames], settings, device=device)
    yield from fit.run()
    return fitted_enhancer(fit.state_dict(), compute, denoise=denoise, for_clips=True)


def look_around(facts: ClipFacts, span: Span, *, count: int = _LOOKS) -> list[Tensor]:
    """Return up to `count` frames within their bars, `(1, 3, H, W)` floats in [0, 1]; raises InputError for none."""
    found = [frame.pixels for frame in frames_around(facts, span, count=count)]
    if not found:
        raise InputError(facts.without_the_part)
    box = within_bars(pixels.transpose(1, 2, 0) for pixels in found)
    return [_floats(pixels[:, *box] if box else pixels) for pixels in found]


def different_frames(frames: Sequence[Tensor], *, count: int) -> list[Tensor]:
    """Return up to `count` frames, each as unlike those before it as any that is left; the first one first."""
    looks = [F.interpolate(frame, size=(_THUMBNAIL, _THUMBNAIL), mode="area").add(0.01).log() for frame in frames]
    chosen = [0]
    while len(chosen) < min(count, len(frames)):
        away = [min(float((look - looks[other]).abs().mean()) for other in chosen) for look in looks]
        farthest = max(range(len(frames)), key=away.__getitem__)
        if away[farthest] == 0:
            break
        chosen.append(farthest)
    return [frames[place] for place in chosen]


def _floats(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels)[None].float() / np.iinfo(pixels.dtype).max
