"""The yardstick: DarkIR written straight from its description, contiguous and unfused.

Mean/variance layer norm, abs/angle/cos/sin in the frequency filter, each operation where the description names it.
It loads the same state dict as `lowlight_cli.backends.darkir.network.DarkIR` and is what speed is measured against.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def _conv(state: State, name: str, x: Tensor, *, groups: int = 1, dilation: int = 1, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    padding = 0 if weight.shape[-1] < 3 else dilation
    bias = state.get(f"{name}.bias")
    return F.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    normed = (x - mean) / (variance + 1e-6).sqrt()
    return state[f"{name}.weight"].view(1, -1, 1, 1) * normed + state[f"{name}.bias"].view(1, -1, 1, 1)


def _gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return first * second


def _mixed(state: State, name: str, x: Tensor, wide: Tensor, dilations: list[int]) -> Tensor:
    total = sum(
        _conv(state, f"{name}.branches.{k}.branch.0", wide, groups=wide.shape[1], dilation=d)
        for k, d in enumerate(dilations)
    )
    assert isinstance(total, Tensor)
    gated = _gate(total)
    attended = gated * _conv(state, f"{name}.sca.1", F.adaptive_avg_pool2d(gated, 1))
    return x + state[f"{name}.beta"] * _conv(state, f"{name}.conv3", attended)


def _freq(state: State, name: str, x: Tensor) -> Tensor:
    spectrum = torch.fft.rfft2(x, norm="backward")
    magnitude, phase = torch.abs(spectrum), torch.angle(spectrum)
    hidden = F.leaky_relu(_conv(state, f"{name}.process1.0", magnitude), 0.1)
    magnitude = _conv(state, f"{name}.process1.2", hidden)
    filtered = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
    return torch.fft.irfft2(filtered, s=x.shape[-2:], norm="backward")


def _eblock(state: State, name: str, x: Tensor) -> Tensor:
    h = _norm(state, f"{name}.norm1", x)
    if f"{name}.extra_conv.weight" in state:
        h = _conv(state, f"{name}.extra_conv", h, groups=h.shape[1])
    y = _mixed(state, name, x, _conv(state, f"{name}.conv1", h), [1])
    return y + state[f"{name}.gamma"] * (y * _freq(state, f"{name}.freq", _norm(state, f"{name}.norm2", y)))


def _dblock(state: State, name: str, x: Tensor, dilations: list[int]) -> Tensor:
    wide = _conv(state, f"{name}.conv1", _norm(state, f"{name}.norm1", x))
    if f"{name}.extra_conv.weight" in state:
        wide = _conv(state, f"{name}.extra_conv", wide, groups=x.shape[1])
    y = _mixed(state, name, x, wide, dilations)
    grown = _conv(state, f"{name}.conv4", _norm(state, f"{name}.norm2", y))
    return y + state[f"{name}.gamma"] * _conv(state, f"{name}.conv5", _gate(grown))


def _count(state: State, prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def literal_darkir(state: State, image: Tensor, dilations: list[int]) -> tuple[Tensor, Tensor]:
    """Return `(side, out)` for `(N, 3, H, W)` in [0, 1]."""
    stages = _count(state, "encoders.")
    height, width = image.shape[-2:]
    padded = F.pad(image, (0, -width % 2**stages, 0, -height % 2**stages))
    x = _conv(state, "intro", padded)
    skips = []
    for i in range(stages):
        for j in range(_count(state, f"encoders.{i}.modules_list.")):
            x = _eblock(state, f"encoders.{i}.modules_list.{j}", x)
        skips.append(x)
        x = _conv(state, f"downs.{i}", x, stride=2)
    for j in range(_count(state, "middle_blks_enc.modules_list.")):
        x = _eblock(state, f"middle_blks_enc.modules_list.{j}", x)
    light = x
    for j in range(_count(state, "middle_blks_dec.modules_list.")):
        x = _dblock(state, f"middle_blks_dec.modules_list.{j}", x, dilations)
    x = x + light
    for i in range(stages):
        up = F.pixel_shuffle(_conv(state, f"ups.{i}.0", x), 2)
        skip = skips.pop()
        if f"csf_blocks.{i}.fuse.0.weight" in state:
            fused = F.relu(_conv(state, f"csf_blocks.{i}.fuse.0", torch.cat([skip, up], 1)))
            squeezed = F.relu(_conv(state, f"csf_blocks.{i}.gate.1", F.adaptive_avg_pool2d(fused, 1)))
            gate = torch.sigmoid(_conv(state, f"csf_blocks.{i}.gate.3", squeezed))
            x = gate * skip + (1 - gate) * up
        else:
            x = up + skip
        for j in range(_count(state, f"decoders.{i}.modules_list.")):
            x = _dblock(state, f"decoders.{i}.modules_list.{j}", x, dilations)
    out = _conv(state, "ending", x) + padded
    return _conv(state, "side_out", light), out[..., :height, :width]
