"""What changed between two reports, and what is noise."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from lowlight_cli.bench.rows import SCHEMA, BenchRow, Report, log_median

Verdict = Literal["slower", "faster", "no change", "too noisy"]

# Below this a change is never told: pages, caches and the order of tensors in memory move a build by as much.
_LEAST = math.log(1.06)
# What must be visible: where noise hides a change this large, no verdict is given.
_WANTED = math.log(1.15)


@dataclass(frozen=True)
class Change:
    """A row beside the same one of an older report.

    `ratio` is new time over old time, both relative to their calibration; `certain_above` is the smallest factor
    that the noise of both lets us call a change.
    """

    row: BenchRow
    ratio: float
    certain_above: float
    verdict: Verdict

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints for this change."""
        told = {name: value for name, value in asdict(self).items() if name != "row"}
        described = {"of": self.row.kind, "name": self.row.name, "size": self.row.size}
        return {"schema": SCHEMA, "kind": "change", **described, **told}


def compare_reports(new: Report, old: Report) -> Iterator[Change]:
    """Yield what became of every row that both reports have and that was measured relative to the calibration."""
    before = {_key(row): row for row in old.rows}
    for row in new.rows:
        former = before.get(_key(row))
        if former is not None and min(len(row.relative), len(former.relative)) >= 2:
            yield _change(row, former)


def differences(new: Report, old: Report) -> dict[str, tuple[str, str]]:
    """Return in what the two machines differ, new value first: such reports may differ for that reason alone."""
    ours, theirs = asdict(new.machine), asdict(old.machine)
    return {name: (str(ours[name]), str(theirs[name])) for name in ours if ours[name] != theirs[name]}


def _key(row: BenchRow) -> tuple[str, str, str]:
    return row.kind, row.name, row.size


def _change(new: BenchRow, old: BenchRow) -> Change:
    (now, its_error), (then, error) = log_median(new.relative), log_median(old.relative)
    difference = now - then
    # Student's t for two-sided 0.5 % (2.8 for many measurements, 4 for two times five), so that all rows of a report
    # together cry wolf less than once in ten times.
    freedom = len(new.relative) + len(old.relative) - 2
    bound = max(_LEAST, (2.8 + 10 / freedom) * math.hypot(its_error, error))
    return Change(new, math.exp(difference), math.exp(bound), _verdict(difference, bound))


def _verdict(difference: float, bound: float) -> Verdict:
    if abs(difference) > bound:
        return "slower" if difference > 0 else "faster"
    return "too noisy" if bound > _WANTED else "no change"
