"""What an opened Pillow image knows besides its pixels: metadata, JPEG quality, frames that are no frames."""

import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from PIL import ImageFile, TiffImagePlugin

from lowlight_cli.errors import InputError
from lowlight_cli.images import photoshop
from lowlight_cli.images import xmp as packets
from lowlight_cli.images.gather import Directories, directory_bytes
from lowlight_cli.images.metadata import EXIF_START, Tags, orientation_of, readable_exif
from lowlight_cli.images.tiff_tags import Tag

_LARGEST_DPI = 65_535  # what JPEG can say; more is damage
_MOST_PAGES = 4096  # each costs Pillow about a millisecond before one is decoded
_TIMES_OVER = 16  # in a file that is only damaged, some directories may seem to reach to its end
_PHOTOSHOP_START = b"Photoshop 3.0\x00"
# Texts in which PNG writers keep what PNG had, or has, no place for; APP1 is the one or the other.
_PNG_EXIF = ("Raw profile type exif", "Raw profile type APP1")
_PNG_XMP = ("Raw profile type xmp", "Raw profile type APP1")
_PNG_IPTC = ("Raw profile type iptc", "Raw profile type 8bim")
_PNG_COPIES = ("XML:com.adobe.xmp", *_PNG_EXIF, *_PNG_XMP, *_PNG_IPTC)

# The luminance table of the JPEG standard, annex K.1: what libjpeg calls quality 50.
_LUMINANCE_TABLE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def format_of(image: ImageFile.ImageFile) -> str:
    """Return the format's name; a JPEG with more pictures behind it (MPO) is a JPEG."""
    return "JPEG" if image.format == "MPO" else image.format or ""


def frame_places(image: ImageFile.ImageFile) -> Sequence[int]:
    """Return where the frames or pages lie among all pictures; a second eye, a gain map or a small copy is none.

    Raises:
        InputError: there are thousands of pages, or they lie one over another.
    """
    if image.format == "TIFF":
        return _full_pages(image)
    count = int(getattr(image, "n_frames", 1))
    return range(1 if format_of(image) in ("JPEG", "HEIF") else count)


def orientation_to_undo(image: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation in which the decoded pixels lie; Pillow turns TIFFs upright by itself."""
    return 1 if image.format == "TIFF" else orientation_of(exif_of(image))


def exif_of(image: ImageFile.ImageFile) -> bytes | None:
    """Return the EXIF block as it stands in the file; a TIFF's is gathered from its directories."""
    if image.format == "TIFF":
        told = _told_by_tiff(image)
        return readable_exif(told.exif(without=(Tag.MAKER_NOTE,))) if told else None
    found: list[bytes | None] = [image.info.get("exif"), *(_hex_profile(image.info.get(name)) for name in _PNG_EXIF)]
    return next((block for one in found if (block := readable_exif(one))), None)


def tags_of(image: ImageFile.ImageFile) -> tuple[Tags, tuple[str, ...]]:
    """Return an image's metadata, and sentences about what had to be left out.

    A TIFF is asked before its pixels are read, which may close it; other formats after, for some tell more behind them.
    """
    warnings = []
    exif = exif_of(image)
    told = _told_by_tiff(image)
    if told.is_damaged() if told else (exif is None and image.info.get("exif")):
        warnings.append("its EXIF data is damaged and was left out")
    if told and told.has_maker_note():
        warnings.append("its maker's notes, which hold offsets into the old file, were left out")
    xmp = _xmp_of(image)
    if _has_extra_pictures(image, xmp):
        warnings.append("further pictures in the file (a second view, a gain map or a clip) were left out")
        xmp = xmp and packets.without_extra_pictures(xmp)
    if xmp and (shorter := packets.without_extension(xmp)) != xmp:
        warnings.append("the extended part of its XMP data was left out")
        xmp = shorter
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


def _xmp_of(image: ImageFile.ImageFile) -> bytes | None:
    if xmp := _as_bytes(image.info.get("xmp")):
        return xmp
    found = (_hex_profile(image.info.get(name)) or b"" for name in _PNG_XMP)
    return next((xmp.removeprefix(packets.XMP_START) for xmp in found if xmp and not xmp.startswith(EXIF_START)), None)


def _has_extra_pictures(image: ImageFile.ImageFile, xmp: bytes | None) -> bool:
    # Pillow opens a JPEG with a gain map as a plain JPEG, and keeps its list of pictures ("mp") as it stands. Older
    # phones only say in XMP that a clip follows.
    if format_of(image) not in ("JPEG", "HEIF"):
        return False
    listed = getattr(image, "n_frames", 1) > 1 or "mp" in image.info
    return listed or (xmp is not None and packets.names_extra_pictures(xmp))


def jpeg_quality(image: ImageFile.ImageFile) -> int | None:
    """Return the quality (1 to 100, on the scale of libjpeg) that a JPEG's luminance table stands for."""
    tables = getattr(image, "quantization", None)
    if format_of(image) != "JPEG" or not tables:
        return None
    luminance = sum(tables[min(tables)])
    return next((quality for quality in range(1, 101) if _table_sum(quality) <= luminance), 100)


@cache  # a hundred of them are compared for each JPEG
def _table_sum(quality: int) -> int:
    """Return the sum of libjpeg's luminance table at a quality: scaled, each entry 1 to 255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return sum(min(255, max(1, (step * scale + 50) // 100)) for step in _LUMINANCE_TABLE)


def _full_pages(image: ImageFile.ImageFile) -> Sequence[int]:
    """Return the pages of a TIFF that are no smaller copies of another."""
    file, pages, read = image.fp, [], 0
    assert file is not None  # it was opened just now
    start = file.tell()
    length = file.seek(0, io.SEEK_END)
    with suppress(EOFError):  # behind the last
        for index in range(_MOST_PAGES):
            image.seek(index)
            # Each may begin one entry behind the page before, and share thousands of entries with it.
            read += directory_bytes(file, place_of_page(image))
            if read > _TIMES_OVER * length:
                raise InputError("its pages lie one over another")
            if not int(getattr(image, "tag_v2", {}).get(Tag.NEW_SUBFILE_TYPE, 0)) & 1:
                pages.append(index)
        image.seek(_MOST_PAGES)
        raise InputError(f"it has more than {_MOST_PAGES} pages; split it into several files")
    file.seek(start)
    image.seek(0)
    return pages or range(1)


def place_of_page(image: ImageFile.ImageFile) -> int:
    """Return where the directory of an opened TIFF's page begins.

    Pillow came by it, and noted where; a walk from the first page, once more for each, takes minutes for thousands.
    """
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    return image._frame_pos[image.tell()]


def _told_by_tiff(image: ImageFile.ImageFile) -> Directories | None:
    """Return the directories of a TIFF's page; None once its pixels are read, or where they are damaged."""
    file = image.fp
    if image.format != "TIFF" or file is None:
        return None
    place = file.tell()
    try:
        return Directories(file, place_of_page(image))
    except (ValueError, OSError):
        return None
    finally:
        file.seek(place)


def _hex_profile(text: str | None) -> bytes | None:
    """Decode the way PNG writers store what PNG has no place for: a name, a length, and the bytes in hexadecimal."""
    try:
        return bytes.fromhex("".join((text or "").split("\n")[3:])) or None
    except ValueError:
        return None


def _photoshop_of(image: ImageFile.ImageFile) -> bytes | None:
    if told := _told_by_tiff(image):
        return photoshop.with_iptc(told.value(Tag.PHOTOSHOP), told.value(Tag.IPTC))
    for name in _PNG_IPTC if image.format == "PNG" else ():
        if content := _hex_profile(image.info.get(name)):
            return photoshop.resources_of(content)
    segments = [content for name, content in getattr(image, "applist", ()) if name == "APP13"]
    parts = [part.removeprefix(_PHOTOSHOP_START) for part in segments if part.startswith(_PHOTOSHOP_START)]
    return b"".join(parts) or None


def profile_of(image: ImageFile.ImageFile) -> bytes | None:
    """Return the ICC profile of an image; of a page that has none Pillow still tells the last one's."""
    if image.format == "TIFF" and Tag.ICC_PROFILE not in getattr(image, "tag_v2", {}):
        return None
    return image.info.get("icc_profile") or None


def _dpi_of(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    if image.format == "TIFF":  # of a page that has none Pillow still tells the last one's
        page = getattr(image, "tag_v2", {})
        if Tag.X_RESOLUTION not in page or page.get(Tag.RESOLUTION_UNIT) == 1:
            return None
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if all(0.1 < value <= _LARGEST_DPI for value in (across, down)):
        return across, down
    return None


def _texts_of(image: ImageFile.ImageFile) -> tuple[tuple[str, str], ...]:
    texts: dict[str, str] = getattr(image, "text", {}) if image.format == "PNG" else {}
    return tuple((str(key), str(value)) for key, value in texts.items() if key not in _PNG_COPIES)


def _as_bytes(value: object) -> bytes | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return value if isinstance(value, bytes) and value else None
