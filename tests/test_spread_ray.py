"""A real Ray cluster of this machine: bytes, names, JSON and exit code of a local run, also when workers are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_spread import pictures

pytest.importorskip("ray", reason="needs lowlight-cli[ray]")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BAD = (5, 23, 41)
RAY = ["--engine", "ray", "--workers", "2"]


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lowlight_cli", *arguments, "--device", "cpu", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(run: "subprocess.Popen[str]") -> tuple[int, list[dict[str, object]], str]:
    """Return the exit code, the JSON without what differs from run to run, and stderr."""
    stdout, stderr = run.communicate(timeout=280)
    results = [json.loads(line) for line in stdout.splitlines()]
    return run.returncode, [{**one, "seconds": 0, "frames_per_second": 0} for one in results], stderr


def files_in(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def workers_of(pid: int) -> Iterator[int]:
    """Yield the processes below `pid` that Ray runs members in."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = (int(stat.rpartition(")")[2].split()[1]), (entry / "cmdline").read_bytes())
            except OSError:
                continue
    for worker, (_, command) in parents.items():
        above = worker
        while above in parents and above != pid:
            above = parents[above][0]
        if above == pid and command.startswith(b"ray::RemoteMember"):
            yield worker


def move_results(folder: Path, name: str) -> None:
    """Put the results aside, so that the next run has the same names to write."""
    (folder / "out").rename(folder / name)


def without_times(page: str) -> str:
    times = r"\d[\d.]* (ms|s|min|h)\b|\d{4}-\d\d-\d\d [\d:]+ \w+"
    return re.sub(rf"{times}|<dt>Command.*?</dd>|, 2 Ray workers", "", page, flags=re.DOTALL)


def test_two_workers_give_the_bytes_the_json_the_report_and_the_exit_code_of_a_local_run(tmp_path):
    pictures(tmp_path / "in", 60, bad=BAD, size=(96, 64))
    command = ["enhance", "in", "-o", "out/", "--compare", "--report", "page.html"]
    local = finish(start(tmp_path, *command))
    move_results(tmp_path, "local")
    (tmp_path / "page.html").rename(tmp_path / "local.html")
    spread = finish(start(tmp_path, *command, *RAY))
    assert spread[0] == local[0] == 1, spread[2]
    assert spread[1] == local[1]
    assert len(local[1]) == 60
    assert sum(one["status"] == "failed" for one in local[1]) == 3
    assert files_in(tmp_path / "out") == files_in(tmp_path / "local")
    assert len(files_in(tmp_path / "out")) == 2 * 57
    assert without_times((tmp_path / "page.html").read_text()) == without_times((tmp_path / "local.html").read_text())
    said = [[line for line in run[2].splitlines() if " of 60 files" not in line] for run in (spread, local)]
    assert said[0][-5:] == said[1][-5:]  # three failures, the count and the page; progress comes by the clock


def test_a_worker_killed_half_way_costs_nothing_but_time(tmp_path):
    pictures(tmp_path / "in", 60, bad=BAD, size=(400, 300))
    command = ["enhance", "in", "-o", "out/"]
    local = finish(start(tmp_path, *command))
    move_results(tmp_path, "local")
    run = start(tmp_path, *command, *RAY)
    killed: set[int] = set()
    for goal in (5, 30):
        while run.poll() is None:  # pytest's own limit ends what never comes
            victims = set(workers_of(run.pid)) - killed
            if victims and len(list((tmp_path / "out").glob("*.png"))) >= goal:
                victim = victims.pop()
                os.kill(victim, signal.SIGKILL)
                killed.add(victim)
                break
            time.sleep(0.01)
    spread = finish(run)
    assert len(killed) == 2, spread[2]
    assert spread[:2] == local[:2], spread[2]
    assert files_in(tmp_path / "out") == files_in(tmp_path / "local")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_spread_run_cleanly_with_their_code(tmp_path, number, code):
    pictures(tmp_path / "in", 60, size=(400, 300))
    run = start(tmp_path, "enhance", "in", "-o", "out/", *RAY)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "out").glob("*.png")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = list(workers_of(run.pid))
    assert len(workers) >= 1
    run.send_signal(number)
    returned, _, stderr = finish(run)
    assert (returned, "Traceback" in stderr) == (code, False), stderr
    assert "interrupted" in stderr
    done = files_in(tmp_path / "out")
    assert 0 < len(done) < 60
    assert all(re.fullmatch(r"\d\d\.png", name) for name in done), "something half-written was left"
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/stat").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{worker}/stat").exists() for worker in workers)


def test_fits_are_spread_too(tmp_path):
    pictures(tmp_path / "in", 4, bad=[2], size=(64, 48))
    command = ["zero-shot", "in", "-o", "out/", "--epochs", "6", "--save", "both"]
    local = finish(start(tmp_path, *command))
    move_results(tmp_path, "local")
    spread = finish(start(tmp_path, *command, *RAY))
    assert spread[:2] == local[:2]
    assert local[0] == 1
    assert files_in(tmp_path / "out") == files_in(tmp_path / "local")


def test_clips_are_spread_too(tmp_path):
    from clipmaking import make_clip

    (tmp_path / "in").mkdir()
    for index in range(3):
        make_clip(tmp_path / f"in/{index}.mp4", frames=6)
    command = ["video", "in", "-o", "out/", "--model", "identity"]
    local = finish(start(tmp_path, *command))
    move_results(tmp_path, "local")
    spread = finish(start(tmp_path, *command, *RAY))
    assert spread[:2] == local[:2]
    assert local[0] == 0
    assert files_in(tmp_path / "out") == files_in(tmp_path / "local")


def test_weights_that_do_not_fit_and_clusters_that_do_not_answer_have_their_exit_codes(tmp_path):
    pictures(tmp_path / "in", 1)
    (tmp_path / "w.safetensors").write_bytes(b"no weights at all")
    for arguments, code in (
        (["--weights", "w.safetensors"], 3),
        (["--ray-address", "127.0.0.1:1", "--model", "identity"], 4),
        (["--gpus-per-worker", "1", "--model", "identity"], 4),
    ):
        returned, _, stderr = finish(start(tmp_path, "enhance", "in", "-o", "out/", "--engine", "ray", *arguments))
        assert (returned, "Traceback" in stderr) == (code, False), stderr
        assert len(stderr.strip().splitlines()) == 1, stderr
    assert not (tmp_path / "out").exists()
