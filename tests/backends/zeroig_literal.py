"""ZERO-IG's training step written out as its description reads: the yardstick for speed, memory and parity.

Patches are unfolded, shifted copies are made one by one, every pass runs for itself, tensors are contiguous. It is
what a careful reader would write first, and nothing slower.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cli.backends.zeroig.network import ZeroIG

EPS = 1e-4
OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0), (2, 1), (2, -1), (1, 2), (1, -2), (2, 2), (2, -2))


def literal_step(network: ZeroIG, optimizer: torch.optim.Optimizer, image: Tensor) -> float:
    optimizer.zero_grad()
    loss = literal_loss(network, image)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5)
    optimizer.step()
    return loss.item()


def denoiser(network: nn.Module, x: Tensor) -> Tensor:
    x = F.leaky_relu(network.conv1(x), 0.2)
    x = F.leaky_relu(network.conv2(x), 0.2)
    return network.conv3(x)


def illuminator(network: nn.Module, x: Tensor) -> Tensor:
    x = F.relu(network.in_conv(x))
    for _ in range(3):
        x = x + F.relu(network.conv(x))
    return torch.clamp(torch.sigmoid(network.out_conv(x)), EPS, 1)


def down_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    channels = x.shape[1]
    anti = torch.tensor([[0.0, 0.5], [0.5, 0.0]]).to(x).repeat(channels, 1, 1, 1)
    main = torch.tensor([[0.5, 0.0], [0.0, 0.5]]).to(x).repeat(channels, 1, 1, 1)
    return F.conv2d(x, anti, stride=2, groups=channels), F.conv2d(x, main, stride=2, groups=channels)


def literal_loss(network: ZeroIG, x: Tensor) -> Tensor:
    mse = F.mse_loss
    N1 = lambda image: denoiser(network.denoise_1, image)  # noqa: E731
    N2 = lambda image: denoiser(network.denoise_2, image)  # noqa: E731
    I = x + EPS  # noqa: E741
    L11, L12 = down_pair(I)
    P1, P2 = L11 - N1(L11), L12 - N1(L12)
    L2 = torch.clamp(I - N1(I), EPS, 1)
    s2 = illuminator(network.enhance, L2.detach())
    s21, s22 = down_pair(s2)
    H2 = torch.clamp(I / s2, EPS, 1)
    H11, H12 = torch.clamp(L11 / s21, EPS, 1), torch.clamp(L12 / s22, EPS, 1)
    first, second, whole = torch.cat([H11, s21], 1), torch.cat([H12, s22], 1), torch.cat([H2, s2], 1)
    Q1 = torch.clamp(first.detach() - N2(first), EPS, 1)
    Q2 = torch.clamp(second.detach() - N2(second), EPS, 1)
    both = torch.clamp(whole.detach() - N2(whole), EPS, 1)
    H3, s3 = both[:, :3], both[:, 3:]

    loss = 0
    L = L2.detach()
    Y = grey(L).mean(dim=(1, 2, 3), keepdim=True)
    a = torch.clamp(0.5 / (Y + 1e-9), 1, 25)
    loss = loss + 700 * mse(s2, torch.clamp((a * L) ** a * 0.7 ** (-a) / a, 1e-9, 1))
    loss = loss + 1000 * mse(torch.clamp(L / s2, 1e-9, 0.8), torch.clamp(a * L, 1e-9, 1))
    loss = loss + 5 * smoothness(L, s2) + 1600 * variation(s2)
    r1, r2 = down_pair(x + 1e-9)
    L21, L22 = down_pair(L2)
    loss = loss + 1000 * (mse(r1, P2) + mse(r2, P1) + mse(P1, L21) + mse(P2, L22))
    a3, b3 = down_pair(H3)
    loss = loss + 1000 * (mse(Q1, second.detach()) + mse(Q2, first.detach()) + mse(Q1[:, :3], a3) + mse(Q2[:, :3], b3))
    loss = loss + 10000 * mse(blur(torch.clamp(L2 / s2, 0, 1)).detach(), blur(H3))
    loss = loss + 1000 * mse(s2.detach(), s3)
    T = texture_mask(a3, b3)
    loss = loss + 10000 * mse(a3, (1 - T) * mean5(a3) + T * a3)
    loss = loss + 10000 * mse(b3, (1 - T) * mean5(b3) + T * a3)
    return loss + 1000 * mse(variance(H2), variance(H3 - H2))


def grey(x: Tensor) -> Tensor:
    return 0.144 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.299 * x[:, 2:3]


def variation(x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    down = ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum() / ((height - 1) * width)
    right = ((x[:, :, :, 1:] - x[:, :, :, :-1]) ** 2).sum() / (height * (width - 1))
    return 2 * (down + right) / batch


def smoothness(guide: Tensor, s: Tensor) -> Tensor:
    matrix = torch.tensor([[0.257, -0.148, 0.439], [0.564, -0.291, -0.368], [0.098, 0.439, -0.071]]).to(s.dtype)
    if s.dtype == torch.float64:
        matrix = torch.tensor(
            [[0.257, -0.148, 0.439], [0.564, -0.291, -0.368], [0.098, 0.439, -0.071]], dtype=torch.float64
        )
    offset = torch.tensor([16.0, 128.0, 128.0], dtype=s.dtype) / 255
    C = (guide.contiguous().view(-1, 3).mm(matrix) + offset).view(guide.shape)
    height, width = s.shape[-2:]
    total = 0
    for dy, dx in [*OFFSETS, *((-dy, -dx) for dy, dx in OFFSETS)]:
        p = (
            slice(None),
            slice(None),
            slice(max(-dy, 0), height - max(dy, 0)),
            slice(max(-dx, 0), width - max(dx, 0)),
        )
        q = (
            slice(None),
            slice(None),
            slice(max(dy, 0), height - max(-dy, 0)),
            slice(max(dx, 0), width - max(-dx, 0)),
        )
        w = torch.exp(-((C[p] - C[q]) ** 2).sum(dim=1, keepdim=True) / 200)
        total = total + (w * (s[p] - s[q]).abs().sum(dim=1, keepdim=True)).mean()
    return total


def unfolded(x: Tensor, mode: str) -> Tensor:
    batch, channels, height, width = x.shape
    padded = F.pad(x, (2, 2, 2, 2), mode=mode)
    return F.unfold(padded, 5).view(batch, channels, 25, height, width)


def mean5(x: Tensor) -> Tensor:
    return unfolded(x, "reflect").mean(dim=2)


def texture_mask(a: Tensor, b: Tensor) -> Tensor:
    with torch.no_grad():
        sa = torch.sqrt(unfolded(grey(a), "reflect").var(dim=2, unbiased=False) + 1e-9)
        sb = torch.sqrt(unfolded(grey(b), "reflect").var(dim=2, unbiased=False) + 1e-9)
        return (2 * sa * sb / (sa**2 + sb**2 + 1e-5) > 0.975).to(a.dtype)


def variance(x: Tensor) -> Tensor:
    centred = x - unfolded(x, "constant").mean(dim=2)
    return unfolded(centred**2, "constant").mean(dim=2)


def blur(x: Tensor) -> Tensor:
    interval = 3 / 21
    edges = torch.linspace(-1 - interval / 2, 1 + interval / 2, 22, dtype=torch.float64)
    k = torch.special.ndtr(edges).diff()
    kernel = torch.sqrt(torch.outer(k, k))
    kernel = (kernel / kernel.sum()).to(x).repeat(x.shape[1], 1, 1, 1)
    return F.conv2d(F.pad(x, (10, 10, 10, 10), mode="reflect"), kernel, groups=x.shape[1])
