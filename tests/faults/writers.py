"""Every kind of file that `lowlight` writes, as a command to break: what it is asked and which files it ends with."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from clipmaking import make_clip
from forks import Forks
from PIL import Image

from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.weights_file import write_weights

IDENTITY = ("--model", "identity", "--device", "cpu", "-q")

RECIPE = """
name = "tiny"
[network]
width = 4
enc_blk_nums = [1]
dec_blk_nums = [1]
middle_blk_num_enc = 1
middle_blk_num_dec = 1
dilations = [1]
unshuffle = 2
[data]
held_out = ["photo1"]
[schedule]
stages = [{ steps = 1, crop = 16, batch = 1 }]
"""

MANIFEST = """
schema = 1
[citations]
paper = "@article{paper}"
[weights.byhand]
backend = "darkir"
file = "byhand.safetensors"
import_only = true
licence = "none stated"
source = "https://example.org/byhand"
credit = "somebody"
trained_on = "some pictures"
citation = "paper"
"""


@dataclass(frozen=True)
class Writer:
    """A command over `inputs` that writes `results`, all paths below its folder.

    `is_whole` judges a result whose bytes differ from run to run; the others must be those of an undisturbed run.
    `fits` says that an optimiser is at work, which loads much more of torch.
    """

    name: str
    make: Callable[[Path], object]
    arguments: Callable[[Path], Sequence[str | Path]]
    results: tuple[str, ...]
    is_whole: Callable[[bytes], bool] | None = None
    fits: bool = False


@dataclass
class Bench:
    """A writer at work in a folder: inputs that are watched, and what an undisturbed run wrote."""

    writer: Writer
    forks: Forks
    folder: Path
    whole: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "in").mkdir(parents=True)
        self.writer.make(self.folder / "in")
        (self.folder / "table.toml").write_text(MANIFEST)
        self.inputs = contents(self.folder / "in")
        ran = self.forks.run(*self.arguments, environment=self.environment)
        assert ran.code == 0, ran.said
        self.whole = {name: (self.folder / name).read_bytes() for name in self.writer.results}

    @property
    def arguments(self) -> tuple[str | Path, ...]:
        return tuple(self.writer.arguments(self.folder))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LOWLIGHT_WEIGHTS_MANIFEST": str(self.folder / "table.toml"),
            "LOWLIGHT_CACHE_DIR": str(self.folder / "out" / "cache"),
        }

    def reset(self, old: bytes | None = None) -> None:
        """Empty the output folder, or put `old` under every final name."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        for name in self.writer.results if old is not None else ():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(old or b"")

    def check(self, *, old: bytes | None = None, finished: bool = False) -> None:
        """Every result is whole, or absent, or the old file; with `finished`, whole. Inputs are as they were."""
        assert contents(self.folder / "in") == self.inputs
        for name, whole in self.whole.items():
            path = self.folder / name
            if not path.exists():
                assert not finished, f"{name} is missing"
                assert old is None, f"the old {name} is gone"
                continue
            content = path.read_bytes()
            if content == old and not finished:
                continue
            judge = self.writer.is_whole
            assert content == whole or (judge is not None and judge(content)), f"{name} is short: {len(content)} bytes"

    def parts(self) -> list[Path]:
        out = self.folder / "out"
        return [path for path in out.rglob("*") if path.suffix == ".part"] if out.exists() else []


def contents(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return bytes, time of change and mode of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode)
        for path in files
    }


def make_picture(path: Path, *, size: tuple[int, int] = (32, 24), seed: int = 0) -> Path:
    """Write a small dark picture of noise, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


def _make_animation(folder: Path) -> None:
    frames = [Image.new("RGB", (16, 12), (level, 20, 40)) for level in (10, 60, 110)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=80)


def _make_weights(folder: Path) -> None:
    torch.manual_seed(0)
    network = DarkIR(width=4, enc_blk_nums=[1], dec_blk_nums=[1], middle_blk_num_enc=1, middle_blk_num_dec=1)
    write_weights(folder / "w.safetensors", network.state_dict(), {"width": "4"})


def _make_training(folder: Path) -> None:
    for number in range(2):
        make_picture(folder / f"clean/photo{number}.png", seed=number)
    (folder / "tiny.toml").write_text(RECIPE)


def _is_report(page: bytes) -> bool:
    # One of an interrupted run is whole too, says what it is, and leaves out what was not reached.
    both = page.count(b'<script type="text/plain"') == 2
    return page.startswith(b"<!") and page.rstrip().endswith(b"</html>") and (both or b"Interrupted: " in page)


IMAGE = Writer(
    "image",
    lambda folder: make_picture(folder / "a.png"),
    lambda folder: ("enhance", folder / "in/a.png", "-o", folder / "out/new/a.png", "--overwrite", *IDENTITY),
    ("out/new/a.png",),
)

BATCH = Writer(
    "batch",
    lambda folder: [make_picture(folder / f"{index:02}.png", seed=index) for index in range(12)],
    lambda folder: ("enhance", folder / "in", "-o", f"{folder}/out/", "--overwrite", *IDENTITY),
    tuple(f"out/{index:02}.png" for index in range(12)),
)

WRITERS = (
    IMAGE,
    Writer(
        "image-new",
        lambda folder: make_picture(folder / "a.jpg"),
        lambda folder: ("enhance", folder / "in/a.jpg", "-o", folder / "out/a.jpg", *IDENTITY),
        ("out/a.jpg",),
    ),
    Writer(
        "image-and-comparison",
        lambda folder: make_picture(folder / "a.tif"),
        lambda folder: (
            "enhance", folder / "in/a.tif", "-o", folder / "out/a.tif", "--overwrite", "--compare", "--preserve-times",
            *IDENTITY,
        ),
        ("out/a.tif", "out/a_compare.tif"),
    ),
    Writer(
        "animation",
        _make_animation,
        lambda folder: ("enhance", folder / "in/a.gif", "-o", folder / "out/a.gif", "--overwrite", *IDENTITY),
        ("out/a.gif",),
    ),
    Writer(
        "clip",
        lambda folder: make_clip(folder / "a.mp4", frames=6, size=(32, 16)),
        lambda folder: (
            "video", folder / "in/a.mp4", "-o", folder / "out/a.mp4", "--overwrite", "--preset", "ultrafast", *IDENTITY,
        ),
        ("out/a.mp4",),
    ),
    Writer(
        "weights",
        _make_weights,
        lambda folder: ("weights", "import", folder / "in/w.safetensors", "--as", "byhand"),
        ("out/cache/byhand.safetensors",),
    ),
    Writer(
        "fit",
        lambda folder: make_picture(folder / "a.png"),
        lambda folder: (
            "zero-shot", folder / "in/a.png", "-o", folder / "out/a.png", "--epochs", "1", "--overwrite", "-q",
            "--save-weights", folder / "out/w.safetensors", "--device", "cpu",
        ),
        ("out/a.png", "out/w.safetensors"),
        fits=True,
    ),
    Writer(
        "checkpoint",
        _make_training,
        lambda folder: (
            "train", "--clean", folder / "in/clean", "--recipe", folder / "in/tiny.toml", "-o", folder / "out",
            "--device", "cpu", "-q",
        ),
        ("out/checkpoint.pt", "out/tiny.safetensors", "out/curve.png"),
        fits=True,
    ),
    Writer(
        "report",
        # Its result is there already: so the page alone is written, by one thread.
        lambda folder: [make_picture(folder / name) for name in ("a.png", "a_lowlight.png")],
        lambda folder: (
            "enhance", folder / "in/a.png", "--report", folder / "out/page.html", *IDENTITY,
        ),
        ("out/page.html",),
        _is_report,
    ),
)  # fmt: skip
