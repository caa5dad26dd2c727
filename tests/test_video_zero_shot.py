"""ZERO-IG fitted to a clip: frames that differ are chosen, the fit happens once, and every frame goes through it."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clipmaking import make_clip, pattern, see
from typer.testing import CliRunner

from lowlight_cli.cli import app
from lowlight_cli.errors import InputError
from lowlight_cli.video import Span
from lowlight_cli.video.facts import probe_clip
from lowlight_cli.zero_shot.film import different_frames, look_around


def two_scenes(path: Path) -> Path:
    """A clip of which one frame in ten belongs to another scene."""
    frames = [pattern(0, width=64, height=48) // (4 if 30 <= index < 33 else 1) for index in range(40)]
    return make_clip(path, frames=40, pictures=frames, sound=None)


def test_every_scene_is_among_the_chosen_frames(tmp_path):
    facts = probe_clip(two_scenes(tmp_path / "a.mp4"))
    frames = look_around(facts, Span(), count=40)
    assert len(frames) == 40
    means = sorted(float(frame.mean()) for frame in different_frames(frames, count=2))
    assert means[0] < means[1] / 3


def test_equal_frames_are_chosen_once():
    frame = torch.rand(1, 3, 20, 30)
    assert len(different_frames([frame, frame.clone(), frame / 2], count=3)) == 2


def test_only_the_part_asked_for_is_looked_at(tmp_path):
    facts = probe_clip(two_scenes(tmp_path / "a.mp4"))
    frames = look_around(facts, Span(Fraction(30, 25), Fraction(33, 25)), count=5)
    assert all(float(frame.mean()) < 0.05 for frame in frames)
    with pytest.raises(InputError, match="no frame"):
        look_around(facts, Span(Fraction(99)))


def test_a_fit_takes_no_model_and_no_weights(tmp_path):
    ran = CliRunner().invoke(app, ["video", str(two_scenes(tmp_path / "a.mp4")), "--zero-shot", "--model", "identity"])
    assert ran.exit_code == 2
    assert "--zero-shot" in ran.stderr


@pytest.mark.slow
def test_a_dark_clip_is_fitted_once_and_becomes_bright(tmp_path):
    source = two_scenes(tmp_path / "a.mp4")
    ran = CliRunner().invoke(app, ["video", str(source), "--zero-shot", "--json", "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    assert ran.stderr.startswith("zeroig-fitted on cpu (")
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert (told["model"], told["frames"]) == ("zeroig-fitted", 40)
    assert see(tmp_path / "a_lowlight.mp4").pixels[5].mean() > see(source).pixels[5].mean() * 1.3
