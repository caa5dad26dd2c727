"""Tiny clips for tests, made on the fly, and what can be said of a clip by reading it with nothing of ours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

SOUND_RATE = 8000
ACCURATE = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


def pattern(index: int, *, width: int, height: int, top: int = 255) -> np.ndarray:
    """A dark picture that no turning or mirroring maps onto itself, other in each frame; `(H, W, 3)`."""
    rows, columns = np.mgrid[0:height, 0:width]
    level = np.stack((rows * 80 / height, columns * 80 / width, np.full_like(rows, 20.0)), axis=-1)
    level[: height // 3, : width // 4] = (120, 10, 10)
    level[:, index * 2 % width] += 40
    dtype = np.uint8 if top == 255 else np.uint16
    return np.rint(level * (top / 255)).astype(dtype)


def make_clip(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rate: Fraction = Fraction(25),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    colour: tuple[int, int, int, int] = (1, 1, 1, 1),
    aspect: Fraction = Fraction(1),
    sound: str | None = "aac",
    turn: tuple[int, bool] | None = None,
    tags: dict[str, str] | None = None,
    pictures: Iterable[np.ndarray] | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Write a clip of `frames` frames shown at `times` (in ticks of `time_base`), with a hum as long as the film."""
    width, height = size
    times = list(times if times is not None else range(frames))
    matrix, primaries, transfer, colour_range = colour
    deep = "10" in pixel_format
    with av.open(str(path), "w", format=format) as output:
        film = output.add_stream(codec, rate=rate)
        film.width, film.height, film.pix_fmt = width, height, pixel_format
        context = film.codec_context
        context.time_base, context.sample_aspect_ratio = time_base, aspect
        context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
        context.color_range = colour_range
        context.options = {"preset": "ultrafast", "crf": "5"} if codec == "libx264" else {}
        context.options = {**context.options, **(options or {})}
        if turn is not None:
            film.set_display_rotation(turn[0], hflip=turn[1])
        output.metadata.update(tags or {})
        hum = output.add_stream(sound, rate=SOUND_RATE) if sound else None
        top = 65535 if deep else 255
        shown = pictures if pictures is not None else (pattern(i, width=width, height=height, top=top) for i in
                                                       range(len(times)))  # fmt: skip
        for time, picture in zip(times, shown, strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le" if deep else "rgb24").reformat(
                format=pixel_format,
                dst_colorspace=1,
                dst_color_range=2 if colour_range == 2 else 1,
                interpolation=ACCURATE,
            )
            frame.pts, frame.time_base = time, time_base
            output.mux(film.encode(frame))
        output.mux(film.encode(None))
        if hum is not None:
            seconds = float((times[-1] + 1) * time_base) if len(times) < 1000 else 1.0
            _add_hum(output, hum, min(seconds, 20.0))
    return path


def _add_hum(output: av.container.OutputContainer, hum: av.audio.stream.AudioStream, seconds: float) -> None:
    count = max(1024, round(seconds * SOUND_RATE))
    wave = (0.1 * np.sin(np.arange(count) * 2 * np.pi * 220 / SOUND_RATE)).astype(np.float32)
    for start in range(0, count, 1024):
        part = wave[start : start + 1024]
        frame = av.AudioFrame.from_ndarray(np.stack((part, part)), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        output.mux(hum.encode(frame))
    output.mux(hum.encode(None))


@dataclass
class Seen:
    """What a clip holds: the film's frames and times in seconds, and the packets of other tracks by index."""

    size: tuple[int, int] = (0, 0)
    pixels: list[np.ndarray] = field(default_factory=list)
    times: list[Fraction] = field(default_factory=list)
    packets: dict[int, list[tuple[Fraction, bytes]]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    colour: tuple[int, int, int, int] = (0, 0, 0, 0)
    pixel_format: str = ""
    codec: str = ""
    aspect: Fraction | None = None
    rate: Fraction | None = None
    seconds: Fraction = Fraction(0)
    tags: dict[str, str] = field(default_factory=dict)
    chapters: list[tuple[Fraction, Fraction, str]] = field(default_factory=list)


def see(path: Path, *, film: int = 0) -> Seen:
    """Read a clip; `film` is the number of the video track."""
    seen = Seen()
    with av.open(str(path)) as clip:
        stream = clip.streams.video[film]
        for packet in clip.demux():
            if packet.stream.index != stream.index:
                if packet.size:
                    entry = (packet.pts or 0) * packet.time_base, bytes(packet)
                    seen.packets.setdefault(packet.stream.index, []).append(entry)
                continue
            for frame in packet.decode():
                seen.pixels.append(frame.to_ndarray(format="rgb24", src_colorspace=1, interpolation=ACCURATE))
                seen.times.append(frame.pts * frame.time_base)
                seen.colour = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
                seen.pixel_format, seen.size = frame.format.name, (frame.width, frame.height)
        seen.kinds = [one.type for one in clip.streams]
        seen.codec, seen.rate = stream.codec.canonical_name, stream.average_rate
        seen.aspect = stream.sample_aspect_ratio
        seen.seconds = Fraction(clip.duration or 0, av.time_base)
        seen.tags = dict(clip.metadata)
        for chapter in clip.chapters():
            base = chapter["time_base"] or Fraction(1)
            seen.chapters.append((chapter["start"] * base, chapter["end"] * base, chapter["metadata"]["title"]))
    return seen
