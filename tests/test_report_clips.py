"""Reports on clips: key frames of each scene, before beside the very frame that became of it, whatever the timing."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clipmaking import make_clip, pattern
from PIL import Image
from test_report import Reader
from typer.testing import CliRunner, Result

from lowlight_cli.cli import app
from lowlight_cli.report.clips import Glance, key_moments


def video(*arguments: str | Path) -> Result:
    more = ["--model", "identity", "--device", "cpu"]
    return CliRunner().invoke(app, ["video", *map(str, arguments), *more])


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)


def moments(page: Reader) -> list[float]:
    said = [str(card["name"]).rpartition(" at ")[2].split(":") for card in page.cards()]
    return [60 * float(minutes) + float(seconds) for minutes, seconds in said]


def wipe(frames: int) -> list[np.ndarray]:
    """Every frame differs from its neighbours all over, so that a wrong frame shows."""
    levels = np.linspace(20, 220, frames)
    pictures = [pattern(0, width=64, height=48) // 8 + int(level) for level in levels]
    return [picture.astype(np.uint8) for picture in pictures]


@pytest.mark.parametrize("more", [(), ("--side-by-side",), ("--start", "0.4", "--end", "1.6"), ("--suffix", ".mkv")])
def test_each_key_frame_stands_beside_what_became_of_it(tmp_path, more):
    ticks = [0, 2, 3, 7, 8, 9, 12, 17, 18, 19, 23, 24, 29, 31, 36, 40, 41, 46, 48, 50]
    clip = make_clip(tmp_path / "a.mp4", frames=20, times=ticks, pictures=wipe(20))
    target = ("-o", tmp_path / "b.mkv") if ".mkv" in more else ("-o", tmp_path / "b.mp4")
    ran = video(clip, *target, *(() if ".mkv" in more else more), "--report", tmp_path / "r.html")
    assert ran.exit_code == 0, ran.output
    page = Reader(tmp_path / "r.html")
    assert 4 <= len(page.cards()) <= 6
    for number, card in enumerate(page.cards()):
        before, after = shown(page.data[f"v{number}-0"]), shown(page.data[f"v{number}-1"])
        assert before.shape == after.shape == (48, 64, 3)
        assert abs(before.mean() - after.mean()) < 4, card["name"]
    times = {tick / 25 for tick in ticks}
    assert all(min(abs(moment - time) for time in times) < 0.006 for moment in moments(page))
    if "--start" in more:
        assert all(0.4 <= moment < 1.6 for moment in moments(page))


def test_every_scene_is_shown_and_failures_and_facts_are_told(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 200, (6, 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8) for _ in range(3)]
    (tmp_path / "in").mkdir()
    shots = [*[scenes[0]] * 10, *[scenes[1]] * 40, *[scenes[2]] * 10]
    make_clip(tmp_path / "in/a.mp4", frames=60, pictures=shots)
    (tmp_path / "in/broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 cut off")
    ran = video(tmp_path / "in", "-o", tmp_path / "out", "--report", tmp_path / "r.html", "--json")
    assert ran.exit_code == 1
    page = Reader(tmp_path / "r.html")
    seen = [int(np.argmin([np.abs(shown(page.data[f"v{n}-0"]) - scene).mean() for scene in scenes])) for n in range(6)]
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2}
    assert seen.count(1) > seen.count(0)
    for said in ("1 done, 1 failed", "Frames a second", "2.40 s", "libx264", "Failures", "broken.mp4"):
        assert said in page.text
    facts = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {fact["status"] for fact in facts} == {"done", "failed"}


def test_results_of_an_earlier_run_are_shown_too(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", frames=6)
    assert video(clip).exit_code == 0
    ran = video(clip, "--report", tmp_path / "r.html")
    assert ran.exit_code == 0
    page = Reader(tmp_path / "r.html")
    assert "was there already" in page.text
    assert 1 <= len(page.cards()) <= 6
    (tmp_path / "a_lowlight.mp4").write_bytes(b"no clip any more")
    assert video(clip, "--report", tmp_path / "r.html").exit_code == 0
    assert Reader(tmp_path / "r.html").cards() == []


def glances(*levels: float) -> list[Glance]:
    """Two cells, of which one wanders: a change of both alike is a change of light, and no scene."""
    return [
        Glance(Fraction(number), np.array([[0.0, 0.0, level]], dtype=np.float32)) for number, level in enumerate(levels)
    ]


def test_key_moments_are_spread_over_scenes_and_length():
    assert key_moments([], 6) == []
    assert key_moments(glances(0), 6) == [0]
    assert key_moments(glances(*[0] * 12), 4) == [1, 4, 7, 10]
    many = glances(0, 3, 0, 0, 0, 0, 3, 3, 0)
    assert key_moments(many, 2) == [4, 7], "the longest scenes, where not all find room"
    assert key_moments(many, 5) == [0, 1, 4, 7, 8]
    assert len(key_moments(many, 99)) == 9
