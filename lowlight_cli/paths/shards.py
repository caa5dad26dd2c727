"""One plan in several parts, for machines that never talk to each other: `--shard I/N`.

Every machine plans the whole and refuses what the whole refuses, then keeps its part. A job's part follows from a
digest of its place (`search.places_of`) and from nothing else. So the parts are disjoint and complete whatever the
order of the inputs, whichever results exist already or appear while others work, and wherever each machine has
mounted the folder. A count of jobs would be more even, but it shifts as soon as results, or inputs, come or go.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace

from lowlight_cli.paths.plan import Job, Plan
from lowlight_cli.paths.refusal import refuse_unless


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count`; raises SettingsError when there is no such part."""

    index: int
    count: int

    def __post_init__(self) -> None:
        refuse_unless(self.count >= 1, f"--shard {self} has no parts; it is I/N, such as 1/4")
        there = 1 <= self.index <= self.count
        refuse_unless(
            there, f"--shard {self} is not there: parts are counted from 1/{self.count} to {self.count}/{self.count}"
        )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, job: Job) -> bool:
        """Whether a job belongs to this part."""
        digest = hashlib.sha256(os.fsencode(job.place)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1


def read_shard(text: str) -> Shard:
    """Return the part that `--shard I/N` means; raises SettingsError."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    refuse_unless(match is not None, f"--shard is I/N, such as 1/4 for the first of four parts, not {text!r}")
    assert match is not None
    return Shard(int(match[1]), int(match[2]))


def part_plan(plan: Plan, shard: Shard) -> Plan:
    """Return the part's jobs, to do and done; what the search set aside stays, for every machine met it.

    Raises SettingsError for standard input, which only one machine has.
    """
    streams = any(job.input is None for job in (*plan.jobs, *plan.skipped))
    refuse_unless(not streams, "--shard parts files among machines, and standard input is not one of them")
    return replace(
        plan,
        jobs=tuple(job for job in plan.jobs if shard.holds(job)),
        skipped=tuple(job for job in plan.skipped if shard.holds(job)),
        uncompared=tuple(job for job in plan.uncompared if shard.holds(job)),
    )
