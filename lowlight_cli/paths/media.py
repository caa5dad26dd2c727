"""Which suffixes and which first bytes belong to which format: the one table, and the one look at a file.

The planner goes by them, and so do the rooms that decode and write: `images` adds what each format can hold.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lowlight_cli.paths.refusal import refuse_unless

SNIFF_BYTES = 64
"""How much of a file's beginning `sniff` wants to see."""


@dataclass(frozen=True)
class Media:
    """What a planner looks for.

    `suffixes` maps a lower-case suffix to its format; a format's first suffix is the one given to new files. `sniff`
    names the format of a file's first `SNIFF_BYTES` bytes, or gives None. `written_as` maps a format that is only read
    to the one its result is written in.
    """

    noun: str
    suffixes: Mapping[str, str]
    sniff: Callable[[bytes], str | None]
    written_as: Mapping[str, str] = field(default_factory=dict)

    def format_of(self, suffix: str) -> str | None:
        """Return the format a suffix stands for, in any case, or None."""
        return self.suffixes.get(suffix.lower())

    def suffixes_of(self, format: str) -> tuple[str, ...]:
        """Return the suffixes of a format, the usual one first: `.jpg`, `.jpeg`, ... for jpeg."""
        return tuple(suffix for suffix, name in self.suffixes.items() if name == format)

    def usual_suffix(self, format: str) -> str:
        """Return the suffix that new files of a format get: `.jpg` for jpeg."""
        return self.suffixes_of(format)[0]

    def format_called(self, name: str) -> str:
        """Return the writable format that a person calls `name` (`jpeg`, `JPG`); SettingsError if none is."""
        folded = name.lower().removeprefix(".")
        format = self.suffixes.get(f".{folded}", folded)
        offered = set(self.suffixes.values()) - set(self.written_as)
        refuse_unless(
            format in offered, f"cannot write {self.noun} as {name!r}; there are {', '.join(sorted(offered))}"
        )
        return format


def sniff(head: bytes) -> str | None:
    """Name the picture format of a file's first `SNIFF_BYTES` bytes (jpeg, png, heif, raw, ...), or None."""
    for format, offset, mark in _PICTURE_MARKS:
        if head.startswith(mark, offset):
            return format
    if head[4:8] == b"ftyp":
        # The major brand may be the general `mif1`; the compatible brands after it then tell AVIF from HEIC.
        box = head[8 : max(16, int.from_bytes(head[:4], "big"))]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)}
        return next((format for format, marks in _BRANDS if brands & marks), None)
    # Two letters begin many a text, so what follows them must be right as well.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "bmp"
    return "ppm" if _PPM_START.match(head) else None


def sniff_file(path: Path, media: Media) -> str | None:
    """Name the format of a file from its first bytes; None for what cannot be read or is no regular file."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return None
        with path.open("rb") as file:
            return media.sniff(file.read(SNIFF_BYTES))
    except OSError:
        return None


# Cameras borrow the TIFF header with marks of their own; those stand before TIFF itself.
_PICTURE_MARKS = (
    ("jpeg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("webp", 8, b"WEBP"),
    ("gif", 0, b"GIF87a"),
    ("gif", 0, b"GIF89a"),
    ("raw", 0, b"FUJIFILMCCD-RAW"),
    ("raw", 0, b"IIRO"),
    ("raw", 0, b"IIRS"),
    ("raw", 0, b"MMOR"),
    ("raw", 0, b"IIU\0"),
    ("raw", 0, b"IIII"),
    ("raw", 0, b"MMMMRaw"),
    ("raw", 0, b"FOVb"),
    ("raw", 0, b"\0MRM"),
    ("raw", 0, b"HEAPCCDR"),
    ("raw", 8, b"CR\x02\x00"),
    ("tiff", 0, b"II*\0"),
    ("tiff", 0, b"MM\0*"),
    ("tiff", 0, b"II+\0"),
    ("tiff", 0, b"MM\0+"),
)
_BMP_HEADER_SIZES = (12, 16, 40, 52, 56, 64, 108, 124)
_PPM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])"  # a blank, or a comment with the end of its line
# Width and height, or a comment that is longer than what is looked at.
_PPM_START = re.compile(rb"P[1-6](?:" + _PPM_GAP + rb"+\d+" + _PPM_GAP + rb"+\d|" + _PPM_GAP + rb"*#[^\r\n]*\Z)")
_BRANDS = (
    ("raw", {b"crx "}),
    ("avif", {b"avif", b"avis"}),
    ("heif", {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}),
)
PICTURE_BRANDS = frozenset[bytes]().union(*(marks for _, marks in _BRANDS))
"""What a box of type `ftyp` may call the content of a still picture."""

_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "mpo": (".mpo",),
    "png": (".png", ".apng"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "bmp": (".bmp", ".dib"),
    "gif": (".gif",),
    "avif": (".avif", ".avifs"),
    "heif": (".heic", ".heif", ".hif"),
    "ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
    "raw": (
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".raf", ".orf", ".rw2"),
        *(".rwl", ".pef", ".srw", ".raw", ".3fr", ".fff", ".iiq", ".erf", ".kdc", ".dcr", ".mef", ".mos"),
        *(".mrw", ".x3f"),
    ),
}

PICTURES = Media(
    noun="pictures",
    suffixes={suffix: format for format, suffixes in _SUFFIXES.items() for suffix in suffixes},
    sniff=sniff,
    # Without its further frames an MPO is a JPEG; a developed raw file is worth 16 bits.
    written_as={"mpo": "jpeg", "raw": "tiff"},
)
