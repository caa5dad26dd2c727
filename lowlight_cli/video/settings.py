"""What a caller may choose about clips, as frozen dataclasses; standard library only."""

from dataclasses import dataclass
from fractions import Fraction

from lowlight_cli.errors import SettingsError
from lowlight_cli.settings import Encoding, Metadata, Tone, require_choice

MOST_PIXELS = 8192 * 8192


@dataclass(frozen=True)
class Film:
    """How the film is encoded. None, or no codec, means what suits the input and the container.

    `codec` is a codec's or an encoder's name as ffmpeg gives it (h264, libx265, h264_nvenc); `crf` the quality of
    the encoders that have one, lower is better; `preset` their speed; `pixel_format` such as yuv420p10le;
    `arguments` go to the encoder as they are.
    """

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pixel_format: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise SettingsError("--crf lies between 0 and 63")


@dataclass(frozen=True)
class Span:
    """The part of a clip that is done, in seconds from its beginning; `end` of None is the clip's own."""

    start: Fraction = Fraction(0)
    end: Fraction | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise SettingsError("--end must lie after --start")


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are done, beyond what the model does: see the options of `lowlight video`.

    `stabilize` is the strength of the anti-flicker filter, 0 for none; None means 1 for what networks make, and 0 where
    pictures stay as they are. `contact_sheet` is the number of frames shown before and after in a picture beside the
    result, 0 for no such picture. `frames_per_batch` frames are under way on a GPU beside the one that is waited for;
    on a CPU the number of cores decides. Clips whose frames have more than `most_pixels` are refused.
    """

    tone: Tone = Tone()
    film: Film = Film()
    span: Span = Span()
    metadata: Metadata = Encoding.metadata
    stabilize: float | None = None
    side_by_side: bool = False
    contact_sheet: int = 0
    frames_per_batch: int = 1
    resume: bool = False
    overwrite: bool = False
    preserve_times: bool = False
    fail_fast: bool = False
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        require_choice(self.metadata, Metadata, "--metadata")
        if self.stabilize is not None and not 0 <= self.stabilize <= 1:
            raise SettingsError("--stabilize-strength lies between 0 and 1")
        if not 1 <= self.frames_per_batch <= 64:
            raise SettingsError("--frames-per-batch lies between 1 and 64")
        if not 0 <= self.contact_sheet <= 100:
            raise SettingsError("--contact-sheet lies between 1 and 100")


_LONGEST = 10**7  # seconds, four months: no clip is longer, and ffmpeg counts in 64 bits


def read_time(text: str, option: str) -> Fraction:
    """Read seconds or `[HH:]MM:SS.mmm` exactly; raises SettingsError naming the option."""
    parts = text.split(":")
    try:
        if not 1 <= len(parts) <= 3 or not all(part.replace(".", "", 1).isdecimal() for part in parts):
            raise ValueError
        seconds = Fraction(0)
        for place, part in enumerate(parts):
            is_last = place == len(parts) - 1
            if ("." in part and not is_last) or (place and Fraction(part) >= 60):
                raise ValueError
            seconds = seconds * 60 + Fraction(part)
        if seconds > _LONGEST:
            raise ValueError
    except ValueError:
        raise SettingsError(f"{option} is a number of seconds or [HH:]MM:SS.mmm, not {text!r}") from None
    return seconds


def read_arguments(texts: list[str]) -> tuple[tuple[str, str], ...]:
    """Read the `K=V` of `--encoder-arg`; raises SettingsError."""
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise SettingsError(f"--encoder-arg is NAME=VALUE, not {text!r}")
        pairs.append((key, value))
    return tuple(pairs)
