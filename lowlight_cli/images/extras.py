"""HEIC and raw photos, by libraries installed on request: `lowlight-cli[heic]`, `lowlight-cli[raw]`.

Once its library is there, HEIC is an ordinary Pillow format. A raw photo is developed by LibRaw to 16-bit sRGB with the
camera's white balance and without automatic brightening: making it bright is our task. What the file says about the
photo comes along, but for the maker's notes, which hold offsets into the raw file.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lowlight_cli.errors import InputError
from lowlight_cli.images import xmp as packets
from lowlight_cli.images.gather import Directories
from lowlight_cli.images.metadata import Tags, as_srgb, readable_exif
from lowlight_cli.images.picture import Picture
from lowlight_cli.images.sniff import Source, stream_of
from lowlight_cli.images.tiff_tags import Tag

if TYPE_CHECKING:
    from rawpy import RawPy

_LIBRARIES = {"HEIF": ("pillow_heif", "heic"), "RAW": ("rawpy", "raw")}

# LibRaw's own words for the sRGB curve: the exponent, and the slope of the straight part.
_SRGB_GAMMA = (2.4, 12.92)


def require(kind: str) -> ModuleType:
    """Return the library that reads `kind` ("HEIF" or "RAW"), ready for use.

    Raises:
        InputError: it is not installed; the message says how to install it.
    """
    name, extra = _LIBRARIES[kind]
    try:
        library = import_module(name)
    except ImportError as error:
        raise InputError(
            f"it is a {kind} picture, which needs an extra: pip install 'lowlight-cli[{extra}]'"
        ) from error
    if kind == "HEIF":
        library.register_heif_opener()
    return library


def raw_size(source: Source) -> tuple[int, int]:
    """Return width and height in pixels of the picture a raw photo develops to.

    Raises:
        InputError: the library is missing, or the photo is damaged or of an unknown camera.
    """
    with _raw_photo(source) as photo:
        width, height = photo.sizes.width, photo.sizes.height
        # LibRaw's flip: 5 and 6 are quarter turns.
        return (height, width) if photo.sizes.flip in (5, 6) else (width, height)


def read_raw(source: Source, pixel_budget: int) -> Picture:
    """Develop a raw photo.

    Raises:
        InputError: as for `raw_size`, or the photo is larger than the budget.
    """
    rawpy = require("RAW")
    with _raw_photo(source) as photo:
        if photo.sizes.width * photo.sizes.height > pixel_budget:
            raise InputError(f"it has more than {pixel_budget / 1e6:.3g} million pixels")
        pixels = photo.postprocess(
            output_bps=16,
            use_camera_wb=True,
            no_auto_bright=True,
            gamma=_SRGB_GAMMA,
            output_color=rawpy.ColorSpace.sRGB,
        )
        tags = _tags_of_raw(source, photo)
    height, width, _ = pixels.shape
    return Picture(
        pixels=np.ascontiguousarray(pixels),
        format="RAW",
        depth=16,
        tags=tags.upright(1, width, height),
        warnings=() if tags.exif else ("its EXIF data could not be read and was left out",),
    )


def _tags_of_raw(source: Source, photo: "RawPy") -> Tags:
    """Return what a raw photo's directories say, or, where it has none of the usual kind, its preview's EXIF."""
    xmp = None
    try:
        with stream_of(source) as file:
            found = Directories(file)
            exif = found.exif(without=(Tag.MAKER_NOTE, Tag.INTEROP_DIRECTORY))
            xmp = found.value(Tag.XMP)
    except (ValueError, OSError):
        exif = _exif_of_preview(photo)
    exif = readable_exif(exif)
    return Tags(exif=exif and as_srgb(exif), xmp=xmp and packets.without_developing(xmp))


def _exif_of_preview(photo: "RawPy") -> bytes | None:
    try:
        preview = photo.extract_thumb().data
        # Cameras store JPEGs. What else Pillow knows by its first bytes is no preview, and was never judged here.
        with Image.open(io.BytesIO(preview if isinstance(preview, bytes) else b""), formats=("JPEG",)) as image:
            block = readable_exif(image.info.get("exif"))
        return Directories(io.BytesIO(block)).exif(without=(Tag.MAKER_NOTE, Tag.INTEROP_DIRECTORY)) if block else None
    except Exception:  # LibRaw has no preview, or Pillow raises whatever its reading of bytes makes it raise
        return None


@contextmanager
def _raw_photo(source: Source) -> Iterator["RawPy"]:
    rawpy = require("RAW")
    try:
        with rawpy.imread(str(source) if isinstance(source, Path) else io.BytesIO(source)) as photo:
            yield photo
    except rawpy.LibRawError as error:
        words = error.args[0] if error.args else ""
        reason = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
        raise InputError(f"it is a raw photo that cannot be developed ({reason})") from error
