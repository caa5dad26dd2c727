"""What is told of clips."""

from dataclasses import dataclass
from typing import Literal

from lowlight_cli.results import FileResult


@dataclass(frozen=True)
class ClipProgress:
    """How far a clip is: frames done of about `total` (None if nobody knows), and at which pace; or steps of a fit.

    Of the stage `resumed` there is one event, when an earlier run left the first frames finished.
    """

    input: str
    done: int
    total: int | None
    frames_per_second: float
    stage: Literal["fit", "resumed", "frames"] = "frames"


@dataclass(frozen=True)
class ClipResult(FileResult):
    """What became of one clip: a file's result, and what only clips have.

    `duration` is the result's length in seconds, `frames` how many it has, `resumed_at` how many of them an earlier
    run had made, `sheet` the contact sheet beside it.
    """

    frames: int = 0
    duration: float = 0.0
    frames_per_second: float = 0.0
    resumed_at: int = 0
    codec: str | None = None
    sheet: str | None = None
