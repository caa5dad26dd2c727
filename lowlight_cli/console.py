"""What a person sees while work goes on: bars on a terminal, a plain line now and then off it, all on stderr."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lowlight_cli.results import printable

_LINE_SECONDS = 30.0
_LINE_SHARE = 0.05


def stderr_console() -> Console:
    """Return a console on stderr that neither wraps nor colours names."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


@contextmanager
def logged_to_stderr(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Show the package's log on stderr: warnings, nothing with `quiet`, everything with `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable())
    log = logging.getLogger("lowlight_cli")
    before = log.level
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep_lines=True)


class Show:
    """Progress over `total` items (files, frames) and the steps within the present one.

    On a terminal two bars with the time that remains; elsewhere a line every 30 seconds or 5 % of the items, and of an
    item's steps one when nothing else was said for 30 seconds; nothing if quiet.
    """

    def __init__(
        self, total: int, *, noun: str = "files", quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock = stderr_console(), clock
        self._total, self._noun, self._quiet = total, noun, quiet
        self._done = 0
        self._last_line = (clock(), 0)
        self._last_said = clock()
        self._item: str | None = None
        self._step, self._begun = 0, (0.0, 0)
        self._bars: Progress | None = None
        self._outer = self._inner = TaskID(0)
        if self._console.is_terminal and not quiet:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
                transient=True,
            )
            self._outer = self._bars.add_task(noun, total=total)
            self._inner = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.stop()

    def step(self, done: int, total: int | None, what: str, *, item: str = "") -> None:
        """Tell that `done` of `total` tiles, frames or steps of the present item are finished; None: nobody knows.

        `what` stands beside them, and `item` names whose they are where lines are written.
        """
        if self._bars:
            shown = done if total is None else total
            self._bars.update(self._inner, description=what, completed=done, total=shown, visible=shown > 1)
        elif not self._quiet:
            self._step_now_and_then(done, total, what, item)

    def steps_of(self, what: str) -> Callable[[int, int], None]:
        """Return what is told how much is done and how much there is, of `what`."""
        return lambda done, total: self.step(done, total, what)

    def advance(self, name: str) -> None:
        """Tell that an item is finished; `name` may hold anything."""
        self._done += 1
        if self._bars:
            self._bars.update(self._outer, completed=self._done, description=escape(_shortened(printable(name))))
            self._bars.update(self._inner, completed=0, visible=False)
        elif not self._quiet and self._total > 1:
            self._line_now_and_then()

    def say(self, text: str) -> None:
        """Print a line above the bars, unless quiet."""
        if not self._quiet:
            self.tell(text)

    def tell(self, text: str) -> None:
        """Print a line above the bars, even if quiet: failures."""
        self._last_said = self._clock()
        self._console.print(escape(printable(text, self._console.encoding)), soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether a person looks at a terminal."""
        return self._console.is_terminal

    def write(self, drawn: str) -> None:
        """Write what the terminal is to take as it is, with the bars out of its way."""
        if self._bars:
            self._bars.stop()
        self._console.file.write(f"{drawn}\n")
        self._console.file.flush()
        if self._bars:
            self._bars.start()

    def _line_now_and_then(self) -> None:
        now, (before, done) = self._clock(), self._last_line
        if now - before >= _LINE_SECONDS or ((self._done - done) / self._total >= _LINE_SHARE and now - before >= 1):
            self._last_line = (now, self._done)
            self.tell(f"{self._done} of {self._total} {self._noun}")

    def _step_now_and_then(self, done: int, total: int | None, what: str, item: str) -> None:
        now = self._clock()
        if item != self._item or done < self._step:
            self._item, self._begun = item, (now, done)
        self._step = done
        if now - self._last_said < _LINE_SECONDS:
            return
        began, first = self._begun
        of, left = "" if total is None else f" of {total}", ""
        if total is not None and done > first:
            left = f", {duration((total - done) * (now - began) / (done - first))} left"
        self.tell(f"{item and f'{item}: '}{done}{of} {what}{left}")


def duration(seconds: float) -> str:
    """Return a time as a person reads it: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _shortened(name: str, room: int = 40) -> str:
    return name if len(name) <= room else f"{name[: room // 2 - 1]}…{name[-room // 2 :]}"
