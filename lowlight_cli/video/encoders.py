"""Which encoder, pixel format and options a film gets: facts as a table, and one decision."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache

import av
from av.codec import Codec
from av.video.format import VideoFormat

from lowlight_cli.errors import OutputError, SettingsError
from lowlight_cli.video.facts import ClipFacts, Colour
from lowlight_cli.video.settings import Film
from lowlight_cli.video.siting import Siting, is_subsampled


@dataclass(frozen=True)
class Encoder:
    """An encoder as ffmpeg calls it, the options that `--crf` and `--preset` mean to it, and their defaults.

    `even` says that sides of chroma planes must divide the picture's; `largest_crf` is the worst quality it knows;
    `presets` are names, or the first and the last of numbers, and empty where nothing is known of them.
    """

    name: str
    codec: str
    crf: float
    largest_crf: float
    preset_option: str
    preset: str
    presets: tuple[str, ...] | range = ()
    even: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


_SPEEDS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"
)  # fmt: skip
_X264, _X265 = "x264-params", "x265-params"

# Its code for AVX-512 (core 165) reads memory that nobody wrote, with B-frames and the macroblock tree that all presets
# from veryfast on have: the same film came out in other bytes now and then. The code for AVX2 is as quick.
_REPEATABLE_X264 = "asm=avx2"


# The crf values look alike on dark clips: noise is gone, and what banding would show is faint.
ENCODERS = {
    encoder.codec: encoder
    for encoder in (
        Encoder("libx264", "h264", 18, 51, "preset", "veryfast", _SPEEDS),
        Encoder("libx265", "hevc", 20, 51, "preset", "faster", _SPEEDS, extra={_X265: "log-level=error", "a53cc": "1"}),
        Encoder(
            "libvpx-vp9", "vp9", 24, 63, "cpu-used", "4", range(-8, 9), even=False,
            extra={"row-mt": "1", "deadline": "good", "b": "0"},
        ),
        Encoder("libsvtav1", "av1", 26, 63, "preset", "8", range(-1, 14), even=False),
        Encoder(
            "libvpx", "vp8", 8, 63, "cpu-used", "2", range(-16, 17), even=False,
            extra={"b": "4M", "deadline": "good"},
        ),
    )
}  # fmt: skip

TELLING_THEIR_SHAPE = ("libx264", "libx265", "mpeg4", "mpeg2video")
"""Encoders that write the shape of pixels into the film itself; for others the container must tell it."""

TAKING_CAPTIONS = ("libx264", "libx265", "h264_nvenc", "hevc_nvenc")
"""Encoders that write the closed captions which frames carry."""

LOSSLESS = {
    "prores": "--codec prores_ks",
    "dnxhd": "--codec dnxhd --encoder-arg profile=dnxhr_hq",
    **{name: f"--codec {name}" for name in ("ffv1", "v210", "png", "qtrle", "cfhd")},
    **dict.fromkeys(("ffvhuff", "huffyuv", "utvideo", "magicyuv", "rawvideo"), "--codec ffv1"),
}
"""Codecs of films that lose nothing, or nothing to be seen, and how to have a result like that."""

_MOVING_PICTURES = ("gif", "apng", "webp")

# Codecs whose films can say where their colours lie; where they do not, it is on the left.
_TELLING_THEIR_SITING = ("h264", "hevc")
# Where colours lie by the standards of other codecs; nothing is said of those that are left out, nor can be.
_SITINGS: Mapping[str, Siting] = {"mpeg2video": "left", "mpeg4": "left"}

# What a container holds at all, where it is choosy.
_CONTAINER_CODECS = {"webm": ("vp9", "av1", "vp8"), "flv": ("h264",), "3gp": ("h264",), "ts": ("h264", "hevc")}


@dataclass(frozen=True)
class FilmPlan:
    """Everything an encoder is opened with. Sizes are in pixels, `options` are the encoder's own.

    `siting` is where the colours lie that pixels share: where players look for them.
    """

    encoder: str
    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction
    colour: Colour
    siting: Siting
    matrix: int
    options: Mapping[str, str]


def plan_film(facts: ClipFacts, film: Film, container: str, *, width: int, height: int) -> FilmPlan:
    """Decide how a clip's film is encoded into a container (a key of `formats.MUXERS`), at this size.

    Raises SettingsError for a codec, pixel format, crf or preset that cannot be meant, OutputError for a codec that the
    container does not hold.
    """
    encoder = choose_encoder(film.codec, facts, container)
    options = dict(encoder.extra)
    if film.crf is not None and film.crf > encoder.largest_crf:
        raise SettingsError(f"--crf of {encoder.name} is at most {encoder.largest_crf:g}")
    if encoder.crf >= 0:
        options["crf"] = f"{encoder.crf if film.crf is None else film.crf:g}"
    elif film.crf is not None:
        raise SettingsError(f"{encoder.name} is not among the encoders with a known --crf; use --encoder-arg")
    preset = film.preset or encoder.preset
    if preset:
        _refuse_unknown(preset, encoder)
        options[encoder.preset_option] = preset
    if encoder.name == "libx264" and _has_avx512():
        options[_X264] = _REPEATABLE_X264
    given = {"crf": ("--crf", film.crf), encoder.preset_option: ("--preset", film.preset)}
    for name, value in film.arguments:
        option, chosen = given.get(name, ("", None))
        if chosen is not None:
            raise SettingsError(f"--encoder-arg {name}={value} and {option} mean the same; give one of them")
        ours = options.get(name) if name in (_X264, _X265) else None
        options[name] = f"{ours}:{value}" if ours else value  # of two the later counts
    rate = facts.rate if facts.rate and facts.rate <= 240 else Fraction(30)
    pixel_format = _choose_pixel_format(encoder, facts, film, width=width, height=height)
    siting = facts.siting if encoder.codec in _TELLING_THEIR_SITING else _SITINGS.get(encoder.codec, "center")
    if siting != "left" and encoder.codec in _TELLING_THEIR_SITING and is_subsampled(pixel_format):
        options.setdefault("chroma_sample_location", siting)
    return FilmPlan(
        encoder=encoder.name,
        width=width,
        height=height,
        pixel_format=pixel_format,
        time_base=facts.time_base,
        rate=rate,
        pixel_aspect=facts.pixel_aspect,
        colour=facts.colour,
        siting=siting,
        matrix=facts.colour.matrix_for(facts.width if facts.turn.swaps_sides else facts.height),
        options=options,
    )


def _refuse_unknown(preset: str, encoder: Encoder) -> None:
    known = encoder.presets
    if isinstance(known, range) and preset not in map(str, known):
        raise SettingsError(f"--preset of {encoder.name} is a number from {known[0]} to {known[-1]}, not {preset!r}")
    if known and preset not in map(str, known):
        raise SettingsError(f"--preset of {encoder.name} is {', '.join(map(str, known))}, not {preset!r}")


@cache
def _has_avx512() -> bool:
    import torch

    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def choose_encoder(wanted: str | None, facts: ClipFacts, container: str) -> Encoder:
    """Return the encoder called `wanted`, or the one that stays nearest to the clip's codec and keeps its depth.

    Raises SettingsError for a name that ffmpeg does not know as an encoder, OutputError when the container cannot
    hold what it makes.
    """
    held = _CONTAINER_CODECS.get(container)
    if wanted is not None:
        encoder = named_encoder(wanted)
        if held is not None and encoder.codec not in held:
            raise OutputError(f"{container} holds {' or '.join(held)}, not {encoder.codec}; choose another --codec")
        return encoder
    # VP8 itself is kept by nobody's wish: VP9 does the same better, in the same containers.
    families = ("vp9" if facts.codec == "vp8" else facts.codec, "vp9" if container == "webm" else "h264", "av1")
    fitting = [ENCODERS[name] for name in families if name in ENCODERS and (held is None or name in held)]
    return next((one for one in fitting if facts.depth <= 8 or _has_ten_bits(one)), fitting[0])


def require_container(wanted: str, containers: Collection[str | None]) -> None:
    """Refuse a codec that none of the containers holds, before any work; raises SettingsError."""
    encoder = named_encoder(wanted)
    held = [_CONTAINER_CODECS.get(container or "") for container in containers]
    if all(codecs is not None and encoder.codec not in codecs for codecs in held):
        names = " and ".join(sorted(str(container) for container in containers))
        raise SettingsError(f"--codec {wanted}: no result can hold it as {names}; choose another of either")


def _has_ten_bits(encoder: Encoder) -> bool:
    return any("10le" in name for name in offered_formats(encoder.name))


def offered_formats(encoder: str) -> list[str]:
    """Return the pixel formats that an encoder of this name says it takes."""
    return [one.name for one in Codec(encoder, "w").video_formats or ()]


def named_encoder(name: str) -> Encoder:
    """Return the encoder of a codec or of an encoder's own name; raises SettingsError for neither."""
    if name in ENCODERS:
        return ENCODERS[name]
    for encoder in ENCODERS.values():
        if encoder.name == name:
            return encoder
    try:
        codec = Codec(name, "w")
        if codec.type != "video":
            raise ValueError
        # An encoder that we know nothing of runs with its own defaults.
        return Encoder(codec.name, codec.canonical_name, -1, 63, "preset", "")
    except (av.FFmpegError, ValueError):
        known = ", ".join((*ENCODERS, *(encoder.name for encoder in ENCODERS.values())))
        raise SettingsError(f"there is no video encoder {name!r} here; there are {known} and others") from None


def _choose_pixel_format(encoder: Encoder, facts: ClipFacts, film: Film, *, width: int, height: int) -> str:
    """Keep the source's depth and chroma where the encoder can; 4:4:4 where an odd size forbids less."""
    offered = offered_formats(encoder.name)
    odd = encoder.even and (width % 2 or height % 2)
    if film.pixel_format is not None:
        if film.pixel_format not in offered:
            raise SettingsError(f"{encoder.name} takes no pixel format {film.pixel_format!r}: {', '.join(offered)}")
        if odd and "420" in film.pixel_format:
            raise SettingsError(f"{encoder.name} takes {film.pixel_format} of even sides, not of {width}x{height}")
        return film.pixel_format
    sampled = re.search(r"4(20|22|44)p", facts.pixel_format)
    # Of RGB each pixel has its own colour; pictures that move are to play wherever films do.
    is_whole = VideoFormat(facts.pixel_format).is_rgb and facts.codec not in _MOVING_PICTURES
    chroma = "444" if odd or is_whole else f"4{sampled[1]}" if sampled else "420"
    depths = [f"{bits}le" for bits in (12, 10) if facts.depth > 8 and bits <= max(facts.depth, 10)] or [""]
    wishes = [f"yuv{chroma}p{depth}" for depth in depths]
    wishes += [f"yuv{each}p{depths[-1]}" for each in ("420", "444")] + ["p010le" if facts.depth > 8 else "nv12"]
    found = next((name for name in wishes if name in offered), None)
    if found is None and facts.depth > 8:
        raise OutputError(f"{encoder.name} has no 10 bits, and the film does; choose another --codec or a --pix-fmt")
    return found or (offered[0] if offered else "yuv420p")
