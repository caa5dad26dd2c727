"""What is exported: modules that take an sRGB picture `(1, 3, H, W)` in [0, 1], any size, and return the bright one."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.darkir.adapter import build_network
from lowlight_cli.backends.darkir.lift import FULL_TRUST, run_lifted
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.network import ZeroIG, load_network
from lowlight_cli.enhancer import Model
from lowlight_cli.errors import SettingsError
from lowlight_cli.export.lifting import lifted, planned_lift
from lowlight_cli.export.spectrum import use_real_arithmetic


class DarkIRGraph(nn.Module):
    """What `DarkIRBackend.enhance` computes: the lift, if the network is conditioned on one, and the network."""

    def __init__(self, network: DarkIR, *, real: bool) -> None:
        super().__init__()
        own = copy.deepcopy(network).eval().requires_grad_(False)
        if real:
            use_real_arithmetic(own)
        self.network = own
        self.is_lifted = network.intro.in_channels > network.img_channel
        self.unshuffle = math.isqrt(network.img_channel // 3)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        stops: Tensor | None = None
        bright = image
        if self.is_lifted:
            stops, roll_off = planned_lift(image, preview_side=BACKENDS["darkir"].preview_side)
            bright = lifted(image, stops, roll_off)
        step = self.unshuffle
        padded = F.pad(bright, (0, -width % step, 0, -height % step), mode="replicate") if step > 1 else bright
        result = run_lifted(self._as_trained, padded, stops, unshuffle=step, full_trust=FULL_TRUST)
        result = result[..., :height, :width].clamp(0, 1)
        # No lift is exactly 0 for Python; a graph may round it to either side.
        return result if stops is None else torch.where(stops > 1e-9, result, image)

    def _as_trained(self, folded: Tensor) -> Tensor:
        result = self.network.as_trained(folded)  # the folded form works in place, which graphs do not record
        assert isinstance(result, Tensor)
        return result


class ZeroIGGraph(nn.Module):
    """What `ZeroIGBackend.enhance` computes, `denoise` of the way from the noisy bright picture to the clean one."""

    def __init__(self, network: ZeroIG, *, denoise: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.denoise = denoise

    def forward(self, image: Tensor) -> Tensor:
        result = self.network(image)
        mixed: Tensor = torch.lerp(result.enhanced, result.denoised, self.denoise)
        return mixed.clamp(0, 1)


def graph_of(model: Model, *, real: bool) -> nn.Module:
    """Return a model's graph in float32, in `real` arithmetic alone if asked; SettingsError where there is none."""
    if model.weights is None:
        raise SettingsError(f"{model.name} has no network that could be exported")
    if model.backend == "darkir":
        return DarkIRGraph(build_network(model.weights, model.network).float(), real=real)
    denoise = 1.0 if model.denoise is None else model.denoise
    return ZeroIGGraph(load_network(model.weights.tensors).float(), denoise=denoise)
