"""Enhance clips: reading, computing and writing overlap; memory does not grow with length; light stays calm.

A clip goes through as a stream of items in the order of its file. Frames are turned to floats, enhanced, held for a
short look-ahead, steadied and encoded; packets of sound and subtitles pass them by, and the container's writer puts
everything in order again.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lowlight_cli.atomic import atomic_path, preserve_times
from lowlight_cli.device import is_out_of_memory
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.errors import InputError, LowlightError, OutputError, SettingsError
from lowlight_cli.paths import Job
from lowlight_cli.results import Failure, FileResult, name_of
from lowlight_cli.settings import Metadata, Tone
from lowlight_cli.sheet import Cell, write_sheet
from lowlight_cli.stabilize import LOOK_AHEAD, LOOK_BACK, Light, apply_correction, correction, measure_light
from lowlight_cli.tone import apply_tone
from lowlight_cli.video import CLIPS, Film, Span
from lowlight_cli.video.encoders import named_encoder, plan_film
from lowlight_cli.video.facts import MOST_PIXELS, ClipFacts, probe_clip
from lowlight_cli.video.flow import Ahead, Behind
from lowlight_cli.video.reading import AnyPacket, ClipFrame, ClipReader, Pixels
from lowlight_cli.video.segments import SEGMENT_FRAMES, SegmentStore, State
from lowlight_cli.video.writing import ClipWriter, verify_clip

_BYTES_AHEAD = 256 << 20  # decoded frames that wait on either side of the network
_FILM, _WHOLE = Film(), Span()
_THUMBNAIL = 320  # long side of a contact sheet's pictures, in pixels


@dataclass(frozen=True)
class ClipSettings:
    """How clips are done, beyond what the model does: see the options of `lowlight video`.

    `stabilize` is the strength of the anti-flicker filter, 0 for none. `contact_sheet` is the number of frames shown
    before and after in a picture beside the result, 0 for no such picture.
    """

    tone: Tone = Tone()
    film: Film = _FILM
    span: Span = _WHOLE
    metadata: Metadata = "keep"
    stabilize: float = 1.0
    side_by_side: bool = False
    contact_sheet: int = 0
    frames_per_batch: int = 1
    resume: bool = False
    overwrite: bool = False
    preserve_times: bool = False
    fail_fast: bool = False
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        if not 0 <= self.stabilize <= 1:
            raise SettingsError("--stabilize-strength lies between 0 and 1")
        if not 1 <= self.frames_per_batch <= 64:
            raise SettingsError("--frames-per-batch lies between 1 and 64")
        if not 0 <= self.contact_sheet <= 100:
            raise SettingsError("--contact-sheet lies between 1 and 100")


@dataclass(frozen=True)
class ClipProgress:
    """How far a clip is: frames done of about `total` (None if nobody knows), and at which pace."""

    input: str
    done: int
    total: int | None
    frames_per_second: float
    seconds_left: float | None


@dataclass(frozen=True)
class ClipResult(FileResult):
    """What became of one clip: a file's result, and what only clips have.

    `duration` is the result's length in seconds, `frames` how many it has, `resumed_at` how many of them an earlier
    run had made.
    """

    frames: int = 0
    duration: float = 0.0
    frames_per_second: float = 0.0
    resumed_at: int = 0
    codec: str | None = None


def check_film(film: Film) -> None:
    """Refuse, before any work, a codec that is not there; raises SettingsError."""
    if film.codec is not None:
        named_encoder(film.codec)


def enhance_clips(
    jobs: Sequence[Job], enhancer: Enhancer, settings: ClipSettings
) -> Generator[ClipProgress | ClipResult]:
    """Do the clips in order; yield progress, and a result for each; with `fail_fast` stop after the first failure.

    Raises SettingsError for an encoder's option that cannot be meant, for it would fail every clip.
    """
    for job in jobs:
        assert job.input is not None
        assert job.output is not None
        blank = ClipResult(name_of(job.input), name_of(job.output), "failed")
        started = time.perf_counter()
        try:
            work = _ClipWork(job.input, job.output, enhancer, settings)
            yield from work.run()
            result = work.result(blank, seconds=time.perf_counter() - started)
        except SettingsError:
            raise
        except LowlightError as error:
            seconds = round(time.perf_counter() - started, 3)
            result = replace(blank, error=Failure(error.code, str(error)), seconds=seconds)
        yield result
        if settings.fail_fast and result.status == "failed":
            return


@dataclass(frozen=True)
class _Made:
    """A frame on its way: as decoded, and as floats `(1, 3, H, W)` in [0, 1] on the device."""

    frame: ClipFrame
    result: Tensor
    light: Light | None = None


class _ClipWork:
    """The way of one clip through reader, network, filter and writer."""

    def __init__(self, source: Path, target: Path, enhancer: Enhancer, settings: ClipSettings) -> None:
        self._source, self._target = source, target
        self._enhancer, self._settings = enhancer, settings
        self._facts = probe_clip(source, most_pixels=settings.most_pixels)
        self._careful = enhancer.tile_size(self._facts.height, self._facts.width) != 0
        self._container = CLIPS.format_of(target.suffix) or "mkv"
        self._store = SegmentStore(target, _fingerprint(self._facts, enhancer, settings)) if settings.resume else None
        self._done = self._resumed_at = 0
        self._end = 0
        self._past: deque[Light] = deque(maxlen=LOOK_BACK)
        self._before: Light | None = None
        self._sheet: list[list[Cell]] = []
        self._warnings: list[str] = []
        self._codec = ""

    def run(self) -> Iterator[ClipProgress]:
        """Do the work and tell how far it is; the result is in place, complete, when the last word is said."""
        settings = self._settings
        with ExitStack() as stack:
            reader = stack.enter_context(ClipReader(self._facts, span=settings.span))
            part = stack.enter_context(_part_of(self._target, overwrite=settings.overwrite))
            width = self._facts.width * (2 if settings.side_by_side else 1)
            film = plan_film(self._facts, settings.film, self._container, width=width, height=self._facts.height)
            self._codec = film.encoder
            writer = ClipWriter(part, self._container, reader, film, metadata=settings.metadata)
            stack.callback(writer.abandon)
            yield from self._stream(reader, writer)
            end = self._end * self._facts.time_base
            verify_clip(part, film=writer.film_number, packets=writer.packets, seconds=end)
            self._warnings += [*reader.warnings, *writer.tracks.warnings]
        if self._facts.has_alpha:
            self._warnings.append("transparency has no place in the result and is left out")
        self._finish()

    def result(self, blank: ClipResult, *, seconds: float) -> ClipResult:
        """Return what became of the clip after `run`."""
        enhancer, computed = self._enhancer, self._done - self._resumed_at
        return replace(
            blank,
            status="done",
            seconds=round(seconds, 3),
            frames=self._done,
            duration=round(float(self._end * self._facts.time_base), 3),
            frames_per_second=round(computed / seconds, 2) if seconds else 0.0,
            resumed_at=self._resumed_at,
            width=self._facts.width,
            height=self._facts.height,
            codec=self._codec,
            model=enhancer.model,
            device=str(enhancer.device),
            precision=enhancer.precision,
            tile=enhancer.tile_size(self._facts.height, self._facts.width),
            warnings=tuple(self._warnings),
        )

    def _finish(self) -> None:
        settings = self._settings
        if self._sheet:
            path = self._target.with_name(f"{self._target.stem}_sheet.png")
            write_sheet(path, self._sheet, overwrite=settings.overwrite)
        if settings.preserve_times:
            preserve_times(self._source, self._target)
        if self._store:
            self._store.remove()

    def _stream(self, reader: ClipReader, writer: ClipWriter) -> Iterator[ClipProgress]:
        self._take_over_segments(writer)
        room = max(2, min(16, _BYTES_AHEAD // (self._facts.width * self._facts.height * 6)))
        room += self._settings.frames_per_batch
        items = reader.read(writer.tracks.copied, skip=self._done)
        pace = _Pace(self._done, reader.seconds)
        with Ahead(items, room=room) as ahead, Behind(room=room) as behind:
            for item in self._steadied(self._made(ahead)):
                if isinstance(item, _Made):
                    self._encode(item, writer, behind)
                    yield pace.progress(name_of(self._source), self._done, float(self._end * self._facts.time_base))
                else:
                    behind.do(lambda packet=item: writer.add_packet(packet))  # type: ignore[misc]
            behind.do(writer.close)
            behind.finish()

    def _take_over_segments(self, writer: ClipWriter) -> None:
        """Write what an earlier run left finished, and begin where it ends."""
        if not self._store:
            return
        self._store.prepare()
        for index in range(self._store.finished()):
            segment, state = self._store.load(index)
            writer.add_segment(segment)
            self._done += segment.frames
            self._past = deque(_lights_of(state), maxlen=LOOK_BACK)
            self._before = self._past[-1] if self._past else None
            self._end = max(shown + duration for shown, _, duration in segment.times)
        self._resumed_at = self._done

    @torch.inference_mode()
    def _enhanced(self, frames: Sequence[ClipFrame]) -> list[_Made]:
        """Enhance a batch: all go to the device, and are computed, before anything is waited for."""
        enhancer, tone = self._enhancer, self._settings.tone
        images = [_floats(frame.pixels, enhancer.device) for frame in frames]
        results = [self._brightened(image) for image in images]
        # What is not a number shows in the sum, in one pass; infinities are none either once `bounded`.
        if not self._careful and not all(bool(result.sum().isfinite()) for result in results):
            results = [enhancer.enhance_tensor(image) for image in images]
        made = []
        for frame, image, result in zip(frames, images, results, strict=True):
            toned = result if tone == Tone() else apply_tone(image, result, tone)
            light = None
            if self._settings.stabilize:
                light = self._before = measure_light(image, toned, self._before)
            # Half precision is half the memory of the look-ahead, and finer than the steps of 10 bits.
            made.append(_Made(frame, toned.half() if light else toned, light))
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

    def _made(self, items: Iterable[ClipFrame | AnyPacket]) -> Iterator[_Made | AnyPacket]:
        batch: list[ClipFrame] = []
        for item in items:
            if not isinstance(item, ClipFrame):
                yield item
                continue
            batch.append(item)
            if len(batch) == self._settings.frames_per_batch:
                yield from self._enhanced(batch)
                batch.clear()
        if batch:
            yield from self._enhanced(batch)

    def _steadied(self, items: Iterator[_Made | AnyPacket]) -> Iterator[_Made | AnyPacket]:
        """Hold each frame until those after it are known, and correct its light."""
        held: deque[_Made] = deque()
        for item in items:
            if not isinstance(item, _Made) or item.light is None:
                yield item
                continue
            held.append(item)
            if len(held) > LOOK_AHEAD:
                yield self._corrected(held)
        while held:
            yield self._corrected(held)

    @torch.inference_mode()
    def _corrected(self, held: deque[_Made]) -> _Made:
        lights = [*self._past, *(made.light for made in held if made.light)]
        log_gain = correction(lights, len(self._past), strength=self._settings.stabilize)
        made = held.popleft()
        assert made.light is not None
        self._past.append(made.light)
        return replace(made, result=apply_correction(made.result, log_gain))

    def _encode(self, made: _Made, writer: ClipWriter, behind: Behind) -> None:
        """Hand a finished frame to the writer; a full segment is ended, and kept if the run may go on from it."""
        frame = made.frame
        pixels = _pixels(made.result, like=frame.pixels)
        self._show(frame, pixels)
        if self._settings.side_by_side:
            pixels = cast(Pixels, np.concatenate((frame.pixels, pixels), axis=1))
        done = replace(frame, pixels=pixels)
        behind.do(lambda: writer.add_frame(done))
        self._done += 1
        self._end = frame.shown + frame.duration
        if self._done % SEGMENT_FRAMES == 0:
            state = _state_of(self._past)
            index = self._done // SEGMENT_FRAMES - 1
            behind.do(lambda: self._end_segment(writer, index, state))

    def _end_segment(self, writer: ClipWriter, index: int, state: State) -> None:
        segment = writer.end_segment()
        if self._store:
            self._store.save(index, segment, state)

    def _show(self, frame: ClipFrame, pixels: Pixels) -> None:
        """Take a frame into the contact sheet when its turn has come."""
        count, seconds = self._settings.contact_sheet, self._facts.seconds
        length = min(filter(None, (seconds, self._settings.span.end)), default=Fraction(1)) - self._settings.span.start
        moment = frame.shown * self._facts.time_base
        if len(self._sheet) < count and moment >= length * Fraction(2 * len(self._sheet) + 1, 2 * count):
            label = f"{float(moment + self._settings.span.start):.2f} s"
            before, after = (_thumbnail(one) for one in (frame.pixels, pixels))
            self._sheet.append([Cell(before, f"{label}, before"), Cell(after, f"{label}, after")])


class _Pace:
    """Counts frames against the clock and the clip's length; many containers do not say how many frames they hold."""

    def __init__(self, done_before: int, seconds: float | None) -> None:
        self._done_before, self._seconds = done_before, seconds
        self._started = time.perf_counter()

    def progress(self, name: str, done: int, moment: float) -> ClipProgress:
        """Return the progress after `done` frames, the last of which ends at `moment` seconds."""
        passed = max(time.perf_counter() - self._started, 1e-6)
        pace = (done - self._done_before) / passed
        if not self._seconds or moment <= 0:
            return ClipProgress(name, done, None, pace, None)
        total = max(done, round(done * self._seconds / moment))
        return ClipProgress(name, done, total, pace, (total - done) / pace)


@contextmanager
def _part_of(target: Path, *, overwrite: bool) -> Iterator[Path]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {name_of(target.parent)}: {error.strerror or error}") from error
    with atomic_path(target, overwrite=overwrite) as part:
        yield part


def _fingerprint(facts: ClipFacts, enhancer: Enhancer, settings: ClipSettings) -> str:
    """Name everything that the encoded frames depend on."""
    try:
        found = facts.path.stat()
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or error}") from error
    tile = enhancer.tile_size(facts.height, facts.width)
    chosen = (settings.tone, settings.film, settings.span, settings.stabilize, settings.side_by_side)
    computed = (enhancer.model, enhancer.precision, str(enhancer.device), tile)
    return repr((str(facts.path.absolute()), found.st_size, found.st_mtime_ns, chosen, computed))


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


def _floats(pixels: Pixels, device: torch.device) -> Tensor:
    """Return pixels `(H, W, 3)` as floats `(1, 3, H, W)` in [0, 1] on a device."""
    # Integers travel to a GPU, a quarter of the bytes.
    moved = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
    return moved.to(torch.float32, memory_format=torch.contiguous_format).div_(np.iinfo(pixels.dtype).max)


def _pixels(result: Tensor, *, like: Pixels) -> Pixels:
    """Return floats `(1, 3, H, W)` in [0, 1] as pixels `(H, W, 3)` of the depth of `like`, rounded."""
    scaled = result[0].permute(1, 2, 0).float().mul(np.iinfo(like.dtype).max).round_()
    if like.dtype == np.uint8:
        eight: NDArray[np.uint8] = scaled.to(torch.uint8).contiguous().cpu().numpy()
        return eight
    return scaled.to(torch.int32).contiguous().cpu().numpy().astype(np.uint16)


def _thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    scale = min(1.0, _THUMBNAIL / max(pixels.shape[:2]))
    size = max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale))
    small = F.interpolate(_floats(pixels, torch.device("cpu")), size=size, mode="area")
    eight: NDArray[np.uint8] = (small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return eight
