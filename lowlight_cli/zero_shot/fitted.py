"""Fitted weights as a model like any other."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from lowlight_cli.enhancer import Enhancer, Model
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import WeightsFile

MODEL: Final = "zeroig-fitted"


def fitted_enhancer(state: Mapping[str, Tensor], compute: Compute, *, denoise: float) -> Enhancer:
    """Return what enhances with a fit's state dict; raises DeviceError for a device that is not there."""
    return Model(MODEL, "zeroig", WeightsFile(dict(state), {}, MODEL), denoise=denoise).on(compute)
