"""What teaching the embedded network a camera of one's own wins, on pictures that it was not taught with.

python tests/bench_tuning.py [STEPS]      as many steps as the recipe darkir-small-tune has, unless told otherwise

The camera is made up, and one that the network does not know: it catches a tenth of the light, has rows of noise, and
a denoiser and a JPEG that smear both. 40 of the training photographs are taken with it, and the 13 that the embedded
network never saw, large ones at half size. Needs ../shared/data/train.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from lowlight_cli.degrade import Camera, draw_shot, scene_of_photo, take
from lowlight_cli.train.recipe import read_recipe
from lowlight_cli.train.settings import RECIPES

PHOTOS = Path(__file__).resolve().parents[2] / "shared/data/train/photos"
RECIPE = "darkir-small-tune"
_LARGE = 700  # pixels; half of them, and noise counts for more in the same time
CAMERA = Camera(
    stops_under=(4.5, 6.5),
    mild_share=0.0,
    well_lit_share=0.0,
    empty_share=0.0,
    blur_share=0.0,
    electrons=(1200.0, 2000.0),
    read_electrons=(6.0, 9.0),
    row_noise=(0.3, 0.5),
    quiet_share=0.0,
    black_level=(0.2, 0.5),
    red_gain=(2.5, 2.6),
    blue_gain=(1.8, 1.9),
    cast_stops=0.05,
    strong_cast_share=0.0,
    smear_share=1.0,
    smear_weight=(0.7, 0.9),
    jpeg_share=1.0,
    jpeg_quality=(75, 85),
)


def photograph(photos: Sequence[Path], folder: Path, seed: int) -> None:
    """Write `low` and `high` pictures of the same names."""
    for side in ("low", "high"):
        (folder / side).mkdir(parents=True)
    for number, path in enumerate(photos):
        rng = np.random.default_rng((seed, number))
        with Image.open(path) as photo:
            clean = np.asarray(photo.convert("RGB").reduce(2 if max(photo.size) > _LARGE else 1))
        scene = scene_of_photo(clean.astype(np.float32) / np.float32(255))
        dark = take(scene, draw_shot(CAMERA, rng), rng, window=(0.0, 1.0, 0.0, 1.0))
        Image.fromarray(np.rint(dark * 255).astype(np.uint8)).save(folder / "low" / f"{number:02}.png")
        Image.fromarray(clean).save(folder / "high" / f"{number:02}.png")


def lowlight(*words: object) -> None:
    """Run a command of ours, and show what it says."""
    subprocess.run([sys.executable, "-m", "lowlight_cli", *map(str, words)], check=True)


def main(steps: int | None) -> None:
    """Photograph, tune, and compare with the network as it comes."""
    held_out = read_recipe("darkir-small").data.held_out
    photos = sorted(PHOTOS.iterdir())
    with TemporaryDirectory() as name:
        folder = Path(name)
        photograph([path for path in photos if path.stem not in held_out][::3][:40], folder / "own", 1)
        photograph([path for path in photos if path.stem in held_out], folder / "test", 2)
        text = (RECIPES / f"{RECIPE}.toml").read_text("utf-8")
        recipe = folder / f"{RECIPE}.toml"
        recipe.write_text(text if steps is None else re.sub(r"steps = \d+", f"steps = {steps}", text))
        own, test = ((folder / which / side for side in ("low", "high")) for which in ("own", "test"))
        lowlight("train", "--pairs", *own, "--recipe", recipe, "--init", "darkir-small", "-o", folder / "run")
        tuned = folder / "run" / f"{RECIPE}.safetensors"
        lowlight("bench", "--pairs", *test, "--model", "darkir-small", "--weights", tuned)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
