"""Fitted weights as a model like any other."""

import hashlib
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from lowlight_cli.enhancer import Enhancer, Model
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import WeightsFile

MODEL: Final = "zeroig-fitted"


def fitted_enhancer(
    state: Mapping[str, Tensor], compute: Compute, *, denoise: float | None, for_clips: bool = False
) -> Enhancer:
    """Return what enhances with a fit's state dict; raises DeviceError for a device that is not there."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    weights = WeightsFile(dict(state), {}, digest.hexdigest())
    return Model(MODEL, "zeroig", weights, denoise=denoise).on(compute, for_clips=for_clips)
