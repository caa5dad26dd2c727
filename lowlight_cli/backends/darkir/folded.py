"""DarkIR's blocks with their constants folded: the trained ones' functions; `inference` says what changes, and why."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli.backends.darkir import kernels
from lowlight_cli.backends.darkir.blocks import (
    Branch,
    CrossScaleFusion,
    DBlock,
    EBlock,
    FreMLP,
    LayerNorm2d,
    Stage,
    simple_gate,
)
from lowlight_cli.backends.darkir.convolutions import add_depthwise, add_pointwise, depthwise, pointwise
from lowlight_cli.backends.darkir.pooling import Pool

# Added to the real parts of a spectrum: far below rounding for any value that matters, but its square is still a
# normal float32 number. It gives X/|X| the direction 1 where X = 0 without a comparison.
_TINY = 1e-18


def as_conv(module: nn.Module) -> nn.Conv2d:
    """Return what is known to be a convolution."""
    assert isinstance(module, nn.Conv2d)
    return module


def _matrix(conv: nn.Module) -> Tensor:
    return as_conv(conv).weight[:, :, 0, 0]


def bias_of(conv: nn.Module) -> Tensor:
    """Return the bias that a convolution is known to have."""
    bias = as_conv(conv).bias
    assert bias is not None
    return bias


def _branches(modules: nn.ModuleList) -> list[nn.Conv2d]:
    return [as_conv(branch.branch[0]) for branch in modules if isinstance(branch, Branch)]


class Folded(nn.Module):
    """Holds tensors that are no parameters any more, in the working dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def keep(self, name: str, value: Tensor) -> None:
        """Keep a tensor under a name, channels-last if it is a kernel."""
        held = value.detach().to(self.dtype)
        layout = torch.channels_last if held.dim() == 4 else torch.contiguous_format
        self.register_buffer(name, held.clone(memory_format=layout))


class _Pointwise(Folded):
    """A 1x1 convolution; `scale` multiplies its outputs."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Module, dtype: torch.dtype, *, scale: Tensor | None = None) -> None:
        super().__init__(dtype)
        factor = bias_of(conv).new_ones(1) if scale is None else scale.flatten()
        self.keep("weight", _matrix(conv)[:, :, None, None] * factor[:, None, None, None])
        self.keep("bias", bias_of(conv) * factor)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the convolution of `x` to `total`, in place."""
        return add_pointwise(total, x, self.weight, self.bias)

    def add_scaled_to(self, total: Tensor, x: Tensor, attention: Tensor) -> Tensor:
        """Add the convolution of `x * attention`, `(N, C, 1, 1)`, without that product for a single picture."""
        if len(attention) == 1:
            return add_pointwise(total, x, self.weight * attention, self.bias)
        return add_pointwise(total, x * attention, self.weight, self.bias)


class _Norm(Folded):
    weight: Tensor
    bias: Tensor

    def __init__(self, norm: LayerNorm2d, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.keep("weight", norm.weight)
        self.keep("bias", norm.bias)
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        if kernels.is_quick_for(x):
            return kernels.norm(x, self.weight, self.bias, self.eps, dtype=self.dtype)
        rows = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)


class _Depthwise(Folded):
    """A sum of depthwise 3x3 convolutions of different dilations over the same input."""

    bias: Tensor
    taps: Tensor

    def __init__(self, convs: list[nn.Conv2d], dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.dilations = [conv.dilation[0] for conv in convs]
        for index, conv in enumerate(convs):
            self.keep(f"weight{index}", conv.weight)
        self.keep("bias", torch.stack([bias_of(conv) for conv in convs]).sum(0))
        self.keep("taps", kernels.tap_weights([conv.weight for conv in convs]))

    def forward(self, x: Tensor) -> Tensor:
        if self._is_for_kernels(x):
            return self._by_kernel(x, gated=False)
        weights: list[Tensor] = [getattr(self, f"weight{index}") for index in range(len(self.dilations))]
        total = depthwise(x, weights[0], self.bias, self.dilations[0])
        for weight, dilation in zip(weights[1:], self.dilations[1:], strict=True):
            add_depthwise(total, x, weight, dilation)
        return total

    def gated(self, x: Tensor) -> Tensor:
        """Return the `simple_gate` of the sum, `(N, C / 2, H, W)`."""
        return self._by_kernel(x, gated=True) if self._is_for_kernels(x) else simple_gate(self(x))

    def _is_for_kernels(self, x: Tensor) -> bool:
        return kernels.is_quick_for(x) and len(self.dilations) <= kernels.MOST_TAPS

    def _by_kernel(self, x: Tensor, *, gated: bool) -> Tensor:
        taps = [kernels.Tap(dilation) for dilation in self.dilations]
        return kernels.depthwise(x, self.taps, self.bias, taps, gated=gated)


class _Paired(Folded):
    """`conv1` followed by the 3x3 convolution of two channels per group, as two depthwise ones."""

    own: Tensor
    other: Tensor
    bias: Tensor
    taps: Tensor
    swapped_weight: Tensor
    swapped_bias: Tensor

    def __init__(self, conv1: nn.Module, grouped: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.straight = _Pointwise(conv1, dtype)
        channels = torch.arange(grouped.out_channels)
        self.keep("own", grouped.weight[channels, channels % 2].unsqueeze(1))
        self.keep("other", grouped.weight[channels, 1 - channels % 2].unsqueeze(1))
        self.keep("taps", kernels.tap_weights([self.own, self.other]))
        self.keep("bias", bias_of(grouped))
        self.keep("swapped_weight", _matrix(conv1)[channels ^ 1][:, :, None, None])
        self.keep("swapped_bias", bias_of(conv1)[channels ^ 1])

    def forward(self, x: Tensor) -> Tensor:
        wide = self.straight(x)
        if kernels.is_quick_for(x):
            return kernels.depthwise(wide, self.taps, self.bias, [kernels.Tap(1), kernels.Tap(1, swapped=True)])
        out = depthwise(wide, self.own, self.bias, 1)
        return add_depthwise(out, pointwise(x, self.swapped_weight, self.swapped_bias), self.other, 1)


class _Frequency(Folded):
    """norm2 and FreMLP: y + y * gamma * freq(norm2(y)) for channels-last `y`, which may be overwritten; in float32."""

    weight: Tensor
    bias: Tensor
    into: Tensor
    outof: Tensor
    filter: Tensor

    def __init__(self, freq: FreMLP, norm: LayerNorm2d, gamma: Tensor) -> None:
        super().__init__(torch.float32)
        self.floor = freq.direction_floor
        self.eps = norm.eps
        first, last = freq.process1[0], freq.process1[2]
        self.keep("weight", norm.weight)
        self.keep("bias", norm.bias)
        self.keep("into", torch.cat([_matrix(first), bias_of(first)[:, None]], 1))
        self.keep("outof", torch.cat([_matrix(last), bias_of(last)[:, None]], 1) * gamma.flatten()[:, None])
        self.keep("filter", kernels.filter_weights(self.into, self.outof))

    def forward(self, y: Tensor) -> Tensor:
        if kernels.is_quick_for(y):
            done = [self._by_kernels(picture[None]) for picture in y]
            return torch.cat(done) if len(y) > 1 else done[0]
        factors = [self._factor(picture) for picture in y]
        return y.addcmul_(y, torch.stack(factors) if len(y) > 1 else factors[0][None])

    def _by_kernels(self, y: Tensor) -> Tensor:
        planes = kernels.norm_planes(y, self.weight, self.bias, self.eps)
        return kernels.add_product(y, self._filtered(planes, exact=y.dtype == torch.float32))

    def _factor(self, y: Tensor) -> Tensor:
        pixels = F.layer_norm(y.permute(1, 2, 0).float(), self.weight.shape, self.weight, self.bias, self.eps)
        rows = pixels.transpose(1, 2).contiguous()
        planes = self._filtered(rows.transpose(0, 1).contiguous(), exact=True)
        return planes.transpose(0, 1).contiguous().to(y.dtype).transpose(0, 1)

    def _filtered(self, planes: Tensor, *, exact: bool) -> Tensor:
        """Filter the spectrum of `(C, H, W)` planes, contiguous in that order as the result."""
        spectrum: Tensor = torch.fft.rfft2(planes)
        if kernels.is_quick_for(planes[None]) and kernels.filters(len(planes)):
            spectrum = kernels.filter_spectrum(spectrum, self.filter, tiny=_TINY, floor=self.floor, exact=exact)
        else:
            parts = torch.view_as_real(spectrum)
            parts[..., 0].add_(_TINY)
            spectrum.mul_(self._gain(parts.flatten(1, 2)).view(spectrum.shape))
        filtered: Tensor = torch.fft.irfft2(spectrum, s=planes.shape[-2:])
        return filtered

    def _gain(self, parts: Tensor) -> Tensor:
        """Return gamma * process1(|X|) / |X|, `(C, pixels)`, for X as real and imaginary `parts` `(C, pixels, 2)`."""
        channels, pixels, _ = parts.shape
        # One row of ones more on either layer; the ones stay ones through LeakyReLU.
        inner = torch.empty(channels + 1, pixels, device=parts.device)
        inner[-1] = 1.0
        squares = parts.square()  # torch.abs of complex numbers takes half as long again
        magnitude = torch.add(squares[..., 0], squares[..., 1], out=inner[:-1])
        del squares
        if self.floor:
            magnitude.add_(self.floor**2)
        magnitude.sqrt_()
        hidden = torch.empty(len(self.into) + 1, pixels, device=parts.device)
        hidden[-1] = 1.0
        F.leaky_relu_(torch.mm(self.into, inner, out=hidden[:-1]), 0.1)
        return torch.mm(self.outof, hidden).div_(magnitude)


class _EBlock(Folded):
    def __init__(self, block: EBlock, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.norm = _Norm(block.norm1, dtype)
        self.extra = _Depthwise([block.extra_conv], dtype) if isinstance(block.extra_conv, nn.Conv2d) else nn.Identity()
        self.widen = _Pointwise(block.conv1, dtype)
        self.branches = _Depthwise(_branches(block.branches), dtype)
        self.attention = _Pointwise(block.sca[1], dtype)
        self.project = _Pointwise(block.conv3, dtype, scale=block.beta)
        self.frequency = _Frequency(block.freq, block.norm2, block.gamma)

    def forward(self, x: Tensor, pool: Pool) -> Tensor:
        gated = self.branches.gated(self.widen(self.extra(self.norm(x))))
        filtered: Tensor = self.frequency(self.project.add_scaled_to(x, gated, self.attention(pool(gated))))
        return filtered


class _DBlock(Folded):
    def __init__(self, block: DBlock, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.norm1 = _Norm(block.norm1, dtype)
        self.widen: nn.Module = (
            _Paired(block.conv1, block.extra_conv, dtype)
            if isinstance(block.extra_conv, nn.Conv2d)
            else _Pointwise(block.conv1, dtype)
        )
        self.branches = _Depthwise(_branches(block.branches), dtype)
        self.attention = _Pointwise(block.sca[1], dtype)
        self.project = _Pointwise(block.conv3, dtype, scale=block.beta)
        self.norm2 = _Norm(block.norm2, dtype)
        self.grow = _Pointwise(block.conv4, dtype)
        self.shrink = _Pointwise(block.conv5, dtype, scale=block.gamma)

    def forward(self, x: Tensor, pool: Pool) -> Tensor:
        gated = self.branches.gated(self.widen(self.norm1(x)))
        y = self.project.add_scaled_to(x, gated, self.attention(pool(gated)))
        return self.shrink.add_to(y, simple_gate(self.grow(self.norm2(y))))


class FoldedFusion(Folded):
    """Cross-scale fusion: (skip, up, pool) to a picture."""

    def __init__(self, fusion: CrossScaleFusion, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.fuse = _Pointwise(fusion.fuse[0], dtype)
        self.squeeze = _Pointwise(fusion.gate[1], dtype)
        self.excite = _Pointwise(fusion.gate[3], dtype)

    def forward(self, skip: Tensor, up: Tensor, pool: Pool) -> Tensor:
        fused = self.fuse(torch.cat([skip, up], dim=1)).relu_()
        gate = self.excite(self.squeeze(pool(fused)).relu_()).sigmoid_()
        return torch.lerp(up, skip, gate)


def folded_stage(stage: nn.Module, dtype: torch.dtype) -> nn.ModuleList:
    """Fold the blocks of a stage; each takes a picture and a `Pool`."""
    assert isinstance(stage, Stage)
    folded: list[nn.Module] = []
    for block in stage.modules_list:
        if isinstance(block, EBlock):
            folded.append(_EBlock(block, dtype))
        elif isinstance(block, DBlock):
            folded.append(_DBlock(block, dtype))
    return nn.ModuleList(folded)
