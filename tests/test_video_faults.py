"""A clip is complete under its name or not there at all: kills, signals and full disks, in real processes."""

import contextlib
import itertools
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from clipmaking import make_clip, pattern, see

from lowlight_cli.clip import ClipProgress, ClipSettings, enhance_clips, ready
from lowlight_cli.enhancer import load_enhancer
from lowlight_cli.paths import plan_jobs
from lowlight_cli.settings import Compute
from lowlight_cli.video import CLIPS, Film
from lowlight_cli.video.segments import SEGMENT_FRAMES

FRAMES = 3 * SEGMENT_FRAMES + 40
RUN = ("--model", "identity", "--device", "cpu", "--preset", "ultrafast")


def _run(arguments: list[str], folder: str, most_bytes: int | None) -> None:
    """Be `lowlight` in a process of one's own."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = "1"
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = os.open(Path(folder) / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["lowlight", *arguments]
    from lowlight_cli.__main__ import main

    main()


def lowlight(folder: Path, *arguments: str | Path, most_bytes: int | None = None) -> ForkServerProcess:
    """Start `lowlight` from a server that has the libraries loaded: many processes at the price of one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lowlight_cli.cli", "lowlight_cli.clip", "test_video_faults"])
    (folder / "logs").mkdir(exist_ok=True)
    process = context.Process(target=_run, args=([str(one) for one in arguments], str(folder / "logs"), most_bytes))
    process.start()
    return process


def log_of(folder: Path) -> str:
    return (folder / "logs" / "log").read_text()


def wait_for(folder: Path, pattern: str, process: ForkServerProcess, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not any(folder.rglob(pattern)) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)


def ended(process: ForkServerProcess, seconds: float = 120) -> int | None:
    process.join(seconds)
    assert not process.is_alive(), "it hangs"
    return process.exitcode


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES, size=(48, 32))


@pytest.fixture(scope="module")
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The result of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert ended(lowlight(folder, "video", clip, "-o", folder / "b.mp4", *RUN)) == 0, log_of(folder)
    return (folder / "b.mp4").read_bytes()


def kill_at_random(clip: Path, whole: bytes, folder: Path, moment: random.Random) -> bool:
    """Kill a run at a random moment; tell whether it was still at work."""
    target = folder / "b.mp4"
    target.unlink(missing_ok=True)
    process = lowlight(folder, "video", clip, "-o", target, *RUN)
    wait_for(folder, ".b.mp4.*.part", process)
    time.sleep(moment.uniform(0, 1))
    process.kill()
    at_work = ended(process) == -signal.SIGKILL
    assert not target.exists() or target.read_bytes() == whole, "a short clip under the final name"
    for part in folder.glob(".b.mp4.*.part"):
        part.unlink()
    return at_work


@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_no_kill_leaves_a_short_clip_under_the_final_name(clip, whole, tmp_path, times):
    moment = random.Random(times)
    hit = sum(kill_at_random(clip, whole, tmp_path, moment) for _ in range(times))
    assert hit > times // 3, "the kills came too late to prove anything"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_cleanly_with_their_code(clip, tmp_path, number, code):
    process = lowlight(tmp_path, "video", clip, "-o", tmp_path / "b.mp4", *RUN)
    wait_for(tmp_path, ".b.mp4.*.part", process)
    time.sleep(0.2)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid or 0, number)
    started = time.monotonic()
    assert ended(process) == code, log_of(tmp_path)
    assert time.monotonic() - started < 30
    assert "Traceback" not in log_of(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["logs"], "nothing is left behind"


@pytest.mark.parametrize("share", [0.02, 0.97])
def test_a_full_disk_is_one_sentence_and_the_old_result_survives(clip, whole, tmp_path, share):
    old = tmp_path / "b.mp4"
    old.write_bytes(b"the result of an earlier day")
    room = int(len(whole) * share)
    process = lowlight(tmp_path, "video", clip, "-o", old, "--overwrite", *RUN, most_bytes=room)
    assert ended(process) == 1, log_of(tmp_path)
    assert "cannot write" in log_of(tmp_path) or "the written clip" in log_of(tmp_path)
    assert "Traceback" not in log_of(tmp_path)
    assert old.read_bytes() == b"the result of an earlier day"
    assert {path.name for path in tmp_path.iterdir()} == {"b.mp4", "logs"}


@pytest.mark.parametrize(
    "segments", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_bytes(clip, whole, tmp_path, segments):
    target = tmp_path / "b.mp4"
    process = lowlight(tmp_path, "video", clip, "-o", target, "--resume", *RUN)
    wait_for(tmp_path, f"{segments - 1:06}.npz", process)
    process.kill()
    ended(process)
    assert not target.exists()
    process = lowlight(tmp_path, "video", clip, "-o", target, "--resume", "--json", *RUN)
    assert ended(process) == 0, log_of(tmp_path)
    assert f'"resumed_at": {segments * SEGMENT_FRAMES}' in log_of(tmp_path)
    assert target.read_bytes() == whole
    assert not list(tmp_path.glob(".b.mp4.*.resume")), "the segments are gone"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_five_times_at_random_gives_the_same_frames(clip, whole, tmp_path):
    moment = random.Random(5)
    for attempt in range(5):
        process = lowlight(tmp_path, "video", clip, "-o", tmp_path / "b.mp4", "--resume", *RUN)
        wait_for(tmp_path, ".b.mp4.*.part", process)
        time.sleep(moment.uniform(0, 0.4 * (attempt + 1)))
        process.kill()
        ended(process)
    process = lowlight(tmp_path, "video", clip, "-o", tmp_path / "b.mp4", "--resume", *RUN)
    assert ended(process) == 0
    assert (tmp_path / "b.mp4").read_bytes() == whole
    assert len(see(tmp_path / "b.mp4").pixels) == FRAMES


def _remember_memory(source: Path, target: Path, log: Path) -> None:
    """Enhance a clip, and write the resident bytes after each hundred frames, one number a line."""
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    plan = plan_jobs([source], media=CLIPS, output=str(target))
    settings = ClipSettings(film=Film(preset="ultrafast"))
    with log.open("w") as lines:
        for told in enhance_clips(plan.jobs, ready(enhancer), settings):
            if isinstance(told, ClipProgress) and told.done % 100 == 0:
                resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                lines.write(f"{resident}\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_length(tmp_path):
    """Ten minutes at 360p: within 50 MB after the first 200 frames."""
    shown = [pattern(number, width=640, height=360) for number in range(25)]
    pictures = itertools.cycle(shown)
    source = make_clip(tmp_path / "long.mp4", frames=15000, size=(640, 360), sound=None, pictures=pictures)
    log = tmp_path / "log"
    process = multiprocessing.get_context("spawn").Process(
        target=_remember_memory, args=(source, tmp_path / "b.mp4", log)
    )
    process.start()
    process.join()
    assert process.exitcode == 0
    sizes = [int(line) for line in log.read_text().split()]
    assert len(sizes) == 150
    assert max(sizes[2:]) - sizes[1] < 50e6, sizes
