"""Frames through the network and the anti-flicker filter."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_cli.clip.results import ClipSettings
from lowlight_cli.device import is_out_of_memory
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.settings import Tone
from lowlight_cli.stabilize import LOOK_AHEAD, LOOK_BACK, Cells, Light, apply_correction, correction, measure_light
from lowlight_cli.tone import apply_tone
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.reading import AnyPacket, ClipFrame
from lowlight_cli.video.segments import State


@dataclass(frozen=True)
class Ready:
    """A frame as decoded, and as floats `(1, 3, H, W)` in [0, 1] on the device."""

    frame: ClipFrame
    image: Tensor


@dataclass(frozen=True)
class Made:
    """An enhanced frame, `result` as in `Ready`, its light, and the correction of it that is still to be applied."""

    frame: ClipFrame
    result: Tensor
    light: Light | None = None
    log_gain: Cells | None = None


class Frames:
    """Enhances and steadies the frames among a clip's items; packets pass them by.

    Three steps for three threads: `ready` beside the decoder, `made` at the network, `finished` beside the encoder.
    `careful` sends frames through tiles from the beginning, as a picture that does not fit must go.
    """

    def __init__(self, enhancer: Enhancer, settings: ClipSettings, *, careful: bool) -> None:
        self._enhancer, self._settings, self._careful = enhancer, settings, careful
        self._past: deque[Light] = deque(maxlen=LOOK_BACK)
        self._before: Light | None = None

    @property
    def state(self) -> State:
        """What the frames to come depend on: the light of those before."""
        return _state_of(self._past)

    @state.setter
    def state(self, state: State) -> None:
        self._past = deque(_lights_of(state), maxlen=LOOK_BACK)
        self._before = self._past[-1] if self._past else None

    def ready(self, items: Iterable[ClipFrame | AnyPacket]) -> Iterator[Ready | AnyPacket]:
        """Yield decoded frames with their floats, and packets as they come."""
        for item in items:
            if isinstance(item, ClipFrame):
                yield Ready(item, floats(item.pixels, self._enhancer.device))
            else:
                yield item

    def made(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Yield enhanced frames, in order, and packets as they come."""
        return self._steadied(self._enhanced(items))

    @torch.inference_mode()
    def _brightened_batch(self, batch: Sequence[Ready]) -> list[Made]:
        """Enhance a batch: all are computed before anything is waited for."""
        enhancer, tone = self._enhancer, self._settings.tone
        results = [self._brightened(one.image) for one in batch]
        # What is not a number shows in the sum, in one pass; infinities are none either once `bounded`.
        if not self._careful and not all(bool(result.sum().isfinite()) for result in results):
            results = [enhancer.enhance_tensor(one.image) for one in batch]
        made = []
        for one, result in zip(batch, results, strict=True):
            toned = result if tone == Tone() else apply_tone(one.image, result, tone)
            light = None
            if self._settings.stabilize:
                light = self._before = measure_light(one.image, toned, self._before)
            # Where memory is short the look-ahead holds half of it, in steps that are still finer than 10 bits.
            made.append(Made(one.frame, toned.half() if light and self._careful else toned, light))
        return made

    def _brightened(self, image: Tensor) -> Tensor:
        """Enhance `(1, 3, H, W)` floats; whole if that goes, else the careful way: tiles, and fp32 at last."""
        enhancer = self._enhancer
        if not self._careful:
            try:
                return enhancer.backend(enhancer.dtype).enhance(image.to(enhancer.dtype)).float()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._careful = True
        return enhancer.enhance_tensor(image)

    def _enhanced(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        batch: list[Ready] = []
        for item in items:
            if not isinstance(item, Ready):
                yield item
                continue
            batch.append(item)
            if len(batch) == self._settings.frames_per_batch:
                yield from self._brightened_batch(batch)
                batch.clear()
        if batch:
            yield from self._brightened_batch(batch)

    def _steadied(self, items: Iterator[Made | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Hold each frame until those after it are known, and correct its light."""
        held: deque[Made] = deque()
        for item in items:
            if not isinstance(item, Made) or item.light is None:
                yield item
                continue
            held.append(item)
            if len(held) > LOOK_AHEAD:
                yield self._corrected(held)
        while held:
            yield self._corrected(held)

    def _corrected(self, held: deque[Made]) -> Made:
        lights = [*self._past, *(made.light for made in held if made.light)]
        log_gain = correction(lights, len(self._past), strength=self._settings.stabilize)
        made = held.popleft()
        assert made.light is not None
        self._past.append(made.light)
        return replace(made, log_gain=log_gain)


@torch.inference_mode()
def finished(made: Made) -> Pixels:
    """Return the pixels of an enhanced frame, its light corrected, in the depth of the decoded ones."""
    result = made.result if made.log_gain is None else apply_correction(made.result, made.log_gain)
    return pixels_of(result, like=made.frame.pixels)


def _state_of(lights: Sequence[Light]) -> State:
    if not lights:
        return {}
    return {
        "shown": np.stack([light.shown for light in lights]),
        "made": np.stack([light.made for light in lights]),
        "change": np.stack([light.change for light in lights]),
        "is_cut": np.array([light.is_cut for light in lights]),
    }


def _lights_of(state: State) -> Iterator[Light]:
    if state:
        arrays = (state["shown"], state["made"], state["change"], state["is_cut"])
        for shown, made, change, is_cut in zip(*arrays, strict=True):
            yield Light(shown, made, change, bool(is_cut))


def floats(pixels: Pixels, device: torch.device) -> Tensor:
    """Return pixels `(H, W, 3)` as floats `(1, 3, H, W)` in [0, 1] on a device."""
    # Integers travel to a GPU, a quarter of the bytes.
    moved = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return moved.to(torch.float32, memory_format=torch.contiguous_format).div_(np.iinfo(pixels.dtype).max)


def pixels_of(result: Tensor, *, like: Pixels) -> Pixels:
    """Return floats `(1, 3, H, W)` in [0, 1] as pixels `(H, W, 3)` of the depth of `like`, rounded."""
    scaled = result[0].permute(1, 2, 0).float().mul(np.iinfo(like.dtype).max).round_()
    if like.dtype == np.uint8:
        eight: NDArray[np.uint8] = scaled.to(torch.uint8).contiguous().cpu().numpy()
        return eight
    return scaled.to(torch.int32).contiguous().cpu().numpy().astype(np.uint16)
