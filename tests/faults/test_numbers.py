"""Numbers that break and memory that runs out, at each tile; and the same bytes from the same input, every time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from clipmaking import make_clip
from forks import Forks
from writers import make_picture

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.base import TileEnhancer
from lowlight_cli.batch import BatchSettings, enhance_files
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.images import Picture
from lowlight_cli.paths import Job
from lowlight_cli.settings import Compute, Tiling

slow = pytest.mark.slow


class Breaking:
    """Half a stop brighter, but with a fault at call number `at`: out of memory, or a number that is none."""

    info = BACKENDS["identity"]
    peak_bytes_per_pixel = 100

    def __init__(self, at: int, fault: float | None) -> None:
        self._left, self._fault = at, fault

    def enhance(self, image: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        bright = (image * 1.4).clamp(0, 1)
        if self._left == 0:
            if self._fault is None:
                raise torch.OutOfMemoryError("no more")
            bright[0, 1, -1, -1] = self._fault
        return bright

    def tile_enhancer(self, preview: torch.Tensor, samples: torch.Tensor) -> TileEnhancer:
        return lambda tile, window: self.enhance(tile)


def breaking(at: int, fault: float | None) -> Enhancer:
    return Enhancer("breaking", lambda dtype: Breaking(at, fault), Compute("cpu", "fp32", Tiling(256, 16)))


TILES = 20


@pytest.mark.parametrize("at", range(1, TILES + 1))
def test_memory_that_runs_out_at_any_tile_gives_the_same_picture(at: int) -> None:
    own = Picture(np.random.default_rng(7).integers(0, 200, (930, 1170, 3), dtype=np.uint8))
    told: list[int] = []
    usual = breaking(0, None).enhance(own, on_tile=lambda done, total: told.append(total))
    assert told[0] == TILES
    done = breaking(at, None).enhance(own)
    assert np.abs(done.picture.pixels.astype(int) - usual.picture.pixels).max() <= 1


@pytest.mark.parametrize("at", [1, 3, TILES])
@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
def test_a_number_that_is_none_fails_the_file_and_nothing_is_written(at: int, fault: float, tmp_path: Path) -> None:
    source, target = make_picture(tmp_path / "in/a.png", size=(1170, 930)), tmp_path / "out/a.png"
    before = source.read_bytes()
    (result,) = enhance_files([Job(source, target)], breaking(at, fault), BatchSettings())
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "numerics"
    assert "not finite" in result.error.message
    assert source.read_bytes() == before
    assert not target.parent.exists() or not list(target.parent.iterdir())


COMMANDS = {
    "the default network": ("enhance", "a.png", "-o", "out.png"),
    "the default network in tiles": ("enhance", "b.png", "-o", "out.jpg", "--format", "jpeg", "--tile", "128"),
    "a clip": ("video", "a.mp4", "-o", "out.mp4", "--model", "identity"),
    "a fit": ("zero-shot", "a.png", "-o", "out.png", "--epochs", "2"),
}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("runs", [2, pytest.param(10, marks=slow)])
@pytest.mark.parametrize("command", [*list(COMMANDS)[:3], pytest.param("a fit", marks=slow)])
def test_the_same_input_gives_the_same_bytes(
    command: str, runs: int, forked: Forks, quick_folder: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("fitting") if command == "a fit" else forked
    make_picture(quick_folder / "a.png", size=(72, 48))
    make_picture(quick_folder / "b.png", size=(150, 140))
    make_clip(quick_folder / "a.mp4", frames=6, size=(32, 16))
    results = set()
    for _ in range(runs):
        ran = server.run(*COMMANDS[command], "--overwrite", "-q", "--device", "cpu", folder=quick_folder)
        assert ran.code == 0, ran.said
        results.add(next(quick_folder.glob("out.*")).read_bytes())
    assert len(results) == 1
