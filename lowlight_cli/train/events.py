"""What a training tells, as typed events."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Required, TypedDict, cast


@dataclass(frozen=True)
class LeftOut:
    """A file among the pictures that is not trained on, and why."""

    input: str
    reason: str


@dataclass(frozen=True)
class Started:
    """A training begins after `step` of its `steps`: 0 for a new one, all for one that is over.

    `training` and `held_out` count the pictures to train and to validate on.
    """

    step: int
    steps: int
    device: str
    training: int
    held_out: int
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Training went on: means over the steps since the last such event. `skipped` steps were not finite."""

    step: int
    steps: int
    loss: float
    gradient: float
    learning_rate: float
    skipped: int
    seconds: float


@dataclass(frozen=True)
class Validation:
    """The moving average's mean loss, PSNR (dB, plain and GT-mean) and SSIM on crops it was not trained on.

    There are `crops` of them with sides of `crop` pixels, drawn at random once from the held-out pictures as training
    does: made dark, lifted with some error, turned. They show a training's course; what the network is worth on whole
    pictures is for `lowlight bench --pairs` to say.
    """

    step: int
    crops: int
    crop: int
    loss: float
    psnr: float
    psnr_gt_mean: float
    ssim: float


@dataclass(frozen=True)
class Saved:
    """A file was written."""

    step: int
    path: Path


Event = Started | Progress | Validation | Saved


class Record(TypedDict, total=False):
    """An event as plain values, for JSON: its kind under `event`, and the fields of that kind."""

    event: Required[str]
    step: Required[int]
    steps: int
    device: str
    training: int
    held_out: int
    left_out: list[dict[str, str]]
    loss: float | None
    gradient: float | None
    learning_rate: float
    skipped: int
    seconds: float
    crops: int
    crop: int
    psnr: float | None
    psnr_gt_mean: float | None
    ssim: float | None
    path: str


def as_record(event: Event) -> Record:
    """Turn an event into a record; JSON has no number for what is not finite, as after skipped steps: None."""
    return cast(Record, {"event": type(event).__name__.lower(), **{k: _plain(v) for k, v in asdict(event).items()}})


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
