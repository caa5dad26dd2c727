"""The kernels of `kernels` as operators that torch's compiler takes as they are, and compiles what lies between.

Each tells what its result looks like; the kernels themselves run when the compiled function does. None writes over what
it is given: the compiler (torch 2.11 and 2.13) fails to undo that for the complex numbers of a spectrum.
"""

# ruff: noqa: ARG001 - what a result looks like depends on few of the arguments

import torch
from torch import Tensor

from lowlight_cli.backends.darkir import kernels


@torch.library.custom_op("lowlight::depthwise", mutates_args=())
def depthwise(
    x: Tensor, weights: Tensor, bias: Tensor, dilations: list[int], swapped: list[bool], gated: bool
) -> Tensor:
    """`kernels.depthwise`, its taps taken apart."""
    taps = [kernels.Tap(*tap) for tap in zip(dilations, swapped, strict=True)]
    return kernels.depthwise(x, weights, bias, taps, gated=gated)


@depthwise.register_fake
def _(x: Tensor, weights: Tensor, bias: Tensor, dilations: list[int], swapped: list[bool], gated: bool) -> Tensor:
    count, channels, height, width = x.shape
    size = (count, channels // 2 if gated else channels, height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op("lowlight::norm", mutates_args=())
def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`kernels.norm`."""
    return kernels.norm(x, weight, bias, eps, dtype=dtype)


@norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op("lowlight::norm_planes", mutates_args=())
def norm_planes(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`kernels.norm_planes`."""
    return kernels.norm_planes(x, weight, bias, eps)


@norm_planes.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty(x.shape[1:], device=x.device)


@torch.library.custom_op("lowlight::add_product", mutates_args=())
def add_product(x: Tensor, planes: Tensor) -> Tensor:
    """`kernels.add_product`."""
    return kernels.add_product(x, planes, in_place=False)


@add_product.register_fake
def _(x: Tensor, planes: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.library.custom_op("lowlight::mean", mutates_args=())
def mean(x: Tensor) -> Tensor:
    """`kernels.mean`."""
    return kernels.mean(x)


@mean.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], 1, 1)


@torch.library.custom_op("lowlight::filter_spectrum", mutates_args=())
def filter_spectrum(spectrum: Tensor, weights: Tensor, tiny: float, floor: float, exact: bool) -> Tensor:
    """`kernels.filter_spectrum`."""
    return kernels.filter_spectrum(spectrum, weights, tiny=tiny, floor=floor, exact=exact, in_place=False)


@filter_spectrum.register_fake
def _(spectrum: Tensor, weights: Tensor, tiny: float, floor: float, exact: bool) -> Tensor:
    return torch.empty_like(spectrum)
