"""Pictures in terminals: only where one says it can, nothing asked of it, and what is drawn is the picture."""

import base64
import io
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from forks import Forks
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.cli import app
from lowlight_cli.terminal import drawn, protocol_of


@pytest.fixture
def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:50, 0:70]
    return np.stack((rows * 5, columns * 3, np.full_like(rows, 90)), axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({}, None),
        ({"TERM": "xterm-256color"}, None),
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "xterm", "KITTY_WINDOW_ID": "1"}, None),
    ],
)
def test_terminals_are_known_by_what_they_say_of_themselves(environment, protocol):
    assert protocol_of(environment) == protocol


def test_kitty_gets_a_png_in_pieces_and_is_told_to_be_silent(picture):
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    pieces = re.findall(r"\x1b_G(.*?);(.*?)\x1b\\", drawn(noise, "kitty"))
    assert len(pieces) > 2
    assert "q=2" in pieces[0][0]
    assert [head.rpartition("m=")[2] for head, _ in pieces] == [*["1"] * (len(pieces) - 1), "0"]
    assert all(len(data) <= 4096 for _, data in pieces)
    shown = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert (np.asarray(shown) == noise).all()


def test_iterm_gets_a_png_with_its_size(picture):
    [(size, data)] = re.findall(r"\x1b\]1337;File=inline=1;.*size=(\d+):(.*)\a", drawn(picture, "iterm"))
    content = base64.b64decode(data)
    assert len(content) == int(size)
    assert (np.asarray(Image.open(io.BytesIO(content))) == picture).all()


@pytest.mark.skipif(shutil.which("convert") is None, reason="needs ImageMagick to read sixels")
def test_sixels_are_read_by_another_program_as_the_picture(tmp_path, picture):
    (tmp_path / "a.six").write_text(drawn(picture, "sixel"))
    subprocess.run(["convert", f"sixel:{tmp_path}/a.six", f"{tmp_path}/a.png"], check=True, timeout=60)
    read = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(float)
    assert read.shape[1] == 70
    assert np.abs(read[:50] - picture).mean() < 8


def on_a_terminal(forked: Forks, folder: Path, *options: str, **environment: str) -> str:
    """Run on a terminal of our own, and return all that it was sent."""
    ours, theirs = pty.openpty()
    others = dict.fromkeys(name for name in os.environ if name.startswith(("TERM", "TMUX", "LC_TERM")))
    child = forked.start(
        "enhance", "a.png", "--model", "identity", *options,
        folder=folder, stdin=theirs, stdout=theirs, stderr=theirs, environment={**others, **environment},
    )  # fmt: skip
    os.close(theirs)
    sent = b""
    try:
        while piece := os.read(ours, 65536):
            sent += piece
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert child.ended().code == 0
    return sent.decode()


def test_on_a_terminal_that_can_before_and_after_are_shown(forked, tmp_path):
    Image.new("RGB", (40, 30), (20, 30, 60)).save(tmp_path / "a.png")
    sent = on_a_terminal(forked, tmp_path, "--show", "--exposure", "1", TERM="xterm-kitty")
    data = "".join(re.findall(r"\x1b_G.*?;(.*?)\x1b\\", sent))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert shown.shape[1] == 82
    assert (shown[10, 10] == (20, 30, 60)).all()
    assert shown[10, -10].sum() > 140
    assert "1 done" in sent


@pytest.mark.parametrize(("options", "said"), [(("--show",), 1), (("--show", "-q"), 0), ((), 0)])
def test_on_another_terminal_no_picture_is_sent(forked, tmp_path, options, said):
    Image.new("RGB", (40, 30), (20, 30, 60)).save(tmp_path / "a.png")
    sent = on_a_terminal(forked, tmp_path, *options, TERM="xterm-256color")
    assert "\x1b_G" not in sent
    assert "1337" not in sent
    assert sent.count("does not say that it shows pictures") == said


def test_off_a_terminal_it_is_quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-kitty")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    ran = CliRunner().invoke(app, ["enhance", str(tmp_path / "a.png"), "--model", "identity", "--show"])
    assert ran.exit_code == 0
    assert "\x1b" not in ran.output
    assert "--show" not in ran.output


@pytest.mark.parametrize("words", [("-",), ("a.png", "-o", "-")])
def test_a_picture_is_not_written_into_a_terminal(forked, tmp_path, words):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    ours, theirs = pty.openpty()
    ran = forked.run("enhance", *words, "--model", "identity", folder=tmp_path, stdin=theirs, stdout=theirs)
    os.set_blocking(ours, False)
    with pytest.raises(BlockingIOError):  # nothing was written
        os.read(ours, 1)
    os.close(ours)
    os.close(theirs)
    assert ran.code == 2
    assert "standard output is a terminal; redirect it or give --output a name" in ran.said
