"""What is told off a terminal: a sign of life for long work, and nothing for short."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from lowlight_cli import console
from lowlight_cli.cli import app
from lowlight_cli.console import Show


def paced(seconds: float, *, quiet: bool = False) -> tuple[Show, list[float]]:
    """Return what shows one item, by a clock that moves on by so much whenever it is read, and the clock."""
    now = [0.0]

    def clock() -> float:
        now[0] += seconds
        return now[0]

    return Show(1, quiet=quiet, clock=clock), now


def test_the_steps_of_a_long_item_are_told_every_half_minute_with_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show, now = paced(7.0)
    for step in range(1, 101):
        show.step(step, 100, "steps")
    lines = capsys.readouterr().err.splitlines()
    assert now[0] / 45 < len(lines) < now[0] / 30
    assert all(" of 100 steps, " in line and line.endswith(" left") for line in lines)


def test_a_short_item_is_done_in_silence_and_a_quiet_one_too(capsys: pytest.CaptureFixture[str]) -> None:
    for show, _ in (paced(0.02), paced(7.0, quiet=True)):
        for step in range(1, 101):
            show.step(step, 100, "steps")
    assert capsys.readouterr().err == ""


def test_steps_are_not_told_beside_what_is_said_anyway(capsys: pytest.CaptureFixture[str]) -> None:
    show, _ = paced(7.0)
    for step in range(1, 101):
        show.say(f"step {step}")
        show.step(step, 100, "steps")
    assert capsys.readouterr().err.splitlines() == [f"step {step}" for step in range(1, 101)]


def test_of_unknown_many_nothing_is_told_to_be_left(capsys: pytest.CaptureFixture[str]) -> None:
    show, _ = paced(40.0)
    show.step(3, None, "frames, 2.0 a second", item="a[/x].mp4")
    assert capsys.readouterr().err == "a[/x].mp4: 3 frames, 2.0 a second\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["zero-shot", "--epochs", "3"], "3 of 3 steps"),
        (["enhance", "--model", "identity", "--tile", "64"], "6 of 6 tiles"),
    ],
)
def test_one_picture_that_takes_long_tells_how_far_it_is(
    command: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (100, 80), (9, 9, 9)).save(tmp_path / "a.png")
    monkeypatch.setattr(console, "_LINE_SECONDS", 0.0)

    def ran(*more: str) -> Result:
        return CliRunner().invoke(app, [*command, str(tmp_path / "a.png"), "--device", "cpu", "--overwrite", *more])

    told = ran("--json")
    assert line in told.stderr
    assert [json.loads(one)["status"] for one in told.stdout.splitlines()] == ["done"]
    assert line not in ran("-q").stderr
