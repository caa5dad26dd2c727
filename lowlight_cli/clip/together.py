"""A clip and its result, frame beside frame, found by seeking in both."""

from fractions import Fraction
from pathlib import Path

from lowlight_cli.video import Span
from lowlight_cli.video.colour import Pixels
from lowlight_cli.video.facts import probe_clip
from lowlight_cli.video.reading import frame_at
from lowlight_cli.video.settings import MOST_PIXELS


class Together:
    """A clip and the result of its part `span`, which shows the clip at its left if it is `side_by_side`.

    Making one raises InputError where one of them cannot be read.
    """

    def __init__(
        self,
        clip: Path,
        result: Path,
        *,
        span: Span = Span(),
        side_by_side: bool = False,
        most_pixels: int | None = None,
    ) -> None:
        # A result that shows both is twice as wide as what was allowed.
        most = 2 * (most_pixels or MOST_PIXELS)
        self.clip, self._result = (probe_clip(path, most_pixels=most) for path in (clip, result))
        self._side_by_side = side_by_side or self._result.width == 2 * self.clip.width
        self.start, self.end = span.start, self.clip.end_of(span)
        # Containers shift their beginning, for sound that starts early: the first frames tell by how much.
        self._later = frame_at(self.clip, span.start)[0] - frame_at(self._result, Fraction(0))[0]

    def at(self, moment: Fraction) -> tuple[Fraction, Pixels, Pixels]:
        """Return the first frame at a moment or after it: its own moment, and it before and after.

        Moments are seconds from the clip's beginning. Raises InputError where one of both has ended.
        """
        found, frame = frame_at(self.clip, moment)
        # The result counts time in ticks of its own: a frame that was rounded down must not give way to the next.
        early = self._result.time_base * Fraction(3, 4)
        _, made = frame_at(self._result, max(moment - self._later - early, Fraction(0)))
        pixels = made.pixels
        return found, frame.pixels, pixels[..., pixels.shape[2] // 2 :] if self._side_by_side else pixels
