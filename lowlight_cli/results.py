"""What becomes of files, as data: for `--json`, for reports, and for a plan that is only told. No torch here."""

import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from lowlight_cli.errors import LowlightError
from lowlight_cli.paths import Job

SCHEMA = 1

# Controls, which steer a terminal, turns of direction and ends of lines, which make a name read as another, and what
# has no width. The joiners of Persian and of emoji stay.
_UNSEEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

Event = TypeVar("Event")
Result = TypeVar("Result", bound="FileResult")

Status = Literal["done", "skipped", "failed", "planned", "compared"]


@dataclass(frozen=True)
class Failure:
    """Why a file failed: a stable code for scripts and one sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class FileResult:
    """What became of one input. `tile` is the tile's side in pixels, 0 for the whole picture at once.

    `stops` is by how much the picture became brighter on average; 0 only where it stayed as it was.
    `compared` is an input whose result was there already, and what shows both beside it is new.
    """

    input: str
    output: str
    status: Status
    error: Failure | None = None
    seconds: float = 0.0
    width: int | None = None
    height: int | None = None
    model: str | None = None
    device: str | None = None
    precision: str | None = None
    tile: int | None = None
    stops: float | None = None
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints."""
        return {"schema": SCHEMA, **asdict(self)}


def blank_result(job: Job, status: Status) -> FileResult:
    """Return the result of a job that nothing was done for."""
    return FileResult(name_of(job.input), name_of(job.output), status)


def failed_job(job: Job, error: LowlightError) -> FileResult:
    """Return the result of a job that gave none, for the reason that `error` tells."""
    return failed_result(blank_result(job, "failed"), error)


def name_of(path: Path | None) -> str:
    """Return a path as it goes into JSON; None is a standard stream.

    Bytes that are no text stay what Python makes of them, of which `json` makes an escape of its own (`\\udcff`) and
    `os.fsencode` the bytes again; for a person, `printable` writes them out.
    """
    return "-" if path is None else str(path)


def printable(text: str, encoding: str = "utf-8", *, keep_lines: bool = False) -> str:
    """Write out what nobody sees or what would steer a terminal, bytes that are no text, and what an encoding lacks."""
    if keep_lines:
        return "\n".join(printable(line, encoding) for line in text.split("\n"))
    shown = _UNSEEN.sub(lambda found: found[0].encode("unicode-escape").decode(), text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def failed_result(result: Result, error: LowlightError) -> Result:
    """Return `result` as failed for the reason that `error` tells."""
    return replace(result, status="failed", error=Failure(error.code, str(error)))


def last_told(events: Generator[Event], stop: KeyboardInterrupt) -> Iterator[Event]:
    """Raise a stop of the caller's where the events are made, and yield what they tell of what is finished yet."""
    with suppress(KeyboardInterrupt, StopIteration):  # it comes back when all is told
        yield events.throw(stop)
        yield from events
