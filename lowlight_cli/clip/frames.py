"""Frames through the network and the anti-flicker filter."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lowlight_cli.backends.base import WholeEnhancer
from lowlight_cli.bars import Box
from lowlight_cli.buffers import Buffers
from lowlight_cli.device import is_out_of_memory
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.parallel import a_core_each
from lowlight_cli.settings import Tone
from lowlight_cli.stabilize import (
    LOOK_AHEAD,
    LOOK_BACK,
    Cells,
    Light,
    apply_correction,
    compare_light,
    correction,
    light_cells,
)
from lowlight_cli.streams import Fetched, moment_of, own_stream, used_here
from lowlight_cli.tone import apply_tone
from lowlight_cli.video import ClipSettings
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.reading import AnyPacket, ClipFrame
from lowlight_cli.video.segments import State


@dataclass(frozen=True)
class Ready:
    """A frame as decoded, as floats `(1, 3, H, W)` in [0, 1] on the device, and its light if that is to be calm.

    The floats belong to the reader's stream. `enhance` is what the network does to them, None where that is for tiles.
    """

    frame: ClipFrame
    image: Tensor
    cells: Tensor | None
    enhance: WholeEnhancer | None = None


@dataclass(frozen=True)
class Made:
    """A frame as decoded, the enhanced picture in the form of `Ready`'s, and the light of both if it is to be calm.

    On a CPU a picture whose light stays as it is has become pixels `(3, H, W)` already. `moment` is when the picture is
    complete, where a device computes while others go on.
    """

    frame: ClipFrame
    result: Tensor
    cells: tuple[Tensor, Tensor] | None
    moment: torch.cuda.Event | None = None


def compute_alone() -> None:
    """Have the calling thread compute without helpers: the network's threads need the processor.

    Torch gives every thread that computes a team of its own, which waits for work by spinning.
    """
    torch.set_num_threads(1)


class Frames:
    """Enhances the frames among a clip's items; packets pass them by.

    `ready` runs beside the decoder, `made` where the network is. `careful` sends frames through tiles from the
    beginning, as a picture that does not fit must go. Otherwise several frames are under way at a time: on a GPU,
    so that it has the next one when one is done; on a CPU `at_once` are computed side by side, each by one core,
    and where that is all cores as many wait: cores that share a frame wait for each other after every operation. Of
    a film with bars only what lies within the `box` is computed.
    """

    def __init__(
        self, enhancer: Enhancer, settings: ClipSettings, *, careful: bool, at_once: int, box: Box | None = None
    ) -> None:
        self._box = box
        self._enhancer, self._settings, self._careful = enhancer, settings, careful
        self._buffers = Buffers()
        self._at_once = 1 if careful else at_once
        is_alone = enhancer.device.type == "cpu" or careful
        self._beside_next = 0 if is_alone else settings.frames_per_batch

    @torch.inference_mode()
    def ready(self, items: Iterable[ClipFrame | AnyPacket]) -> Iterator[Ready | AnyPacket]:
        """Yield decoded frames with their floats, and packets as they come."""
        compute_alone()
        stream = own_stream(self._enhancer.device, "reading")
        for item in items:
            if isinstance(item, ClipFrame):
                with stream:
                    shown = item.pixels[:, *self._box] if self._box else item.pixels
                    image = floats(shown, self._enhancer.device, self._buffers)
                    cells = light_cells(image).cpu() if self._settings.stabilize else None
                    enhance = self._whole_enhancer(image)
                yield Ready(item, image, cells, enhance)
            else:
                yield item

    def _whole_enhancer(self, image: Tensor) -> WholeEnhancer | None:
        enhancer = self._enhancer
        return None if self._careful else enhancer.backend(enhancer.dtype).whole_enhancer(image)

    def made(self, items: Iterable[Ready | AnyPacket]) -> Iterator[Made | AnyPacket]:
        """Yield enhanced frames and packets, in order."""
        coming = iter(items)
        if self._at_once > 1:
            with a_core_each() as cores:
                # Memory was reckoned for `at_once`, which are all that may be begun if there are more cores.
                waiting = 2 * self._at_once if self._at_once >= cores.count else self._at_once - 1
                yield from self._in_order(
                    self._until_careful(coming), lambda one: cores.begin(self._whole, one).result, beside_next=waiting
                )
        yield from self._in_order(coming, self._begun, beside_next=self._beside_next)

    def _until_careful(self, items: Iterator[Ready | AnyPacket]) -> Iterator[Ready | AnyPacket]:
        """Yield items until a frame did not fit: those after it go through tiles, for which all cores work together."""
        while not self._careful and (item := next(items, None)) is not None:
            yield item

    def _in_order(
        self,
        items: Iterable[Ready | AnyPacket],
        begin: Callable[[Ready], "Callable[[], _Whole | None]"],
        *,
        beside_next: int,
    ) -> Iterator[Made | AnyPacket]:
        """Begin frames as they come, and wait for the first of them when `beside_next` others are under way."""
        under_way: deque[tuple[Ready, Callable[[], _Whole | None]] | AnyPacket] = deque()
        frames = 0
        for item in items:
            under_way.append((item, begin(item)) if isinstance(item, Ready) else item)
            frames += isinstance(item, Ready)
            while under_way and (frames > beside_next or not isinstance(under_way[0], tuple)):
                frames -= isinstance(under_way[0], tuple)
                yield self._arrived(under_way.popleft())
        while under_way:
            yield self._arrived(under_way.popleft())

    @torch.inference_mode()
    def _arrived(self, item: "tuple[Ready, Callable[[], _Whole | None]] | AnyPacket") -> Made | AnyPacket:
        """Return what became of a frame; if it did not go whole, or broke, the careful way: tiles, and fp32 at last."""
        if not isinstance(item, tuple):
            return item
        one, wait = item
        whole = wait()
        if whole is None or not _is_finite(whole.total):
            whole = self._completed(one, self._enhancer.enhance_tensor(one.image))
        cells = None if one.cells is None or whole.cells is None else (one.cells, whole.cells.get())
        return Made(one.frame, whole.result, cells, whole.moment)

    def _begun(self, one: Ready) -> "Callable[[], _Whole | None]":
        whole = self._whole(one)
        return lambda: whole

    @torch.inference_mode()
    def _whole(self, one: Ready) -> "_Whole | None":
        """Enhance a frame in one piece; None where that is too large, from then on always."""
        image = used_here(one.image)
        if self._careful or one.enhance is None:
            return None
        try:
            return self._completed(one, one.enhance(image))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._careful, self._buffers = True, Buffers()
            return None

    def _completed(self, one: Ready, result: Tensor) -> "_Whole":
        total = Fetched(result.sum())
        tone = self._settings.tone
        toned = result if tone == Tone() else apply_tone(one.image, result, tone)
        cells = Fetched(light_cells(toned)) if self._settings.stabilize else None
        held = self._held(toned, total, like=one.frame.pixels)
        return _Whole(held, total, cells, moment_of(toned.device))

    def _held(self, result: Tensor, total: Fetched, *, like: Pixels) -> Tensor:
        """Return a result in the form in which it waits: for those after it, or as pixels to be written."""
        # Where memory is short the look-ahead holds half of it, in steps that are still finer than 10 bits.
        if self._careful and self._settings.stabilize:
            return result.half()
        if result.device.type != "cpu":
            return result
        if self._settings.stabilize or not _is_finite(total):  # which is no pixel, and will be done again
            return _copied(result, self._buffers)
        return torch.from_numpy(pixels_of(result, like=like, buffers=self._buffers))


class _Whole(NamedTuple):
    """A frame that is enhanced, or soon will be."""

    result: Tensor
    total: Fetched  # what is not a number shows in it; infinities are none either once `bounded`
    cells: Fetched | None
    moment: torch.cuda.Event | None


def _is_finite(total: Fetched) -> bool:
    return math.isfinite(total.get().item())


class Calm:
    """Holds frames until those after them are known, and gives them back with their light corrected.

    Runs between network and encoder. `strength` is that of the correction; 0 lets frames through as they are.
    """

    def __init__(self, strength: float, device: torch.device) -> None:
        self._strength = strength
        self._buffers = Buffers()
        self._stream = own_stream(device, "filter")
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
            yield made.frame, self._pixels(made, None)
            return
        self._before = compare_light(*made.cells, self._before)
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
        return made.frame, self._pixels(made, log_gain)

    def _pixels(self, made: Made, log_gain: Cells | None) -> Pixels:
        if not made.result.is_floating_point():
            return made.result.numpy()
        with self._stream as stream:
            stream.after(made.moment)
            result = made.result if log_gain is None else apply_correction(made.result, log_gain)
            return pixels_of(result, like=made.frame.pixels, buffers=self._buffers)


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


def floats(pixels: Pixels, device: torch.device, buffers: Buffers | None = None) -> Tensor:
    """Return pixels `(3, H, W)` as floats `(1, 3, H, W)` in [0, 1] on a device."""
    # Integers travel to a GPU, a quarter of the bytes.
    moved = torch.from_numpy(pixels).to(device)[None]
    fresh = moved.to(torch.float32) if buffers is None else _copied(moved, buffers)
    return fresh.mul_(1 / np.iinfo(pixels.dtype).max)


def _copied(tensor: Tensor, buffers: Buffers) -> Tensor:
    """Return a copy in float32, on a CPU in one of the buffers: it will be let go of by another thread."""
    if tensor.device.type != "cpu":
        return tensor.to(torch.float32, copy=True)
    return torch.from_numpy(buffers.empty(tuple(tensor.shape), np.float32)).copy_(tensor)


def pixels_of(result: Tensor, *, like: Pixels, buffers: Buffers) -> Pixels:
    """Return floats `(1, 3, H, W)` in [0, 1] as pixels `(3, H, W)` of the depth of `like`, rounded."""
    picture = result[0].float()  # what waits may be halved
    half, most = picture.new_full((), 0.5), np.iinfo(like.dtype).max
    room = torch.from_numpy(buffers.empty(tuple(picture.shape), np.float32)) if picture.device.type == "cpu" else None
    scaled = torch.add(half, picture, alpha=most, out=room)
    if scaled.device.type != "cpu":  # integers travel back, too, plane by plane: here that order costs three times more
        kind = torch.uint8 if like.dtype == np.uint8 else torch.int32
        scaled = scaled.to(kind, memory_format=torch.contiguous_format)
    pixels = buffers.empty(tuple(scaled.shape), like.dtype)
    np.copyto(pixels, scaled.cpu().numpy(), casting="unsafe")
    return pixels
