"""One plan over several workers: the same results in the same order, whoever is done first and whoever is lost."""

import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from lowlight_cli.batch import BatchSettings
from lowlight_cli.cli import app
from lowlight_cli.device import choose_device, choose_devices
from lowlight_cli.enhancer import find_model
from lowlight_cli.errors import (
    DeviceError,
    Interrupted,
    LowlightError,
    OutputError,
    SettingsError,
    WeightsError,
    WorkerError,
)
from lowlight_cli.paths import Job, plan_jobs
from lowlight_cli.results import FileResult, blank_result, failed_result, last_told
from lowlight_cli.settings import Compute, Engine
from lowlight_cli.spread import FitWork, PictureWork
from lowlight_cli.spread.cluster import own_standard_output
from lowlight_cli.spread.devices import do_on_devices
from lowlight_cli.spread.dispatch import Answer, Dispatch, Done, MemberLost
from lowlight_cli.spread.member import RemoteMember
from lowlight_cli.spread.order import InOrder
from lowlight_cli.spread.pool import LocalPool, open_pool
from lowlight_cli.zero_shot.fit import Step
from lowlight_cli.zero_shot.settings import Keep, ZeroShot


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def pictures(folder: Path, count: int, *, bad: Iterable[int] = (), size: tuple[int, int] = (24, 16)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        levels = np.random.default_rng(index).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{index:02}.png")
    for index in bad:
        (folder / f"{index:02}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def jobs_of(count: int) -> list[Job]:
    return [Job(Path(f"{index}.png"), Path(f"out/{index}.png")) for index in range(count)]


def told(result: FileResult) -> dict[str, object]:
    return {**result.as_json(), "seconds": 0}


# Results in the plan's order.


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.booleans())
def test_results_come_in_the_plans_order_up_to_the_first_failure_if_asked(arrival, failing, fail_fast):
    jobs = jobs_of(12)
    order = InOrder(12, fail_fast=fail_fast)
    given_out: list[str] = []
    for place in arrival:
        status = "failed" if place in failing else "done"
        given_out += [one.input for one in order.take(place, blank_result(jobs[place], status))]
    last = min(failing) if fail_fast and failing else 11
    assert given_out == [f"{index}.png" for index in range(last + 1)]
    assert order.is_complete
    assert [one.input for one in order.rest()] == [f"{index}.png" for index in range(last + 1, 12)]


# Several devices of one machine, played by workers that say which one did what.


class Played:
    """A worker that takes jobs two ahead, as the real one does, at its own pace; `broken` jobs fail."""

    def __init__(self, name: str, *, pace: float = 0.0, broken: Iterable[str] = (), bug: str | None = None) -> None:
        self.made_with = name
        self.pace, self.broken, self.bug = pace, set(broken), bug
        self.did: list[str] = []
        self.closed = False

    def do(self, jobs, *, again=False, on_tile=None) -> Generator[object]:
        held: list[Job] = []
        source = iter(jobs)
        try:
            while True:
                while len(held) < 2 and (job := next(source, None)) is not None:
                    held.append(job)
                if not held:
                    return
                job = held.pop(0)
                time.sleep(self.pace)
                on_tile(1, 1)
                name = str(job.input)
                if name == self.bug:
                    raise ZeroDivisionError(name)
                yield Step(1, 1, 0.0, {})
                self.did.append(name)
                result = blank_result(job, "done")
                yield failed_result(result, OutputError("no")) if name in self.broken else result
        finally:
            self.closed = True


def test_devices_share_one_queue_and_the_quick_one_does_more():
    quick, slow = Played("a", pace=0.001), Played("b", pace=0.05)
    results = [one for one in do_on_devices(jobs_of(40), [quick, slow], fail_fast=False) if isinstance(one, FileResult)]
    assert [one.input for one in results] == [f"{index}.png" for index in range(40)]
    assert sorted(quick.did + slow.did) == sorted(one.input for one in results)
    assert len(quick.did) > 2 * len(slow.did) > 0


def test_steps_come_through_and_do_not_count_as_results():
    events = list(do_on_devices(jobs_of(6), [Played("a"), Played("b")], fail_fast=False))
    assert sum(isinstance(event, Step) for event in events) == 6
    assert sum(isinstance(event, FileResult) for event in events) == 6


def test_the_first_failure_in_the_plan_ends_all_devices():
    workers = [Played("a", pace=0.002, broken=["7.png", "20.png"]), Played("b", pace=0.002, broken=["7.png", "20.png"])]
    results = [one for one in do_on_devices(jobs_of(300), workers, fail_fast=True) if isinstance(one, FileResult)]
    assert [one.status for one in results][:8] == ["done"] * 7 + ["failed"]
    assert sorted(one.input for one in results) == sorted(name for worker in workers for name in worker.did)
    assert all(worker.closed for worker in workers)
    assert sum(len(worker.did) for worker in workers) < 30


def test_a_stop_is_followed_by_what_the_devices_had_finished():
    workers = [Played("a", pace=0.002), Played("b", pace=0.002)]
    events = do_on_devices(jobs_of(300), workers, fail_fast=False)
    results = [one.input for one in itertools.islice((e for e in events if isinstance(e, FileResult)), 5)]
    results += [one.input for one in last_told(events, Interrupted()) if isinstance(one, FileResult)]
    assert sorted(results) == sorted(name for worker in workers for name in worker.did)
    assert len(results) < 30


def test_closing_early_ends_every_thread_and_every_worker():
    workers = [Played("a", pace=0.01), Played("b", pace=0.01)]
    before = threading.active_count()
    events = do_on_devices(jobs_of(1000), workers, fail_fast=False)
    next(events)
    events.close()
    assert threading.active_count() == before
    assert all(worker.closed for worker in workers)
    assert sum(len(worker.did) for worker in workers) < 20


def test_a_bug_on_one_device_is_raised_and_the_others_end():
    workers = [Played("a", pace=0.01, bug="3.png"), Played("b", pace=0.01, bug="3.png")]
    with pytest.raises(ZeroDivisionError):
        list(do_on_devices(jobs_of(50), workers, fail_fast=False))
    assert all(worker.closed for worker in workers)


def test_two_devices_give_the_bytes_names_and_results_of_one(tmp_path):
    folder = pictures(tmp_path / "in", 20, bad=[3, 11])
    work = PictureWork(find_model("darkir-small"), Compute("cpu"), BatchSettings())
    made: dict[int, list[dict[str, object]]] = {}
    for count in (1, 2, 3):
        plan = plan_jobs([folder], output=f"{tmp_path}/{count}/")
        pool = LocalPool([work.start("cpu") for _ in range(count)], fail_fast=False)
        results = [told(one) for one in pool.run(plan.jobs) if isinstance(one, FileResult)]
        made[count] = [{**one, "output": Path(str(one["output"])).name} for one in results]
    assert made[1] == made[2] == made[3]
    assert sum(one["status"] == "failed" for one in made[1]) == 2
    for file in (tmp_path / "1").iterdir():
        assert (
            file.read_bytes() == (tmp_path / "2" / file.name).read_bytes() == (tmp_path / "3" / file.name).read_bytes()
        )


def test_fits_on_two_devices_give_the_bytes_of_one(tmp_path):
    folder = pictures(tmp_path / "in", 4)
    work = FitWork(ZeroShot("paper", epochs=2), BatchSettings(), Keep(), Compute("cpu", "fp32"))
    for count in (1, 2):
        pool = LocalPool([work.start("cpu") for _ in range(count)], fail_fast=False)
        jobs = plan_jobs([folder], output=f"{tmp_path}/{count}/").jobs
        assert [one.status for one in pool.run(jobs) if isinstance(one, FileResult)] == ["done"] * 4
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes()


def test_all_gpus_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(one) for one in choose_devices("cuda:all")] == ["cuda:0", "cuda:1", "cuda:2"]
    assert [str(one) for one in choose_devices("cuda:1")] == ["cuda:1"]
    with pytest.raises(SettingsError, match="cuda:all"):
        choose_device("cuda:all")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("command", ["enhance", "zero-shot"])
def test_all_gpus_of_a_machine_without_any_is_exit_4(tmp_path, command):
    source = pictures(tmp_path / "in", 1)
    ran = lowlight(command, source, "--device", "cuda:all")
    assert ran.exit_code == 4
    assert "cuda:all" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not (source / "00_lowlight.png").exists()


@pytest.mark.cuda
def test_all_gpus_do_what_one_does(tmp_path):
    folder = pictures(tmp_path / "in", 20, bad=[4], size=(200, 150))
    for device in ("cuda:0", "cuda:all"):
        ran = lowlight("enhance", folder, "-o", f"{tmp_path}/{device}/", "--device", device, "--json")
        assert ran.exit_code == 1
        assert [Path(json.loads(line)["input"]).name for line in ran.stdout.splitlines()] == [
            f"{n:02}.png" for n in range(20)
        ]
    for file in (tmp_path / "cuda:0").iterdir():
        assert file.read_bytes() == (tmp_path / "cuda:all" / file.name).read_bytes()


# A cluster, played by members that answer or are lost as told.


class Cluster:
    """Hires members whose fates `fate(member's number, job's name)` decides: "done", "failed", "lost", "usage"."""

    def __init__(self, fate=lambda number, job: "done", hello=lambda number: "net on cpu") -> None:
        self.fate, self.greet = fate, hello
        self.started: list[Pretended] = []
        self.begun: list[tuple[int, str, bool]] = []

    def start(self) -> "Pretended":
        member = Pretended(self, len(self.started))
        self.started.append(member)
        return member


class Pretended:
    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.number = cluster, number
        self.stopped = self.killed = False

    def hello(self) -> "Future[Answer]":
        return self._answer(self.cluster.greet(self.number))

    def do(self, job: Job, *, again: bool) -> "Future[Answer]":
        self.cluster.begun.append((self.number, str(job.input), again))
        fate = self.cluster.fate(self.number, str(job.input))
        if fate == "usage":
            return self._answer(Done(None, SettingsError("no such codec")))
        if fate == "lost":
            return self._answer("lost")
        result = blank_result(job, "done")
        result = result if fate == "done" else failed_result(result, OutputError("no"))
        return self._answer(Done(result, None, (("lowlight_cli.x", logging.WARNING, f"about {job.input}"),)))

    def _answer(self, answer: Answer) -> "Future[Answer]":
        future: Future[Answer] = Future()
        if answer == "lost":
            future.set_exception(MemberLost("the machine went away"))
        elif answer != "silent":
            future.set_result(answer)
        return future

    def stop(self) -> None:
        self.stopped = True

    def kill(self) -> None:
        self.killed = True


def run(cluster: Cluster, count: int, *, jobs: int = 20, fail_fast: bool = False) -> list[FileResult]:
    dispatch = Dispatch(cluster.start, count, fail_fast=fail_fast)
    try:
        dispatch.wait_for_one()
        return list(dispatch.run(jobs_of(jobs)))
    finally:
        dispatch.close()
        assert all(member.killed for member in cluster.started)


@settings(max_examples=60)
@given(st.integers(1, 5), st.dictionaries(st.integers(0, 19), st.sampled_from(["failed", "lost"]), max_size=8))
def test_members_that_are_lost_cost_no_job(count, fates):
    lost_once: set[str] = set()

    def fate(number: int, job: str) -> str:
        wanted = fates.get(int(job.removesuffix(".png")), "done")
        if wanted == "lost" and job in lost_once:
            return "done"
        lost_once.add(job)
        return wanted

    cluster = Cluster(fate)
    results = run(cluster, count)
    assert [one.input for one in results] == [f"{index}.png" for index in range(20)]
    assert [one.status for one in results] == [
        "failed" if fates.get(index) == "failed" else "done" for index in range(20)
    ]
    lost = {f"{index}.png" for index, wanted in fates.items() if wanted == "lost"}
    assert {job for _, job, again in cluster.begun if again} == lost
    assert len(cluster.started) == count + len(lost)


def test_a_job_that_members_are_always_lost_with_fails_and_the_others_are_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    part = Path("out/.7.png.0123abcd.part")
    part.write_bytes(b"half")
    other = Path("out/.8.png.0123abcd.part")
    other.write_bytes(b"another's")
    results = run(Cluster(lambda number, job: "lost" if job == "7.png" else "done"), 2)
    assert [one.status for one in results] == ["done"] * 7 + ["failed"] + ["done"] * 12
    assert results[7].error is not None
    assert results[7].error.code == "worker"
    assert "the machine went away" in results[7].error.message
    assert not part.exists()
    assert other.exists()


def test_a_cluster_that_loses_every_member_is_an_error_and_no_endless_loop():
    cluster = Cluster(hello=lambda number: "lost")
    with pytest.raises(WorkerError, match="the machine went away"):
        run(cluster, 2)
    assert len(cluster.started) <= 8


def test_places_that_are_given_up_leave_the_work_to_the_others():
    cluster = Cluster(hello=lambda number: "net" if number == 0 else "lost")
    assert [one.status for one in run(cluster, 3)] == ["done"] * 20
    assert {number for number, _, _ in cluster.begun} == {0}


def test_members_that_never_start_do_not_hold_up_the_rest():
    cluster = Cluster(hello=lambda number: "net" if number == 1 else "silent")
    assert len(run(cluster, 3)) == 20


@pytest.mark.parametrize("error", [WeightsError("no such network"), DeviceError("no GPU")])
def test_what_keeps_a_model_from_loading_is_raised(error: LowlightError):
    with pytest.raises(type(error)):
        run(Cluster(hello=lambda number: error), 2)


def test_wrong_use_found_late_ends_the_work():
    with pytest.raises(SettingsError):
        run(Cluster(lambda number, job: "usage" if job == "3.png" else "done"), 2)


def test_fail_fast_ends_at_the_first_failure_in_the_plan():
    cluster = Cluster(lambda number, job: "failed" if job in ("4.png", "5.png") else "done")
    results = run(cluster, 3, fail_fast=True)
    assert [one.status for one in results][:5] == ["done"] * 4 + ["failed"]
    assert {one.input for one in results} == {job for _, job, _ in cluster.begun}, "what others had finished is told"


def test_what_members_log_is_told_here(caplog):
    with caplog.at_level(logging.WARNING, "lowlight_cli"):
        run(Cluster(), 2, jobs=3)
    assert sorted(caplog.messages) == ["about 0.png", "about 1.png", "about 2.png"]


# What runs in a worker process, without the cluster.


def test_a_member_does_jobs_and_answers_with_values(tmp_path):
    folder = pictures(tmp_path / "in", 2, bad=[1])
    good, bad = plan_jobs([folder], output=f"{tmp_path}/out/").jobs
    from lowlight_cli import __version__

    member = RemoteMember(PictureWork(find_model("identity"), Compute("cpu"), BatchSettings()), __version__, None)
    assert "identity on cpu" in str(member.hello())
    done = member.do(good, again=False)
    assert done.result is not None
    assert done.result.status == "done"
    failed = member.do(bad, again=False)
    assert failed.result is not None
    assert failed.result.status == "failed"
    refused = member.do(good, again=False)
    assert refused.result is not None
    assert refused.result.status == "failed"  # the result is there, and nobody said that a lost member had made it
    repeated = member.do(good, again=True)
    assert repeated.result is not None
    assert repeated.result.status == "done"
    member.stop()
    stopped = member.do(good, again=True)
    assert (stopped.result, isinstance(stopped.error, OutputError)) == (None, True)


def test_a_member_of_another_version_or_without_the_folder_says_so(tmp_path):
    from lowlight_cli import __version__

    work = PictureWork(find_model("identity"), Compute("cpu"), BatchSettings())
    assert "0.0.1" in str(RemoteMember(work, "0.0.1", None).hello())
    answer = RemoteMember(work, __version__, str(tmp_path / "nowhere")).hello()
    assert isinstance(answer, DeviceError)
    assert "nowhere" in str(answer)


# On the command line, without Ray.


def test_a_missing_ray_is_one_sentence_that_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    source = pictures(tmp_path / "in", 1)
    for command in ("enhance", "zero-shot"):
        ran = lowlight(command, source, "--engine", "ray")
        assert ran.exit_code == 2
        assert "pip install 'lowlight-cli[ray]'" in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 1
    assert not (source / "00_lowlight.png").exists()


@pytest.mark.parametrize("command", ["enhance", "zero-shot", "video"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "spark"], "--engine"),
        (["--ray-address", "head:6379"], "--engine ray"),
        (["--workers", "2"], "--engine ray"),
        (["--engine", "local", "--gpus-per-worker", "1"], "--engine ray"),
        (["--engine", "ray", "--gpus-per-worker", "2"], "--gpus-per-worker"),
        (["--engine", "ray", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_engines_are_exit_2(tmp_path, command, arguments, said):
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    source = pictures(tmp_path / "in", 1) if command != "video" else tmp_path / "a.mp4"
    ran = lowlight(command, source, *arguments)
    assert (ran.exit_code, "Traceback" in ran.output) == (2, False)
    assert said in ran.stderr


def test_ray_gives_each_worker_its_gpu_so_all_is_refused():
    with pytest.raises(SettingsError, match="cuda:all"), open_pool(Engine("ray"), "cuda:all", lambda: None):  # type: ignore[arg-type, return-value]
        pass


@pytest.mark.parametrize("arguments", [["--engine", "ray"], ["--device", "cuda:all"]])
def test_one_fit_for_all_photos_is_not_spread(tmp_path, arguments):
    ran = lowlight("zero-shot", pictures(tmp_path / "in", 2), "--shared", *arguments)
    assert ran.exit_code == 2
    assert "--shared" in ran.stderr


def test_ray_is_not_loaded_unless_asked_for(tmp_path):
    source = pictures(tmp_path / "in", 1)
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['lowlight', 'enhance', {str(source)!r}, '--model', 'identity']\n"
        "try: runpy.run_module('lowlight_cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "import lowlight_cli.spread.cluster\n"
        "assert 'ray' not in sys.modules, 'ray was loaded'\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (source / "00_lowlight.png").exists()


def test_what_other_threads_print_stays_out_of_the_results(capsys):
    with own_standard_output():
        stranger = threading.Thread(target=print, args=("(raylet) A worker died",))
        stranger.start()
        stranger.join()
        typer.echo('{"status": "done"}')
    print("after")
    assert capsys.readouterr().out == '{"status": "done"}\nafter\n'
