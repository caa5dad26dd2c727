"""Break a process at its system calls: strace attaches to a gated child, counts its calls and kills or fails one.

strace counts calls per thread, so a rule names one call and its number, and what was hit is read from the log rather
than assumed. Where there is no strace, `audited` counts Python's own audit events instead: fewer places (no write, no
fsync), but on any system.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from forks import Child, Forks, Ran, run_lowlight

HAS_STRACE = shutil.which("strace") is not None

# Every call that can change what a folder holds. Between two of them a kill finds the same files.
CHANGING = (
    "openat", "write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "fallocate", "copy_file_range",
    "sendfile", "link", "linkat", "symlink", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir",
    "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "utimensat",
)  # fmt: skip

_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(.*)")
_RANDOM = re.compile(r"\.[0-9a-f]{8}(?=\.part)|(?<=/#)\d+|(?<=\.)[0-9a-f]{16}(?=\.resume)")


@dataclass(frozen=True)
class Call:
    """A call that changes the folder that is watched; `place` is its path there, random parts left out."""

    name: str
    place: str


@dataclass(frozen=True)
class Trace:
    """The calls of one run. `deepest` is, by name, how many calls of it the busiest thread made."""

    calls: tuple[Call, ...]
    deepest: Mapping[str, int]
    hit: Call | None
    ran: Ran


def traced(
    forks: Forks, *arguments: str | Path, watched: Path, rule: str = "", only: str | None = None, **options: Any
) -> Trace:
    """Run `lowlight` under strace, with `rule` as in `-e inject=RULE`; `only` names the one call to look at."""
    child = forks.start(*arguments, gated=True, **options)
    with tempfile.NamedTemporaryFile("r") as log:
        known = "trace=" + (only or ",".join(f"?{name}" for name in CHANGING))
        command = [
            "strace",
            "-f",
            "-y",
            "-s",
            "0",
            "-o",
            log.name,
            "-e",
            known,
            "-e",
            "signal=none",
            "-p",
            str(child.pid),
        ]
        with subprocess.Popen(
            [*command, *(["-e", f"inject={rule}"] if rule else [])], stderr=subprocess.PIPE
        ) as strace:
            assert strace.stderr is not None
            said = strace.stderr.readline()
            assert b"attached" in said, said
            child.go()
            ran = child.ended()
        return _read(log.read(), watched, ran)


def _read(log: str, watched: Path, ran: Ran) -> Trace:
    calls, counts, hit = [], Counter[tuple[str, str]](), None
    for line in log.splitlines():
        if (match := _LINE.match(line)) is None or line.split(maxsplit=1)[1].startswith("<... "):
            continue
        thread, name, rest = match.groups()
        counts[thread, name] += 1
        broken = "(INJECTED)" in rest or rest.rstrip().endswith("= ?") or rest.endswith("<unfinished ...>")
        if broken:
            hit = Call(name, "elsewhere")
        place = re.search(re.escape(f"{watched}/") + r'([^"<>,]*)', rest)
        if place is None or (name == "openat" and "O_CREAT" not in rest):
            continue
        call = Call(name, _RANDOM.sub("", place[1]))
        calls.append(call)
        if broken:
            hit = call
    deepest = {name: max(count for (_, one), count in counts.items() if one == name) for _, name in counts}
    return Trace(tuple(calls), deepest, hit, ran)


# What Python tells of before it happens, where that changes files.
_EVENTS = frozenset(
    ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime")
)


def audited() -> None:
    """Be the command line, get the signal AUDIT_SIGNAL at audit event number AUDIT_AT, and tell at the end the count.

    With AUDIT_PLACE only events count that change a file whose path fits this pattern. With AUDIT_UNRAISABLE the
    signal comes while an object is freed, where Python can raise nothing.
    """
    place, number = os.environ.get("AUDIT_PLACE"), int(os.environ["AUDIT_SIGNAL"])
    at = left = int(os.environ["AUDIT_AT"])

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            return  # our own first lines, which hold nothing yet
        if place and (event not in _EVENTS or not any(fnmatch(str(one), place) for one in arguments)):
            return
        left -= 1
        if left == 0 and "AUDIT_UNRAISABLE" in os.environ:
            _Freed(number)
        elif left == 0:
            os.kill(os.getpid(), number)

    sys.addaudithook(count)
    try:
        run_lowlight()
    finally:
        print(at - left, "events", file=sys.stderr)


def on_a_slow_disk() -> None:
    """Be the command line where no picture ever comes from the disk."""
    from lowlight_cli import batch

    batch.read_picture = lambda *source, **how: time.sleep(600)  # type: ignore[assignment]
    run_lowlight()


class Moments:
    """Random moments to kill a process that is at work. One that came too late shortens those that follow: how long a
    run takes says how busy the machine is."""

    def __init__(self, seed: int, longest: float) -> None:
        self._chance, self._longest = random.Random(seed), longest
        self.kills = 0

    def kill(self, child: Child) -> Ran:
        """Wait for a moment, kill the child, and return how it ended: by that, counted in `kills`, or by itself."""
        moment = self._chance.uniform(0, self._longest)
        time.sleep(moment)
        child.send(signal.SIGKILL)
        ran = child.ended()
        if ran.code == -signal.SIGKILL:
            self.kills += 1
        else:
            self._longest = moment
        return ran


class _Freed:
    """Signals this process when it is freed."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
