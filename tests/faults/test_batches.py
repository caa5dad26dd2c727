"""Batches: any sequence of changes, runs and kills, and ten thousand files with every twentieth one bad."""

import json
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from forks import Child, Forks
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from PIL import Image
from writers import IDENTITY, contents, make_picture

slow = pytest.mark.slow

NAMES = ("a.png", "b.png", "A.PNG", "ä.png", "sub/a.png", "[b].png", "c.jpg")


def machine(forked: Forks) -> type[RuleBasedStateMachine]:
    """Return the class of a state machine whose runs are processes of `lowlight`."""

    class Batches(RuleBasedStateMachine):
        """A folder that people change between runs: what we promise holds at every moment."""

        def __init__(self) -> None:
            super().__init__()
            memory = Path("/dev/shm")
            self.folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
            self.inputs, self.results = self.folder / "in", self.folder / "out"
            self.inputs.mkdir()
            self.versions: dict[str, list[bytes]] = {}
            self.before = contents(self.inputs)

        def teardown(self) -> None:
            shutil.rmtree(self.folder)

        @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 50))
        def add_or_change(self, name: str, seed: int) -> None:
            path = self.inputs / name
            if path.is_symlink():
                path.unlink()
            make_picture(path, size=(9, 7), seed=seed)
            self._seen(name)

        @rule(name=st.sampled_from(NAMES))
        def damage(self, name: str) -> None:
            if (self.inputs / name).exists():
                (self.inputs / name).write_bytes((self.inputs / name).read_bytes()[:60])
                self._seen(name)

        @rule(name=st.sampled_from(NAMES))
        def remove(self, name: str) -> None:
            (self.inputs / name).unlink(missing_ok=True)
            self.before = contents(self.inputs)

        @rule(name=st.sampled_from(NAMES), to_name=st.sampled_from(NAMES), hard=st.booleans())
        def link(self, name: str, to_name: str, hard: bool) -> None:
            path, to = self.inputs / name, self.inputs / to_name
            if path.exists() or path.is_symlink() or not to.is_file():
                return
            path.parent.mkdir(exist_ok=True)
            os.link(to, path, follow_symlinks=False) if hard else path.symlink_to(to)
            self._seen(name)

        @rule(overwrite=st.booleans())
        def run(self, overwrite: bool) -> None:
            ran = self._start(overwrite).ended()
            assert "Traceback" not in ran.said, ran.said
            if ran.code == 2:  # nothing there, or two names that a disk could take for one
                assert "no pictures" in ran.said or "would both become" in ran.said or "would replace" in ran.said
                return
            told = [json.loads(line) for line in ran.out.splitlines()]
            assert ran.code == int(any(one["status"] == "failed" for one in told)), ran.said
            for one in told:
                result = Path(one["output"])
                assert result.exists() or one["status"] == "failed", one
                if one["status"] == "done":
                    assert result.read_bytes() == self._result_of(Path(one["input"]).read_bytes(), result.suffix)

        @rule(overwrite=st.booleans(), moment=st.floats(0, 0.15))
        def kill(self, overwrite: bool, moment: float) -> None:
            child = self._start(overwrite)
            time.sleep(moment)
            child.send(signal.SIGKILL)
            child.ended()

        @invariant()
        def inputs_are_as_they_were(self) -> None:
            assert contents(self.inputs) == self.before

        @invariant()
        def every_result_is_whole_and_of_some_version_of_its_input(self) -> None:
            for path in self.results.rglob("*") if self.results.exists() else ():
                if path.is_file() and path.suffix != ".part":
                    wanted = {
                        self._result_of(each, path.suffix) for versions in self.versions.values() for each in versions
                    }
                    assert path.read_bytes() in wanted, path

        def _start(self, overwrite: bool) -> Child:
            more = ["--overwrite"] if overwrite else []
            return forked.start("enhance", self.inputs, "-r", "-o", f"{self.results}/", "--json", *more, *IDENTITY)

        def _seen(self, name: str) -> None:
            self.versions.setdefault(name, []).append((self.inputs / name).read_bytes())
            self.before = contents(self.inputs)

        def _result_of(self, source: bytes, suffix: str) -> bytes | None:
            return result_of(source, suffix.lower())

    return Batches


_made: dict[tuple[bytes, str], bytes | None] = {}


def result_of(source: bytes, suffix: str) -> bytes | None:
    """Return the bytes that the identity makes of a file, None of a damaged one."""
    if (source, suffix) not in _made:
        from lowlight_cli.enhancer import load_enhancer
        from lowlight_cli.errors import InputError
        from lowlight_cli.images import read_picture, write_picture
        from lowlight_cli.settings import Compute

        with tempfile.TemporaryDirectory() as folder:
            try:
                picture = load_enhancer("identity", compute=Compute("cpu")).enhance(read_picture(source)).picture
                write_picture(picture, Path(folder) / f"a{suffix}")
                _made[source, suffix] = (Path(folder) / f"a{suffix}").read_bytes()
            except InputError:
                _made[source, suffix] = None
    return _made[source, suffix]


@pytest.mark.parametrize(("examples", "steps"), [(3, 8), pytest.param(60, 25, marks=[slow, pytest.mark.timeout(3600)])])
def test_no_sequence_of_changes_runs_and_kills_breaks_a_promise(examples: int, steps: int, forked: Forks) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine(forked),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


BAD_EVERY = 20


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=slow)])
def test_a_large_batch_is_right_flat_and_goes_on_after_a_kill(count: int, forked: Forks, quick_folder: Path) -> None:
    make_batch(quick_folder / "in", count)
    before = contents(quick_folder / "in")
    whole, cut = quick_folder / "whole", quick_folder / "cut"
    looks, told = followed(forked, quick_folder / "in", whole)
    good = {f"{index:05}.png" for index in range(count) if index % BAD_EVERY}
    assert {path.name for path in whole.iterdir()} == good
    assert Counter(one["status"] for one in told) == {"done": len(good), "failed": count - len(good)}
    for one in told:
        number = int(Path(one["input"]).stem)
        assert (one["status"] == "failed") == (number % BAD_EVERY == 0)
        if one["status"] == "failed":
            assert one["error"]["code"] == "input", one
            assert REASONS[number // BAD_EVERY % len(REASONS)] in one["error"]["message"], one
    early = [look for look in looks if look.done >= min(1000, count // 10)]
    grown = max(look.memory for look in early) - early[0].memory
    print(f"{count} files: memory grew by {grown / 1e6:.1f} MB after the first {early[0].done}, "
          f"{early[0].descriptors} to {max(look.descriptors for look in early)} descriptors, "
          f"{max(look.children for look in early)} children")  # fmt: skip
    assert grown < 50e6
    assert max(look.descriptors for look in early) - min(look.descriptors for look in early) <= 6
    assert max(look.children for look in early) == 0

    child = forked.start("enhance", quick_folder / "in", "-o", f"{cut}/", *IDENTITY)
    while not cut.exists() or len(list(cut.iterdir())) < len(good) // 2:
        time.sleep(0.01)
        assert child.is_alive
    child.send(signal.SIGKILL)
    child.ended()
    finished = {path.name: path.stat().st_mtime_ns for path in cut.glob("*.png")}
    assert 0 < len(finished) < len(good)
    ran = forked.run("enhance", quick_folder / "in", "-o", f"{cut}/", *IDENTITY, seconds=1800)
    assert ran.code == 1
    for name in good:
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    for name, written in finished.items():
        assert (cut / name).stat().st_mtime_ns == written, "what was finished is not done again"
    assert contents(quick_folder / "in") == before


REASONS = ("cut off", "empty", "no picture of a kind", "PDF")


def make_batch(folder: Path, count: int) -> None:
    """Write `count` files, every twentieth one bad, by turns for each of REASONS."""
    folder.mkdir()
    samples = [make_picture(folder / "sample.png", size=(24, 16), seed=seed).read_bytes() for seed in range(10)]
    (folder / "sample.png").unlink()
    for index in range(count):
        content = samples[index % 10]
        if index % BAD_EVERY == 0:
            content = (content[:300], b"", b"nothing at all", b"%PDF-1.7\n")[index // BAD_EVERY % 4]
        (folder / f"{index:05}.png").write_bytes(content)


class Look:
    """What a running process holds, in bytes and in numbers."""

    def __init__(self, pid: int, done: int) -> None:
        self.done = done
        self.memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        self.children = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # a thread that reads one file is soon over
                self.children += len((task / "children").read_text().split())


def followed(forked: Forks, source: Path, target: Path) -> tuple[list[Look], list[dict]]:
    """Run a batch and look at its process now and then."""
    read, write = os.pipe()
    child = forked.start("enhance", source, "-o", f"{target}/", "--json", *IDENTITY, stdout=write)
    os.close(write)
    looks, lines = [], []
    with os.fdopen(read) as told:
        for number, line in enumerate(told, 1):
            lines.append(json.loads(line))
            if number % 20 == 0 and child.is_alive:
                looks.append(Look(child.pid, number))
            if number % 2000 == 0:
                print(f"{number} files", flush=True)
    assert child.ended().code == 1
    return looks, lines


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["big.jpg", pytest.param("big.png", marks=slow)])
@pytest.mark.parametrize("side", [2000, pytest.param(10_000, marks=slow)])
def test_the_peak_of_memory_of_a_large_picture_is_bounded(
    name: str, side: int, forked: Forks, quick_folder: Path
) -> None:
    ramp = Image.linear_gradient("L").resize((side, side))
    Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).save(quick_folder / name)
    ran = forked.run("enhance", quick_folder / name, "-o", quick_folder / "out" / name, *IDENTITY, seconds=900)
    assert ran.code == 0, ran.said
    with Image.open(quick_folder / "out" / name) as done:
        assert done.size == (side, side)
    print(f"{side * side / 1e6:.0f} Mpx {name}: {ran.peak_bytes / 1e9:.2f} GB in {ran.seconds:.0f} s")
    assert ran.peak_bytes <= 1.6e9


@pytest.fixture(autouse=True)
def _no_pixel_limit() -> Iterator[None]:
    """This process, not ours, reads the large picture back."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    yield
    Image.MAX_IMAGE_PIXELS = before
