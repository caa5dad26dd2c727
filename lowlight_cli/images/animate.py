"""Several frames or pages to one file: GIF, WebP, PNG and AVIF animations, and TIFF pages."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from lowlight_cli.errors import OutputError
from lowlight_cli.images.budget import default_pixel_budget
from lowlight_cli.images.decode import Animation, Frame
from lowlight_cli.images.encode import (
    AVIF_ALPHA,
    add_tiff_page,
    encoder_failures,
    pillow_image,
    png_texts,
    quality_for,
    told,
    written_whole,
)
from lowlight_cli.images.fit import fit_to_format, shallow, without_grey_profile
from lowlight_cli.images.formats import FORMATS, output_format
from lowlight_cli.images.tiff import TiffWriter
from lowlight_cli.settings import Encoding

_Writer = Callable[[list[Frame], BinaryIO, Animation, int], None]


def write_frames(
    frames: Iterable[Frame],
    target: Path | BinaryIO,
    *,
    animation: Animation,
    encoding: Encoding = Encoding(),
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write enhanced frames as an animation like the one they came from; return what could not be read or kept.

    Durations come from the frames, repetitions from `animation`. The format is chosen as for `write_picture`. Pages of
    a TIFF are written as they come; other formats gather their frames first, as their encoders ask for.

    Raises:
        OutputError: the format holds one picture only, or would gather more pixels than the animation's budget (both
            said before the first frame is asked for), or the file cannot be written; an existing file is as it was.
    """
    path = target if isinstance(target, Path) else None
    name = output_format(animation.format, requested=encoding.format, target=path)
    if not FORMATS[name].animated:
        raise OutputError(f"{name} holds one picture, not {animation.frames}; choose gif, webp, png or tiff")
    if name != "TIFF":
        _require_room(animation)
    warnings: dict[str, None] = {}
    fitted = _fitted(frames, name, encoding, warnings)
    with written_whole(target, overwrite=overwrite) as file:
        _write(fitted, file, name, animation, encoding)
    return tuple(warnings)


def _require_room(animation: Animation) -> None:
    """Refuse frames that ask, all at once, for more pixels than one picture may: as much memory goes to each pixel."""
    budget = default_pixel_budget() if animation.pixel_budget is None else animation.pixel_budget
    if animation.pixels > budget:
        raise OutputError(
            f"its {animation.frames} frames have {animation.pixels / 1e6:.3g} million pixels together, more than the "
            f"{budget / 1e6:.3g} million that were asked for or that memory allows; `lowlight video` does films, and "
            "--max-megapixels asks for another limit"
        )


def _fitted(frames: Iterable[Frame], name: str, encoding: Encoding, warnings: dict[str, None]) -> Iterator[Frame]:
    """Yield the frames with what the format can hold, and note once each thing it cannot, or that could not be read."""
    for frame in frames:
        tags = frame.picture.tags.chosen(encoding.metadata)
        picture = fit_to_format(replace(frame.picture, tags=tags), name)
        if name != "TIFF":
            picture = without_grey_profile(picture, f"an animated {name}")
        if picture.depth == 16 and name != "TIFF":
            picture = shallow(picture).with_warning(f"an animated {name} is written with 8 of 16 bits per channel")
        warnings.update(dict.fromkeys(picture.warnings))
        yield replace(frame, picture=picture)


def _write(frames: Iterator[Frame], file: BinaryIO, name: str, animation: Animation, encoding: Encoding) -> None:
    # Only the encoders are inside their boundary: frames are read and enhanced where they are asked for.
    if name == "TIFF":
        _write_pages(frames, file)
        return
    gathered = list(frames)
    quality = quality_for(gathered[0].picture, encoding)
    with encoder_failures(name):
        _WRITERS[name](gathered, file, animation, quality)


def _write_pages(frames: Iterator[Frame], file: BinaryIO) -> None:
    first = next(frames)
    with encoder_failures("TIFF"):
        writer = TiffWriter(file, first.picture.tags.exif)
    for frame in itertools.chain((first,), frames):
        with encoder_failures("TIFF"):
            add_tiff_page(writer, frame.picture)


def _images(frames: list[Frame]) -> tuple[Image.Image, list[Image.Image]]:
    """Return the first image and the others; all have alpha if one has."""
    mode = "RGBA" if any(frame.picture.alpha is not None for frame in frames) else "RGB"
    images = [pillow_image(frame.picture) for frame in frames]
    images = [image if image.mode == mode else image.convert(mode) for image in images]  # `convert` always copies
    return images[0], images[1:]


def _durations(frames: list[Frame]) -> list[int]:
    return [round(frame.milliseconds) for frame in frames]


def _write_gif(frames: list[Frame], file: BinaryIO, animation: Animation, quality: int) -> None:
    del quality
    first, others = _images(frames)
    first.info.pop("loop", None)
    if animation.plays != 1:  # what it does when nothing is said; else it counts repetitions after the first time
        first.info["loop"] = max(animation.plays - 1, 0)
    # Frames are whole pictures: where one is transparent, nothing of the last may show through (2: clear it).
    first.save(
        file,
        "GIF",
        save_all=True,
        append_images=others,
        duration=_durations(frames),
        disposal=2 if first.mode == "RGBA" else 1,
        comment=frames[0].picture.tags.comment or b"",
    )


def _write_webp(frames: list[Frame], file: BinaryIO, animation: Animation, quality: int) -> None:
    first, others = _images(frames)
    picture = frames[0].picture
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=_durations(frames),
        loop=animation.plays,
        quality=quality,
        lossless=picture.lossless,
        **told(picture),
    )


def _write_png(frames: list[Frame], file: BinaryIO, animation: Animation, quality: int) -> None:
    del quality
    first, others = _images(frames)
    picture = frames[0].picture
    shown = frames[1:] if animation.has_still else frames
    first.save(
        file,
        "PNG",
        save_all=True,
        append_images=others,
        default_image=animation.has_still,
        duration=[frame.milliseconds for frame in shown],
        loop=animation.plays,
        icc_profile=picture.icc,
        exif=picture.tags.exif or b"",
        dpi=picture.tags.dpi,
        pnginfo=png_texts(picture.tags),
    )


def _write_avif(frames: list[Frame], file: BinaryIO, animation: Animation, quality: int) -> None:
    del animation
    first, others = _images(frames)
    first.save(
        file,
        "AVIF",
        save_all=True,
        append_images=others,
        duration=_durations(frames),
        quality=quality,
        subsampling="4:4:4",
        advanced=AVIF_ALPHA,
        **told(frames[0].picture),
    )


_WRITERS: dict[str, _Writer] = {
    "GIF": _write_gif,
    "WEBP": _write_webp,
    "PNG": _write_png,
    "AVIF": _write_avif,
}
