"""Clips that were joined end to end (`cat a.ts b.ts`): each counts its time from its own beginning.

What comes after a joint is shown after what came before it, later by the same for all tracks, so that sound and picture
stay in step. One time that damage put out of place moves nothing but itself.
"""

from fractions import Fraction
from typing import Final

_JUMP: Final = Fraction(1, 2)  # seconds: what goes back by more begins anew


class Joints:
    """By how much later than they say the times of each track are shown. Times are seconds, tracks have indices."""

    def __init__(self) -> None:
        self._shifts = [Fraction(0)]
        self._places: dict[int, int] = {}  # of the shift that a track is at
        self._last: dict[int, Fraction] = {}  # when what came last of a track is shown

    def shift(self, track: int, time: Fraction, *, step: Fraction) -> Fraction:
        """Return the shift of a track's next time; `step` is how far apart its times usually are."""
        place, last = self._places.get(track, 0), self._last.get(track)
        if last is not None:
            place = self._place(place, time, last, step)
        self._places[track], self._last[track] = place, time + self._shifts[place]
        return self._shifts[place]

    def shift_of(self, track: int) -> Fraction:
        """Return the shift that a track is at."""
        return self._shifts[self._places.get(track, 0)]

    def _place(self, now: int, time: Fraction, last: Fraction, step: Fraction) -> int:
        newest_first = reversed(range(len(self._shifts)))  # other tracks have passed the joint that this one comes to
        for place in (now, *newest_first):
            if abs(time + self._shifts[place] - last) <= _JUMP:
                return place
        if time + self._shifts[now] > last:
            return now  # a gap
        self._shifts.append(last + min(step, _JUMP) - time)
        return len(self._shifts) - 1
