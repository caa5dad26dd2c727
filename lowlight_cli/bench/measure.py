"""The rounds: every case once per round, the calibration between any two of them."""

import importlib.metadata
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight_cli import __version__
from lowlight_cli.bench.rows import BenchRow, Kind, Machine, Unit
from lowlight_cli.device import precision_used
from lowlight_cli.enhancer import Progress
from lowlight_cli.machine import processor
from lowlight_cli.settings import Compute

logger = logging.getLogger(__name__)

# A measurement calls its case as often as it takes to fill this many seconds: clocks and schedulers are coarse.
_SHORTEST_MEASUREMENT = 0.2
_SHORTEST_CALIBRATION = 0.05
# An optional case that would take longer than this many seconds, all rounds together, is left out.
_PATIENCE = 90.0

_CALIBRATION_CHANNELS, _CALIBRATION_SIDE = 32, 256
_CONVOLUTIONS_SHARE = 0.75
# Pictures at once, and megabytes: enough to fill a GPU.
_CALIBRATION_BATCH = {"cpu": 1, "mps": 16, "cuda": 64}
_CALIBRATION_MEGABYTES = {"cpu": 64, "mps": 256, "cuda": 1024}


@dataclass(frozen=True)
class Case:
    """Something to measure: `run` does `amount` of `unit` and returns when it is done, on a GPU also before.

    `repeats` bounds the number of rounds. An `optional` case is left out when the one before it, of the same name,
    says that it would take minutes. `peak` finds the memory of a process that does the same once.
    """

    kind: Kind
    name: str
    size: str
    amount: float
    unit: Unit
    run: Callable[[], object]
    repeats: int | None = None
    optional: bool = False
    peak: Callable[[], int | None] | None = None
    tile: int | None = None
    parameters: int | None = None
    gmacs: float | None = None


@dataclass
class _Course:
    """A case on its way: how often one measurement calls it, and what was measured so far."""

    case: Case
    calls: int = 1
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    seconds: list[float] = field(default_factory=list)
    relative: list[float] = field(default_factory=list)

    def row(self) -> BenchRow:
        case = self.case
        return BenchRow(
            case.kind,
            case.name,
            case.size,
            case.amount,
            case.unit,
            tuple(self.seconds),
            tuple(self.relative),
            tile=case.tile,
            peak_bytes=self.peak_bytes,
            gpu_bytes=self.gpu_bytes,
            parameters=case.parameters,
            gmacs=case.gmacs,
        )


def measure_cases(
    cases: Sequence[Case], *, device: torch.device, repeat: int, on_measurement: Progress | None = None
) -> Iterator[BenchRow]:
    """Warm every case up, measure them `repeat` times in turn, then yield a row for each, the calibration first.

    A case that fails ends the bench with its own error.
    """
    before_it = _gpu_bytes(device)
    calibration = _calibration(device)
    kept = _gpu_bytes(device) - before_it
    for course in calibration:
        _warm_up(course, device, fill=_SHORTEST_CALIBRATION)
    courses = list(_warmed_up(cases, device, repeat, not_theirs=kept))
    total = sum(_rounds(course, repeat) for course in courses)
    done = 0
    before = _calibrate(calibration, device)
    for number in range(repeat):
        for course in courses:
            if number >= _rounds(course, repeat):
                continue
            seconds = _timed(course, device)
            after = _calibrate(calibration, device)
            course.seconds.append(seconds)
            course.relative.append(seconds / _machine_seconds(before, after))
            before = after
            done += 1
            if on_measurement:
                on_measurement(done, total)
    yield from (course.row() for course in (*calibration, *courses))


def _gpu_bytes(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _rounds(course: _Course, repeat: int) -> int:
    return min(repeat, course.case.repeats or repeat)


def _warmed_up(cases: Sequence[Case], device: torch.device, repeat: int, *, not_theirs: int) -> Iterator[_Course]:
    pace: dict[tuple[Kind, str], float] = {}  # seconds for one of the unit
    for case in cases:
        expected = pace.get((case.kind, case.name), 0.0) * case.amount * (repeat + 2)
        if case.optional and expected > _PATIENCE:
            logger.warning(
                "%s at %s is left out: it would take about %.0f minutes; --size %s measures it",
                case.name,
                case.size,
                expected / 60,
                case.size,
            )
            continue
        course = _Course(case)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        pace[case.kind, case.name] = _warm_up(course, device, fill=_SHORTEST_MEASUREMENT) / case.amount
        if device.type == "cuda" and case.kind in ("picture", "zero-shot"):
            course.gpu_bytes = torch.cuda.max_memory_allocated(device) - not_theirs
        if case.peak:
            course.peak_bytes = case.peak()
        yield course


def _warm_up(course: _Course, device: torch.device, *, fill: float) -> float:
    """Run a case until its time says how often a measurement must call it; return the seconds of one call."""
    seconds = _timed(course, device)
    if seconds < fill:  # the first call may have cost more than all that follow
        seconds = _timed(course, device)
    course.calls = max(1, math.ceil(fill / seconds))
    return seconds


def _timed(course: _Course, device: torch.device) -> float:
    """Return the seconds of one call, averaged over as many as one measurement takes."""
    _wait_for(device)
    start = time.perf_counter()
    for _ in range(course.calls):
        course.case.run()
    _wait_for(device)
    return (time.perf_counter() - start) / course.calls


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _calibration(device: torch.device) -> tuple[_Course, _Course]:
    channels, side = _CALIBRATION_CHANNELS, _CALIBRATION_SIDE
    batch, megabytes = _CALIBRATION_BATCH[device.type], _CALIBRATION_MEGABYTES[device.type]
    image = torch.ones(batch, channels, side, side, device=device)
    weight = torch.ones(channels, channels, 3, 3, device=device)
    source, target = (torch.ones(megabytes << 18, device=device) for _ in range(2))

    def convolve() -> Tensor:
        with torch.inference_mode():
            return F.conv2d(image, weight, padding=1)

    gmacs = batch * channels * channels * 9 * side * side / 1e9
    return (
        _Course(Case("calibration", "convolution", f"{batch}x{channels}x{side}x{side}", gmacs, "GMAC", convolve)),
        _Course(Case("calibration", "copy", f"{megabytes} MB", megabytes / 1024, "GB", lambda: target.copy_(source))),
    )


def _calibrate(calibration: tuple[_Course, _Course], device: torch.device) -> tuple[float, float]:
    for course in calibration:
        course.seconds.append(_timed(course, device))
    return calibration[0].seconds[-1], calibration[1].seconds[-1]


def _machine_seconds(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Return how slow the machine was just then: three parts of convolution and one of copy, geometrically, in seconds.

    Of the same network's times on a restless machine, small pictures' followed the convolution alone most closely, and
    those of 2 Mpx both alike: 34 reports of 128x128 and 256x256, 13 of 256x256 to 1080p.
    """
    convolution, copy = ((first + second) / 2 for first, second in zip(before, after, strict=True))
    return math.exp(_CONVOLUTIONS_SHARE * math.log(convolution) + (1 - _CONVOLUTIONS_SHARE) * math.log(copy))


def describe_machine(device: torch.device, compute: Compute) -> Machine:
    """Return the facts that speed depends on."""
    return Machine(
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        device=str(device),
        precision=precision_used(compute.precision, device),
        threads=torch.get_num_threads(),
        lowlight=__version__,
        torch=importlib.metadata.version("torch"),
        python=platform.python_version(),
        system=platform.platform(),
        compile=compute.compile,
    )
