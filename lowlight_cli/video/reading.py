"""A clip's frames and packets, in the order in which the file holds them: nothing is kept, so length costs no memory.

Frames come as upright RGB with the moment at which they are shown; the packets of the tracks to copy come as they
are. All moments are counted from the beginning of the part that is read.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import av
from av.packet import Packet
from av.sidedata.sidedata import Type as SideData
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from lowlight_cli.errors import InputError
from lowlight_cli.video.colour import Converter, Pixels
from lowlight_cli.video.facts import ClipFacts, open_film, reason, require_pixels, side_data_of
from lowlight_cli.video.joints import Joints
from lowlight_cli.video.settings import Span
from lowlight_cli.video.siting import carrier_of

if TYPE_CHECKING:
    from av.stream import Stream

    AnyPacket = Packet[Stream]
else:
    AnyPacket = Packet  # at run time it takes no parameters

_EARLY_SECONDS = 0.5
_SECONDS_BACK = (0, 2, 10, 60)  # how far before the span's beginning a seek is tried
_LATE_SECONDS = 1  # how far past the end is read for a frame that shows that all before it have come
_MICROSECOND = Fraction(1, av.time_base)


@dataclass(frozen=True)
class ClipFrame:
    """One frame: its pixels, when it is shown and for how long, in ticks of the film's time base.

    `captions` is a small frame that carries the closed captions which lie in the film itself (ATSC A/53), if any do.
    """

    pixels: Pixels
    shown: int
    duration: int
    captions: VideoFrame | None = None


@dataclass(frozen=True)
class _Shown:
    frame: VideoFrame
    shown: int


class ClipReader:
    """An open clip. `read` may be called once; what went wrong on the way stands in `warnings` afterwards."""

    def __init__(self, facts: ClipFacts, *, span: Span = Span()) -> None:
        self.facts = facts
        self.span = span
        self.container, self.film = open_film(facts.path, most_pixels=facts.most_pixels)
        self.film.thread_type = "AUTO"
        self._index = self.film.index  # which an open file alone can tell
        self._base = self.film.time_base or facts.time_base
        # In ticks of the film, so that its first frame is at 0 though the container counts otherwise, in microseconds.
        # Both lie on ticks, however coarse they are, and all tracks count from there: so they stay in step.
        self._begins = math.floor((facts.start + _MICROSECOND) / self._base)
        self._skipped = math.ceil(span.start / self._base)
        self._zero = (self._begins + self._skipped) * self._base
        self._joints = Joints()
        self._lost = self._cut_short = 0
        self._asked = self._given = -math.inf  # the latest time among packets that were decoded, and among frames
        self._last: int | None = None
        self._converter = Converter()
        self._small = VideoReformatter()
        self._broken: str | None = None
        self._interlaced = False
        self._size = (facts.height, facts.width) if facts.turn.swaps_sides else (facts.width, facts.height)  # as stored
        self._resized = False
        self._past_end = False
        self._step = round(1 / (facts.rate * self._base)) if facts.rate and facts.rate < 240 else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def seconds(self) -> float | None:
        """How long the part to read is, as far as the container knows."""
        end = self.facts.end_of(self.span)
        return None if end is None else max(float(end - self.span.start), 0.0)

    @property
    def begins(self) -> Fraction:
        """The moment that frames and packets are counted from, in seconds from the clip's beginning."""
        return self._zero - self.facts.start

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the reading, once it is over."""
        said = []
        if self._broken:
            said.append(self._broken)
        elif self._ends_early():
            assert self._last is not None
            end, stated = float(self._last * self._base + self.span.start), float(self.facts.seconds or 0)
            said.append(f"the clip breaks off: {end:.1f} of {stated:.1f} seconds could be read")
        elif self._cut_short:
            said.append("the clip breaks off or is damaged: not all of its packets are whole")
        if self._lost:
            said.append(f"{self._lost} damaged packet{'s' if self._lost > 1 else ''} of the film could not be decoded")
        if self._joints.shift_of(self._index):
            said.append("its time begins again, as in files that were joined: each part is shown after the one before")
        if self._interlaced:
            said.append("the film is interlaced: fields are enhanced and written as whole frames; deinterlace it first")
        if self._resized:
            said.append("the film's frames change size; they are all scaled to the size of the first")
        return tuple(said)

    def read(self, copied: Collection[int] = (), *, skip: int = 0) -> Iterator[ClipFrame | AnyPacket]:
        """Yield frames and, of the tracks with the indices `copied`, packets; leave the first `skip` frames out.

        Raises InputError when not one frame can be read.
        """
        count = 0
        held: _Shown | None = None
        for item in self._shown_frames_and_packets(copied):
            if isinstance(item, Packet):
                yield item
                continue
            if held is not None:
                count += 1
                if count > skip:
                    yield self._finished(held, item.shown - held.shown)
                self._step = item.shown - held.shown
            held = item
        if held is None:
            raise InputError(self._broken or self.facts.without_the_part)
        if count + 1 > skip:
            yield self._finished(held, self._last_duration(held))

    def _shown_frames_and_packets(self, copied: Collection[int]) -> Iterator[_Shown | AnyPacket]:
        """Yield the frames of the span, each with a time after the one before, and the packets of the span."""
        self._seek()
        tracks = [self.film, *(self.container.streams[index] for index in copied)]
        running = {track.index for track in tracks if track.type in ("video", "audio")}
        end = self.span.end
        try:
            for packet in self.container.demux(tracks):
                track = packet.stream
                if end is not None and self._is_past(end, packet):
                    running.discard(track.index)
                    if not running:
                        break
                self._cut_short += packet.is_corrupt
                if track.index == self._index:
                    yield from self._in_span(self._decoded(packet))
                elif packet.size and self._moved(packet):
                    yield packet
        except (av.FFmpegError, OSError) as error:
            self._broken = f"the clip breaks off: {reason(error)}"
        yield from self._in_span(self._waiting())

    def _is_past(self, end: Fraction, packet: AnyPacket) -> bool:
        """Tell whether no packet from this one on holds anything that is shown before the end.

        What a packet holds is shown after it is decoded, so past the end in decoding order is past the end. But frames
        may wait in the decoder, so the film is read on until one comes that lies past the end.
        """
        if packet.dts is None:
            return False
        late = self._time_of(packet.dts, packet) + self._joints.shift_of(packet.stream.index) - end
        return late >= 0 and (packet.stream.index != self._index or self._past_end or late >= _LATE_SECONDS)

    def _seek(self) -> None:
        """Go to where the film can be decoded from the span's beginning on, or to the clip's.

        MPEG streams have no index: a seek lands anywhere near, and nothing is decoded up to the next key frame.
        """
        if not self.span.start:
            return
        for back in _SECONDS_BACK:
            target = int((self._zero - back) / self._base)
            try:
                self.container.seek(target, stream=self.film)
                first = self._first_time()
                if first is not None and first <= self.span.start:
                    self.container.seek(target, stream=self.film)
                    return
            except (av.FFmpegError, OSError):
                break
            if back >= self.span.start:
                break
        self.container.seek(0)

    def _first_time(self) -> Fraction | None:
        """Return the time of the first frame that is decoded from here on; this moves on."""
        for packet in self.container.demux(self.film):
            for frame in self.film.codec_context.decode(packet) if packet.size else ():
                return None if frame.pts is None else (frame.pts - self._begins) * self._base
        return None

    def _decoded(self, packet: AnyPacket) -> Iterator[VideoFrame]:
        # An empty packet marks the end, and its frames are asked for afterwards.
        if packet.size == 0 and packet.dts is None:
            return
        if packet.pts is not None and not packet.is_discard:
            self._asked = max(self._asked, packet.pts)
        try:
            yield from self.film.codec_context.decode(packet)
        except av.FFmpegError as error:
            require_pixels(self.film.codec_context, self.facts.most_pixels, error)
            self._lost += 1

    def _waiting(self) -> Iterator[VideoFrame]:
        """Yield the frames that still wait in the decoder.

        Asked for all of them at once it drops those behind a damaged one, often without a word. So if the last that it
        gave lies before the last that it got, the rest is decoded again, packet by packet.
        """
        with suppress(av.FFmpegError):
            yield from self.film.codec_context.decode(None)
        if self._given < self._asked and not self._past_end:
            # Threads tell of a damaged packet late or never, so of the same ones some were counted and some were not.
            before, self._lost = self._lost, 0
            with suppress(av.FFmpegError, OSError):  # it has no index, or the rest is damaged as well
                yield from self._decoded_again(self._given)
            self._lost = max(before, self._lost, self._given < self._asked)

    def _decoded_again(self, last: float) -> Iterator[VideoFrame]:
        """Yield the frames that are shown after the time `last`, in ticks of the file."""
        container, film = open_film(self.facts.path, most_pixels=self.facts.most_pixels)
        with container:
            film.codec_context.thread_count = 1
            container.seek(max(int(last), 0) if math.isfinite(last) else 0, stream=film)
            for packet in container.demux(film):
                try:
                    frames = film.codec_context.decode(packet)
                except av.FFmpegError as error:
                    require_pixels(film.codec_context, self.facts.most_pixels, error)
                    self._lost += packet.pts is None or packet.pts > last
                    continue
                yield from (frame for frame in frames if frame.pts is not None and frame.pts > last)

    def _in_span(self, frames: Iterator[VideoFrame]) -> Iterator[_Shown]:
        for frame in frames:
            ticks = frame.pts if frame.pts is not None else frame.dts
            self._given = max(self._given, -math.inf if ticks is None else ticks)
            if ticks is None:
                shown = (self._last or 0) + max(self._step, 1)
                time = shown * self._base + self.span.start
            else:
                time = (ticks - self._begins) * self._base
                time += self._joints.shift(self._index, time, step=self._step * self._base)
                shown = round(time / self._base) - self._skipped
            if self.span.end is not None and time >= self.span.end:
                self._past_end = True
                continue
            if time < self.span.start:
                continue
            if self._last is not None and shown <= self._last:
                shown = self._last + 1  # time stands still or runs backwards in damaged files
            self._last = shown
            self._interlaced |= frame.interlaced_frame
            if (frame.width, frame.height) != self._size:
                require_pixels(frame, self.facts.most_pixels)
                self._resized = True
            yield _Shown(frame, shown)

    def _time_of(self, ticks: int, packet: AnyPacket) -> Fraction:
        """Return a packet's time in seconds from the beginning of the clip."""
        return ticks * packet.time_base - self.facts.start

    def _moved(self, packet: AnyPacket) -> bool:
        """Count a copied packet's time from the beginning of the span; tell whether it belongs to the span."""
        base = packet.time_base
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:  # a cover picture belongs to every part, and to no time
            packet.pts = packet.dts = 0
            return bool(packet.stream.disposition & Disposition.attached_pic)
        time = self._time_of(ticks, packet)
        if packet.stream.type in ("audio", "video"):
            running = time if packet.dts is None else self._time_of(packet.dts, packet)
            shift = self._joints.shift(packet.stream.index, running, step=(packet.duration or 0) * base)
        else:  # they come too seldom to tell
            shift = self._joints.shift_of(self._index)
        time += shift
        if packet.stream.type == "subtitle" and packet.duration:
            return self._cut(packet, time)
        first, end = self._skipped * self._base, self.span.end
        if (self.span.start and time < first) or (end is not None and time >= end):
            return False
        zero = round((self._zero - shift) / base)
        if packet.pts is not None:
            packet.pts -= zero
        if packet.dts is not None:
            packet.dts -= zero
        return True

    def _cut(self, packet: AnyPacket, time: Fraction) -> bool:
        """Cut what is shown from `time` on to the span; tell whether anything is left."""
        base, start, end = packet.time_base, self.span.start, self.span.end
        first, last = max(time, start), time + (packet.duration or 0) * base
        last = last if end is None else min(last, end)
        packet.pts = packet.dts = round((first - start) / base)
        packet.duration = round((last - first) / base)
        return last > first

    def _finished(self, item: _Shown, duration: int) -> ClipFrame:
        facts = self.facts
        pixels = self._converter.upright_rgb(item.frame, facts.colour, facts.turn, depth=facts.depth)
        # PyAV ties a frame whose side data is asked for to itself, until garbage is collected; meanwhile the decoder
        # takes new memory, which it keeps. So a small one is asked that carries the same.
        carrier = carrier_of(item.frame, self._small)
        captioned = SideData.A53_CC in (side_data_of(carrier) or ())
        return ClipFrame(pixels, item.shown, duration, carrier if captioned else None)

    def _last_duration(self, last: _Shown) -> int:
        """Nothing follows the last frame: believe its own duration if it is like the others'."""
        own = last.frame.duration
        if not self._step and self.facts.seconds:  # the only frame
            return max(1, round((self.facts.seconds - self.span.start) / self._base) - last.shown)
        usual = self._step or own or 1
        return own if own and usual / 4 <= own <= usual * 4 else usual

    def _ends_early(self) -> bool:
        if self._last is None or self.facts.seconds is None or self.span.end is not None:
            return False
        if not self._step:
            return False
        end = (self._last + 2 * self._step) * self._base + self.span.start
        return float(self.facts.seconds - end) > _EARLY_SECONDS


def frame_at(facts: ClipFacts, moment: Fraction, *, end: Fraction | None = None) -> tuple[Fraction, ClipFrame]:
    """Return the first frame at a moment or after it, but before `end`, and its own moment.

    Moments are seconds from the clip's beginning. Raises InputError if there is no such frame.
    """
    with ClipReader(facts, span=Span(moment, end)) as reader:
        frame = next(item for item in reader.read() if isinstance(item, ClipFrame))
        return reader.begins + frame.shown * facts.time_base, frame


def frames_around(facts: ClipFacts, span: Span, *, count: int) -> Iterator[ClipFrame]:
    """Yield up to `count` frames at even distances over a part of a clip, the first one first; none if it has none."""
    end = facts.end_of(span)
    moments = [span.start]
    if end is not None and end > span.start:
        moments = [span.start + (end - span.start) * Fraction(place, count) for place in range(count)]
    for moment in moments:
        with suppress(InputError):  # a clip may end before its time
            yield frame_at(facts, moment, end=span.end)[1]
