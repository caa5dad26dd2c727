"""DarkIR in the form that pictures run through: the same function as the trained one, written for speed.

What changes, block by block, and why it is the same (measured on a CPU, where the convolutions are a small part):

- `beta` and `gamma` are factors on the output of a linear map, so they go into its weights. In the encoder `gamma`
  scales irfft2(magnitude * direction) channel by channel, which is linear in the magnitude: into `process1`.
- Channel attention scales the channels that `conv3` reads: for one picture it goes into `conv3`'s weights.
- A 3x3 convolution with two channels per group is slow everywhere. It is the sum of two depthwise ones: on the
  channels as they are and on the channels swapped in pairs, and `conv1`, linear, can put out both.
- The spectrum wants channels-first memory, all else channels-last. One copy between the two jumps a whole plane from
  number to number, which caches do not forgive; by way of rows `(H, C, W)` either half of it stays within a row of
  pixels or moves whole rows, and both together take half the time.
- A bias costs a pass over the result in most matrix products: a row of ones below the magnitudes makes it a weight.
- oneDNN's 1x1 convolution is twice as fast as the one that `conv2d` picks, and its depthwise one has no quick kernel
  for padding beyond 8: zeros are put around the features first.
- A convolution that is added to something is added by oneDNN as it computes it, not in a pass of its own. Blocks write
  their result over their input.
- On a CUDA GPU other steps are slow; `kernels` has them.
- Pooled vectors pass through a `Pool`, so that tiles can share those of the whole picture.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

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
    pad_to_multiple,
    simple_gate,
)
from lowlight_cli.device import has_bf16, reuse_large_buffers

Pool = Callable[[Tensor], Tensor]

# Added to the real parts of a spectrum: far below rounding for any value that matters, but its square is still a
# normal float32 number. It gives X/|X| the direction 1 where X = 0 without a comparison.
_TINY = 1e-18

_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# What torch.compile makes of a convolution followed by an addition; not a public name, so it may go.
_ONEDNN_ADDS = _ONEDNN and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


def pool_here(x: Tensor) -> Tensor:
    """Average each channel over the map at hand: `(N, C, H, W)` -> `(N, C, 1, 1)`."""
    return kernels.mean(x) if kernels.is_quick_for(x) else x.mean((2, 3), keepdim=True)


class PoolRecord:
    """Pooled vectors in the order in which the network asks for them.

    `record` notes the average over everything in a batch as one vector; `pool_from` hands them out again.
    """

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []

    def record(self, x: Tensor) -> Tensor:
        vector = x.mean((0, 2, 3), keepdim=True)
        self.vectors.append(vector)
        return vector


def pool_from(vectors: Iterable[Tensor]) -> Pool:
    """Hand out pooled vectors in the order in which the network asks for them, for one pass."""
    coming = iter(vectors)
    return lambda _: next(coming)


def _conv(module: nn.Module) -> nn.Conv2d:
    assert isinstance(module, nn.Conv2d)
    return module


def _matrix(conv: nn.Module) -> Tensor:
    return _conv(conv).weight[:, :, 0, 0]


def _bias(conv: nn.Module) -> Tensor:
    bias = _conv(conv).bias
    assert bias is not None
    return bias


def _branches(modules: nn.ModuleList) -> list[nn.Conv2d]:
    return [_conv(branch.branch[0]) for branch in modules if isinstance(branch, Branch)]


class _Folded(nn.Module):
    """Holds tensors that are no parameters any more, in the working dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def keep(self, name: str, value: Tensor, *, dtype: torch.dtype | None = None) -> None:
        held = value.detach().to(dtype or self.dtype)
        layout = torch.channels_last if held.dim() == 4 else torch.contiguous_format
        self.register_buffer(name, held.clone(memory_format=layout))


def _is_for_onednn(x: Tensor) -> bool:
    # torch's compiler cannot look into these calls, and makes its own choice anyhow.
    return x.is_cpu and _ONEDNN and x.dtype in (torch.float32, torch.bfloat16) and not torch.compiler.is_compiling()


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _is_for_onednn(x):
        return torch.mkldnn_convolution(x, weight, bias, (0, 0), (1, 1), (1, 1), 1)
    if x.is_cuda and x.dtype != torch.float32:  # cuBLAS adds the bias as it multiplies, cuDNN in a pass of its own
        return F.linear(x.permute(0, 2, 3, 1), weight[:, :, 0, 0], bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, bias)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    x, padding = _prepadded(x, dilation)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=x.shape[1])


def _add_pointwise(total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Add a 1x1 convolution of `x` to `total`, in place."""
    if _ONEDNN_ADDS and _is_for_onednn(x):
        return _add_convolution(total, x, weight, bias)
    return total.add_(_pointwise(x, weight, bias))


def _add_depthwise(total: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Add a depthwise 3x3 convolution of `x` to `total`, in place."""
    if _ONEDNN_ADDS and _is_for_onednn(x):
        x, padding = _prepadded(x, dilation)
        return _add_convolution(total, x, weight, None, padding=padding, dilation=dilation)
    return total.add_(_depthwise(x, weight, None, dilation))


def _add_convolution(
    total: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, dilation: int = 1
) -> Tensor:
    pads, rates, groups = (padding, padding), (dilation, dilation), x.shape[1] // weight.shape[1]
    added: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, weight, bias, pads, (1, 1), rates, groups, "add", 1.0, None, [], None
    )
    return added


def _prepadded(x: Tensor, padding: int) -> tuple[Tensor, int]:
    """Return a picture and the padding that a convolution must still do."""
    return (_zero_padded(x, padding), 0) if x.is_cpu and padding > 8 else (x, padding)


def _zero_padded(x: Tensor, width: int) -> Tensor:
    """Put zeros around channels-last `x`. `F.pad` zeroes the middle too before it fills it: twice the time."""
    batch, channels, height, length = x.shape
    size = (batch, channels, height + 2 * width, length + 2 * width)
    padded = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    middle = padded[..., width:-width, :]
    for border in (padded[..., :width, :], padded[..., -width:, :], middle[..., :width], middle[..., -width:]):
        border.zero_()
    middle[..., width:-width] = x
    return padded


class _Pointwise(_Folded):
    """A 1x1 convolution; `scale` multiplies its outputs."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Module, dtype: torch.dtype, *, scale: Tensor | None = None) -> None:
        super().__init__(dtype)
        factor = _bias(conv).new_ones(1) if scale is None else scale.flatten()
        self.keep("weight", _matrix(conv)[:, :, None, None] * factor[:, None, None, None])
        self.keep("bias", _bias(conv) * factor)

    def forward(self, x: Tensor) -> Tensor:
        return _pointwise(x, self.weight, self.bias)

    def add_to(self, total: Tensor, x: Tensor) -> Tensor:
        """Add the convolution of `x` to `total`, in place."""
        return _add_pointwise(total, x, self.weight, self.bias)

    def add_scaled_to(self, total: Tensor, x: Tensor, attention: Tensor) -> Tensor:
        """Add the convolution of `x * attention`, `(N, C, 1, 1)`, without that product for a single picture."""
        if len(attention) == 1:
            return _add_pointwise(total, x, self.weight * attention, self.bias)
        return _add_pointwise(total, x * attention, self.weight, self.bias)


class _Norm(_Folded):
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


class _Depthwise(_Folded):
    """A sum of depthwise 3x3 convolutions of different dilations over the same input."""

    bias: Tensor
    taps: Tensor

    def __init__(self, convs: list[nn.Conv2d], dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.dilations = [conv.dilation[0] for conv in convs]
        for index, conv in enumerate(convs):
            self.keep(f"weight{index}", conv.weight)
        self.keep("bias", torch.stack([_bias(conv) for conv in convs]).sum(0))
        self.keep("taps", kernels.tap_weights([conv.weight for conv in convs]))

    def forward(self, x: Tensor) -> Tensor:
        if self._is_for_kernels(x):
            return self._by_kernel(x, gated=False)
        weights: list[Tensor] = [getattr(self, f"weight{index}") for index in range(len(self.dilations))]
        total = _depthwise(x, weights[0], self.bias, self.dilations[0])
        for weight, dilation in zip(weights[1:], self.dilations[1:], strict=True):
            _add_depthwise(total, x, weight, dilation)
        return total

    def gated(self, x: Tensor) -> Tensor:
        """Return the `simple_gate` of the sum, `(N, C / 2, H, W)`."""
        return self._by_kernel(x, gated=True) if self._is_for_kernels(x) else simple_gate(self(x))

    def _is_for_kernels(self, x: Tensor) -> bool:
        return kernels.is_quick_for(x) and len(self.dilations) <= kernels.MOST_TAPS

    def _by_kernel(self, x: Tensor, *, gated: bool) -> Tensor:
        taps = [kernels.Tap(dilation) for dilation in self.dilations]
        return kernels.depthwise(x, self.taps, self.bias, taps, gated=gated)


class _Paired(_Folded):
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
        self.keep("bias", _bias(grouped))
        self.keep("swapped_weight", _matrix(conv1)[channels ^ 1][:, :, None, None])
        self.keep("swapped_bias", _bias(conv1)[channels ^ 1])

    def forward(self, x: Tensor) -> Tensor:
        wide = self.straight(x)
        if kernels.is_quick_for(x):
            return kernels.depthwise(wide, self.taps, self.bias, [kernels.Tap(1), kernels.Tap(1, swapped=True)])
        out = _depthwise(wide, self.own, self.bias, 1)
        return _add_depthwise(out, _pointwise(x, self.swapped_weight, self.swapped_bias), self.other, 1)


class _Frequency(_Folded):
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
        self.keep("into", torch.cat([_matrix(first), _bias(first)[:, None]], 1))
        self.keep("outof", torch.cat([_matrix(last), _bias(last)[:, None]], 1) * gamma.flatten()[:, None])
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


class _EBlock(_Folded):
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


class _DBlock(_Folded):
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


class _Fusion(_Folded):
    def __init__(self, fusion: CrossScaleFusion, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.fuse = _Pointwise(fusion.fuse[0], dtype)
        self.squeeze = _Pointwise(fusion.gate[1], dtype)
        self.excite = _Pointwise(fusion.gate[3], dtype)

    def forward(self, skip: Tensor, up: Tensor, pool: Pool) -> Tensor:
        fused = self.fuse(torch.cat([skip, up], dim=1)).relu_()
        gate = self.excite(self.squeeze(pool(fused)).relu_()).sigmoid_()
        return torch.lerp(up, skip, gate)


def _folded_stage(stage: nn.Module, dtype: torch.dtype) -> nn.ModuleList:
    assert isinstance(stage, Stage)
    folded: list[nn.Module] = []
    for block in stage.modules_list:
        if isinstance(block, EBlock):
            folded.append(_EBlock(block, dtype))
        elif isinstance(block, DBlock):
            folded.append(_DBlock(block, dtype))
    return nn.ModuleList(folded)


class Unfolded(Protocol):
    """The parts of a DarkIR as trained, by their published names."""

    intro: nn.Conv2d
    encoders: nn.ModuleList
    downs: nn.ModuleList
    middle_blks_enc: Stage
    middle_blks_dec: Stage
    ups: nn.ModuleList
    csf_blocks: nn.ModuleList
    decoders: nn.ModuleList
    ending: nn.Conv2d
    side_out: nn.Conv2d
    img_channel: int
    multiple_of: int


class FoldedDarkIR(_Folded):
    """A DarkIR ready for pictures: same numbers as the network it was folded from, several times sooner."""

    intro_weight: Tensor
    intro_bias: Tensor
    ending_weight: Tensor
    ending_bias: Tensor
    side_weight: Tensor
    side_bias: Tensor

    def __init__(self, network: Unfolded, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        for name, conv in (("intro", network.intro), ("ending", network.ending), ("side", network.side_out)):
            self.keep(f"{name}_weight", conv.weight)
            self.keep(f"{name}_bias", _bias(conv))

        self.encoders = nn.ModuleList(_folded_stage(stage, dtype) for stage in network.encoders)
        self.middle_enc = _folded_stage(network.middle_blks_enc, dtype)
        self.middle_dec = _folded_stage(network.middle_blks_dec, dtype)
        self.decoders = nn.ModuleList(_folded_stage(stage, dtype) for stage in network.decoders)
        fusions = (block for block in network.csf_blocks if isinstance(block, CrossScaleFusion))
        self.fusions = nn.ModuleList(_Fusion(fusion, dtype) for fusion in fusions)
        for level, down in enumerate(network.downs):
            self.keep(f"down{level}_weight", _conv(down).weight)
            self.keep(f"down{level}_bias", _bias(down))
        for level, up in enumerate(network.ups):
            assert isinstance(up, nn.Sequential)
            self.keep(f"up{level}_weight", _conv(up[0]).weight)
        self.img_channel = network.img_channel
        self.multiple_of = network.multiple_of

    def forward(self, image: Tensor, pool: Pool = pool_here) -> Tensor:
        """Enhance `(N, C, H, W)` in [0, 1]; the result is not clamped. Same shape, less the conditioning channels."""
        return self._run(image.to(self.dtype), pool)[1].to(image.dtype)

    def with_side(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(side, out)` as the training network does with `side_loss=True`."""
        light, out = self._run(image.to(self.dtype), pool_here)
        side = F.conv2d(light, self.side_weight, self.side_bias, padding=1)
        return side.to(image.dtype), out.to(image.dtype)

    def _run(self, image: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
        padded = pad_to_multiple(image, self.multiple_of).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(padded, self.intro_weight, self.intro_bias, padding=1)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = self._through(encoder, x, pool)
            skips.append(x)
            x = F.conv2d(x, getattr(self, f"down{level}_weight"), getattr(self, f"down{level}_bias"), stride=2)
        light = self._through(self.middle_enc, x, pool)
        x = self._through(self.middle_dec, light.clone(), pool).add_(light)
        for level, decoder in enumerate(self.decoders):
            x = F.pixel_shuffle(_pointwise(x, getattr(self, f"up{level}_weight"), None), 2)
            x = x.contiguous(memory_format=torch.channels_last)
            skip = skips.pop()
            x = self.fusions[level](skip, x, pool) if len(self.fusions) else x.add_(skip)
            del skip
            x = self._through(decoder, x, pool)
        out = F.conv2d(x, self.ending_weight, self.ending_bias, padding=1).add_(padded[:, : self.img_channel])
        return light, out[..., : image.shape[-2], : image.shape[-1]]

    @staticmethod
    def _through(blocks: nn.Module, x: Tensor, pool: Pool) -> Tensor:
        for block in blocks.children():
            x = block(x, pool)
        return x


def fold(network: Unfolded, *, dtype: torch.dtype = torch.float32) -> FoldedDarkIR:
    """Fold a trained network, where it lies, for inference in float32 or a half precision.

    The spectrum stays in float32 either way, and so does all else for bfloat16 on a CPU without it: what torch has
    for that case takes minutes for a picture. The network then still takes and gives bfloat16.
    """
    reuse_large_buffers()
    kernels.prepare(network.intro.weight.device)
    is_slow = dtype == torch.bfloat16 and not has_bf16(network.intro.weight.device)
    return FoldedDarkIR(network, torch.float32 if is_slow else dtype).eval()
