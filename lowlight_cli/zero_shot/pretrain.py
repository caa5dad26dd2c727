"""Train the start of the fast preset on clean photos made dark.

    python -m lowlight_cli.zero_shot.pretrain PHOTOS zeroig-initial.safetensors

The start shall know noise, and what an illumination map looks like, but no picture's exposure: that is what a fit must
find. So the three networks are trained apart, each against what the camera model knows. The first denoiser sees the
dark picture and should give it back without noise; the illumination network sees that, and should give the map that
exposes it by the camera's missing stops; the second denoiser sees picture over map and should give the clean bright
picture. How many stops are missing varies from crop to crop and cannot be seen in a crop, so the illumination network
learns their average.
"""

import argparse
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cli.backends.zeroig.network import EPS, ZeroIG, new_network
from lowlight_cli.degrade import Camera, Illumination, Picture, draw_shot, render, scene_of_photo, take
from lowlight_cli.errors import SettingsError
from lowlight_cli.machine import reuse_large_buffers
from lowlight_cli.paths import PICTURES, files_below
from lowlight_cli.tone import to_encoded, to_linear
from lowlight_cli.train.scenes import read_photo
from lowlight_cli.weights_file import write_weights

_CROPS, _SIDE = 8, 64
_LIGHT_CROPS = 3  # of those, for the illumination network, which costs the most
_RATE, _WARM_STEPS, _LAST_RATE_SHARE = 1.5e-3, 100, 0.02
_CLIP = 2.0
_FREEZE_FROM = 0.7  # of the steps: batch norm's statistics stand from here on, as they do in a fit
_AVERAGE_FROM, _AVERAGING = 0.5, 0.01
_LARGEST_LIFT, _LARGEST_ERROR = 40.0, 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainStep:
    """One step: its number from 1 and the errors of the three networks before it."""

    step: int
    noise: float
    light: float
    second_noise: float


class Batch(NamedTuple):
    """Crops as `(N, 3, h, w)` sRGB in [0, 1]: dark and noisy, dark and clean; and the gain `(N, 1, 1, 1)` they miss."""

    low: Tensor
    clean: Tensor
    gain: Tensor


class _Errors(NamedTuple):
    noise: Tensor
    light: Tensor
    second_noise: Tensor


class Pretraining:
    """A training of the fast preset's start. The same photos, steps and seed give the same bytes on a CPU."""

    def __init__(self, photos: Sequence[NDArray[np.uint8]], *, steps: int = 1600, seed: int = 2) -> None:
        """Take sRGB photos `(h, w, 3)` of at least 64 pixels a side; raises SettingsError when there are none."""
        self._photos = [photo for photo in photos if min(photo.shape[:2]) >= _SIDE]
        if not self._photos:
            raise SettingsError(f"pre-training needs photos of at least {_SIDE}x{_SIDE} pixels")
        reuse_large_buffers()
        self._steps = steps
        self._rng = np.random.default_rng(seed)
        self._network = new_network(seed).train()
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self._average: dict[str, Tensor] = {}

    def run(self) -> Iterator[PretrainStep]:
        """Take the steps, yielding after each."""
        optimizer = torch.optim.Adam(self._network.parameters(), lr=_RATE, betas=(0.9, 0.99))
        for number in range(self._steps):
            optimizer.param_groups[0]["lr"] = _RATE * _rate_share(number, self._steps)
            if number == int(self._steps * _FREEZE_FROM):
                self._network.enhance.eval()
            errors = _errors(self._network, draw_batch(self._photos, self._rng))
            optimizer.zero_grad()
            (20 * errors.noise + errors.light + 20 * errors.second_noise).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._network.parameters(), _CLIP)
            optimizer.step()
            self._average_in(number)
            yield PretrainStep(number + 1, errors.noise.item(), errors.light.item(), errors.second_noise.item())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights, averaged over the second half of the steps taken so far."""
        state = self._average or self._network.state_dict()
        return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}

    def _average_in(self, number: int) -> None:
        if number < int(self._steps * _AVERAGE_FROM):
            return
        for name, tensor in self._network.state_dict().items():
            held = self._average.setdefault(name, tensor.clone())
            if held.is_floating_point():
                held.lerp_(tensor, _AVERAGING)
            else:
                held.copy_(tensor)


def _rate_share(number: int, steps: int) -> float:
    falling = 0.5 + 0.5 * math.cos(math.pi * number / steps)
    return min(1.0, (number + 1) / _WARM_STEPS) * (_LAST_RATE_SHARE + (1 - _LAST_RATE_SHARE) * falling)


def draw_batch(photos: Sequence[NDArray[np.uint8]], rng: Generator) -> Batch:
    """Cut crops of random photos and photograph them with too little light."""
    lows, cleans, gains = zip(*(_photographed(_crop(photos, rng), rng) for _ in range(_CROPS)), strict=True)
    return Batch(_stacked(lows), _stacked(cleans), torch.tensor(gains, dtype=torch.float32).view(-1, 1, 1, 1))


def _crop(photos: Sequence[NDArray[np.uint8]], rng: Generator) -> Picture:
    photo = photos[int(rng.integers(len(photos)))]
    top, left = (int(rng.integers(length - _SIDE + 1)) for length in photo.shape[:2])
    crop = photo[top : top + _SIDE, left : left + _SIDE]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.5:
        crop = crop.swapaxes(0, 1)
    return crop.astype(np.float32) / np.float32(255)


def _photographed(photo: Picture, rng: Generator) -> tuple[Picture, Picture, float]:
    """Return the dark picture, the same without noise, and the gain in linear light that it misses.

    Casts, blur and uneven light are left out: the networks reach nine pixels, and cannot tell them from the scene.
    """
    drawn = draw_shot(Camera(), rng)
    shot = replace(
        drawn, empty=False, illumination=Illumination(), focus=0.0, motion=(0.0, 0.0), cast=(1.0, 1.0, 1.0), toe=0.0
    )
    scene = scene_of_photo(photo)
    low = take(scene, shot, rng, window=(0.0, 1.0, 0.0, 1.0))
    exposure = 2.0**-shot.stops_under
    return low, render(scene, exposure), 1 / exposure


def _stacked(pictures: Sequence[Picture]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def _errors(network: ZeroIG, batch: Batch) -> _Errors:
    lifted = batch.low + EPS
    cleaned = (lifted - network.denoise_1(lifted)).clamp(EPS, 1.0)
    bright = _exposed(batch.clean, batch.gain)
    # An error in the dark counts as much as it will show once the light is on.
    lift = ((bright + EPS) / (batch.clean + EPS)).clamp(max=_LARGEST_LIFT)
    noise = ((cleaned - batch.clean - EPS) * lift).square().clamp(max=_LARGEST_ERROR).mean()

    cleaned = cleaned.detach()
    exposed = _exposed(cleaned, batch.gain).clamp(EPS, 1.0)
    wanted = (cleaned / exposed).clamp(EPS, 1.0)
    some = slice(0, _LIGHT_CROPS)
    found = network.enhance(cleaned[some])
    light = F.l1_loss((cleaned[some] / found).clamp(max=1.5), exposed[some]) + F.l1_loss(found, wanted[some])

    both = torch.cat(((lifted / wanted).clamp(EPS, 1.0), wanted), dim=1)
    left = both - network.denoise_2(both)
    second_noise = F.mse_loss(left[:, :3], bright) + 0.2 * F.mse_loss(left[:, 3:], wanted)
    return _Errors(noise, light, second_noise)


def _exposed(picture: Tensor, gain: Tensor) -> Tensor:
    return to_encoded((to_linear(picture) * gain).clamp(0, 1))


def read_photos(folder: Path) -> list[NDArray[np.uint8]]:
    """Read the photos under a folder as sRGB `(h, w, 3)`, in the order of their names; raises InputError."""
    return [read_photo(path) for path in files_below(folder, PICTURES)]


def main() -> None:
    """Train on the photos of a folder and write the weights."""
    parser = argparse.ArgumentParser(description="Train the start of `lowlight zero-shot --preset fast`.")
    parser.add_argument("photos", type=Path, help="folder of clean, well-lit photos")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=2)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    training = Pretraining(read_photos(given.photos), steps=given.steps, seed=given.seed)
    for step in training.run():
        if step.step % 50 == 0:
            _log.info("%s", step)
    described = {"backend": "zeroig", "purpose": "start of the fast zero-shot preset", "steps": str(given.steps)}
    write_weights(given.output, training.state_dict(), described)


if __name__ == "__main__":
    main()
