"""What `--log` keeps of a fit: a JSON line per step, there to read while the fit goes on, and a curve at its end."""

import json
from contextlib import suppress
from pathlib import Path

from lowlight_cli.atomic import append_line, write_atomically
from lowlight_cli.errors import OutputError
from lowlight_cli.zero_shot.curve import draw_curve
from lowlight_cli.zero_shot.fit import Step


class FitLog:
    """The log of one fit. A file that cannot be written stops no fit: `finish` tells of it."""

    def __init__(self, log: Path, curve: Path) -> None:
        self._log, self._curve = log, curve
        self._losses: list[float] = []
        self._error: OutputError | None = None

    def note(self, step: Step, photo: str) -> None:
        """Add a line for a step on a photo, told by its name; the first line replaces an earlier file."""
        line = json.dumps({"input": photo, **step.as_json()})
        first = not self._losses
        self._losses.append(step.loss)
        try:
            if first:
                write_atomically(self._log, f"{line}\n".encode(), overwrite=True)
            elif self._error is None:
                append_line(self._log, line)
        except OutputError as error:
            self._error = error

    def finish(self) -> None:
        """Draw the curve of the steps that were noted.

        Raises:
            OutputError: it cannot be written, or a line could not.
        """
        if self._error is not None:
            raise self._error
        if self._losses:
            write_atomically(self._curve, draw_curve(self._losses), overwrite=True)

    def discard(self) -> None:
        """Take away the lines that were written."""
        if self._losses:
            with suppress(OSError):
                self._log.unlink(missing_ok=True)
