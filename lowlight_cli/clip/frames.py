"""Frames through the network and the anti-flicker filter."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from lowlight_cli.clip.results import ClipSettings
from lowlight_cli.device import is_out_of_memory
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.parallel import a_core_each
from lowlight_cli.settings import Tone
from lowlight_cli.stabilize import (
    LOOK_AHEAD,
    LOOK_BACK,
    Light,
    apply_correction,
    compare_light,
    correction,
    light_cells,
)
from lowlight_cli.tone import apply_tone
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.reading import AnyPacket, ClipFrame
from lowlight_cli.video.segments import State


@dataclass(frozen=True)
class Ready:
    """A frame as decoded, as floats `(1, 3, H, W)` in [0, 1] on the device, and its light if that is to be calm."""

    frame: ClipFrame
    image: Tensor
    cells: Tensor | None


@dataclass(frozen=True)
class Made:
    """A frame as decoded, `cells` as in `Ready`, and the enhanced picture in the form of `Ready`'s."""

    frame: ClipFrame
    result: Tensor
    cells: Tensor | None


def compute_alone() -> None:
    """Have the calling thread compute without helpers: the network's threads need the processor.

    Torch gives every thread that computes a team of its own, which waits for work by spinning.
    """
    torch.set_num_threads(1)


class Frames:
    """Enhances the frames among a clip's items; packets pass them by.

    `ready` runs beside the decoder, `made` where the network is. `careful` sends frames through tiles from the
    beginning, as a picture that does not fit must go. Otherwise `at_once` frames are computed side by side, each by
    one core: cores that share a frame wait for each other after every operation.
    """

    def __init__(self, enhancer: Enhancer, settings: ClipSettings, *, careful: bool, at_once: int) -> None:
        self._enhancer, self._settings, self._careful = enhancer, settings, careful
        self._at_once = 1 if careful else at_once
        self.under_way = max(settings.frames_per_batch, 2 * self._at_once - 1)  # frames, at most, beside the next

    @torch.inference_mode()
    def ready(self, items: Iterable[ClipFrame | AnyPacket]) -> Iterator[Ready | AnyPacket]:
        """Yield decoded frames with their floats, and packets as they come."""
        compute_alone()
        for item in items:
            if isinstance(item, ClipFrame):
                image = floats(item.pixels, self._enhancer.device)
                yield Ready(item, image, light_cells(image) if self._settings.stabilize else None)
            else:
                yield item

    def made(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Yield enhanced frames and packets, in order."""
        return self._side_by_side(items) if self._at_once > 1 else self._in_batches(items)

    def _in_batches(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Enhance frame after frame: those of a batch are all under way before any is waited for."""
        batch: list[Ready] = []
        for item in items:
            if not isinstance(item, Ready):
                yield item
                continue
            batch.append(item)
            if len(batch) == self._settings.frames_per_batch:
                yield from self._batch(batch)
                batch.clear()
        if batch:
            yield from self._batch(batch)

    def _batch(self, batch: Sequence[Ready]) -> list[Made]:
        wholes = [self._whole(one.image) for one in batch]
        return [self._finished(one, whole) for one, whole in zip(batch, wholes, strict=True)]

    def _side_by_side(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Enhance some frames at once, and have as many wait, so that no core does."""
        with a_core_each() as cores:
            under_way: deque[tuple[Ready, Future[_Whole | None]] | AnyPacket] = deque()
            frames = 0
            for item in items:
                under_way.append((item, cores.begin(self._whole, item.image)) if isinstance(item, Ready) else item)
                frames += isinstance(item, Ready)
                while frames > 2 * self._at_once or (under_way and not isinstance(under_way[0], tuple)):
                    frames -= isinstance(under_way[0], tuple)
                    yield self._arrived(under_way.popleft())
            while under_way:
                yield self._arrived(under_way.popleft())

    def _arrived(self, item: "tuple[Ready, Future[_Whole | None]] | AnyPacket") -> Made | AnyPacket:
        return self._finished(item[0], item[1].result()) if isinstance(item, tuple) else item

    @torch.inference_mode()
    def _finished(self, one: Ready, whole: "_Whole | None") -> Made:
        """Return what became of a frame; if it did not go whole, or broke, the careful way: tiles, and fp32 at last."""
        sound = whole is not None and bool(whole.total.isfinite())
        result = whole.result if whole is not None and sound else self._enhancer.enhance_tensor(one.image)
        tone = self._settings.tone
        toned = result if tone == Tone() else apply_tone(one.image, result, tone)
        # Where memory is short the look-ahead holds half of it, in steps that are still finer than 10 bits.
        short = self._careful and one.cells is not None
        return Made(one.frame, toned.half() if short else toned, one.cells)

    @torch.inference_mode()
    def _whole(self, image: Tensor) -> "_Whole | None":
        """Enhance `(1, 3, H, W)` floats in one piece; None where that is too large, from then on always."""
        enhancer = self._enhancer
        if self._careful:
            return None
        try:
            result = enhancer.backend(enhancer.dtype).enhance(image.to(enhancer.dtype)).float()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._careful = True
            return None
        return _Whole(result, result.sum())


class _Whole(NamedTuple):
    result: Tensor
    total: Tensor  # what is not a number shows in it; infinities are none either once `bounded`


class Calm:
    """Holds frames until those after them are known, and gives them back with their light corrected.

    Runs between network and encoder. `strength` is that of the correction; 0 lets frames through as they are.
    """

    def __init__(self, strength: float) -> None:
        self._strength = strength
        self._held: deque[tuple[Made, Light]] = deque()
        self._past: deque[Light] = deque(maxlen=LOOK_BACK)
        self._before: Light | None = None

    @property
    def state(self) -> State:
        """What the frames to come depend on: the light of those given back."""
        return _state_of(self._past)

    @state.setter
    def state(self, state: State) -> None:
        self._past = deque(_lights_of(state), maxlen=LOOK_BACK)
        self._before = self._past[-1] if self._past else None

    @torch.inference_mode()
    def add(self, made: Made) -> Iterator[tuple[ClipFrame, Pixels]]:
        """Take the next frame; yield those, as decoded and as pixels, that are finished by it: one or none."""
        if made.cells is None:
            yield made.frame, pixels_of(made.result, like=made.frame.pixels)
            return
        self._before = compare_light(made.cells, light_cells(made.result), self._before)
        self._held.append((made, self._before))
        if len(self._held) > LOOK_AHEAD:
            yield self._corrected()

    @torch.inference_mode()
    def rest(self) -> Iterator[tuple[ClipFrame, Pixels]]:
        """Yield the frames that are still held: no more will come."""
        while self._held:
            yield self._corrected()

    def _corrected(self) -> tuple[ClipFrame, Pixels]:
        lights = [*self._past, *(light for _, light in self._held)]
        log_gain = correction(lights, len(self._past), strength=self._strength)
        made, light = self._held.popleft()
        self._past.append(light)
        return made.frame, pixels_of(apply_correction(made.result, log_gain), like=made.frame.pixels)


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
    """Return pixels `(3, H, W)` as floats `(1, 3, H, W)` in [0, 1] on a device."""
    # Integers travel to a GPU, a quarter of the bytes.
    moved = torch.from_numpy(pixels).to(device)[None]
    return moved.to(torch.float32).mul_(1 / np.iinfo(pixels.dtype).max)


def pixels_of(result: Tensor, *, like: Pixels) -> Pixels:
    """Return floats `(1, 3, H, W)` in [0, 1] as pixels `(3, H, W)` of the depth of `like`, rounded."""
    scaled = result[0].float().mul(np.iinfo(like.dtype).max).add_(0.5)
    if scaled.device.type != "cpu":  # integers travel back, too
        scaled = scaled.to(torch.uint8 if like.dtype == np.uint8 else torch.int32)
    return cast(Pixels, scaled.cpu().numpy().astype(like.dtype))
