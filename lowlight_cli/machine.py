"""What this process may take of the machine, and what it holds: memory, processors, the C library's store of buffers.

A container's bounds count like the machine's own, under control groups of either version. No torch here.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_CONTROL_GROUP: Final = Path("/sys/fs/cgroup")
_UNKNOWN_BYTES: Final = 8 << 30


class _MemoryFiles(NamedTuple):
    """Where a version of control groups tells of memory, and what it calls the files that can be let go of."""

    limit: str
    used: str
    facts: str
    droppable: str


_MEMORY_FILES = (
    _MemoryFiles("memory.max", "memory.current", "memory.stat", "inactive_file"),
    _MemoryFiles(
        "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"
    ),
)


@cache
def reuse_large_buffers() -> bool:
    """Let the C library keep freed buffers of up to 1 GB for the next tensor; say whether it could be told.

    glibc maps every buffer above 32 MB afresh and the kernel clears it page by page: a 64 MB addition then costs
    three times itself. A network asks for the same few sizes over and over, so keeping them is worth 1.3 to 1.5
    times the speed on pictures of 512x512 and more. Threads share what is kept: with a store of its own each would
    come to hold as much as all of them need.
    """
    return bool(
        _asked_of_c_library("mallopt", _M_MMAP_THRESHOLD, 1 << 30)
        and _asked_of_c_library("mallopt", _M_TRIM_THRESHOLD, 1 << 30)
        and _asked_of_c_library("mallopt", _M_ARENA_MAX, 1)
    )


def release_free_buffers() -> None:
    """Give the memory of freed buffers back, where the C library can: after work that the next does not resemble."""
    _asked_of_c_library("malloc_trim", 0)


class Growth:
    """Watches what a process holds beyond what it held at the first look, and has freed buffers given back.

    Threads that free what others asked for leave ever more holes between what is held.
    """

    def __init__(self, most: int) -> None:
        """Allow for `most` bytes."""
        self._most = most
        self._first: int | None = None

    def look(self) -> None:
        """Give memory back if there is too much by now: each page costs time when it is asked for again."""
        held = resident_bytes()
        if self._first is None:
            self._first = held
        elif held > self._first + self._most:
            release_free_buffers()


def resident_bytes() -> int:
    """Return the memory that this process has resident, in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0


def peak_bytes() -> int:
    """Return the most memory that this process has had resident, in bytes; 0 where the system does not tell."""
    try:
        return _kilobytes(Path("/proc/self/status"), "VmHWM:")
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ram_bytes() -> int:
    """Return the machine's memory, or what its container may have of it, in bytes (8 GiB if unknown)."""
    return min([_installed_bytes(), *(limit for limit, _ in _container_memory(_CONTROL_GROUP))])


def free_ram_bytes() -> int:
    """Return the memory that a computation may take now, in bytes (a guess if unknown)."""
    return max(min([_available_bytes(), *(left for _, left in _container_memory(_CONTROL_GROUP))]), 0)


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, bounded by the control group's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(_CONTROL_GROUP)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, ValueError):
        pass
    import platform

    return platform.processor() or platform.machine()


def _asked_of_c_library(name: str, *arguments: int) -> int:
    if not sys.platform.startswith("linux"):
        return 0
    import ctypes  # here and not at the top: `--help` asks for none of it

    try:
        return int(getattr(ctypes.CDLL(None), name)(*arguments))
    except (OSError, AttributeError):  # another C library
        return 0


def _container_memory(group: Path) -> list[tuple[int, int]]:
    """Return what a control group may have and what is left of that, in bytes; nothing where it has no limit.

    What it holds of files, and has not used lately, the kernel takes back when it is asked for memory.
    """
    found = []
    for files in _MEMORY_FILES:
        try:
            limit = int((group / files.limit).read_text())
            facts = dict(line.split() for line in (group / files.facts).read_text().splitlines())
            left = limit - int((group / files.used).read_text()) + int(facts.get(files.droppable, 0))
        except (OSError, ValueError):
            continue
        found.append((limit, left))
    return found


def _cpu_quota(group: Path) -> float | None:
    """Return how many processors' time a control group may have; None where it has no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((group / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # max
        return None


def _installed_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _UNKNOWN_BYTES


def _available_bytes() -> int:
    try:
        return _kilobytes(Path("/proc/meminfo"), "MemAvailable:")
    except (OSError, ValueError):
        return _installed_bytes() // 2


def _kilobytes(table: Path, name: str) -> int:
    """Return a value of one of the kernel's tables in bytes; raises OSError or ValueError where it is not there."""
    for line in table.read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {name}")
