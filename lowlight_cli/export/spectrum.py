"""DarkIR's frequency filter without complex numbers: discrete Fourier transforms as products with cosines and sines.

ONNX has an operator DFT, but few runtimes have it, and ONNX Runtime 1.32 fails on the one-sided DFT of a map whose
sides are dynamic. A product costs O(side) per pixel where a fast transform costs O(log side).
"""

import math

import torch
from torch import Tensor, nn

from lowlight_cli.backends.darkir.blocks import FreMLP


class MatrixFreMLP(nn.Module):
    """FreMLP in real arithmetic: `(N, C, H, W)` in and out, float32; equal to the original within rounding."""

    def __init__(self, original: FreMLP) -> None:
        super().__init__()
        self.original = original

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows_cos, rows_sin = _waves(width, width // 2 + 1)
        columns_cos, columns_sin = _waves(height, height)
        real, imaginary = x @ rows_cos, -(x @ rows_sin)
        spectrum = (
            columns_cos @ real + columns_sin @ imaginary,
            columns_cos @ imaginary - columns_sin @ real,
        )
        real, imaginary = self._filtered(*spectrum)
        back = (
            columns_cos @ real - columns_sin @ imaginary,
            columns_cos @ imaginary + columns_sin @ real,
        )
        # The left half of the spectrum stands for both, save for frequency 0 and, in even widths, the highest.
        frequency = torch.arange(width // 2 + 1, device=x.device)
        alone = (frequency == 0) | (frequency * 2 == _length(width))
        weight = torch.where(alone, 1.0, 2.0).to(x.dtype) / (_length(height) * _length(width)).to(x.dtype)
        return (back[0] * weight) @ rows_cos.t() - (back[1] * weight) @ rows_sin.t()

    def _filtered(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """Give every number of the spectrum its new magnitude and leave it its direction, 1 where it is zero."""
        original = self.original
        power = real.square() + imaginary.square()
        if original.direction_floor > 0:
            magnitude = (power + original.direction_floor**2).sqrt()
            factor = original.process1(magnitude) / magnitude
            return real * factor, imaginary * factor
        magnitude = power.sqrt()
        wanted = original.process1(magnitude)
        silent = magnitude == 0
        factor = wanted / torch.where(silent, 1.0, magnitude)
        return torch.where(silent, wanted, real * factor), imaginary * factor


def _waves(length: int, count: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 2 pi n k / length, `(length, count)`; whole turns are taken off while they are whole."""
    turns = torch.arange(length)[:, None] * torch.arange(count)[None] % _length(length)
    angle = turns.double() * (2 * math.pi) / _length(length).double()
    # The cosine is a shifted sine: ONNX Runtime has no cosine of doubles.
    return (angle + math.pi / 2).sin().float(), angle.sin().float()


def _length(length: int) -> Tensor:
    """Return a map's side as a tensor: the translation to ONNX divides by no other number that varies."""
    return torch.arange(length)[-1] + 1


def use_real_arithmetic(network: nn.Module) -> None:
    """Replace every FreMLP of a network, in place."""
    for name, child in network.named_children():
        if isinstance(child, FreMLP):
            setattr(network, name, MatrixFreMLP(child))
        else:
            use_real_arithmetic(child)
