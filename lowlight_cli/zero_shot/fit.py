"""Fit ZERO-IG to photos: the paper's way, step for step, or the fast way from a prepared start.

    fit = Fit([source], ZeroShot())
    for step in fit.run():
        ...                      # a typed event after every optimiser step; stop whenever you like
    weights = fit.state_dict()   # ordinary weights, for `load_backend("zeroig", ...)`

`paper` starts from random weights and takes 2000 steps on the whole picture with the published loss. `fast` differs:

- It starts from weights trained on clean photos made dark (`weights/zeroig-initial.safetensors`). They know noise, but
  no picture's exposure: that is what the fit must find.
- Steps see a few crops. A crop's own mean would swing the exposure from step to step, so the exposure comes from
  the whole picture, once; and it is a gain in linear light, as a longer shutter time would be, not a gain of sRGB
  numbers, which washes shadows out.
- Most steps fit the illumination network alone, against that exposure; every fifth fits all three with the other six
  terms of the published loss, the denoisers gently, because they start good.
- Batch norm keeps the statistics of the start, so what is fitted is what is applied.
- The second half of the run is averaged.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lowlight_cli.backends.zeroig import losses
from lowlight_cli.backends.zeroig.network import EPS, ZeroIG, load_network, new_network
from lowlight_cli.compiling import Gradients
from lowlight_cli.device import free_bytes
from lowlight_cli.errors import NumericsError, ResourceError
from lowlight_cli.machine import reuse_large_buffers
from lowlight_cli.parallel import a_core_each
from lowlight_cli.tiling import Source
from lowlight_cli.tone import bisected, smoothstep, to_encoded, to_linear
from lowlight_cli.weights_file import WeightsFile, read_weights
from lowlight_cli.zero_shot.settings import ZeroShot

INITIAL_WEIGHTS = Path(__file__).parents[1] / "weights" / "zeroig-initial.safetensors"

_CPU = torch.device("cpu")
_SMALLEST_SIDE = 16  # the blur's reflection needs 11 pixels
_CLIP = 5.0
_PAPER_BYTES_PER_PIXEL = 3000  # measured: 0.7 GB at 512x512

_DENOISER_SHARE = 1 / 150  # of the learning rate
_CROPS, _CROP_SIDE = 4, 64
_JOINT_EVERY = 5
_AVERAGING = 0.1  # the newest step's share
_WINDOW, _FLAT = 40, 0.97  # stop when a window of steps is not this much better than the one before

_TARGET_MEAN = 0.5
_DARK_MEAN, _BRIGHT_MEAN = 0.1, 0.4  # pictures this dark are lifted all the way, this bright not at all
_MOST_STOPS = math.log2(1000)  # of gain


@dataclass(frozen=True)
class Step:
    """One optimiser step: its number from 1, the most there will be, the loss before it and the loss's terms."""

    step: int
    steps: int
    loss: float
    terms: Mapping[str, float]

    def as_json(self) -> dict[str, object]:
        """Return the object that a line of `--log` holds."""
        return {**asdict(self), "terms": dict(self.terms)}


class LightTerm(NamedTuple):
    """The one term of a step that fits the illumination network alone."""

    enhancement: Tensor


class Fit:
    """A fit of one ZERO-IG to one or more photos. Between any two steps it can be left, looked at or saved."""

    def __init__(
        self,
        photos: Sequence[Source],
        settings: ZeroShot,
        *,
        initial: WeightsFile | None = None,
        device: torch.device = _CPU,
    ) -> None:
        """Prepare the networks; nothing is read of the photos yet.

        Raises WeightsError when `initial`, or the embedded start of `fast`, does not fit.
        """
        reuse_large_buffers()
        self.settings = settings
        self._photos = [_Extended(photo) for photo in photos]
        self._device = device
        self._network = _start(settings, initial).to(device, torch.float32)
        self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self._average: dict[str, Tensor] | None = None

    def run(self) -> Iterator[Step]:
        """Take the steps, yielding after each; `fast` without `epochs` stops when its loss is flat.

        Raises NumericsError when the loss is no number any more.
        """
        walk = self._paper_steps() if self.settings.preset == "paper" else self._fast_steps()
        history: list[float] = []
        for number, terms in enumerate(walk, start=1):
            loss = sum(terms.values())
            if not math.isfinite(loss):
                raise NumericsError(f"the fit broke at step {number}: its loss is no number; try a smaller --lr")
            yield Step(number, self.settings.steps, loss, terms)
            history.append(terms["enhancement"])
            if self.settings.preset == "fast" and self.settings.epochs is None and _is_flat(history):
                return

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights as they are now, on the CPU: averaged where the preset averages."""
        state = {**self._network.state_dict(), **(self._average or {})}
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def _paper_steps(self) -> Iterator[dict[str, float]]:
        self._refuse_too_large()
        network = self._network.train()
        optimizer = torch.optim.Adam(network.parameters(), lr=self.settings.rate, weight_decay=3e-4)
        image: Tensor | None = None
        of_one_size = len({(photo.height, photo.width) for photo in self._photos}) == 1
        gradients = Gradients(
            network, lambda image: torch.stack(losses.add_gradients(network, image)), may_record=of_one_size
        )
        for number in range(self.settings.steps):
            photo = self._photos[number % len(self._photos)]
            if image is None or len(self._photos) > 1:
                image = photo.read(slice(0, photo.height), slice(0, photo.width)).to(self._device)
                image = image.contiguous(memory_format=torch.channels_last)
            terms = gradients.fill(image)
            _take_step(network, optimizer)
            yield _named(losses.Terms, terms)

    def _fast_steps(self) -> Iterator[dict[str, float]]:
        network = self._network.eval()
        groups = [
            {"params": list(network.enhance.parameters())},
            {"params": [*network.denoise_1.parameters(), *network.denoise_2.parameters()]},
        ]
        optimizer = torch.optim.Adam(groups, lr=self.settings.rate, betas=(0.9, 0.99))
        gains = [exposure_gain(photo) for photo in self._photos]
        crops = _Crops(self._photos, gains, seed=self.settings.seed, device=self._device)
        light = Gradients(network, lambda *batch: _backward(_light_term(network, *batch)))
        all_three = Gradients(network, lambda *batch: _backward(_joint_terms(network, *batch)))
        for number in range(self.settings.steps):
            rate = self.settings.rate * (0.51 + 0.49 * math.cos(math.pi * number / self.settings.steps))
            optimizer.param_groups[0]["lr"] = rate
            optimizer.param_groups[1]["lr"] = rate * _DENOISER_SHARE
            batch = crops.draw(number)
            joint = number % _JOINT_EVERY == _JOINT_EVERY - 1
            with a_core_each():  # crops are too small for torch to share out
                terms = (all_three if joint else light).fill(*batch)
                _take_step(network, optimizer)
            self._average_in(number)
            yield _named(losses.Terms if joint else LightTerm, terms)

    def _refuse_too_large(self) -> None:
        needed = _PAPER_BYTES_PER_PIXEL * max(photo.height * photo.width for photo in self._photos)
        if needed > free_bytes(self._device):
            raise ResourceError(
                f"--preset paper trains on the whole picture and would need about {needed / 1e9:.0f} GB; "
                "--preset fast fits crops, whatever the size"
            )

    def _average_in(self, number: int) -> None:
        current = {name: weight.detach() for name, weight in self._network.named_parameters()}
        if self._average is None or number < self.settings.steps // 2:
            self._average = {name: weight.clone() for name, weight in current.items()}
            return
        for name, average in self._average.items():
            average.lerp_(current[name], _AVERAGING)


def exposure_gain(photo: Source) -> float:
    """Return the gain in linear light, at least 1, that lifts a photo's mean (sRGB numbers) to its target.

    The target is middle grey for dark photos; towards well-lit ones it falls smoothly to the mean they have.
    """
    thumbnail = _thumbnail(photo).double()
    mean = thumbnail.mean().item()
    target = mean + max(_TARGET_MEAN - mean, 0.0) * smoothstep(mean, _BRIGHT_MEAN, _DARK_MEAN)
    if target <= mean:
        return 1.0
    light = to_linear(thumbnail)

    def is_dark(stops: float) -> bool:
        return to_encoded((light * 2.0**stops).clamp(0, 1)).mean().item() < target

    return float(2.0 ** bisected(is_dark, 0.0, _MOST_STOPS, steps=40))


def _thumbnail(photo: Source) -> Tensor:
    """Return averages over 8x8 cells of at most 64 bands of rows, `(1, 3, n, m)`: noise gone, memory small."""
    rows, columns = min(photo.height, 8), min(photo.width, 8)
    count = min(max(photo.height // rows, 1), 64)
    last = photo.height - rows
    tops = [round(index * last / max(count - 1, 1)) for index in range(count)]
    bands = [photo.read(slice(top, top + rows), slice(0, photo.width)) for top in tops]
    return torch.cat([F.avg_pool2d(band, (rows, columns)) for band in bands], dim=-2)


def _start(settings: ZeroShot, initial: WeightsFile | None) -> ZeroIG:
    if initial is not None:
        return load_network(initial.tensors)
    if settings.preset == "fast":
        return load_network(read_weights(INITIAL_WEIGHTS).tensors)
    return new_network(settings.seed)


def _take_step(network: ZeroIG, optimizer: torch.optim.Optimizer) -> None:
    nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    optimizer.step()


def _backward(terms: losses.Terms | LightTerm) -> Tensor:
    stacked = torch.stack(terms)
    stacked.sum().backward()  # type: ignore[no-untyped-call]
    return stacked.detach()


def _named(kind: type[losses.Terms | LightTerm], terms: Tensor) -> dict[str, float]:
    return dict(zip(kind._fields, terms.tolist(), strict=True))  # a GPU is waited for once


def _light_term(network: ZeroIG, images: Tensor, gain: Tensor) -> LightTerm:
    lifted = images + EPS
    with torch.no_grad():
        clean = (lifted - network.denoise_1(lifted)).clamp(EPS, 1.0)
    return LightTerm(exposure_term(network.enhance(clean), clean, gain))


def _joint_terms(network: ZeroIG, images: Tensor, gain: Tensor) -> losses.Terms:
    passes = losses.training_passes(network, images)
    return losses.Terms(
        enhancement=exposure_term(passes.light, passes.clean.detach(), gain),
        first_denoising=losses.first_denoising(passes),
        second_denoising=losses.second_denoising(passes),
        colour=losses.colour(passes),
        illumination=losses.illumination(passes),
        texture=losses.texture(passes),
        noise_variance=losses.noise_variance(passes),
    )


def exposure_term(light: Tensor, clean: Tensor, gain: Tensor) -> Tensor:
    """Return the fast preset's first term: the cleaned picture over its light is the picture exposed `gain` longer.

    `light` and `clean` are `(N, 3, H, W)` in [EPS, 1], `gain` is `(N, 1, 1, 1)`, a factor in linear light. The weights
    of smoothness and total variation are small: this light follows a tone curve, which is steep in the shadows.
    """
    exposed = to_encoded((to_linear(clean - EPS) * gain).clamp(0, 1)).clamp(EPS, 1.0)
    wanted = (clean / exposed).clamp(EPS, 1.0)
    return (
        700 * F.mse_loss(light, wanted)
        + 1000 * F.mse_loss((clean / light).clamp(max=1.2), exposed)
        + losses.smoothness(light, clean)
        + 50 * losses.total_variation(light)
    )


def _is_flat(history: Sequence[float]) -> bool:
    if len(history) < 2 * _WINDOW:
        return False
    return sum(history[-_WINDOW:]) > _FLAT * sum(history[-2 * _WINDOW : -_WINDOW])


class _Extended:
    """A photo whose sides are at least 16 pixels: smaller ones are reflected, back and forth, as far as needed."""

    def __init__(self, photo: Source) -> None:
        self._photo = photo
        self.height = max(photo.height, _SMALLEST_SIDE)
        self.width = max(photo.width, _SMALLEST_SIDE)

    def read(self, rows: slice, columns: slice) -> Tensor:
        if (self.height, self.width) == (self._photo.height, self._photo.width):
            return self._photo.read(rows, columns)
        whole = self._photo.read(slice(0, self._photo.height), slice(0, self._photo.width))
        tall = whole.index_select(2, _reflected(self._photo.height, self.height))
        return tall.index_select(3, _reflected(self._photo.width, self.width))[..., rows, columns]


def _reflected(length: int, wanted: int) -> Tensor:
    period = max(2 * (length - 1), 1)
    index = torch.arange(wanted) % period
    return torch.minimum(index, period - index) if length > 1 else torch.zeros_like(index)


class _Crops:
    """Draws crops of one photo per step, in turn; the seed decides where."""

    def __init__(self, photos: Sequence[Source], gains: Sequence[float], *, seed: int, device: torch.device) -> None:
        self._photos, self._gains, self._device = photos, gains, device
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Return crops `(N, 3, h, w)` and their gain `(1, 1, 1, 1)`."""
        photo = self._photos[number % len(self._photos)]
        height, width = min(_CROP_SIDE, photo.height), min(_CROP_SIDE, photo.width)
        crops = [
            photo.read(slice(top, top + height), slice(left, left + width))
            for top, left in zip(self._places(photo.height - height), self._places(photo.width - width), strict=True)
        ]
        images = torch.cat(crops).to(self._device).contiguous(memory_format=torch.channels_last)
        return images, images.new_full((1, 1, 1, 1), self._gains[number % len(self._photos)])

    def _places(self, last: int) -> list[int]:
        return torch.randint(last + 1, (_CROPS,), generator=self._generator).tolist()
