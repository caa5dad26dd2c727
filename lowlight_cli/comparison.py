"""One picture that shows before and after, labelled: both side by side, or one scene split in the middle.

The words stand on a strip below, so that they cover nothing. At full size every pixel is the input's or the result's
own, in the result's depth and profile; a preview is small enough to send, in 8 bits of sRGB.
"""

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lowlight_cli.atomic import preserve_times as keep_times
from lowlight_cli.errors import InputError
from lowlight_cli.images import (
    FORMATS,
    Picture,
    Pixels,
    output_format,
    probe,
    read_picture,
    thumbnail_of,
    write_picture,
)
from lowlight_cli.images.fit import fit_to_format
from lowlight_cli.paths import Job
from lowlight_cli.settings import CompareStyle, Comparison, Encoding

LABELS = ("before", "after")
PREVIEW_SIDE = 1600
"""Long side of a comparison at preview size, without its strip."""

_PAPER, _INK, _LINE = 24, 230, 255  # of 255, grey in every profile
_TEXT_SHARE, _LEAST_TEXT = 0.03, 12  # of the picture's short side; in pixels
_GAP_SHARE = 0.004  # between the two, and the line's width where one is split


def write_comparison(
    original: Picture, result: Picture, path: Path, how: Comparison, *, encoding: Encoding, overwrite: bool
) -> None:
    """Write what `compared` makes of both; raises OutputError as `write_picture` does.

    Where the format cannot hold so wide a picture, the comparison is of preview size.
    """
    most = FORMATS[output_format(result.format, requested=encoding.format, target=path)].largest_side
    width = 2 * result.width + _thickness(result.pixels) if how.style == "side" else result.width
    if max(width, result.height + _strip_height(_text_size(result.pixels))) > most:
        how = replace(how, size="preview")
    write_picture(compared(original, result, how), path, encoding=encoding, overwrite=overwrite)


def compare_job(
    job: Job, how: Comparison, *, encoding: Encoding, preserve_times: bool = False, pixel_budget: int | None = None
) -> None:
    """Write the comparison that a job lacks, from its input and a result that was there.

    Raises InputError where one of them cannot be read or is another picture by now, OutputError as `write_picture`.
    """
    assert job.input is not None  # standard input is gone
    assert job.output is not None
    require_still(probe(job.input, pixel_budget=pixel_budget).frames)
    original, result = (read_picture(path, pixel_budget=pixel_budget) for path in (job.input, job.output))
    original = fit_to_format(original, result.format)
    if (original.height, original.width) != (result.height, result.width):
        raise InputError(f"{job.output} is of another size, so there is no comparison; --overwrite makes both anew")
    if original.pixels.shape != result.pixels.shape or _look(original) != _look(result):
        how = replace(how, size="preview")  # in which all pictures are alike
    for path in job.missing:
        write_comparison(original, result, path, how, encoding=encoding, overwrite=False)
        if preserve_times:
            keep_times(job.input, path)


def require_still(frames: int) -> None:
    """Refuse what moves; raises InputError."""
    if frames > 1:
        raise InputError(f"--compare is for still pictures, and this one has {frames} frames")


def _look(picture: Picture) -> tuple[int, bytes | None]:
    """Return what says how a picture's numbers are meant."""
    return picture.depth, picture.icc


def compared(original: Picture, result: Picture, how: Comparison = Comparison()) -> Picture:
    """Return a picture with both, the original at the left, in the result's format."""
    pictures = (original, result)
    if how.size == "preview":
        width = 2 * result.width if how.style == "side" else result.width
        side = round(PREVIEW_SIDE * max(result.width, result.height) / max(width, result.height))
        pictures = (_small(original, side), _small(result, side))
    before, after = (each.pixels for each in pictures)
    drawn = _laid_out(before, after, how.style)
    strip = _strip(drawn, _text_size(after))
    alpha = pictures[1].alpha
    if alpha is not None:
        both = _laid_out(alpha[..., None], alpha[..., None], how.style, opaque=True)
        opaque = np.full_like(strip[..., :1], _grey(255, alpha))
        alpha = cast(Pixels, np.vstack((both, opaque))[..., 0])
    return replace(pictures[1], pixels=cast(Pixels, np.vstack((drawn, strip))), alpha=alpha)


def _small(picture: Picture, side: int) -> Picture:
    return replace(picture, pixels=thumbnail_of(picture, side), alpha=None, depth=8, icc=None, profile=None)


def _laid_out(before: Pixels, after: Pixels, style: CompareStyle, *, opaque: bool = False) -> Pixels:
    """Put the two side by side with a gap, or the halves of both together with a line over the seam.

    Gap and line are painted in their own greys, or as transparency is where it is `opaque`.
    """
    thickness = _thickness(after)
    if style == "side":
        gap = np.full((len(after), thickness, after.shape[2]), _grey(255 if opaque else _PAPER, after), after.dtype)
        return cast(Pixels, np.hstack((before, gap, after)))
    middle = after.shape[1] // 2
    drawn = np.concatenate((before[:, :middle], after[:, middle:]), axis=1)
    if after.shape[1] > 4 * thickness:
        drawn[:, middle - thickness // 2 : middle + thickness // 2] = _grey(255 if opaque else _LINE, after)
    return cast(Pixels, drawn)


def _strip(drawn: Pixels, text_size: int) -> Pixels:
    """Return the strip below `drawn`; the second label begins at half of its width."""
    width, height = drawn.shape[1], _strip_height(text_size)
    paper = Image.new("L", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(text_size)
    for label, left in zip(LABELS, (0, width // 2), strict=True):
        if font.getlength(label) <= width / 2 - text_size:  # a narrow picture has no room for words
            draw.text((left + text_size // 2, height // 2), label, fill=_INK, font=font, anchor="lm")
    levels = np.asarray(paper, dtype=np.float32) * (np.iinfo(drawn.dtype).max / 255)
    grey: NDArray[np.integer] = np.rint(levels).astype(drawn.dtype)
    return cast(Pixels, np.repeat(grey[..., None], drawn.shape[2], axis=2))


def _strip_height(text_size: int) -> int:
    return round(text_size * 1.7)


def _text_size(pixels: Pixels) -> int:
    return max(_LEAST_TEXT, round(_short_side(pixels) * _TEXT_SHARE))


def _thickness(pixels: Pixels) -> int:
    return max(2, 2 * round(_short_side(pixels) * _GAP_SHARE / 2))


def _short_side(pixels: Pixels) -> int:
    return int(min(pixels.shape[:2]))


def _grey(level: int, like: Pixels) -> int:
    return level * int(np.iinfo(like.dtype).max) // 255
