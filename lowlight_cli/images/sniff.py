"""What kind of file this is, by its content, before any decoder sees it."""

from pathlib import Path

from lowlight_cli.images.directory import TIFF_STARTS, Directory, TiffBlock

# Enough for every signature and for the first directories of a raw file.
HEAD_BYTES = 1 << 16

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_RAW_STARTS = (
    b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\x00", b"FOVb", b"\x00MRM", b"HEAPCCDR",
    b"IIII", b"MMMMRaw",
)  # fmt: skip
_FOREIGN = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"\x00\x00\x01\x00": "icon",
    b"PK\x03\x04": "ZIP archive",
    b"BPG\xfb": "BPG",
    b"<!DOCTYPE": "web page",
    b"<html": "web page",
}

_FAMILIAR = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"BM": "BMP",
}

_SUB_DIRECTORIES = 0x014A
_PHOTOMETRIC = 0x0106
_DNG_VERSION = 0xC612
# Colour filter array and linear raw: pixels that are no picture yet.
_RAW_PHOTOMETRICS = (32803, 34892)


def kind_of(head: bytes) -> str | None:
    """Return `"HEIF"` or `"RAW"` for the files that need an extra, None for all others."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[place : place + 4] for place in range(16, min(_box_size(head), 64), 4))}
        if head[8:12] == b"crx ":
            return "RAW"
        if b"avif" not in brands and b"avis" not in brands and brands & _HEIF_BRANDS:
            return "HEIF"
    if head.startswith(_RAW_STARTS) or (head[:4] in TIFF_STARTS and _is_tiff_raw(head)):
        return "RAW"
    return None


def foreign_name(head: bytes) -> str | None:
    """Return the name of a format we know by sight and do not read."""
    return next((name for start, name in _FOREIGN.items() if head.startswith(start)), None)


def familiar_name(head: bytes) -> str | None:
    """Return the name of a format that we read, by its signature alone."""
    return next((name for start, name in _FAMILIAR.items() if head.startswith(start)), None)


def is_lossless_webp(head: bytes) -> bool:
    """Return whether this is a WebP stored without loss; other formats say so by their name."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP" and b"VP8L" in head[:4096]


def head_of(path: Path) -> bytes:
    """Return the first bytes of a plain file."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _box_size(head: bytes) -> int:
    return int.from_bytes(head[:4], "big")


def _is_tiff_raw(head: bytes) -> bool:
    """Tell a raw photo from an ordinary TIFF, whose reader would find its thumbnail only."""
    if head[8:10] == b"CR":
        return True
    try:
        block = TiffBlock(head)
        first = block.first()
    except ValueError:
        return False
    if first.find(_DNG_VERSION):
        return True
    pointer = first.find(_SUB_DIRECTORIES)
    directories = [first, *(_directory(block, place) for place in (pointer.integers() if pointer else ()))]
    return any(_photometric(directory) in _RAW_PHOTOMETRICS for directory in directories)


def _directory(block: TiffBlock, place: int) -> Directory | None:
    try:
        return block.directory(place)
    except ValueError:
        return None


def _photometric(directory: Directory | None) -> int | None:
    entry = directory.find(_PHOTOMETRIC) if directory else None
    return entry.integer() if entry else None
