"""Frames and packets into a new file: the film in closed segments, everything else as it was.

Errors of ffmpeg while writing become OutputError here; the caller gives a temporary name and moves it into place
after `verify_clip`.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from typing import cast

import av
from av.codec.context import CodecContext, Flags
from av.container import OutputContainer
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import AttachmentStream, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from lowlight_cli.errors import OutputError, SettingsError
from lowlight_cli.settings import Metadata
from lowlight_cli.video.colour import Converter
from lowlight_cli.video.encoders import ENCODERS, TAKING_CAPTIONS, FilmPlan, offered_formats
from lowlight_cli.video.facts import ffmpegs_name, find_films, open_clip, reason
from lowlight_cli.video.formats import MUXERS
from lowlight_cli.video.reading import AnyPacket, ClipFrame, ClipReader
from lowlight_cli.video.segments import Segment
from lowlight_cli.video.tracks import is_cover, kept_chapters, kept_tags, plan_tracks, read_cover
from lowlight_cli.video.withheld import withheld_tracks

# Bytes of a frame of AMR-NB and AMR-WB, with its head, by the type in its head (3GPP TS 26.101 and 26.201).
_AMR_BYTES = {
    "amrnb": (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1),
    "amrwb": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1),
}
_AMR_SECONDS = Fraction(1, 50)

CleanPicture = Callable[[bytes], bytes | None]
"""Takes out of a picture's file what is not wanted in the result; None where that cannot be done."""


class ClipWriter:
    """A clip being written. Not for several threads at once; `close` completes the file, `abandon` leaves it short.

    `encodable` alone may be called beside the others, by one thread: it takes a sixth of an encoder's time.

    `packets` is the number of packets of the film so far, `tracks` what became of the tracks beside it, `film_number`
    how many other films come before it in the file. `clean` is for cover pictures, where not all metadata is kept.
    """

    def __init__(
        self,
        target: Path,
        container: str,
        reader: ClipReader,
        film: FilmPlan,
        *,
        metadata: Metadata,
        clean: CleanPicture,
    ) -> None:
        if film.encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # it talks on stderr, whatever ffmpeg is told
        self._film = film
        self._converter = Converter()
        self.packets = 0
        self._last_decoded: int | None = None
        self._segment = Segment()
        self._waiting: deque[AnyPacket] = deque()
        self._last_copied: dict[int, int] = {}  # the latest decoding time of each copied track, in its own ticks
        self._moved, self._uncaptioned = 0, False
        withheld = withheld_tracks(reader.container, reader.facts, metadata)
        self._cleaned: dict[int, bytes] = {}  # cover pictures, by their tracks
        for cover in filter(is_cover, reader.container.streams if metadata != "keep" else ()):
            if content := clean(read_cover(reader.facts, cover.index)[2]):
                self._cleaned[cover.index] = content
            else:
                withheld[cover.index] = "what it says of itself cannot be taken out"
        self._encoder: VideoCodecContext
        with _write_errors():
            self._output: OutputContainer = av.open(
                ffmpegs_name(target), "w", format=MUXERS[container], container_options=_muxer_options(container, reader)
            )
        takes_equal_times = self._output.format.flags & cast(int, FormatFlags.ts_nonstrict.value)
        self._least_step = 0 if takes_equal_times else 1
        try:
            self.tracks = plan_tracks(reader.container, reader.film, self._output, withheld=withheld)
            self._targets: dict[int, Stream] = {}
            with _write_errors():
                self._stream = self._add_streams(reader, metadata)
                self._tag(reader, metadata)
                self._begin()
        except BaseException:
            self.abandon()
            raise

    def encodable(self, frame: ClipFrame) -> VideoFrame:
        """Return a frame, whose pixels have the plan's size, in the form of the encoder. Raises OutputError."""
        plan = self._film
        with _write_errors():
            made = self._converter.planar(
                frame.pixels,
                plan.pixel_format,
                matrix=plan.matrix,
                full_range=plan.colour.is_full_range,
                siting=plan.siting,
                carrier=frame.captions if plan.encoder in TAKING_CAPTIONS else None,
            )
        self._uncaptioned |= frame.captions is not None and plan.encoder not in TAKING_CAPTIONS
        made.pts, made.time_base, made.duration = frame.shown, plan.time_base, frame.duration
        return made

    def add_frame(self, frame: VideoFrame) -> None:
        """Encode a frame that was made `encodable`. Raises OutputError."""
        with _write_errors():
            self._write_waiting()
            self._keep(self._encoder.encode(frame))
        self._segment.frames += 1

    def add_packet(self, packet: AnyPacket) -> None:
        """Copy a packet of another track. Raises OutputError."""
        target = self._targets[packet.stream.index]
        with _write_errors():
            self._write_waiting(until=(packet.pts or 0) * (packet.time_base or Fraction(0)))
            content = self._cleaned.get(packet.stream.index)
            for part in single_frames(packet) if content is None else [_with_content(packet, content)]:
                self._put_in_order(part, target)
                part.stream = target
                self._output.mux_one(part)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of the writing, once it is over."""
        said = list(self.tracks.warnings)
        if self._moved:
            many = "packets" if self._moved > 1 else "packet"
            said.append(f"{self._moved} {many} beside the film came too early, and moved behind what came before")
        if self._uncaptioned:
            said.append(f"{self._film.encoder} has no place for the film's closed captions; --codec h264 keeps them")
        return tuple(said)

    def end_segment(self) -> Segment:
        """End the closed segment and return it; the next frame begins another. Raises OutputError."""
        with _write_errors():
            self._keep(self._encoder.encode(None))
            self._encoder = _open_encoder(self._film, like=self._stream.codec_context)
        done, self._segment = self._segment, Segment()
        return done

    def add_segment(self, segment: Segment) -> None:
        """Write an earlier run's segment, as the times of the packets that follow come. Raises OutputError.

        At once would be far ahead of the sound: beyond ten seconds the container's writer no longer puts both in order.
        """
        with _write_errors():
            for data, (shown, decoded, duration), key in zip(segment.data, segment.times, segment.keys, strict=True):
                packet: AnyPacket = Packet(data)
                packet.time_base = self._film.time_base
                packet.pts, packet.dts, packet.duration, packet.is_keyframe = shown, decoded, duration, key
                self._waiting.append(packet)

    def close(self) -> None:
        """End the last segment and complete the file. Raises OutputError."""
        with _write_errors():
            self._write_waiting()
            if self._segment.frames:
                self._keep(self._encoder.encode(None))
            self._output.close()

    def abandon(self) -> None:
        """Let go of the file without completing it; the file is of no use."""
        with suppress(av.FFmpegError, OSError, ValueError):
            self._output.close()

    def _add_streams(self, reader: ClipReader, metadata: Metadata) -> VideoStream:
        """Add all tracks in the source's order; return the film's."""
        film: VideoStream | None = None
        for source in reader.container.streams:
            if source.index == reader.film.index:
                film = self._add_film()
                added: Stream = film
            elif source.index in self.tracks.copied:
                added = self._output.add_stream_from_template(source, opaque=True)
                self._targets[source.index] = added
            elif source.index in self.tracks.attached:
                attachment = cast(AttachmentStream, source)
                name = attachment.metadata.get("filename", "attachment")
                kind = attachment.mimetype or "application/octet-stream"
                self._output.add_attachment(name, kind, attachment.data)
                continue
            elif source.index in self.tracks.covers:
                name, kind, content = read_cover(reader.facts, source.index)
                self._output.add_attachment(name, kind, self._cleaned.get(source.index, content))
                continue
            else:
                continue
            added.metadata.update(self._kept(source.metadata.items(), reader, metadata))
            added.disposition = source.disposition
            if added.type == "video":
                # Players show the default film, and of several that must be the enhanced one.
                shown = added.disposition & ~Disposition.default
                added.disposition = shown | Disposition.default if added is film else shown
        assert film is not None
        self.film_number = find_films(self._output).index(film)
        return film

    def _add_film(self) -> VideoStream:
        plan = self._film
        stream = cast(VideoStream, self._output.add_stream(plan.encoder, rate=plan.rate))
        _configure(stream.codec_context, plan)
        return stream

    def _tag(self, reader: ClipReader, metadata: Metadata) -> None:
        self._output.metadata.update(self._kept(reader.facts.tags, reader, metadata))
        chapters = kept_chapters(reader.container.chapters(), reader.span, metadata, start=reader.facts.start)
        if chapters and metadata != "strip":
            self._output.set_chapters(chapters)

    def _kept(self, tags: Iterable[tuple[str, str]], reader: ClipReader, metadata: Metadata) -> dict[str, str]:
        rate = reader.facts.rate
        skipped = math.ceil(reader.span.start * rate) if rate else 0
        return kept_tags(tags, metadata, skipped=skipped, rate=rate)

    def _begin(self) -> None:
        """Open the film's encoder, whose parameters the file's header holds, write the header, and begin a segment.

        The film's own encoder lasts as long as the file: it is given no frames, whose memory it would keep beside what
        it takes to be open.
        """
        like = self._stream.codec_context
        try:
            like.open(strict=False)
        except av.FFmpegError as error:
            raise SettingsError(f"{_attempt(self._film)}: {reason(error)}{_hint(self._film)}") from error
        _refuse_unknown_options(like, self._film)
        self._output.start_encoding()
        self._encoder = _open_encoder(self._film, like=like)

    def _keep(self, packets: Sequence[AnyPacket]) -> None:
        for packet in packets:
            self._write(packet)
            assert packet.pts is not None
            assert packet.dts is not None
            self._segment.data.append(bytes(packet))
            self._segment.times.append((packet.pts, packet.dts, packet.duration or 0))
            self._segment.keys.append(packet.is_keyframe)

    def _put_in_order(self, packet: AnyPacket, target: Stream) -> None:
        """Move a packet that comes too early, as in damaged files, behind the one before: none is written otherwise."""
        base, last = target.time_base, self._last_copied.get(target.index)
        time = packet.pts if packet.dts is None else packet.dts
        if base is None or time is None or packet.time_base is None:
            return
        ticks = round(time * packet.time_base / base)
        if last is not None and ticks < last + self._least_step:
            shown = last if packet.pts is None else round(packet.pts * packet.time_base / base)
            duration = round((packet.duration or 0) * packet.time_base / base)
            ticks = last + 1
            packet.time_base, packet.dts, packet.pts, packet.duration = base, ticks, max(shown, ticks), duration
            self._moved += 1
        self._last_copied[target.index] = ticks

    def _write_waiting(self, until: Fraction | None = None) -> None:
        """Write packets of earlier runs' segments up to a moment in seconds, or all."""
        while self._waiting and (until is None or (self._waiting[0].dts or 0) * self._film.time_base <= until):
            self._write(self._waiting.popleft())

    def _write(self, packet: AnyPacket) -> None:
        """Write a packet of the film.

        Encoders count decoding times back from their first frames, which at the seam of two segments of a variable
        rate may fall behind what was written. Moving them up to one tick after the last is always possible: shown
        times are distinct ticks, and the frames before the seam are shown before those after it.
        """
        assert packet.pts is not None
        decoded = packet.pts if packet.dts is None else packet.dts
        if self._last_decoded is not None:
            decoded = max(decoded, self._last_decoded + 1)
        packet.dts = self._last_decoded = decoded
        times = packet.pts, packet.dts, packet.duration, packet.time_base
        packet.stream = self._stream
        self._output.mux_one(packet)
        self.packets += 1
        # Writing counts them in the container's ticks; a segment is kept in the film's.
        packet.time_base = times[3]
        packet.pts, packet.dts, packet.duration = times[:3]


def _muxer_options(container: str, reader: ClipReader) -> dict[str, str]:
    if container not in ("mp4", "mov", "3gp"):
        return {}
    # Names such as com.apple.quicktime.make are only kept on request, at the price of the ordinary ones' usual place.
    odd_tags = any("." in name for name, _ in reader.facts.tags)
    return {"movflags": "+faststart" + ("+use_metadata_tags" if odd_tags else "")}


def _open_encoder(plan: FilmPlan, *, like: VideoCodecContext) -> VideoCodecContext:
    encoder = cast(VideoCodecContext, CodecContext.create(plan.encoder, "w"))
    _configure(encoder, plan)
    encoder.flags |= like.flags & Flags.global_header
    encoder.open()
    return encoder


def _configure(encoder: VideoCodecContext, plan: FilmPlan) -> None:
    encoder.width, encoder.height = plan.width, plan.height
    encoder.pix_fmt = plan.pixel_format
    encoder.time_base = plan.time_base
    encoder.framerate = plan.rate
    encoder.sample_aspect_ratio = plan.pixel_aspect
    encoder.color_primaries, encoder.color_trc = plan.colour.primaries, plan.colour.transfer
    # An RGB source says so in its matrix, which is untrue of what is encoded.
    encoder.colorspace = plan.colour.matrix or plan.matrix
    encoder.color_range = plan.colour.range
    encoder.flags |= Flags.frame_duration
    if plan.encoder == "libx264":
        encoder.thread_type = "FRAME"  # PyAV's own choice, slices, makes it slower and its films larger
    if plan.encoder == "libx265" and plan.pixel_format:
        encoder.codec_tag = "hvc1"
    encoder.options = dict(plan.options)


def _attempt(film: FilmPlan) -> str:
    options = ", ".join(f"{name}={value}" for name, value in film.options.items())
    said = f"{film.encoder} cannot begin{f' with {options}' if options else ''}"
    return f"{said} for {film.width}x{film.height} {film.pixel_format}"


def _hint(film: FilmPlan) -> str:
    """Return what may do where an encoder does not begin.

    Some would rather have levels from 0 to 255, as that of Motion JPEG; others, as that of DNxHD, have no defaults.
    """
    offered, full = offered_formats(film.encoder), film.pixel_format.replace("yuv", "yuvj")
    preferred = takewhile(lambda name: name != film.pixel_format, offered)
    if full in preferred:
        return f"; try --pix-fmt {full}"
    known = any(one.name == film.encoder for one in ENCODERS.values())
    return "" if known else "; it may ask for options of its own, by --encoder-arg, or another --pix-fmt"


def _refuse_unknown_options(encoder: VideoCodecContext, plan: FilmPlan) -> None:
    """Opening takes the options that an encoder knows and leaves the others."""
    for name in encoder.options:
        raise SettingsError(f"{plan.encoder} knows no option {name!r}; see --encoder-arg and --preset")


@contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write the clip: {reason(error)}") from error
    except av.FFmpegError as error:
        raise OutputError(f"cannot write the clip: {reason(error)}") from error
    except ValueError as error:
        if isinstance(error, SettingsError):
            raise
        raise OutputError(f"cannot write the clip: {error}") from error


def single_frames(packet: AnyPacket) -> Iterator[AnyPacket]:
    """Yield the frames of a packet one by one where the writer of MP4 insists on that: AMR sound of old phones."""
    sizes = _AMR_BYTES.get(packet.stream.codec_context.name if packet.stream.codec_context is not None else "")
    if sizes is None or packet.time_base is None:
        yield packet
        return
    data, place, index = bytes(packet), 0, 0
    while place < len(data):
        size = sizes[data[place] >> 3 & 15]
        part: AnyPacket = Packet(data[place : place + size])
        part.time_base = packet.time_base
        part.duration = round(_AMR_SECONDS / packet.time_base)
        moved = index * part.duration
        part.pts = None if packet.pts is None else packet.pts + moved
        part.dts = None if packet.dts is None else packet.dts + moved
        part.is_keyframe = True
        yield part
        place, index = place + size, index + 1


def _with_content(packet: AnyPacket, content: bytes) -> AnyPacket:
    made: AnyPacket = Packet(content)
    made.pts, made.dts, made.duration, made.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    made.is_keyframe = packet.is_keyframe
    return made


def verify_clip(path: Path, *, film: int, packets: int, seconds: Fraction, last: Fraction) -> None:
    """Read a finished file through and hold it against what was written into its film.

    `film` counts the films before it in the file; `seconds` is the end of the last frame, which is shown for `last`
    seconds: some containers do not hold that, and give nothing or twice as much. Raises OutputError when packets are
    missing or the end is another.
    """
    count, end = 0, Fraction(0)
    try:
        with open_clip(path) as container:
            for packet in container.demux(find_films(container)[film]):
                if packet.size:
                    count += 1
                    end = max(end, ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base)
    except (av.FFmpegError, OSError) as error:
        raise OutputError(f"the written clip cannot be read back: {reason(error)}") from error
    if count != packets:
        raise OutputError(f"the written clip holds {count} of {packets} frames; is the disk full?")
    if abs(end - seconds) > max(Fraction(1, 4), Fraction(5, 4) * last):
        raise OutputError(f"the written clip ends at {float(end):.2f} instead of {float(seconds):.2f} seconds")
