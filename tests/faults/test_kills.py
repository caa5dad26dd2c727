"""A file is under its final name complete, or not at all: proved by breaking the writers at every call they make.

The first test enumerates: it kills at each call that can change a file, one run per call. The others try what an
enumeration cannot: errors of the disk at each of those calls, limits on the size of files, disks that are full,
and moments at random.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks
from tracing import CHANGING, HAS_STRACE, Moments, Trace, traced
from writers import BATCH, IMAGE, WRITERS, Bench, Writer

needs_strace = pytest.mark.skipif(not HAS_STRACE, reason="strace is not installed")
slow = pytest.mark.slow

# One for the default run, all for the full one.
EVERY_WRITER = [pytest.param(writer, id=writer.name, marks=[] if writer is IMAGE else slow) for writer in WRITERS]

# A new name, a checkpoint that would be read, and a page that is not ours: nothing old may stand there.
NO_OLD = ("image-new", "checkpoint", "report")

OLD = b"the result of an earlier day"


def steps_of(bench: Bench) -> Iterator[tuple[str, int]]:
    """Name every changing call of an undisturbed run by its kind and number."""
    bench.reset()
    trace = run(bench, "")
    assert trace.ran.code == 0, trace.ran.said
    assert len(trace.calls) > 3, "strace sees nothing"
    for name, count in trace.deepest.items():
        yield from ((name, number) for number in range(1, count + 1))


def run(bench: Bench, rule: str) -> Trace:
    return traced(
        bench.forks, *bench.arguments, watched=bench.folder, rule=rule, only=rule.partition(":")[0] or None,
        environment=bench.environment,
    )  # fmt: skip


@needs_strace
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_a_kill_at_any_call_leaves_whole_files_only(writer: Writer, bench: Bench) -> None:
    hits, kills = set(), 0
    for name, number in steps_of(bench):
        if name == "openat":  # what a kill there leaves is what the call before it left
            continue
        bench.reset()
        trace = run(bench, f"{name}:signal=KILL:when={number}")
        kills += trace.ran.code == -signal.SIGKILL
        hits.add(trace.hit)
        bench.check(finished=trace.ran.code == 0)
    bench.reset()
    wanted = {call for call in run(bench, "").calls if call.name != "openat"}
    assert wanted <= hits, f"never killed at {wanted - hits}"
    print(f"{writer.name}: {kills} kills at {len(wanted)} places")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_a_kill_at_any_audited_event_leaves_whole_files_only(writer: Writer, bench: Bench) -> None:
    """The twin of the test above for systems without strace."""
    for number in range(1, 1000):
        bench.reset()
        environment = bench.environment | {"AUDIT_PLACE": f"{bench.folder}/out*", "AUDIT_AT": str(number)}
        environment["AUDIT_SIGNAL"] = str(int(signal.SIGKILL))
        ran = bench.forks.run(*bench.arguments, call="tracing:audited", environment=environment)
        bench.check(finished=ran.code == 0)
        if ran.code == 0:
            break
    assert number > 3, "the hook sees nothing"
    print(f"{writer.name}: {number - 1} kills")


@needs_strace
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_an_error_of_the_disk_at_any_call_leaves_the_old_file(writer: Writer, bench: Bench) -> None:
    """No space, a broken disk or a kill at each call of an overwrite: the old file is there, or the whole new one."""
    old = None if writer.name in NO_OLD else OLD
    tried = 0
    for name, number in steps_of(bench):
        if name == "openat" and writer is not IMAGE:
            continue  # mostly it reads: once is enough
        for fault in ("error=ENOSPC", "error=EIO", "signal=KILL")[: 1 if name == "openat" else None]:
            bench.reset(old)
            trace = run(bench, f"{name}:{fault}:when={number}")
            if trace.hit is None or trace.hit.place == "elsewhere":
                continue
            tried += 1
            bench.check(old=old)
            if fault != "signal=KILL":
                assert trace.ran.code in (0, 1, 3), (trace.hit, trace.ran.said)
                assert "Traceback" not in trace.ran.said, (trace.hit, trace.ran.said)
                bench.check(old=None if trace.ran.code == 0 else old, finished=trace.ran.code == 0)
                if not trace.hit.name.startswith("unlink"):
                    assert not bench.parts(), (trace.hit, bench.parts())
    assert tried > 5
    print(f"{writer.name}: {tried} faults")


@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_a_limit_on_the_size_of_files_leaves_the_old_file(writer: Writer, bench: Bench) -> None:
    old = None if writer.name in NO_OLD else OLD
    failed = 0
    largest = max(map(len, bench.whole.values()))
    for room in sorted({0, 1, largest - 1, *(largest * part // 10 for part in range(1, 10))}):
        bench.reset(old)
        ran = bench.forks.run(*bench.arguments, environment=bench.environment, limits={"RLIMIT_FSIZE": room})
        failed += ran.code != 0
        assert "Traceback" not in ran.said, (room, ran.said)
        assert ran.code in (0, 1, 3), ran.said
        bench.check(old=old, finished=ran.code == 0)
        assert not bench.parts()
    assert failed > 8
    print(f"{writer.name}: {failed} full disks")


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of `size` bytes; skips where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk may not be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_a_disk_that_is_full_leaves_the_old_file(writer: Writer, server_of: Forks, tmp_path: Path) -> None:
    with small_disk(tmp_path, 2 << 20) as disk:
        bench = Bench(writer, server_of, disk / "work")
        old = None if writer.name in NO_OLD else OLD
        for left in (0, 1):
            bench.reset(old)
            (disk / "filler").write_bytes(b"")
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            (disk / "filler").write_bytes(bytes(free - left * 4096))
            ran = bench.forks.run(*bench.arguments, environment=bench.environment)
            (disk / "filler").unlink()
            assert "Traceback" not in ran.said, (left, ran.said)
            assert ran.code in (0, 1, 3), ran.said
            assert ran.code != 0 or left, ran.said
            bench.check(old=old, finished=ran.code == 0)
            assert not bench.parts()


@pytest.mark.parametrize("times", [10, pytest.param(200, marks=slow)])
@pytest.mark.timeout(1800)
def test_a_kill_at_a_random_moment_leaves_whole_files_only(times: int, forked: Forks, quick_folder: Path) -> None:
    """A batch of many small pictures, killed at any moment; the old results or whole new ones are there."""
    bench = Bench(BATCH, forked, quick_folder)
    moments = Moments(times, forked.run(*bench.arguments).seconds)
    for turn in range(10 * times):
        old = OLD if turn % 2 else None
        bench.reset(old)
        ran = moments.kill(forked.start(*bench.arguments))
        bench.check(old=old, finished=ran.code == 0)
        if moments.kills == times:
            break
    assert moments.kills == times, "the kills came too late to prove anything"


def test_the_calls_that_are_broken_are_those_that_exist() -> None:
    assert len(set(CHANGING)) == len(CHANGING)
