"""Results in the plan's order, whoever is done first."""

from collections.abc import Iterator
from typing import Final

from lowlight_cli.results import FileResult


class InOrder:
    """Takes results by their place in the plan and gives them out in its order.

    With `fail_fast` they are complete with the first failure in the plan's order: that of one worker may be later in
    the plan than what another still does.
    """

    def __init__(self, count: int, *, fail_fast: bool) -> None:
        self._count: Final = count
        self._fail_fast = fail_fast
        self._next = 0
        self._early: dict[int, FileResult] = {}
        self._stopped = False

    @property
    def is_complete(self) -> bool:
        """Whether the last result was given out that is waited for."""
        return self._stopped or self._next == self._count

    def take(self, place: int, result: FileResult) -> Iterator[FileResult]:
        """Take the result of the job at `place`, counted from 0, and yield what is in turn now."""
        self._early[place] = result
        while not self.is_complete and self._next in self._early:
            result = self._early.pop(self._next)
            self._next += 1
            self._stopped = self._fail_fast and result.status == "failed"
            yield result

    def rest(self) -> Iterator[FileResult]:
        """Yield what came of jobs whose turn will not come: when the work has ended early, what they made is there."""
        for place in sorted(self._early):
            yield self._early.pop(place)
