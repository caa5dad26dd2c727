"""What a caller may choose about `lowlight bench`. No torch here: the command line reads the defaults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from lowlight_cli.errors import SettingsError
from lowlight_cli.settings import DEFAULT_MODEL, Compute

Part = Literal["picture", "start", "files", "video", "zero-shot"]

_SIZES = {"720p": (1280, 720), "1080p": (1920, 1080), "4k": (3840, 2160), "12mpx": (4000, 3000), "24mpx": (6000, 4000)}
_LARGEST_SIDE = 20_000


@dataclass(frozen=True)
class Untrained:
    """A published size of DarkIR: its speed needs no trained weights, so random ones are measured."""

    width: int
    use_csf: bool = False


UNTRAINED: Mapping[str, Untrained] = MappingProxyType(
    {
        "darkir-width16": Untrained(16),
        "darkir-width32": Untrained(32),
        "darkir-width32-csf": Untrained(32, use_csf=True),
        "darkir-width64": Untrained(64),
    }
)


@dataclass(frozen=True)
class Size:
    """A picture's width and height in pixels, and how it was called."""

    called: str
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """Pixels in millions."""
        return self.width * self.height / 1e6


def read_size(text: str) -> Size:
    """Return the size that `--size` means: a side, WIDTHxHEIGHT or a name; raises SettingsError."""
    name = text.lower()
    if name in _SIZES:
        return Size(name, *_SIZES[name])
    numbers = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", name)
    if not numbers:
        raise SettingsError(f"--size is a side such as 512, WIDTHxHEIGHT, or {', '.join(_SIZES)}, not {text!r}")
    width, height = int(numbers[1]), int(numbers[2] or numbers[1])
    if not 16 <= min(width, height) <= max(width, height) <= _LARGEST_SIDE:
        raise SettingsError(f"--size lies between 16 and {_LARGEST_SIDE} pixels a side, not {text!r}")
    return Size(f"{width}x{height}", width, height)


@dataclass(frozen=True)
class Speed:
    """What is measured, and how often.

    `models` are names of the weights manifest or of `UNTRAINED`; `weights` are files, and `network` the settings that
    they do not tell.
    `sizes` of None are four usual ones, without those that would take minutes on this machine. `parts` says which of
    pictures, start-up, files, clips and zero-shot fits; `batch` is the number of photos in the folder for `files`.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    weights: tuple[Path, ...] = ()
    network: Mapping[str, object] = field(default_factory=dict)
    parts: tuple[Part, ...] = get_args(Part)
    sizes: tuple[Size, ...] | None = None
    repeat: int = 9
    batch: int = 6
    compute: Compute = Compute()
    offline: bool = False

    def __post_init__(self) -> None:
        if self.repeat < 2:
            raise SettingsError("--repeat is at least 2: one measurement has no spread")
        if self.batch < 1:
            raise SettingsError("--batch is at least 1")
