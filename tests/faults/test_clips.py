"""A clip is complete under its name or not there at all: kills, signals and full disks, in real processes."""

import itertools
import multiprocessing
import os
import random
import signal
import time
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from clipmaking import make_clip, pattern, see
from forks import Child, Forks
from tracing import Moments

from lowlight_cli.clip import ClipProgress, ClipSettings, enhance_clips, ready
from lowlight_cli.enhancer import load_enhancer
from lowlight_cli.paths import plan_jobs
from lowlight_cli.settings import Compute
from lowlight_cli.video import CLIPS, Film
from lowlight_cli.video.segments import SEGMENT_FRAMES

FRAMES = 3 * SEGMENT_FRAMES + 40
RUN = ("--model", "identity", "--stabilize-light", "--device", "cpu", "--preset", "ultrafast")


def wait_for(folder: Path, pattern: str, child: Child, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not any(folder.rglob(pattern)) and child.is_alive and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES, size=(48, 32))


class Whole(NamedTuple):
    """The result of a run that nothing disturbed, and how long it took."""

    content: bytes
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(clip: Path, forked: Forks, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    ran = forked.run("video", clip, "-o", folder / "b.mp4", *RUN)
    assert ran.code == 0, ran.said
    return Whole((folder / "b.mp4").read_bytes(), ran.seconds)


@pytest.fixture(scope="module")
def whole(undisturbed: Whole) -> bytes:
    return undisturbed.content


@pytest.mark.parametrize("times", [5, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_no_kill_leaves_a_short_clip_under_the_final_name(forked, clip, undisturbed, quick_folder, times):
    target, moments = quick_folder / "b.mp4", Moments(times, undisturbed.seconds)
    for _ in range(10 * times):
        child = forked.start("video", clip, "-o", target, *RUN)
        wait_for(quick_folder, ".b.mp4.*.part", child)
        moments.kill(child)
        assert not target.exists() or target.read_bytes() == undisturbed.content, "a short clip under the final name"
        for left in quick_folder.iterdir():
            left.unlink()
        if moments.kills == times:
            break
    assert moments.kills == times, "the kills came too late to prove anything"


def stopped_at(place: str, number: signal.Signals) -> dict[str, object]:
    """Return how to start a child that gets a signal as it first changes a file whose path fits the pattern."""
    environment = {"AUDIT_PLACE": place, "AUDIT_AT": "1", "AUDIT_SIGNAL": str(int(number))}
    return {"call": "tracing:audited", "environment": environment}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_stop_cleanly_with_their_code(forked, clip, tmp_path, number, code):
    ran = forked.run("video", clip, "-o", tmp_path / "b.mp4", *RUN, **stopped_at(f"{tmp_path}/*", number))
    assert ran.code == code, ran.said
    assert "Traceback" not in ran.said
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize("times", [2, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.timeout(3600)
def test_a_full_disk_is_one_sentence_and_the_old_result_survives(forked, clip, whole, quick_folder, times):
    old = quick_folder / "b.mp4"
    old.write_bytes(b"the result of an earlier day")
    for turn in range(times):
        room = int(len(whole) * turn / times)
        arguments = ("video", clip, "-o", old, "--overwrite", *RUN)
        ran = forked.run(*arguments, limits={"RLIMIT_FSIZE": room})
        assert ran.code == 1, (room, ran.said)
        assert "cannot write" in ran.said or "the written clip" in ran.said, ran.said
        assert "Traceback" not in ran.said
        assert old.read_bytes() == b"the result of an earlier day"
        assert [path.name for path in quick_folder.iterdir()] == ["b.mp4"]


@pytest.mark.parametrize(
    "segments", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_killed_run_goes_on_to_the_same_bytes(forked, clip, whole, tmp_path, segments):
    target = tmp_path / "b.mp4"
    # As it begins to keep the next segment; what comes after the third is not kept, and the film put in its place.
    place = f"{tmp_path}/*{segments:06}*" if segments < 3 else f"{target}"
    killed = stopped_at(place, signal.SIGKILL)
    assert forked.run("video", clip, "-o", target, "--resume", *RUN, **killed).code == -signal.SIGKILL
    assert not target.exists()
    ran = forked.run("video", clip, "-o", target, "--resume", "--json", *RUN)
    assert ran.code == 0, ran.said
    assert f'"resumed_at": {segments * SEGMENT_FRAMES}' in ran.said
    assert f"{clip}: goes on after frame {segments * SEGMENT_FRAMES}, which an earlier run left finished" in ran.said
    assert target.read_bytes() == whole
    assert not list(tmp_path.glob(".b.mp4.*.resume")), "the segments are gone"


def test_an_interrupted_run_says_that_it_can_go_on_and_one_without_resume_leaves_nothing_of_it(
    forked, clip, whole, tmp_path
):
    target = tmp_path / "b.mp4"
    stopped = stopped_at(f"{tmp_path}/*000001*", signal.SIGINT)
    ran = forked.run("video", clip, "-o", target, "--resume", *RUN, **stopped)
    assert "the same command goes on from what is finished" in ran.said
    assert len(list(tmp_path.glob(".b.mp4.*.resume"))) == 1
    assert forked.run("video", clip, "-o", target, *RUN).code == 0
    assert target.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_killed_five_times_at_random_gives_the_same_frames(forked, clip, whole, tmp_path):
    moment = random.Random(5)
    for attempt in range(5):
        child = forked.start("video", clip, "-o", tmp_path / "b.mp4", "--resume", *RUN)
        wait_for(tmp_path, ".b.mp4.*.part", child)
        time.sleep(moment.uniform(0, 0.4 * (attempt + 1)))
        child.send(signal.SIGKILL)
        child.ended()
    assert forked.run("video", clip, "-o", tmp_path / "b.mp4", "--resume", *RUN).code == 0
    assert (tmp_path / "b.mp4").read_bytes() == whole
    assert len(see(tmp_path / "b.mp4").pixels) == FRAMES


def _remember_memory(source: Path, target: Path, log: Path) -> None:
    """Enhance a clip, and write the resident bytes after each hundred frames, one number a line."""
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    plan = plan_jobs([source], media=CLIPS, output=str(target))
    settings = ClipSettings(film=Film(preset="ultrafast"), stabilize=1.0)
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


# The four rates, and one that varies: times of frames in ticks of the time base.
RATES: dict[str, tuple[Fraction, list[int]]] = {
    "24000/1001": (Fraction(1001, 24000), list(range(48))),
    "25": (Fraction(1, 25), list(range(50))),
    "30000/1001": (Fraction(1001, 30000), list(range(60))),
    "60000/1001": (Fraction(1001, 60000), list(range(120))),
    "variable": (Fraction(1, 600), [0, 10, 30, 35, 80, 81, 120, 240, 250, 300, 460, 500, 501, 640, 700]),
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_and_picture_stay_together(forked, tmp_path, rate, suffix):
    """The length is right within a frame, and every packet of sound and every frame within 20 ms of its place."""
    base, times = RATES[rate]
    nominal = 1 / base if rate != "variable" else Fraction(25)
    source = make_clip(tmp_path / f"a{suffix}", times=times, time_base=base, rate=nominal, size=(32, 16))
    target = tmp_path / f"b{suffix}"
    ran = forked.run("video", source, "-o", target, *RUN)
    assert ran.code == 0, ran.said
    before, after = see(source), see(target)
    frame = min(later - earlier for earlier, later in itertools.pairwise(before.times))
    lengths = [seen.times[-1] - seen.times[0] for seen in (before, after)]
    assert abs(lengths[1] - lengths[0]) <= frame
    assert len(after.times) == len(before.times) == len(times)
    frames_off = max(abs(one - other) for one, other in zip(before.times, after.times, strict=True))
    heard, kept = ([time for time, _ in seen.packets[1]] for seen in (before, after))
    sound_off = max(abs(one - other) for one, other in zip(heard, kept, strict=True))
    print(f"{rate}{suffix}: frames {float(frames_off) * 1000:.2f} ms, sound {float(sound_off) * 1000:.2f} ms")
    assert frames_off <= Fraction(20, 1000)
    assert sound_off <= Fraction(20, 1000)
