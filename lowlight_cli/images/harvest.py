"""What an opened Pillow image knows besides its pixels: metadata, JPEG quality, frames that are no frames."""

import math
import struct

from PIL import ExifTags, Image, ImageFile

from lowlight_cli.images import photoshop
from lowlight_cli.images import xmp as packets
from lowlight_cli.images.metadata import Tags, orientation_of, readable_exif

# The directory of a TIFF mixes description with layout. These tags describe, and are true of the result as well.
_DESCRIPTIVE = (
    0x010D, 0x010E, 0x010F, 0x0110, 0x011D, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298,
    0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F,
)  # fmt: skip
_TIFF_PHOTOSHOP = 0x8649
_NEW_SUBFILE_TYPE = 0x00FE
_PHOTOSHOP_START = b"Photoshop 3.0\x00"
_PNG_IPTC = ("Raw profile type iptc", "Raw profile type 8bim")
_PNG_COPIES = (
    "XML:com.adobe.xmp", "Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp", *_PNG_IPTC,
)  # fmt: skip

# The luminance table of the JPEG standard, annex K.1: what libjpeg calls quality 50.
_LUMINANCE_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def format_of(image: ImageFile.ImageFile) -> str:
    """Return the format's name; a JPEG with more pictures behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or ""


def frame_count(image: ImageFile.ImageFile) -> int:
    """Return the number of frames or pages; a second eye, a gain map or a small copy is none."""
    count = int(getattr(image, "n_frames", 1))
    if format_of(image) in ("JPEG", "HEIF"):
        return 1
    if image.format == "TIFF" and count > 1:
        return _full_pages(image, count)
    return count


def orientation_to_undo(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation in which the decoded pixels lie; Pillow turns TIFFs upright by itself."""
    return 1 if image.format == "TIFF" else orientation_of(exif_of(image))


def exif_of(image: ImageFile.ImageFile) -> bytes | None:
    """Return the EXIF block as it stands in the file; a TIFF's is gathered from its directories."""
    if image.format == "TIFF":
        return exif_of_directories(image.getexif())
    raw = image.info.get("exif")
    if raw is None and "Raw profile type exif" in image.info:
        raw = _hex_profile(image.info["Raw profile type exif"])
    return readable_exif(raw)


def tags_of(image: ImageFile.ImageFile) -> tuple[Tags, tuple[str, ...]]:
    """Return a decoded image's metadata, and sentences about what had to be left out."""
    warnings = []
    exif = exif_of(image)
    if exif is None and image.info.get("exif"):
        warnings.append("its EXIF data is damaged and was left out")
    xmp = _as_bytes(image.info.get("xmp"))
    if _has_extra_pictures(image):
        warnings.append("further pictures in the file (a second view or a gain map) were left out")
        xmp = xmp and packets.without_extra_pictures(xmp)
    if xmp and packets.has_extension(xmp):
        warnings.append("the extended part of its XMP data was left out")
        xmp = packets.without_extension(xmp)
    comment = image.info.get("comment")
    return (
        Tags(
            exif=exif,
            xmp=xmp,
            iptc=photoshop.without_thumbnail(_photoshop_of(image)),
            dpi=_dpi_of(image),
            comment=_as_bytes(comment),
            text=_texts_of(image),
        ),
        tuple(warnings),
    )


def _has_extra_pictures(image: ImageFile.ImageFile) -> bool:
    # Pillow opens a JPEG with a gain map as a plain JPEG, and keeps its list of pictures ("mp") as it stands.
    return format_of(image) in ("JPEG", "HEIF") and (getattr(image, "n_frames", 1) > 1 or "mp" in image.info)


def jpeg_quality(image: ImageFile.ImageFile) -> int | None:
    """Return the quality (1 to 100, on the scale of libjpeg) that a JPEG's luminance table stands for."""
    tables = getattr(image, "quantization", None)
    if format_of(image) != "JPEG" or not tables:
        return None
    luminance = sum(tables[min(tables)])
    return next((quality for quality in range(1, 101) if _table_sum(quality) <= luminance), 100)


def _table_sum(quality: int) -> int:
    """Return the sum of libjpeg's luminance table at a quality: scaled, each entry 1 to 255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(255, max(1, (step * scale + 50) // 100)) for step in _LUMINANCE_TABLE)


def _full_pages(image: ImageFile.ImageFile, count: int) -> int:
    """Count the pages of a TIFF that are no smaller copies of another."""
    pages = 0
    for index in range(count):
        image.seek(index)
        pages += not int(getattr(image, "tag_v2", {}).get(_NEW_SUBFILE_TYPE, 0)) & 1
    image.seek(0)
    return max(1, pages)


def exif_of_directories(whole: Image.Exif) -> bytes | None:
    """Return an EXIF block of what describes the picture in the directories of a TIFF, or a raw photo."""
    kept = Image.Exif()
    for tag in _DESCRIPTIVE:
        if tag in whole:
            kept[tag] = whole[tag]
    for pointer in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        directory = whole.get_ifd(pointer)
        if directory:
            kept[pointer] = dict(directory)
    if not len(kept):
        return None
    try:
        return readable_exif(kept.tobytes())
    except (struct.error, ValueError, TypeError, KeyError, OverflowError, AttributeError):
        # Values of damaged types cannot be put together again.
        return None


def _hex_profile(text: str) -> bytes | None:
    """Decode the way PNG writers store what PNG has no place for: a name, a length, and the bytes in hexadecimal."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return None


def _photoshop_of(image: ImageFile.ImageFile) -> bytes | None:
    if image.format == "TIFF":
        return _as_bytes(getattr(image, "tag_v2", {}).get(_TIFF_PHOTOSHOP)) or _iptc_of(image)
    for name in _PNG_IPTC if image.format == "PNG" else ():
        if content := _hex_profile(image.info.get(name, "")):
            return photoshop.resources_of(content)
    segments = [content for name, content in getattr(image, "applist", ()) if name == "APP13"]
    parts = [part.removeprefix(_PHOTOSHOP_START) for part in segments if part.startswith(_PHOTOSHOP_START)]
    return b"".join(parts) or None


def _iptc_of(image: ImageFile.ImageFile) -> bytes | None:
    """Return a TIFF's IPTC records, which may lie in a tag of their own, as Photoshop's resource of them."""
    from PIL.IptcImagePlugin import getiptcinfo

    try:
        found = getiptcinfo(image) or {}
    except Exception:  # damaged: Pillow raises whatever its reading of bytes makes it raise
        return None
    return photoshop.iptc_block(
        photoshop.iptc_record(tag, value)
        for tag, held in sorted(found.items())
        for value in (held if isinstance(held, list) else [held])
    )


def _dpi_of(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if all(math.isfinite(value) and 0.1 < value < 1e6 for value in (across, down)):
        return across, down
    return None


def _texts_of(image: ImageFile.ImageFile) -> tuple[tuple[str, str], ...]:
    texts: dict[str, str] = getattr(image, "text", {}) if image.format == "PNG" else {}
    return tuple((str(key), str(value)) for key, value in texts.items() if key not in _PNG_COPIES)


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) and value else None
