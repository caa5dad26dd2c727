"""An opened Pillow image to a `Picture`: every mode, every depth, upright.

Pillow reduces 16-bit colour to 8 bits while unpacking, by taking the high byte of each value. Decoding a second time
with the byte order named the wrong way round yields the low bytes; both together are the 16 bits of the file.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from lowlight_cli.errors import InputError
from lowlight_cli.images.bmp import embedded_profile
from lowlight_cli.images.gamma import adobe_rgb, profile_of_png
from lowlight_cli.images.harvest import (
    exif_of,
    format_of,
    jpeg_quality,
    orientation_to_undo,
    place_of_page,
    profile_of,
    tags_of,
)
from lowlight_cli.images.layout import (
    depth_of,
    first_pass,
    is_deep_colour,
    is_deep_mode,
    most_of_ppm,
    needs_planes,
    raw_mode,
    set_raw_mode,
    tiff_tag,
)
from lowlight_cli.images.metadata import is_adobe_rgb
from lowlight_cli.images.picture import Picture, Pixels
from lowlight_cli.images.planar import read_planes
from lowlight_cli.images.profiles import Convert, plan_colour
from lowlight_cli.images.tiff_tags import Tag

NO_AGREED_WHITE = (
    "its samples are signed or floating-point numbers, for which there is no agreed black and white; "
    "convert it to 16 bits first"
)

Reopen = Callable[[], AbstractContextManager[ImageFile.ImageFile]]

# Work on about this many pixels at a time: Pillow's copies of a band stay small beside the picture.
_BAND_PIXELS = 1 << 20

# The unpackers that read the other byte of each value. "N" is this machine's own order.
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# What TIFF's ExtraSamples say of alpha that the colours were multiplied by.
_PREMULTIPLIED = 1


class _Samples(NamedTuple):
    """Decoded integers as they lie in the file: `pixels` `(H, W, 1 or 3)`, `alpha` `(H, W)` or None."""

    pixels: Pixels
    alpha: Pixels | None


def picture_of(image: ImageFile.ImageFile, reopen: Reopen) -> Picture:
    """Decode an opened image; `reopen` opens the same frame of the same file once more.

    Raises:
        InputError: the pixels are of a kind we refuse. Damage raises whatever Pillow raises.
    """
    raw, depth, most = raw_mode(image), depth_of(image), most_of_ppm(image)
    icc = profile_of(image)
    early = tags_of(image) if image.format == "TIFF" else None
    if not icc and image.format == "PNG":
        icc = profile_of_png(image.info, grey=image.mode in ("1", "L", "LA", "I;16") or raw == "LA;16B")
    elif not icc and format_of(image) == "JPEG" and image.mode == "RGB" and is_adobe_rgb(exif_of(image)):
        icc = adobe_rgb()
    elif not icc and image.format == "BMP" and image.fp:
        icc = embedded_profile(image.fp)
    colour = plan_colour("LA" if raw == "LA;16B" else image.mode, icc, deep=depth == 16 or needs_planes(image))
    warnings = [*colour.warnings, *_refuse_or_warn(image, raw, depth)]
    planes = _in_planes(image, depth) if needs_planes(image) else None
    if is_deep := is_deep_colour(image):
        set_raw_mode(image, first_pass(raw))
    if planes is None:
        image.load()
    # All that the image knows is asked first: once unpacked, it may be closed to free its memory.
    orientation, (tags, tag_warnings) = orientation_to_undo(image), early or tags_of(image)
    plain = Picture(
        pixels=np.empty((0, 0, 1), dtype=np.uint8),
        format=format_of(image),
        depth=depth,
        icc=colour.icc,
        profile=colour.profile,
        quality=jpeg_quality(image),
        warnings=(*warnings, *tag_warnings),
    )
    if planes is not None:
        samples = planes
    elif is_deep:
        samples = _deep_colour(image, raw, reopen)
    elif most > 255:
        samples = _deep_ppm(image, most, reopen)
    elif depth == 16:
        samples = _deep_grey(image, raw)
    else:
        samples = _shallow(image, colour.convert)
    pixels = _turned(samples.pixels, orientation)
    alpha = None if samples.alpha is None else _turned(samples.alpha, orientation)
    height, width = pixels.shape[:2]
    return replace(plain, pixels=pixels, alpha=alpha, tags=tags.upright(orientation, width, height))


def _shallow(image: Image.Image, convert: Convert) -> _Samples:
    """Unpack 8 bits per channel, converting (palette, CMYK, premultiplied alpha) band by band."""
    width, height = image.size
    first = np.asarray(convert(image.crop((0, 0, 1, 1))))
    channels = first.shape[2] if first.ndim == 3 else 1
    colours = 1 if channels <= 2 else 3
    pixels = np.empty((height, width, colours), dtype=np.uint8)
    alpha = np.empty((height, width), dtype=np.uint8) if channels in (2, 4) else None
    for rows in _bands(width, height):
        band = np.asarray(convert(image.crop((0, rows.start, width, rows.stop))))
        pixels[rows] = band.reshape(*band.shape[:2], channels)[..., :colours]
        if alpha is not None:
            alpha[rows] = band[..., -1]
    return _Samples(pixels, alpha)


def _refuse_or_warn(image: ImageFile.ImageFile, raw: str, depth: int) -> list[str]:
    """Warn where Pillow gives less than the file holds; refuse where it would give nonsense."""
    if image.mode == "F" or (depth == 16 and (raw.endswith("S") or 2 in tiff_tag(image, Tag.SAMPLE_FORMAT))):
        raise InputError(NO_AGREED_WHITE)
    warnings = []
    is_deep_file = 16 in tiff_tag(image, Tag.BITS_PER_SAMPLE) or is_deep_mode(raw)
    if depth == 8 and is_deep_file:
        warnings.append("of its 16 bits per channel only 8 could be read")
    if depth == 8 and image.format == "HEIF" and (bits := image.info.get("bit_depth", 8)) > 8:
        warnings.append(f"of its {bits} bits per channel only 8 could be read")
    if 0 in tiff_tag(image, Tag.EXTRA_SAMPLES):
        warnings.append("a channel that is neither colour nor transparency was left out")
    return warnings


def _deep_grey(image: Image.Image, raw: str) -> _Samples:
    """Unpack grey of more than 8 bits into 16: 12 bits are stretched, of 32 the upper half is kept."""
    width, height = image.size
    pixels = np.empty((height, width, 1), dtype=np.uint16)
    for rows in _bands(width, height):
        band: NDArray[np.integer] = np.asarray(image.crop((0, rows.start, width, rows.stop)))
        if raw == "I;12":
            band = (band << 4) | (band >> 8)
        elif image.mode == "I" and image.format == "TIFF":
            band = band.view(np.uint32) >> 16
        elif image.mode == "I":
            band = np.clip(band, 0, 65535)
        pixels[rows, :, 0] = band
    if image.format == "TIFF" and image.mode != "I" and 0 in tiff_tag(image, Tag.PHOTOMETRIC):
        # Pillow turns white-is-zero round for 8 bits, and forgets to for 16.
        np.subtract(65535, pixels, out=pixels)
    return _Samples(pixels, _keyed_alpha(pixels, image.info.get("transparency")))


def _in_planes(image: ImageFile.ImageFile, depth: int) -> _Samples:
    assert image.fp is not None  # it was opened just now
    image.fp.seek(0)
    content = image.fp.read()
    names = image.getbands()
    planes = read_planes(content, place=place_of_page(image), planes=len(names), bits=depth)
    colours = len(names) if image.mode == "RGB" else len(names) - 1
    pixels: Pixels = planes[..., :colours].copy()
    if names[-1] not in "Aa":
        return _Samples(pixels, None)
    alpha: Pixels = planes[..., -1].copy()
    if _PREMULTIPLIED in tiff_tag(image, Tag.EXTRA_SAMPLES):
        _divide_by_alpha(pixels, alpha)
    return _Samples(pixels, alpha)


def _deep_colour(image: ImageFile.ImageFile, raw: str, reopen: Reopen) -> _Samples:
    """Unpack 16 bits per channel; `image` is loaded with the high bytes."""
    if raw == "LA;16B":
        return _deep_grey_with_alpha(image)
    width, height = image.size
    key, is_single = image.info.get("transparency"), getattr(image, "n_frames", 1) == 1
    planes = np.empty((height, width, len(image.mode)), dtype=np.uint16)
    for rows in _bands(width, height):
        planes[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)))
    planes <<= 8
    if is_single:
        image.close()
    with reopen() as again:
        high = first_pass(raw)
        set_raw_mode(again, high[:-1] + _OTHER_BYTE[high[-1]])
        again.load()
        for rows in _bands(width, height):
            planes[rows] |= np.asarray(again.crop((0, rows.start, width, rows.stop)))
    if planes.shape[2] == 3:
        return _Samples(planes, _keyed_alpha(planes, key))
    pixels, alpha = np.ascontiguousarray(planes[..., :3]), np.ascontiguousarray(planes[..., 3])
    if "RGBa" in raw:
        _divide_by_alpha(pixels, alpha)
    return _Samples(pixels, alpha)


def _deep_grey_with_alpha(image: ImageFile.ImageFile) -> _Samples:
    width, height = image.size
    pixels = np.empty((height, width, 1), dtype=np.uint16)
    alpha = np.empty((height, width), dtype=np.uint16)
    for rows in _bands(width, height):
        band = np.asarray(image.crop((0, rows.start, width, rows.stop))).view(">u2")
        pixels[rows, :, 0], alpha[rows] = band[..., 0], band[..., 1]
    return _Samples(pixels, alpha)


def _deep_ppm(image: ImageFile.ImageFile, most: int, reopen: Reopen) -> _Samples:
    """Read a 16-bit PPM, which Pillow would reduce to 8 bits: its rows lie plainly behind the header."""
    width, height = image.size
    image.close()
    with reopen() as again:
        assert again.fp is not None  # it was opened just now
        again.fp.seek(again.tile[0].offset)
        content = again.fp.read(height * width * 6)
    values = np.frombuffer(content, dtype=">u2").reshape(height, width, 3)
    pixels = np.empty(values.shape, dtype=np.uint16)
    for rows in _bands(width, height):
        # A sample above the largest, which only a damaged file holds, is the largest, as Pillow takes it.
        pixels[rows] = (np.minimum(values[rows], most).astype(np.uint32) * 65535 + most // 2) // most
    return _Samples(pixels, None)


def _keyed_alpha(pixels: Pixels, key: object) -> Pixels | None:
    """Return the alpha that a PNG's one transparent colour means: 0 where a pixel has it, full elsewhere."""
    if key is None:
        return None
    return np.where((pixels == np.asarray(key)).all(axis=2), 0, 65535).astype(np.uint16)


def _divide_by_alpha(pixels: Pixels, alpha: Pixels) -> None:
    top = float(np.iinfo(pixels.dtype).max)
    for rows in _bands(pixels.shape[1], pixels.shape[0]):
        share = alpha[rows, :, None].astype(np.float64)
        pixels[rows] = np.minimum(np.rint(pixels[rows] * top / np.maximum(share, 1)), top)


def _turned(array: NDArray[np.generic], orientation: int) -> Pixels:
    """Turn upright what lies in EXIF orientation 1 to 8 (EXIF 2.32, table 6)."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _bands(width: int, height: int) -> Iterator[slice]:
    step = max(1, _BAND_PIXELS // max(1, width))
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
