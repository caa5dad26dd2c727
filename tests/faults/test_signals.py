"""Ctrl-C and SIGTERM at any moment: the documented code, no traceback, nothing left half-written."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Forks, Ran, forks
from PIL import Image
from writers import BATCH, IMAGE, WRITERS, Bench, Writer

slow = pytest.mark.slow

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
EVERY_WRITER = [
    pytest.param(writer, id=writer.name, marks=[] if writer in (IMAGE, BATCH) else slow) for writer in (*WRITERS, BATCH)
]


@pytest.fixture(scope="module")
def cold() -> Iterator[Forks]:
    """Forks processes that have loaded nothing of ours yet, as a shell starts them."""
    with forks() as server:
        yield server


def interrupted(forks: Forks, bench: Bench, number: signal.Signals, at: int, **more: str) -> Ran:
    bench.reset()
    environment = bench.environment | {"AUDIT_AT": str(at), "AUDIT_SIGNAL": str(int(number)), **more}
    ran = forks.run(*bench.arguments, call="tracing:audited", environment=environment, seconds=60)
    assert "Traceback" not in ran.said, (at, ran.said)
    assert ran.code in (0, CODES[number]), (at, ran.code, ran.said)
    bench.check(finished=ran.code == 0)
    assert not bench.parts(), (at, bench.parts())
    return ran


def count_events(forks: Forks, bench: Bench) -> int:
    """Count the audit events of a run that no signal stops."""
    ran = interrupted(forks, bench, signal.SIGTERM, 10**9)
    return int(ran.said.splitlines()[-1].removesuffix(" events"))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [6, pytest.param(120, marks=slow)])
@pytest.mark.parametrize("writer", EVERY_WRITER)
def test_a_signal_at_any_event_of_the_work_ends_it_cleanly(writer: Writer, times: int, bench: Bench) -> None:
    events = count_events(bench.forks, bench)
    chance = random.Random(times)
    stopped = sum(
        interrupted(bench.forks, bench, number, chance.randint(1, events)).code != 0
        for number in CODES
        for _ in range(times // 2)
    )
    print(f"{writer.name}: {stopped} of {times} runs stopped, at one of {events} events")
    assert stopped > times // 3


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [2, pytest.param(40, marks=slow)])
def test_a_signal_while_libraries_are_loaded_ends_it_cleanly(
    times: int, cold: Forks, forked: Forks, quick_folder: Path
) -> None:
    bench = Bench(IMAGE, forked, quick_folder)
    chance = random.Random(times)
    stopped = 0
    for turn in range(times):
        number = list(CODES)[turn % 2]
        stopped += interrupted(cold, bench, number, chance.randint(1, 6000)).code != 0
    print(f"{stopped} of {times} runs stopped")
    assert stopped


@pytest.mark.parametrize("number", CODES)
def test_a_signal_where_nothing_can_be_raised_is_not_lost(
    number: signal.Signals, forked: Forks, quick_folder: Path
) -> None:
    bench = Bench(BATCH, forked, quick_folder)
    ran = [interrupted(forked, bench, number, at, AUDIT_UNRAISABLE="1") for at in (1, 20, 50)]
    assert any(each.code for each in ran)
    assert not any("Exception ignored" in each.said for each in ran)


WAITING = """
import signal, sys, threading, time
from lowlight_cli.interrupts import raise_on_signals

raise_on_signals()
condition = threading.Condition({lock})
waited = False

def stop(frame, event, argument):
    code = frame.f_code
    if (code.co_filename, code.co_name, event) == (threading.__file__, "{method}", "{event}"):
        if event == "return" or argument.__name__ == "_release_save":
            sys.setprofile(None)
            signal.getsignal(signal.SIGINT)(signal.SIGINT, frame)

sys.setprofile(stop)
try:
    with condition:
        condition.wait(0)
    waited = True
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted" if waited else "by halves", condition.acquire(timeout=1))
"""


@pytest.mark.parametrize(
    ("lock", "method", "event"),
    [
        ("", "wait", "c_return"),
        *(("threading.Lock()", name, "return") for name in ("_release_save", "_acquire_restore")),
        *((lock, name, "return") for lock in ("", "threading.Lock()") for name in ("__enter__", "__exit__")),
    ],
)
def test_a_signal_while_a_lock_is_half_taken_waits_until_it_is(lock: str, method: str, event: str) -> None:
    script = WAITING.format(lock=lock, method=method, event=event)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("interrupted True\n", "")


def test_a_second_signal_ends_at_once(forked: Forks, quick_folder: Path) -> None:
    bench = Bench(BATCH, forked, quick_folder)
    for _ in range(5):
        bench.reset()
        child = forked.start(*bench.arguments)
        time.sleep(0.05)
        child.send(signal.SIGTERM)
        child.send(signal.SIGTERM)
        ran = child.ended(20)
        assert ran.code in (0, 143, -signal.SIGTERM), ran.said  # killed outright before it had a handler
        bench.check(finished=ran.code == 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_stop_of_a_long_batch_comes_soon_and_is_summed_up(forked: Forks, quick_folder: Path) -> None:
    bench = Bench(BATCH, forked, quick_folder)
    bench.reset()
    arguments = [one for one in bench.arguments if one != "-q"]
    child = forked.start(*arguments, "--tile", "128")
    deadline = time.monotonic() + 30
    while not list(bench.folder.glob("out/*.png")) and time.monotonic() < deadline:
        time.sleep(0.001)
    child.send(signal.SIGINT)
    ran = child.ended(20)
    assert ran.code in (0, 130)
    assert b"done" in ran.err


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [20, pytest.param(400, marks=slow)])
def test_a_stopped_batch_has_told_what_lies_there_and_nothing_else(
    times: int, forked: Forks, quick_folder: Path
) -> None:
    bench = Bench(BATCH, forked, quick_folder)
    events = count_events(forked, bench)
    out, chance, stopped = bench.folder / "out", random.Random(times), 0
    for turn in range(times):
        shutil.rmtree(out, ignore_errors=True)
        signalled = {
            "AUDIT_AT": str(chance.randint(events // 3, events)),
            "AUDIT_SIGNAL": str(int(list(CODES)[turn % 2])),
        }
        ran = forked.run(*bench.arguments, "--json", call="tracing:audited", environment=signalled)
        told = [json.loads(line) for line in ran.out.splitlines()]
        names = {path.name for path in out.iterdir()} if out.exists() else set()
        assert sorted(Path(one["output"]).name for one in told) == sorted(names), (signalled, ran.said)
        stopped += ran.code != 0 and 0 < len(told) < 12
    assert stopped > times // 4


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("waits_for", ["standard input", "a slow disk"])
def test_a_signal_while_a_picture_is_awaited_ends_the_process(
    waits_for: str, number: signal.Signals, forked: Forks, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    call, source = ("forks:run_lowlight", "-") if waits_for == "standard input" else ("tracing:on_a_slow_disk", "a.png")
    nothing, held = os.pipe()  # held open: nothing comes, and no end
    read, written = os.pipe()
    arguments = ("enhance", source, "-o", "out.png", "--model", "identity", "--device", "cpu")
    child = forked.start(*arguments, call=call, folder=tmp_path, stdin=nothing, stderr=written)
    os.close(written)
    with os.fdopen(read) as stderr:
        said = stderr.readline()  # the model is loaded; the picture is next
        time.sleep(0.1)
        child.send(number)
        assert child.ended(20).code == CODES[number]
        said += stderr.read()
    os.close(nothing)
    os.close(held)
    assert "interrupted" in said
    assert "Traceback" not in said
    assert "Fatal" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"a.png"}


LEFT = """
import signal, threading
from lowlight_cli.interrupts import interrupts_held, raise_on_signals

def held():
    with interrupts_held():
        yield

raise_on_signals()
begun = [held()]
next(begun[0])
collector = threading.Thread(target=begun.pop)
collector.start()
collector.join()
try:
    signal.raise_signal(signal.SIGINT)
    print("lost")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupts_are_held_no_longer_when_another_thread_collects_what_held_them() -> None:
    ran = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.stdout, ran.stderr) == ("interrupted\n", "")
