"""What a format cannot hold of a picture: it is turned into what it can, or left out, and said."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.errors import OutputError
from lowlight_cli.images.formats import FORMATS
from lowlight_cli.images.metadata import EXIF_START
from lowlight_cli.images.picture import Canvas, Picture, Pixels
from lowlight_cli.images.xmp import XMP_START

# A JPEG segment counts its length, itself included, in 16 bits.
SEGMENT_BYTES = 65533


def fit_to_format(picture: Picture, name: str) -> Picture:
    """Return the picture with only what format `name` can hold, and a warning for each thing it cannot.

    Raises:
        OutputError: the format cannot hold a picture of this size.
    """
    facts = FORMATS[name]
    if max(picture.width, picture.height) > facts.largest_side:
        raise OutputError(f"{name} holds at most {facts.largest_side} pixels a side; choose another --format")
    if picture.profile is not None and not facts.profiled:
        picture = _as_srgb(picture).with_warning(f"{name} holds no colour profile; written as sRGB")
    if not facts.grey:
        picture = without_grey_profile(picture, name)
    if picture.depth == 16 and not facts.deep:
        picture = shallow(picture).with_warning(f"{name} holds 8 bits per channel; written with 8 of 16")
    if picture.alpha is not None and not facts.alpha:
        picture = _on_white(picture).with_warning(f"{name} holds no transparency; laid on white")
    untold: dict[str, Any] = {kind: None for kind in facts.untold if getattr(picture.tags, kind)}
    if untold:
        said = " and no ".join(kind.upper() for kind in untold)
        picture = replace(picture, tags=replace(picture.tags, **untold))
        picture = picture.with_warning(f"{name} holds no {said} data; left out")
    if name == "JPEG":
        picture = _with_segments_that_fit(picture)
    return picture


def without_grey_profile(picture: Picture, name: str) -> Picture:
    """Return a picture that is written in colour: grey by a profile for grey becomes sRGB, for the one must go."""
    if not picture.is_grey or picture.icc is None:
        return picture
    return _as_srgb(picture).with_warning(f"{name} holds no profile for grey; written as sRGB")


def _as_srgb(picture: Picture) -> Picture:
    plain = replace(picture, profile=None, icc=None)
    canvas = Canvas(plain)
    for rows in picture.bands():
        canvas.add(picture.srgb(rows))
    return canvas.picture()


def shallow(picture: Picture) -> Picture:
    """Return a 16-bit picture with 8 bits per channel."""
    alpha = None if picture.alpha is None else _eight_bits(picture.alpha)
    return replace(picture, pixels=_eight_bits(picture.pixels), alpha=alpha, depth=8)


def _eight_bits(deep: Pixels) -> NDArray[np.uint8]:
    """Return the nearest of 256 levels: 65535 is 255 times 257."""
    shallow = np.empty(deep.shape, dtype=np.uint8)
    for row, values in enumerate(deep):
        shallow[row] = (values.astype(np.uint32) + 128) // 257
    return shallow


def _on_white(picture: Picture) -> Picture:
    assert picture.alpha is not None  # asked for only where there is one
    top = int(np.iinfo(picture.pixels.dtype).max)
    pixels = np.empty_like(picture.pixels)
    for row, (own, alpha) in enumerate(zip(picture.pixels, picture.alpha, strict=True)):
        share = alpha[:, None].astype(np.float32) / top
        pixels[row] = np.rint(own * share + top * (1 - share))
    return replace(picture, pixels=pixels, alpha=None)


def _with_segments_that_fit(picture: Picture) -> Picture:
    tags = picture.tags
    if tags.exif and len(tags.exif) + len(EXIF_START) > SEGMENT_BYTES:
        picture = picture.with_warning("its EXIF data is too long for a JPEG and was left out")
        tags = replace(tags, exif=None)
    if tags.xmp and len(tags.xmp) + len(XMP_START) > SEGMENT_BYTES:
        picture = picture.with_warning("its XMP data is too long for a JPEG and was left out")
        tags = replace(tags, xmp=None)
    return replace(picture, tags=tags)
