"""Break a process at its system calls: strace attaches to a gated child, counts its calls and kills or fails one.

strace counts calls per thread, so a rule names one call and its number, and what was hit is read from the log rather
than assumed. Where there is no strace, `audited` counts Python's own audit events instead: fewer places (no write, no
fsync), but on any system.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forks import Forks, Ran, run_lowlight

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
    """Be the command line, and get the signal AUDIT_SIGNAL at audit event number AUDIT_AT.

    With AUDIT_FOLDER only events count that change something there. With AUDIT_UNRAISABLE it comes while an object
    is freed, where Python can raise nothing.
    """
    folder, number = os.environ.get("AUDIT_FOLDER"), int(os.environ["AUDIT_SIGNAL"])
    left = int(os.environ["AUDIT_AT"])

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            return  # our own first lines, which hold nothing yet
        if folder and (event not in _EVENTS or not any(str(one).startswith(folder) for one in arguments)):
            return
        left -= 1
        if left == 0 and "AUDIT_UNRAISABLE" in os.environ:
            _Freed(number)
        elif left == 0:
            os.kill(os.getpid(), number)

    sys.addaudithook(count)
    run_lowlight()


class _Freed:
    """Signals this process when it is freed."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)
