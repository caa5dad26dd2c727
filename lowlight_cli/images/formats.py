"""The picture formats we know, as data: what each can hold, and what reads it.

Suffixes and first bytes stand in `paths.media`, by which jobs are planned. A name here is the planner's in capitals,
which is also what Pillow calls the format.
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, Literal

from lowlight_cli.paths import PICTURES


@dataclass(frozen=True)
class Format:
    """Facts about one format.

    `deep`: holds 16 bits per channel as we write it; `animated`: holds several frames as we write it; `profiled`:
    carries an ICC profile; `grey`: holds pictures of one channel; `untold`: the metadata that it has no place for;
    `largest_side`: in pixels.
    """

    name: str
    alpha: bool = True
    deep: bool = False
    animated: bool = False
    profiled: bool = True
    grey: bool = True
    untold: tuple[Literal["exif", "xmp", "iptc"], ...] = ()
    largest_side: int = 1 << 31


_NOTHING_TOLD: Final = ("exif", "xmp", "iptc")

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("JPEG", alpha=False, largest_side=65500),
        Format("PNG", deep=True, animated=True),
        Format("WEBP", animated=True, grey=False, untold=("iptc",), largest_side=16383),
        Format("TIFF", deep=True, animated=True),
        Format("AVIF", animated=True, grey=False, untold=("iptc",), largest_side=65535),
        Format("BMP", profiled=False, untold=_NOTHING_TOLD),
        Format("GIF", animated=True, profiled=False, untold=_NOTHING_TOLD, largest_side=65535),
        Format("PPM", alpha=False, deep=True, profiled=False, untold=_NOTHING_TOLD),
        Format("HEIF", untold=("iptc",)),
        Format("RAW", alpha=False),
    )
}


def output_format(source: str, *, requested: str | None = None, target: PurePath | None = None) -> str:
    """Return a result's format: the one asked for, else the target's suffix, else the source's own.

    `requested` is what a person types: `jpg`, `JPEG` or `.tif`. A raw photo becomes a 16-bit TIFF.

    Raises:
        SettingsError: the format asked for does not exist or cannot be written.
    """
    if requested is not None:
        return PICTURES.format_called(requested).upper()
    promised = PICTURES.format_of(target.suffix) if target is not None else None
    format = source.lower() if promised is None or promised == "raw" else promised
    return PICTURES.written_as.get(format, format).upper()
