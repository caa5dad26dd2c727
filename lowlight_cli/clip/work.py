"""One clip's way through reader, network, filter and writer.

A clip goes through as a stream of items in the order of its file. Frames are turned to floats, enhanced, held for a
short look-ahead, steadied and encoded; packets of sound and subtitles pass them by, and the container's writer puts
everything in order again.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from av.video.frame import VideoFrame

from lowlight_cli import __version__
from lowlight_cli.atomic import atomic_path, preserve_times, remove_parts
from lowlight_cli.bars import Box, within_bars
from lowlight_cli.clip.contact import ContactSheet
from lowlight_cli.clip.covers import cleaned_cover
from lowlight_cli.clip.frames import Calm, Frames, Made, compute_alone
from lowlight_cli.clip.results import ClipProgress, ClipResult
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.errors import InputError, OutputError
from lowlight_cli.machine import Growth, reuse_large_buffers
from lowlight_cli.paths import variant_path
from lowlight_cli.results import name_of
from lowlight_cli.video import CLIPS, ClipSettings, Span
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.encoders import LOSSLESS, TELLING_THEIR_SHAPE, FilmPlan, plan_film
from lowlight_cli.video.facts import ClipFacts
from lowlight_cli.video.flow import BackgroundCalls, InlineCalls, Prefetcher
from lowlight_cli.video.reading import ClipFrame, ClipReader, frames_around
from lowlight_cli.video.segments import SEGMENT_FRAMES, SegmentStore, State, remove_segments
from lowlight_cli.video.writing import ClipWriter, verify_clip

_BYTES_AHEAD = 256 << 20  # of frames that wait on either side of the network
_MOST_GROWTH, _LOOK_EVERY = 16 << 20, 40  # bytes, frames
_MOST_AHEAD = 4  # frames; with 16 nothing goes faster
_LOOKS = 8  # frames that are searched for bars, if the first has any
_BYTES_PER_PIXEL = 3 * 4 + 3 * 2  # as floats, and as decoded at most


class ClipWork:
    """The way of one clip through reader, network, filter and writer."""

    def __init__(self, facts: ClipFacts, target: Path, enhancer: Enhancer, settings: ClipSettings) -> None:
        self._facts, self._source, self._target = facts, facts.path, target
        steadiness = settings.stabilize
        if steadiness is None:
            steadiness = 1.0 if enhancer.info.needs_weights else 0.0
        settings = replace(settings, stabilize=steadiness)
        self._enhancer, self._settings = enhancer, settings
        self._tile = enhancer.tile_size(facts.height, facts.width)
        at_once = enhancer.at_once(facts.height, facts.width)
        self._box = _within_bars(facts, settings.span) if enhancer.info.needs_weights else None
        self._frames = Frames(enhancer, settings, careful=self._tile != 0, at_once=at_once, box=self._box)
        self._calm = Calm(steadiness, enhancer.device)
        self._container = CLIPS.format_of(target.suffix) or "mkv"
        self._store = (
            SegmentStore(target, _fingerprint(facts, enhancer, settings, self._box)) if settings.resume else None
        )
        self._done = self._steadied = self._resumed_at = 0
        self._end = self._last = 0  # in ticks: when the last frame is over, and how long it is shown
        self._growth = Growth(_MOST_GROWTH)
        self._sheet = self._planned_sheet() if settings.contact_sheet else None

    def run(self, blank: ClipResult, *, started: float) -> Generator[ClipProgress, None, ClipResult]:
        """Do the work and tell how far it is; the generator's own result is `blank`, filled in when all is in place.

        `started` is when the work on this clip began, by `time.perf_counter`.
        """
        settings = self._settings
        reuse_large_buffers()
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch.get_num_threads())  # what threads that begin later will have
            reader = stack.enter_context(ClipReader(self._facts, span=settings.span))
            if self._store:
                is_resumed = self._store.is_there
                stack.enter_context(self._store.held())
                if is_resumed:
                    remove_parts(self._target)  # of the killed run
            part = stack.enter_context(atomic_path(self._target, overwrite=settings.overwrite))
            width = self._facts.width * (2 if settings.side_by_side else 1)
            film = plan_film(self._facts, settings.film, self._container, width=width, height=self._facts.height)
            clean = partial(cleaned_cover, metadata=settings.metadata, most_pixels=settings.most_pixels)
            writer = ClipWriter(part, self._container, reader, film, metadata=settings.metadata, clean=clean)
            stack.callback(writer.abandon)
            yield from self._stream(reader, writer)
            end, last = (ticks * self._facts.time_base for ticks in (self._end, self._last))
            verify_clip(part, film=writer.film_number, packets=writer.packets, seconds=end, last=last)
        self._finish()
        warnings = (*reader.warnings, *writer.warnings, *self._left_out(film))
        enhancer, seconds = self._enhancer, time.perf_counter() - started
        return replace(
            blank,
            status="done",
            seconds=round(seconds, 3),
            frames=self._done,
            duration=round(float(self._end * self._facts.time_base), 3),
            frames_per_second=round((self._done - self._resumed_at) / seconds, 2) if seconds else 0.0,
            resumed_at=self._resumed_at,
            width=self._facts.width,
            height=self._facts.height,
            codec=film.encoder,
            sheet=name_of(self._sheet.path) if self._sheet and not self._sheet.is_empty else None,
            model=enhancer.model,
            device=str(enhancer.device),
            precision=enhancer.precision,
            tile=self._tile,
            warnings=warnings,
        )

    def _planned_sheet(self) -> ContactSheet:
        settings, path = self._settings, variant_path(self._target, "sheet")
        if path.exists() and not settings.overwrite:
            raise OutputError(f"{path} exists already; use --overwrite to replace it")
        end = self._facts.end_of(settings.span)
        start = settings.span.start
        return ContactSheet(path, settings.contact_sheet, length=None if end is None else end - start, start=start)

    def _finish(self) -> None:
        settings = self._settings
        if self._sheet and not self._sheet.is_empty:
            self._sheet.write(overwrite=settings.overwrite)
        if settings.preserve_times:
            preserve_times(self._source, self._target)
        remove_segments(self._target)

    def _left_out(self, film: FilmPlan) -> Iterator[str]:
        """Tell what of the clip the result does not have."""
        if film.pixel_aspect != 1 and film.encoder not in TELLING_THEIR_SHAPE and self._container in ("webm", "mkv"):
            yield (
                f"its pixels are not square, and {self._container} with {film.encoder} is written without saying so; "
                "--codec h264 or --format mp4 keeps their shape"
            )
        if self._settings.film.codec is None and (kept := LOSSLESS.get(self._facts.codec)):
            yield f"its {self._facts.codec} becomes {film.encoder}, which loses some of it; see {kept}"
        if self._facts.has_alpha:
            yield "transparency has no place in the result and is left out"
        if self._sheet and self._sheet.is_late:
            yield "the contact sheet begins where an earlier run ended"

    def _stream(self, reader: ClipReader, writer: ClipWriter) -> Iterator[ClipProgress]:
        self._take_over_segments(writer)
        if self._resumed_at:
            yield ClipProgress(name_of(self._source), self._resumed_at, None, 0.0, "resumed")
        room = max(2, min(_MOST_AHEAD, _BYTES_AHEAD // (self._facts.width * self._facts.height * _BYTES_PER_PIXEL)))
        items = self._frames.ready(reader.read(writer.tracks.copied, skip=self._done))
        pace = _Pace(self._done, reader.seconds)
        with (
            Prefetcher(items, room=room) as ahead,
            BackgroundCalls(room=room) as encoding,
            self._beside_network(room) as steadying,
        ):
            encoding.do(compute_alone)
            if not self._enhancer.info.needs_weights:
                compute_alone()
            for item in self._frames.made(ahead):
                if isinstance(item, Made):
                    steadying.do(partial(self._steady, item, writer, encoding))
                    self._done += 1
                    self._last = item.frame.duration
                    self._end = item.frame.shown + self._last
                    yield pace.progress(name_of(self._source), self._done, float(self._end * self._facts.time_base))
                else:
                    steadying.do(partial(encoding.do, partial(writer.add_packet, item)))
            steadying.do(partial(self._steady, None, writer, encoding))
            steadying.finish()
            encoding.do(writer.close)
            encoding.finish()

    def _beside_network(self, room: int) -> InlineCalls | BackgroundCalls:
        """Return what corrects the light, or, where a CPU has made pixels of a frame already, hands them on."""
        if self._enhancer.device.type == "cpu" and not self._settings.stabilize:
            return InlineCalls()
        steadying = BackgroundCalls(room=room)
        steadying.do(compute_alone)
        return steadying

    def _take_over_segments(self, writer: ClipWriter) -> None:
        """Write what an earlier run left finished, and begin where it ends."""
        if not self._store:
            return
        self._store.prepare()
        for index in range(self._store.finished()):
            segment, state = self._store.load(index)
            writer.add_segment(segment)
            self._done += segment.frames
            self._calm.state = state
            self._end = max(shown + duration for shown, _, duration in segment.times)
        self._steadied = self._resumed_at = self._done
        if self._sheet and self._done:
            self._sheet.resume()

    def _steady(self, made: Made | None, writer: ClipWriter, encoding: BackgroundCalls) -> None:
        """Hand on the frames that the next one, or None for the end, completes; a full segment is ended with them."""
        for frame, pixels in self._calm.rest() if made is None else self._calm.add(made):
            encoding.do(partial(writer.add_frame, self._encodable(frame, pixels, writer)))
            self._steadied += 1
            if self._steadied % _LOOK_EVERY == 0 and self._steadied > SEGMENT_FRAMES:  # by when all is at work
                encoding.do(self._growth.look)
            if self._steadied % SEGMENT_FRAMES == 0:
                index = self._steadied // SEGMENT_FRAMES - 1
                encoding.do(partial(self._end_segment, index, self._calm.state, writer))

    def _encodable(self, frame: ClipFrame, pixels: Pixels, writer: ClipWriter) -> VideoFrame:
        if self._box:
            whole = frame.pixels.copy()
            whole[:, *self._box] = pixels
            pixels = whole
        if self._sheet:
            self._sheet.see(frame.shown * self._facts.time_base, frame.pixels, pixels)
        if self._settings.side_by_side:
            pixels = cast(Pixels, np.concatenate((frame.pixels, pixels), axis=2))
        return writer.encodable(replace(frame, pixels=pixels))

    def _end_segment(self, index: int, state: State, writer: ClipWriter) -> None:
        """End a segment, and keep it if a run may go on from it."""
        segment = writer.end_segment()
        self._growth.look()
        if self._store:
            self._store.save(index, segment, state)


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
            return ClipProgress(name, done, None, pace)
        return ClipProgress(name, done, max(done, round(done * self._seconds / moment)), pace)


def _within_bars(facts: ClipFacts, span: Span) -> Box | None:
    return within_bars(frame.pixels.transpose(1, 2, 0) for frame in frames_around(facts, span, count=_LOOKS))


def _fingerprint(facts: ClipFacts, enhancer: Enhancer, settings: ClipSettings, box: Box | None) -> str:
    """Name everything that the encoded frames depend on."""
    try:
        found = facts.path.stat()
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror or error}") from error
    tile = enhancer.tile_size(facts.height, facts.width)
    one_core_each = not tile and enhancer.at_once(facts.height, facts.width) > 1  # how many frames, memory decides
    chosen = (settings.tone, settings.film, settings.span, settings.stabilize, settings.side_by_side, box)
    tiled = (tile, enhancer.tiling.overlap if tile else 0)
    computed = (enhancer.made_of, enhancer.precision, str(enhancer.device), enhancer.compiling, tiled, one_core_each)
    return repr((__version__, str(facts.path.absolute()), found.st_size, found.st_mtime_ns, chosen, computed))
