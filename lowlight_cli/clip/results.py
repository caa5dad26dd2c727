"""What a caller may choose about clips, and what is told of them."""

from dataclasses import dataclass
from typing import Literal

from lowlight_cli.errors import SettingsError
from lowlight_cli.results import FileResult
from lowlight_cli.settings import Metadata, Tone, require_choice
from lowlight_cli.video import Film, Span
from lowlight_cli.video.facts import MOST_PIXELS

_FILM, _WHOLE = Film(), Span()


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are done, beyond what the model does: see the options of `lowlight video`.

    `stabilize` is the strength of the anti-flicker filter, 0 for none; None means 1 for what networks make, and 0 where
    pictures stay as they are. `contact_sheet` is the number of frames shown before and after in a picture beside the
    result, 0 for no such picture. `frames_per_batch` frames are under way on a GPU beside the one that is waited for;
    on a CPU the number of cores decides.
    """

    tone: Tone = Tone()
    film: Film = _FILM
    span: Span = _WHOLE
    metadata: Metadata = "keep"
    stabilize: float | None = None
    side_by_side: bool = False
    contact_sheet: int = 0
    frames_per_batch: int = 1
    resume: bool = False
    overwrite: bool = False
    preserve_times: bool = False
    fail_fast: bool = False
    most_pixels: int = MOST_PIXELS

    def __post_init__(self) -> None:
        require_choice(self.metadata, Metadata, "--metadata")
        if self.stabilize is not None and not 0 <= self.stabilize <= 1:
            raise SettingsError("--stabilize-strength lies between 0 and 1")
        if not 1 <= self.frames_per_batch <= 64:
            raise SettingsError("--frames-per-batch lies between 1 and 64")
        if not 0 <= self.contact_sheet <= 100:
            raise SettingsError("--contact-sheet lies between 1 and 100")


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
