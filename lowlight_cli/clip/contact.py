"""A clip's contact sheet: frames before and after, evenly from its beginning to its end."""

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lowlight_cli.atomic import preserve_times as keep_times
from lowlight_cli.clip.frames import floats
from lowlight_cli.clip.together import Together
from lowlight_cli.errors import InputError
from lowlight_cli.paths import Job
from lowlight_cli.sheet import Cell, write_sheet
from lowlight_cli.video import Span
from lowlight_cli.video.colour import Pixels

_THUMBNAIL = 320  # long side of a picture, in pixels


class ContactSheet:
    """Takes `count` pairs of pictures from the frames that pass by.

    `length` is that of what passes by, in seconds. Where nobody knows it, up to twice as many are kept, ever farther
    apart, and the sheet chooses among them. `start` is the moment of the clip at which the first frame lies.
    """

    def __init__(self, path: Path, count: int, *, length: Fraction | None, start: Fraction) -> None:
        self.path, self.is_late = path, False
        self._count, self._length, self._start = count, length, start
        self._lines: list[list[Cell]] = []
        self._first: list[Cell] | None = None  # for a clip so short that no moment comes
        self._passed = 0  # moments, or frames where the length is unknown
        self._stride = 1
        self._is_resumed = False

    @property
    def is_empty(self) -> bool:
        """Whether no picture was taken."""
        return self._first is None

    def resume(self) -> None:
        """Begin in the middle; `is_late` says afterwards whether something was missed."""
        self._is_resumed, self.is_late = True, self._length is None

    def see(self, moment: Fraction, before: Pixels, after: Pixels) -> None:
        """Look at a frame, which lies at `moment` seconds from the first, and at what has become of it."""
        is_due = self._is_kept() if self._length is None else self._is_next(moment, self._length)
        if is_due or self._first is None:
            label = f"{float(moment + self._start):.2f} s"
            pictures = {"before": before, "after": after}
            line = [Cell(_thumbnail(one), f"{label}, {name}") for name, one in pictures.items()]
            self._first = self._first or line
            self._lines += [line] if is_due else []

    def chosen(self) -> list[list[Cell]]:
        """Return the pictures of the sheet, a line for each moment."""
        lines = self._lines or [self._first or []]
        wanted = min(self._count, len(lines))
        return [lines[(2 * place + 1) * len(lines) // (2 * wanted)] for place in range(wanted)]

    def moments(self, length: Fraction) -> list[Fraction]:
        """Return the moments to show of so many seconds: the middles of equal parts."""
        return [length * Fraction(2 * place + 1, 2 * self._count) for place in range(self._count)]

    def write(self, *, overwrite: bool) -> None:
        """Write the sheet; raises OutputError."""
        write_sheet(self.path, self.chosen(), overwrite=overwrite)

    def _is_next(self, moment: Fraction, length: Fraction) -> bool:
        """Tell whether a frame is the first at or after one of the moments."""
        passed = sum(moment >= each for each in self.moments(length))
        new, self._passed = passed - self._passed, passed
        if new > 1 and self._is_resumed and not self._lines:  # they lie in what was done before
            self.is_late = True
            return False
        return new > 0

    def _is_kept(self) -> bool:
        """Tell whether a frame is to be kept for now; those kept are thinned out as more come."""
        number, self._passed = self._passed, self._passed + 1
        if number % self._stride == 0 and len(self._lines) == 2 * self._count:
            del self._lines[1::2]
            self._stride *= 2
        return number % self._stride == 0


def sheet_job(
    job: Job,
    *,
    count: int,
    span: Span,
    side_by_side: bool = False,
    most_pixels: int | None = None,
    preserve_times: bool = False,
) -> None:
    """Write the contact sheet that a job lacks, from its clip and a result that was there.

    Raises InputError where one of them cannot be read or nobody knows how long the clip is, and OutputError.
    """
    assert job.input is not None
    assert job.output is not None
    both = Together(job.input, job.output, span=span, side_by_side=side_by_side, most_pixels=most_pixels)
    if both.end is None:
        raise InputError("the clip does not say how long it is, so there is no sheet; --overwrite makes both anew")
    length = both.end - both.start
    for path in job.missing:
        sheet = ContactSheet(path, count, length=length, start=both.start)
        for moment in (Fraction(0), *sheet.moments(length)):
            with suppress(InputError):  # what breaks off may have fewer frames than it says
                found, before, after = both.at(both.start + moment)
                sheet.see(found - both.start, before, after)
        sheet.write(overwrite=False)
        if preserve_times:
            keep_times(job.input, path)


def _thumbnail(pixels: Pixels) -> NDArray[np.uint8]:
    scale = min(1.0, _THUMBNAIL / max(pixels.shape[1:]))
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[2] * scale))
    small = F.interpolate(floats(pixels, torch.device("cpu")), size=size, mode="area")
    eight: NDArray[np.uint8] = (small[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return eight
