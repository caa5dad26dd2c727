"""Clips on a report on files: key frames, before and after, spread over each clip's length and its scenes.

Frames are found by seeking, in the clip and in its result, so that a long film costs little more than a short one: the
film is glanced at in evenly spaced moments, and where two neighbouring glances show different things a scene ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

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
from lowlight_cli.video.facts import MOST_PIXELS, ClipFacts, probe_clip
from lowlight_cli.video.reading import ClipFrame, ClipReader

if TYPE_CHECKING:
    from lowlight_cli.clip import ClipResult

_WHOLE = Span()
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
        self, files: int, *, span: Span = _WHOLE, side_by_side: bool = False, most_pixels: int | None = None
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
            before, after = (self._probe(path) for path in (job.input, job.output))
            # Containers shift their beginning, for sound that starts early: the first frames tell by how much.
            later = _frame_at(before, self._span.start)[0] - _frame_at(after, Fraction(0))[0]
            glances = {glance.moment: glance for glance in self._glances(before)}
        except InputError:
            return
        captions = iter([" · ".join((size_in_words(before.width, before.height), came, *result.warnings))])
        for moment in key_moments(list(glances.values()), self._frames):
            with suppress(InputError):  # what breaks off may have fewer frames than it says
                views = self._views(before, after, moment, later=later)
                when = moment_in_words(float(moment))
                yield Card(f"{name} at {when}", next(captions, ""), before.width, before.height, views)

    def cells(self, result: FileResult) -> tuple[str, ...]:
        """Return what only clips have, of those that were done."""
        if result.status != "done":
            return ("",) * len(self.columns)
        clip = cast("ClipResult", result)
        length = duration_in_words(clip.duration)
        return (length, str(clip.frames), f"{clip.frames_per_second:.2f}", clip.codec or "")

    def _probe(self, path: Path) -> ClipFacts:
        # A result that shows both is twice as wide as what was allowed.
        return probe_clip(path, most_pixels=2 * (self._most_pixels or MOST_PIXELS))

    def _glances(self, facts: ClipFacts) -> Iterator[Glance]:
        """Look at evenly spaced moments of the part that was done."""
        start, end = self._span.start, min(filter(None, (facts.seconds, self._span.end)), default=None)
        count = 1 if end is None or end <= start else _GLANCES
        step = ((end or start) - start) / count
        for place in range(count):
            with suppress(InputError):  # a clip may end before its time
                moment, frame = _frame_at(facts, start + step * place)
                levels = thumbnail_of(_picture(frame.pixels), _CELLS).astype(np.float32) / 255
                yield Glance(moment, np.log(levels + np.float32(LIGHT_FLOOR)).mean(axis=2))

    def _views(self, before: ClipFacts, after: ClipFacts, moment: Fraction, *, later: Fraction) -> tuple[View, View]:
        """Return a frame and what became of it, where the clip shows things `later` than its result."""
        _, frame = _frame_at(before, moment)
        # The result counts time in ticks of its own: a frame that was rounded down must not give way to the next.
        early = after.time_base * Fraction(3, 4)
        _, made = _frame_at(after, max(moment - later - early, Fraction(0)))
        pixels = made.pixels
        if self._side_by_side or after.width == 2 * before.width:
            pixels = pixels[..., pixels.shape[2] // 2 :]
        return self._view("before", frame.pixels), self._view("after", pixels)

    def _view(self, label: str, pixels: Pixels) -> View:
        thumbnail = thumbnail_of(_picture(pixels), self._size.side)
        return View(label, make_preview(thumbnail, self._size.most_bytes))


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


def _frame_at(facts: ClipFacts, moment: Fraction) -> tuple[Fraction, ClipFrame]:
    """Return the first frame at a moment or after it, and its own moment; raises InputError if there is none."""
    with ClipReader(facts, span=Span(moment)) as reader:
        frame = next(item for item in reader.read() if isinstance(item, ClipFrame))
        # The reader counts from the tick nearest to the moment.
        zero = round((facts.start + moment) / facts.time_base)
        return (zero + frame.shown) * facts.time_base - facts.start, frame


def _picture(planes: Pixels) -> Picture:
    """Return a frame's planes `(3, H, W)` as a picture."""
    return Picture(cast(Pixels, np.ascontiguousarray(planes.transpose(1, 2, 0))))
