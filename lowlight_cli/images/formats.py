"""The picture formats we know, as data: what each is called, what it can hold, and what reads it."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from lowlight_cli.errors import SettingsError

Extra = Literal["heic", "raw"]


@dataclass(frozen=True)
class Format:
    """Facts about one format. `suffixes` starts with the one we write.

    `deep`: holds 16 bits per channel as we write it; `animated`: holds several frames as we write it;
    `profiled`: carries an ICC profile; `largest_side`: in pixels; `extra`: the optional extra that reads
    (and, if any, writes) it.
    """

    name: str
    suffixes: tuple[str, ...]
    alpha: bool = True
    deep: bool = False
    animated: bool = False
    profiled: bool = True
    writable: bool = True
    largest_side: int = 1 << 31
    extra: Extra | None = None


FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), alpha=False, largest_side=65500),
        Format("PNG", (".png", ".apng"), deep=True, animated=True),
        Format("WEBP", (".webp",), animated=True, largest_side=16383),
        Format("TIFF", (".tif", ".tiff"), deep=True, animated=True),
        Format("AVIF", (".avif", ".avifs"), animated=True, largest_side=65535),
        Format("BMP", (".bmp", ".dib"), profiled=False),
        Format("GIF", (".gif",), animated=True, profiled=False, largest_side=65535),
        Format("PPM", (".ppm", ".pgm", ".pnm", ".pbm"), alpha=False, deep=True, profiled=False),
        Format("HEIF", (".heic", ".heif", ".hif"), extra="heic"),
        Format("RAW", (".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
               alpha=False, writable=False, extra="raw"),
    )
}  # fmt: skip

# A raw file holds 12 or 14 bits that a JPEG would throw away, and nobody can write a raw file: a 16-bit TIFF
# keeps all.
_RAW_RESULT = "TIFF"


def format_of_suffix(path: PurePath) -> str | None:
    """Return the name of the format a path's suffix promises, or None."""
    suffix = path.suffix.lower()
    return next((name for name, entry in FORMATS.items() if suffix in entry.suffixes), None)


def format_named(name: str) -> str:
    """Return the format a person means by `jpg`, `JPEG` or `.tif`.

    Raises:
        SettingsError: there is none by that name that we can write.
    """
    wanted = name.lower().removeprefix(".")
    for entry in FORMATS.values():
        if entry.writable and (wanted == entry.name.lower() or f".{wanted}" in entry.suffixes):
            return entry.name
    offered = ", ".join(entry.suffixes[0][1:] for entry in FORMATS.values() if entry.writable)
    raise SettingsError(f"there is no format {name!r}; choose one of {offered}")


def output_format(source: str, *, requested: str | None = None, target: PurePath | None = None) -> str:
    """Return a result's format: the one asked for, else the target's suffix, else the source's own.

    A raw photo becomes a 16-bit TIFF.

    Raises:
        SettingsError: the format asked for does not exist or cannot be written.
    """
    if requested is not None:
        return format_named(requested)
    promised = format_of_suffix(target) if target is not None else None
    if promised is not None and FORMATS[promised].writable:
        return promised
    return source if FORMATS[source].writable else _RAW_RESULT


def suffix_for(name: str, source: PurePath) -> str:
    """Return a result's suffix: the source's own where it tells the truth, else the usual one."""
    own = source.suffix
    return own if own.lower() in FORMATS[name].suffixes else FORMATS[name].suffixes[0]
