"""Pictures to files, in the format a result is wanted in, complete or not at all."""

import io
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from lowlight_cli.atomic import atomic_file
from lowlight_cli.errors import OutputError
from lowlight_cli.images import extras, png
from lowlight_cli.images.bmp import write_bmp
from lowlight_cli.images.decode import LIBRARY_FAILURES
from lowlight_cli.images.fit import SEGMENT_BYTES, fit_to_format, shallow, without_grey_profile
from lowlight_cli.images.formats import output_format
from lowlight_cli.images.metadata import EXIF_START, Tags
from lowlight_cli.images.picture import Picture
from lowlight_cli.images.ppm import write_ppm
from lowlight_cli.images.tiff import TiffWriter
from lowlight_cli.settings import DEFAULT_QUALITY, Encoding

# Alpha is carried over untouched, whatever the colours' quality; said in the words of libaom, Pillow's encoder.
AVIF_ALPHA = {"alpha:lossless": "1"}

_IPTC_START = b"Photoshop 3.0\x00"


def write_picture(
    picture: Picture, target: Path | BinaryIO, *, encoding: Encoding = Encoding(), overwrite: bool = False
) -> tuple[str, ...]:
    """Write a picture to a path (atomically) or an open stream; return sentences on what was not kept.

    The format is `encoding.format`, else what the target's suffix promises, else the picture's own.

    Raises:
        SettingsError: the format asked for does not exist.
        OutputError: the picture cannot be written; an existing file is as it was.
    """
    path = target if isinstance(target, Path) else None
    name = output_format(picture.format, requested=encoding.format, target=path)
    picture = replace(picture, tags=picture.tags.chosen(encoding.metadata), warnings=())
    fitted = fit_to_format(picture, name)
    quality = quality_for(picture, encoding)
    with written_whole(target, overwrite=overwrite) as file, encoder_failures(name):
        _WRITERS[name](fitted, file, quality)
    return fitted.warnings


@contextmanager
def written_whole(target: Path | BinaryIO, *, overwrite: bool) -> Iterator[BinaryIO]:
    """Yield a file for an encoder, which then takes the target's place; a stream gets all of it at the end."""
    if isinstance(target, Path):
        with atomic_file(target, overwrite=overwrite) as file:
            yield file
    else:
        # Encoders seek back to fill in sizes; a pipe cannot.
        whole = io.BytesIO()
        yield whole
        target.write(whole.getbuffer())


def quality_for(picture: Picture, encoding: Encoding) -> int:
    """Return the quality asked for, else the input's own where it is above the default."""
    return encoding.quality or max(DEFAULT_QUALITY, picture.quality or 0)


@contextmanager
def encoder_failures(name: str) -> Iterator[None]:
    """Turn an encoder's refusal into OutputError; a full disk stays OSError, for `atomic_file` to explain."""
    try:
        yield
    except OSError:
        raise
    except LIBRARY_FAILURES as error:
        raise OutputError(f"the {name} encoder failed: {str(error) or type(error).__name__}") from error


def told(picture: Picture) -> dict[str, bytes]:
    """Return what a WebP or an AVIF holds besides its pixels, in Pillow's words."""
    return {"icc_profile": picture.icc or b"", "exif": picture.tags.exif or b"", "xmp": picture.tags.xmp or b""}


def _write_jpeg(picture: Picture, file: BinaryIO, quality: int) -> None:
    tags = picture.tags
    pillow_image(picture).save(
        file,
        "JPEG",
        quality=quality,
        subsampling="4:4:4",
        optimize=False,
        icc_profile=picture.icc,
        exif=EXIF_START + tags.exif if tags.exif else b"",
        xmp=tags.xmp,
        comment=tags.comment,
        dpi=_whole_dpi(tags),
        extra=_segments(b"\xff\xed", _IPTC_START, tags.iptc),
    )


def _write_png(picture: Picture, file: BinaryIO, quality: int) -> None:
    del quality
    tags, info = picture.tags, png_texts(picture.tags)
    if picture.depth == 8:
        pillow_image(picture).save(
            file, "PNG", icc_profile=picture.icc, exif=tags.exif or b"", dpi=tags.dpi, pnginfo=info
        )
        return
    chunks = [(bytes(name), bytes(content)) for name, content, *_ in info.chunks]
    if tags.exif:
        chunks.insert(0, (b"eXIf", tags.exif))
    if tags.dpi:
        chunks.insert(0, png.resolution_chunk(tags.dpi))
    if picture.icc:
        chunks.insert(0, png.profile_chunk(picture.icc))
    png.write_png(file, _size(picture), _rows(picture), chunks=chunks)


def png_texts(tags: Tags) -> PngImagePlugin.PngInfo:
    """Return the text chunks of a PNG: the XMP packet, IPTC as ImageMagick writes it, and what the input had."""
    info = PngImagePlugin.PngInfo()
    if tags.xmp:
        info.add_itxt("XML:com.adobe.xmp", tags.xmp.decode("utf-8", "replace"))
    if tags.iptc:
        digits = "\n".join(textwrap.wrap(tags.iptc.hex(), 72))
        info.add_text("Raw profile type iptc", f"\niptc\n{len(tags.iptc):8}\n{digits}\n", zip=True)
    for key, value in tags.text:
        info.add_text(key, value)
    return info


def _write_tiff(picture: Picture, file: BinaryIO, quality: int) -> None:
    del quality
    add_tiff_page(TiffWriter(file, picture.tags.exif), picture)


def add_tiff_page(writer: TiffWriter, picture: Picture) -> None:
    """Write a picture as the next page of a TIFF."""
    tags = picture.tags
    if picture.depth == 16 and picture.is_grey and picture.alpha is not None:
        # Few readers know 16-bit grey with alpha in a TIFF, Pillow and so we ourselves among those that do not.
        picture = without_grey_profile(picture, "16-bit TIFF with alpha")
        pixels: NDArray[np.uint16] = np.repeat(picture.pixels, 3, axis=2).astype(np.uint16, copy=False)
        picture = replace(picture, pixels=pixels)
    writer.add_page(
        _size(picture),
        _rows(picture),
        depth=picture.depth,
        icc=picture.icc,
        xmp=tags.xmp,
        iptc=tags.iptc,
        dpi=tags.dpi,
    )


def _write_webp(picture: Picture, file: BinaryIO, quality: int) -> None:
    pillow_image(picture, "RGB").save(
        file,
        "WEBP",
        quality=quality,
        lossless=picture.lossless,
        exact=picture.alpha is not None,
        **told(picture),
    )


def _write_avif(picture: Picture, file: BinaryIO, quality: int) -> None:
    pillow_image(picture, "RGB").save(
        file,
        "AVIF",
        quality=quality,
        subsampling="4:4:4",
        advanced=AVIF_ALPHA,
        **told(picture),
    )


def _write_heif(picture: Picture, file: BinaryIO, quality: int) -> None:
    tags = picture.tags
    extras.require("HEIF")
    pillow_image(picture).save(
        file,
        "HEIF",
        quality=quality,
        chroma=444,
        # Seven times faster than the default preset: 6 seconds for a phone's 12 megapixels, at 57 dB, no larger.
        enc_params={"preset": "ultrafast"},
        icc_profile=picture.icc,
        exif=tags.exif,
        xmp=tags.xmp,
    )


def _write_bmp(picture: Picture, file: BinaryIO, quality: int) -> None:
    del quality
    dpi, image = picture.tags.dpi or (96, 96), pillow_image(picture, "RGB")
    if picture.alpha is None:
        image.save(file, "BMP", dpi=dpi)
    else:
        write_bmp(file, np.asarray(image), dpi=dpi)


def _write_gif(picture: Picture, file: BinaryIO, quality: int) -> None:
    del quality
    pillow_image(picture).save(file, "GIF", comment=picture.tags.comment or b"")


def _write_ppm(picture: Picture, file: BinaryIO, quality: int) -> None:
    del quality
    write_ppm(file, _size(picture), _rows(picture), depth=picture.depth)


_WRITERS: dict[str, Callable[[Picture, BinaryIO, int], None]] = {
    "JPEG": _write_jpeg,
    "PNG": _write_png,
    "TIFF": _write_tiff,
    "WEBP": _write_webp,
    "AVIF": _write_avif,
    "HEIF": _write_heif,
    "BMP": _write_bmp,
    "GIF": _write_gif,
    "PPM": _write_ppm,
}


def pillow_image(picture: Picture, least: Literal["L", "RGB"] = "L") -> Image.Image:
    """Return a picture as a Pillow image of 8 bits; `least` "RGB" is for formats that have no grey."""
    picture = shallow(picture) if picture.depth == 16 else picture
    pixels = picture.pixels
    image = Image.fromarray(pixels[..., 0] if picture.is_grey else pixels)
    if picture.is_grey and least == "RGB":
        image = image.convert("RGB")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image


def _size(picture: Picture) -> tuple[int, int, int]:
    return picture.height, picture.width, picture.pixels.shape[2] + (picture.alpha is not None)


def _rows(picture: Picture) -> Iterator[NDArray[np.integer]]:
    for rows in picture.bands():
        band = picture.pixels[rows]
        yield band if picture.alpha is None else np.dstack((band, picture.alpha[rows])).astype(band.dtype, copy=False)


def _segments(marker: bytes, start: bytes, content: bytes | None) -> bytes:
    """Return `content` as JPEG segments, as many as it takes; readers join them."""
    room = SEGMENT_BYTES - len(start)
    parts = [content[place : place + room] for place in range(0, len(content), room)] if content else []
    return b"".join(marker + (2 + len(start + part)).to_bytes(2, "big") + start + part for part in parts)


def _whole_dpi(tags: Tags) -> tuple[int, int]:
    return (round(tags.dpi[0]), round(tags.dpi[1])) if tags.dpi else (0, 0)
