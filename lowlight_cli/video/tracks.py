"""Which tracks go over into which container: decided before the file is begun, and what is left out is said."""

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from lowlight_cli.settings import Metadata
from lowlight_cli.video.facts import ClipFacts, open_clip
from lowlight_cli.video.settings import Span
from lowlight_cli.video.withheld import is_attachment, names_place

if TYPE_CHECKING:
    from av.container.core import Chapter

# Tags that describe the old file and would be lies in the new one.
_STALE = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration", "alpha_mode", "rotate")
_STALE_BEGINNINGS = ("_statistics", "number_of_", "bps", "duration-", "bps-")
# What containers hold beyond what their writers in ffmpeg list ...
_UNLISTED = {
    "mpegts": frozenset(("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "aac", "aac_latm", "ac3", "eac3", "mp3",
                         "dts", "opus", "truehd", "dvb_subtitle", "hdmv_pgs_subtitle", "dvb_teletext")),
}  # fmt: skip
# ... and what these list and then refuse, or, of sound that they hold at few rates only, break the process at.
_REFUSED = {
    "mov": frozenset(("flac", "opus")),
    "flv": frozenset(("flac", "opus", "pcm_alaw", "pcm_mulaw", "pcm_s16be", "pcm_s16le", "pcm_u8", "adpcm_swf")),
}
_CHAPTERS = re.compile("text|subtitle", re.IGNORECASE)  # in the name of the track that MP4 keeps them in
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d+)")


@dataclass(frozen=True)
class TrackPlan:
    """`copied` are the indices of tracks that are copied packet by packet; `attached` of attachments, copied whole.

    `covers` are cover pictures that become attachments. `warnings` name what is left out.
    """

    copied: tuple[int, ...]
    attached: tuple[int, ...]
    covers: tuple[int, ...]
    warnings: tuple[str, ...]


def plan_tracks(
    source: InputContainer, film: VideoStream, target: OutputContainer, *, withheld: Mapping[int, str]
) -> TrackPlan:
    """Decide what becomes of every track beside the film; `withheld` says why some do not go over."""
    nothing: frozenset[str] = frozenset()
    container = target.format.name
    supported = (target.supported_codecs | _UNLISTED.get(container, nothing)) - _REFUSED.get(container, nothing)
    takes_attachments = container == "matroska"
    copied: list[Stream] = []
    attached: list[Stream] = []
    covers: list[Stream] = []
    left_out: list[str] = []
    for stream in source.streams:
        if stream.index == film.index:
            continue
        if stream.index in withheld:
            left_out.append(f"{_described(stream)} is left out: {withheld[stream.index]}")
        elif is_attachment(stream) and takes_attachments:
            attached.append(stream)
        elif takes_attachments and is_cover(stream):
            covers.append(stream)  # which is how Matroska holds them
        elif stream.codec_context is not None and stream.type != "data" and not supported.isdisjoint(_names(stream)):
            copied.append(stream)
        elif _holds_chapters(stream, source) or _holds_timecode(stream):
            continue  # they are carried over, and their track is made anew, or is a tag
        else:
            left_out.append(f"{container} has no place for {_described(stream)}; it is left out")
    return TrackPlan(
        copied=tuple(stream.index for stream in copied),
        attached=tuple(stream.index for stream in attached),
        covers=tuple(stream.index for stream in covers),
        warnings=tuple(left_out),
    )


def _names(stream: Stream) -> tuple[str, ...]:
    """Return what ffmpeg calls a track's codec: its decoder, and the codec itself."""
    context = stream.codec_context
    return (context.name, context.codec.canonical_name)


def _holds_chapters(stream: Stream, source: InputContainer) -> bool:
    name = stream.metadata.get("handler_name", "")
    return stream.type == "data" and bool(source.chapters()) and _CHAPTERS.search(name) is not None


def _holds_timecode(stream: Stream) -> bool:
    return stream.type == "data" and "timecode" in stream.metadata


def is_cover(stream: Stream) -> bool:
    """Whether a track is a picture that stands for the clip."""
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def read_cover(facts: ClipFacts, index: int) -> tuple[str, str, bytes]:
    """Return the cover picture that is track `index`, as a file: its name, kind and content, or nothing of it."""
    with open_clip(facts.path, most_pixels=facts.most_pixels) as container:
        stream = container.streams[index]
        kind = "png" if stream.codec_context.name == "png" else "jpeg"
        content = b""
        with suppress(av.FFmpegError, OSError):
            content = next((bytes(packet) for packet in container.demux(stream) if packet.size), b"")
        return stream.metadata.get("filename", f"cover.{kind.replace('e', '')}"), f"image/{kind}", content


def _described(stream: Stream) -> str:
    name = stream.codec_context.name if stream.codec_context is not None else stream.metadata.get("handler_name", "")
    kind = {"audio": "sound", "subtitle": "subtitles"}.get(stream.type, stream.type)
    if stream.type == "video":
        kind = "cover picture" if is_cover(stream) else "second film"
    return f"track {stream.index} ({' '.join(filter(None, (kind, name)))})"


def kept_tags(
    tags: Iterable[tuple[str, str]], metadata: Metadata, *, skipped: int = 0, rate: Fraction | None = None
) -> dict[str, str]:
    """Return the tags that go over: without stale ones, and without places or at all as `metadata` says.

    Of a clip whose first `skipped` frames, at `rate` a second, are left out, the time code is that of the next one.
    """
    if metadata == "strip":
        return {}

    def stays(name: str) -> bool:
        folded = name.lower()
        stale = folded in _STALE or folded.startswith(_STALE_BEGINNINGS)
        return not stale and not (metadata == "no-gps" and names_place(name))

    kept = {name: value for name, value in tags if stays(name)}
    if skipped and rate and "timecode" in kept:
        kept["timecode"] = moved_timecode(kept["timecode"], skipped, rate)
    return kept


def moved_timecode(code: str, frames: int, rate: Fraction) -> str:
    """Return the time code `HH:MM:SS:FF` that is `frames` later; one that is none comes back as it is.

    With a semicolon before the frames it drops numbers, not frames: of 29.97 a second the first two of each minute but
    every tenth, of 59.94 four. It begins again after a day.

    Source: SMPTE ST 12-1, section 6.2.
    """
    match = _TIMECODE.fullmatch(code)
    whole = math.ceil(rate)
    if match is None or int(match[5]) >= whole:
        return code
    drops = 0 if match[4] == ":" or whole % 30 else whole // 15
    hours, minutes, seconds, place = (int(match[group]) for group in (1, 2, 3, 5))
    minutes += 60 * hours
    number = (minutes * 60 + seconds) * whole + place - drops * (minutes - minutes // 10) + frames
    ten_minutes, minute = 600 * whole - 9 * drops, 60 * whole - drops
    tens, rest = divmod(number, ten_minutes)
    # The first minute of ten drops nothing.
    later = max(rest - drops, 0) // minute if drops else rest // minute
    number += drops * (9 * tens + later)
    seconds, place = divmod(number, whole)
    clock = seconds // 3600 % 24, seconds // 60 % 60, seconds % 60
    return ":".join(f"{part:02}" for part in clock) + f"{match[4]}{place:02}"


def kept_chapters(chapters: "list[Chapter]", span: Span, metadata: Metadata, *, start: Fraction) -> "list[Chapter]":
    """Return the chapters that overlap the span, cut to it and counted from its beginning, with the tags that stay."""
    kept: list[Chapter] = []
    for chapter in chapters:
        base = chapter["time_base"] or Fraction(1, av.time_base)
        first = chapter["start"] * base - start
        last = chapter["end"] * base - start
        if last <= span.start or (span.end is not None and first >= span.end):
            continue
        first = max(first, span.start) - span.start
        last = min(last, span.end if span.end is not None else last) - span.start
        moved: Chapter = {
            "id": chapter["id"],
            "start": round(first / base),
            "end": round(last / base),
            "time_base": base,
            "metadata": kept_tags(chapter["metadata"].items(), metadata),
        }
        kept.append(moved)
    return kept
