"""Awful names, in every command, under every encoding, into every kind of pipe: never a traceback."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clipmaking import make_clip
from forks import Forks, Ran, forks
from writers import MANIFEST, RECIPE, make_picture

slow = pytest.mark.slow

NAMES: tuple[bytes, ...] = (
    b"plain", b"two words", b" leading", b"trailing ", b"-dash", b"--help", b"[red]x", b"[/x]", b"[bold]a[/bold]",
    b"{stem}", b"{x!r:>9}", b"%s%d", b"$HOME", b"`id`", b"'quote", b'"double', b"back\\slash", b"a\nb", b"a\tb",
    b"\x1b[31mred", b"\x07bell", b"\xff\xfe", b"\xe9t\xe9", "é".encode(), "写真".encode(), "🌃".encode(),
    "e\u0301".encode(), "\u202eevil".encode(), b"..hidden", b"n" * 200,
)  # fmt: skip

ENCODINGS: dict[str, dict[str, str]] = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""},
}

# Every command; `{}` stands for the name, without and with a suffix.
COMMANDS: tuple[tuple[bytes, ...], ...] = (
    (b"enhance", b"./{}.png", b"-o", b"out/", b"--model", b"identity"),
    (b"enhance", b"./{}.png", b"-o", b"out/", b"--model", b"identity", b"--json", b"--report", b"out/{}.html"),
    (b"enhance", b"./{}-bad.png", b"-o", b"out/", b"--model", b"identity"),
    (b"enhance", b"./{}.png", b"--dry-run"),
    (b"enhance", b"./{}.png", b"--dry-run", b"--json"),
    (b"enhance", b"./{}-missing.png"),
    (b"zero-shot", b"./{}-bad.png", b"-o", b"out/", b"--epochs", b"1"),
    (b"video", b"./{}.mp4", b"-o", b"out/", b"--model", b"identity"),
    (b"video", b"./{}-bad.mp4", b"-o", b"out/", b"--model", b"identity"),
    (b"train", b"--clean", b"./{}", b"--recipe", b"./{}.toml", b"-o", b"out/{}"),
    (b"bench", b"--pairs", b"./{}", b"./{}", b"--model", b"identity"),
    (b"weights", b"list"),
    (b"weights", b"path", b"{}"),
    (b"weights", b"verify", b"{}"),
    (b"weights", b"remove", b"{}"),
    (b"weights", b"download", b"{}", b"--offline"),
    (b"weights", b"import", b"./{}.png", b"--as", b"byhand"),
    (b"{}",),
    (b"--version",),
    (b"--help",),
)


@pytest.fixture(
    scope="module", params=[*list(ENCODINGS)[:1], *(pytest.param(one, marks=slow) for one in list(ENCODINGS)[1:])]
)
def speaking(request: pytest.FixtureRequest) -> Iterator[Forks]:
    """A server per encoding of names and streams."""
    with forks("lowlight_cli.clip", "torch._dynamo", "forks:rehearse", environment=ENCODINGS[request.param]) as server:
        yield server


def furnish(folder: Path, name: bytes) -> None:
    """Put there what the commands ask for under a name: a picture, a clip, damaged ones, a folder."""
    root = os.fsencode(folder) + b"/" + name
    os.makedirs(root)  # noqa: PTH103  bytes are no Path
    picture = make_picture(folder / "plain-picture.png").read_bytes()
    clip = make_clip(folder / "plain-clip.mp4", frames=2, size=(16, 16)).read_bytes()
    for path, content in (
        (b".png", picture), (b"-bad.png", picture[:50]), (b".mp4", clip), (b"-bad.mp4", clip[:200]),
        (b"/a.png", picture), (b".toml", RECIPE.encode()),
    ):  # fmt: skip
        with open(root + path, "wb") as file:  # noqa: PTH123  bytes are no Path
            file.write(content)


def streams(folder: Path) -> Iterator[tuple[str, int | None]]:
    """Yield places for stdout: kept, a pipe that nobody reads, and a disk that is full."""
    yield "kept", None
    read, write = os.pipe()
    os.close(read)
    yield "closed pipe", write
    os.close(write)
    if Path("/dev/full").exists():
        full = os.open("/dev/full", os.O_WRONLY)
        yield "full disk", full
        os.close(full)


def check(ran: Ran, about: object) -> None:
    assert "Traceback" not in ran.said, (about, ran.said)
    assert "Exception ignored" not in ran.said, (about, ran.said)
    assert ran.code in (0, 1, 2, 3), (about, ran.code, ran.said)
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", ran.out + ran.err), (about, ran.said)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("names", [2, pytest.param(len(NAMES), marks=slow)])
def test_no_name_encoding_or_stream_gives_a_traceback(names: int, speaking: Forks, quick_folder: Path) -> None:
    count, started = 0, time.monotonic()
    chosen = NAMES if names == len(NAMES) else (b"[/x]", b"a\n\xff\x1b]0;b\x07")
    for number, name in enumerate(chosen):
        folder = quick_folder / str(number)
        folder.mkdir()
        furnish(folder, name)
        (folder / "table.toml").write_text(MANIFEST)
        environment = {"LOWLIGHT_WEIGHTS_MANIFEST": str(folder / "table.toml"), "LOWLIGHT_CACHE_DIR": f"{folder}/cache"}
        for index, command in enumerate(COMMANDS):
            arguments = [word.replace(b"{}", name) for word in command]
            for place, stdout in streams(folder):
                if place != "kept" and (number + index) % 3:
                    continue  # streams are broken for every third pair; all have a whole one
                options = {"folder": folder, "environment": environment, "stdout": stdout}
                check(speaking.run(*arguments, **options), (name, command, place))
                count += 1
        if number % 5 == 4:
            print(f"{number + 1} names, {count} runs in {time.monotonic() - started:.0f} s", flush=True)
    print(f"{count} runs")


def test_the_names_can_be_written_here(tmp_path: Path) -> None:
    assert len(set(NAMES)) == len(NAMES) == 30
    for name in NAMES:
        path = os.fsencode(tmp_path) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  bytes are no Path
        with open(path, "wb"):  # noqa: PTH123
            pass
