"""Results of `lowlight bench` as data, and their way to JSON lines and back."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median, quantiles
from typing import Literal, cast, get_args

from lowlight_cli.errors import InputError, SettingsError

SCHEMA = 1
_SENSIBLE = (1e-9, 1e9)  # seconds, and multiples of a calibration, that a report can hold

Kind = Literal["calibration", "picture", "start", "files", "video", "zero-shot"]
Unit = Literal["GMAC", "GB", "Mpx", "runs", "photos", "frames", "steps"]


@dataclass(frozen=True)
class Machine:
    """Where and with what the measurements were made."""

    processor: str
    device: str
    precision: str
    threads: int
    lowlight: str
    torch: str
    python: str
    system: str
    compile: str = "off"

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints first."""
        return {"schema": SCHEMA, "kind": "machine", **asdict(self)}

    @property
    def described(self) -> str:
        """What a person should know of the measurements: processor, device, precision, compiler and threads."""
        where = self.device if self.device in self.processor else f"{self.processor}, {self.device}"
        quicker = "" if self.compile in ("auto", "off") else f", compile {self.compile}"
        return f"{where}, {self.precision}{quicker}, {self.threads} thread{'' if self.threads == 1 else 's'}"


@dataclass(frozen=True)
class BenchRow:
    """One case, measured several times.

    One measurement did `amount` of `unit`; `seconds` and `relative` hold what each took, in seconds and as multiples
    of the calibration around it. `peak_bytes` is a whole process's memory, `gpu_bytes` that of its tensors on a GPU.
    `parameters` counts the model's numbers, `gmacs` its multiply-adds for 256x256 pixels, in thousands of millions.
    """

    kind: Kind
    name: str
    size: str
    amount: float
    unit: Unit
    seconds: tuple[float, ...]
    relative: tuple[float, ...]
    tile: int | None = None
    peak_bytes: int | None = None
    gpu_bytes: int | None = None
    parameters: int | None = None
    gmacs: float | None = None

    @property
    def median(self) -> float:
        """Seconds of the middle measurement."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a share of the median."""
        return _quartile_distance(self.seconds) / 2 / self.median

    @property
    def per_second(self) -> float:
        """How much of the unit is done in a second."""
        return self.amount / self.median

    @property
    def relative_median(self) -> float:
        """The middle of what measurements took as multiples of their calibration."""
        return median(self.relative)

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints for this row."""
        told = {"median": self.median, "spread": self.spread, "per_second": self.per_second}
        return {"schema": SCHEMA, **asdict(self), **told}


@dataclass(frozen=True)
class Report:
    """A machine and what was measured on it."""

    machine: Machine
    rows: tuple[BenchRow, ...]


def read_report(path: Path) -> Report:
    """Read what `lowlight bench --json` printed.

    Raises SettingsError when the file cannot be read, InputError when it holds something else.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read the report {path}: {error.strerror or error}") from error
    try:
        objects = [json.loads(line) for line in text.decode().splitlines() if line.strip()]
        (machine,) = (each for each in objects if each["kind"] == "machine")
        rows = tuple(_row(each) for each in objects if each["kind"] in get_args(Kind))
        # Only said, never computed with.
        return Report(Machine(**_own(machine, Machine)), rows)  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no report of `lowlight bench --json` (schema {SCHEMA})") from error


def _own(held: Mapping[str, object], kind: type[Machine] | type[BenchRow]) -> dict[str, object]:
    if held["schema"] != SCHEMA:
        raise ValueError(held["schema"])
    return {field.name: held[field.name] for field in fields(kind)}


def _row(held: Mapping[str, object]) -> BenchRow:
    values = _own(held, BenchRow)
    for name in ("seconds", "relative"):
        numbers = tuple(float(each) for each in cast(Sequence[float], values[name]))
        if not all(_SENSIBLE[0] < each < _SENSIBLE[1] for each in numbers) or (name == "seconds" and not numbers):
            raise ValueError(name)
        values[name] = numbers
    if not all(isinstance(values[name], str) for name in ("kind", "name", "size")):
        raise TypeError("a row's key is text")
    return BenchRow(**values)  # type: ignore[arg-type]  # from JSON; what is computed with was checked above


def _quartile_distance(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return high - low


def log_median(values: Sequence[float]) -> tuple[float, float]:
    """Return the logarithm of the values' median, and its standard error.

    The error is 1.253 sigma / sqrt(n), that of a median of normal numbers, with sigma from the quartiles, which a
    few measurements that were disturbed do not move.
    """
    logs = [math.log(value) for value in values]
    sigma = _quartile_distance(logs) / 1.349
    return median(logs), 1.253 * sigma / math.sqrt(len(logs))
