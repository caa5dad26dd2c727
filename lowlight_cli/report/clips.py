"""Clips on a report on files: key frames, before and after, spread over each clip's length and its scenes.

Frames are found by seeking, in the clip and in its result, so that a long film costs little more than a short one: the
film is glanced at in evenly spaced moments, and where two neighbouring glances show different things a scene ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.clip.together import Together
from lowlight_cli.errors import InputError
from lowlight_cli.images import Picture, thumbnail_of
from lowlight_cli.paths import Job
from lowlight_cli.report.page import Card, View
from lowlight_cli.report.previews import PreviewSize, make_preview, preview_size
from lowlight_cli.report.words import duration_in_words, moment_in_words, size_in_words
from lowlight_cli.results import FileResult
from lowlight_cli.stabilize import LIGHT_FLOOR, is_another_picture
from lowlight_cli.video import Span
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.reading import frame_at

if TYPE_CHECKING:
    from lowlight_cli.clip import ClipResult

_MOST_FRAMES, _LEAST_FRAMES = 6, 2  # shown of each clip
_PAGE_FRAMES = 200
_GLANCES = 24
_CELLS = 16  # along the long side of what a glance keeps


@dataclass(frozen=True)
class Glance:
    """A frame's moment in seconds, from the clip's beginning, and the logarithm of its light in a few cells."""

    moment: Fraction
    light: NDArray[np.float32]


class Clips:
    """Shows key frames of each clip; see `lowlight_cli.report.files.Contents`.

    `span` is the part of the clips that was done, and `side_by_side` says that results show the clip at their left.
    """

    noun = "clip"
    columns: tuple[str, ...] = ("Length", "Frames", "Frames a second", "Codec")

    def __init__(
        self, files: int, *, span: Span = Span(), side_by_side: bool = False, most_pixels: int | None = None
    ) -> None:
        self._frames = max(_LEAST_FRAMES, min(_MOST_FRAMES, _PAGE_FRAMES // max(files, 1)))
        self._size: PreviewSize = preview_size(2 * files * self._frames)
        self._span, self._side_by_side = span, side_by_side
        self._most_pixels = most_pixels

    def cards(self, job: Job, result: FileResult, name: str, came: str) -> Iterator[Card]:
        """Yield a card for each key frame; none where a file cannot be read any more."""
        if job.input is None or job.output is None:
            return
        try:
            both = Together(
                job.input,
                job.output,
                span=self._span,
                side_by_side=self._side_by_side,
                most_pixels=self._most_pixels,
            )
            glances = {glance.moment: glance for glance in _glances(both)}
        except InputError:
            return
        clip = both.clip
        captions = iter([" · ".join((size_in_words(clip.width, clip.height), came, *result.warnings))])
        for moment in key_moments(list(glances.values()), self._frames):
            with suppress(InputError):  # what breaks off may have fewer frames than it says
                _, before, after = both.at(moment)
                views = self._view("before", before), self._view("after", after)
                when = moment_in_words(float(moment))
                yield Card(f"{name} at {when}", next(captions, ""), clip.width, clip.height, views)

    def cells(self, result: FileResult) -> tuple[str, ...]:
        """Return what only clips have, of those that were done."""
        if result.status != "done":
            return ("",) * len(self.columns)
        clip = cast("ClipResult", result)
        length = duration_in_words(clip.duration)
        return (length, str(clip.frames), f"{clip.frames_per_second:.2f}", clip.codec or "")

    def _view(self, label: str, pixels: Pixels) -> View:
        thumbnail = thumbnail_of(_picture(pixels), self._size.side)
        return View(label, make_preview(thumbnail, self._size.most_bytes))


def _glances(both: Together) -> Iterator[Glance]:
    """Look at evenly spaced moments of the part that was done."""
    start, end = both.start, both.end
    count = 1 if end is None or end <= start else _GLANCES
    step = ((end or start) - start) / count
    for place in range(count):
        with suppress(InputError):  # a clip may end before its time
            moment, frame = frame_at(both.clip, start + step * place)
            levels = thumbnail_of(_picture(frame.pixels), _CELLS).astype(np.float32) / 255
            yield Glance(moment, np.log(levels + np.float32(LIGHT_FLOOR)).mean(axis=2))


def key_moments(glances: Sequence[Glance], count: int) -> list[Fraction]:
    """Return at most `count` moments: of each scene, or of the longest ones; long scenes are told by more than one."""
    scenes: list[list[Glance]] = []
    for glance in glances:
        if not scenes or _is_other_scene(scenes[-1][-1], glance):
            scenes.append([])
        scenes[-1].append(glance)
    while 0 < len(scenes) < count and len(longest := max(scenes, key=len)) > 1:
        place = scenes.index(longest)
        half = len(longest) // 2
        scenes[place : place + 1] = [longest[:half], longest[half:]]
    kept = sorted(sorted(scenes, key=len, reverse=True)[:count], key=lambda scene: scene[0].moment)
    return [scene[len(scene) // 2].moment for scene in kept]


def _is_other_scene(one: Glance, other: Glance) -> bool:
    return one.light.shape != other.light.shape or is_another_picture(other.light - one.light)


def _picture(planes: Pixels) -> Picture:
    """Return a frame's planes `(3, H, W)` as a picture."""
    return Picture(cast(Pixels, np.ascontiguousarray(planes.transpose(1, 2, 0))))
