"""What can be measured: pictures, start-up, folders of photos, clips and zero-shot steps, each as a case."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from lowlight_cli.backends.darkir.adapter import build_network
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.network import load_network
from lowlight_cli.batch import BatchSettings, enhance_files
from lowlight_cli.bench.film import plan_film_cases
from lowlight_cli.bench.measure import Case
from lowlight_cli.bench.settings import UNTRAINED, Size, Speed, Untrained, read_size
from lowlight_cli.device import choose_device
from lowlight_cli.enhancer import Enhancer, Model, find_model
from lowlight_cli.errors import LowlightError
from lowlight_cli.images import Picture, write_picture
from lowlight_cli.metrics import count_macs, count_parameters
from lowlight_cli.paths import plan_jobs
from lowlight_cli.settings import Compute
from lowlight_cli.tiling import TensorSource
from lowlight_cli.weights_file import write_weights
from lowlight_cli.zero_shot.fit import Fit
from lowlight_cli.zero_shot.settings import Preset, ZeroShot

_USUAL_SIZES = ("256", "512", "1080p", "12mpx")
_PHOTO = read_size("1080p")
_SMALL = read_size("640x480")
_FIT = read_size("512")
_COUNTED_SIDE = 256  # published multiply-adds are for 3x256x256
_STEPS = {"fast": 5, "paper": 1}  # the fast preset's steps come in groups of five


@dataclass(frozen=True)
class _Model:
    """A model made ready, with what `lowlight enhance` must be told to use it."""

    name: str
    found: Model
    enhancer: Enhancer
    arguments: tuple[str, ...]
    parameters: int | None = None
    gmacs: float | None = None


def plan_cases(speed: Speed, folder: Path) -> Iterator[Case]:
    """Yield what is to be measured, smaller sizes first; files that it needs are written into `folder`.

    Raises what `find_model` and `Model.on` raise.
    """
    models = [
        *(_named(name, speed, folder) for name in speed.models),
        *(_from_file(file, speed, network=speed.network) for file in speed.weights),
    ]
    if "start" in speed.parts:
        yield Case("start", "import torch", "-", 1, "runs", lambda: _run("-c", "import torch"), repeats=5)
        photo = _write_photo(folder / "small.jpg", _SMALL)
        yield from (_start_case(model, photo) for model in models)
    if "picture" in speed.parts:
        for model in models:
            yield from _picture_cases(model, speed, folder)
    if "files" in speed.parts:
        shoot = [_write_photo(folder / "shoot" / f"{number}.jpg", _PHOTO) for number in range(speed.batch)]
        yield from (_files_case(model, shoot, folder) for model in models)
    if "video" in speed.parts:
        for model in models:
            enhancer = model.found.on(speed.compute, for_clips=True)
            yield from plan_film_cases(model.name, enhancer, speed.sizes, folder)
    if "zero-shot" in speed.parts:
        device = choose_device(speed.compute.device)
        yield from (_fit_case(preset, device) for preset in ("fast", "paper"))


def _named(name: str, speed: Speed, folder: Path) -> _Model:
    if name in UNTRAINED:
        return _from_file(_write_untrained(folder / f"{name}.safetensors", UNTRAINED[name]), speed, name=name)
    return _ready(find_model(name, offline=speed.offline), speed, "--model", name)


def _from_file(
    file: Path, speed: Speed, *, name: str | None = None, network: Mapping[str, object] | None = None
) -> _Model:
    found = find_model(name or file.stem, weights=file, network=network)
    rates = cast(Sequence[int], (network or {}).get("dilations", ()))
    return _ready(found, speed, "--weights", str(file), *(("--dilations", ",".join(map(str, rates))) if rates else ()))


def _ready(found: Model, speed: Speed, *named: str) -> _Model:
    enhancer, arguments = found.on(speed.compute), (*named, *_compute_arguments(speed.compute))
    if found.weights is None:
        return _Model(found.name, found, enhancer, arguments)
    is_zeroig = found.backend == "zeroig"
    network = load_network(found.weights.tensors) if is_zeroig else build_network(found.weights, found.network)
    return _Model(found.name, found, enhancer, arguments, *_complexity(network))


def _write_untrained(file: Path, untrained: Untrained) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DarkIR(width=untrained.width, use_csf=untrained.use_csf)
    write_weights(file, network.state_dict(), {"network": json.dumps({"dilations": [1, 4, 9]})})
    return file


def _complexity(network: nn.Module) -> tuple[int, float]:
    """Return a network's parameters and its multiply-adds for 256x256 pixels, in thousands of millions."""
    channels, side = 3, _COUNTED_SIDE
    if isinstance(network, DarkIR):
        side //= math.isqrt(network.img_channel // 3)  # blocks of pixels may be channels
        channels = network.intro.in_channels
    macs = count_macs(network, torch.zeros(1, channels, side, side))
    return count_parameters(network), macs / 1e9


def _compute_arguments(compute: Compute) -> tuple[str, ...]:
    tile = "auto" if compute.tiling.size is None else str(compute.tiling.size)
    overlap = str(compute.tiling.overlap)
    return (
        *("--device", compute.device, "--precision", compute.precision, "--compile", compute.compile),
        *("--tile", tile, "--overlap", overlap),
    )


def _picture_cases(model: _Model, speed: Speed, folder: Path) -> Iterator[Case]:
    sizes = speed.sizes or tuple(read_size(name) for name in _USUAL_SIZES)
    on_gpu = model.enhancer.device.type == "cuda"  # whose memory is what counts, and is known without a process
    for size in sorted(sizes, key=lambda size: size.megapixels):
        side = model.enhancer.tile_size(size.height, size.width)
        yield Case(
            "picture",
            model.name,
            size.called,
            size.megapixels,
            "Mpx",
            _Enhancing(model.enhancer, size),
            optional=speed.sizes is None,
            peak=None if on_gpu else _Peak(model, size, folder),
            tile=0 if side >= max(size.height, size.width) else side,
            parameters=model.parameters,
            gmacs=model.gmacs,
        )


class _Enhancing:
    """Enhances one picture again and again; it is made at the first call, so that cases left out cost no memory."""

    def __init__(self, enhancer: Enhancer, size: Size) -> None:
        self._enhancer, self._size = enhancer, size
        self._picture: Picture | None = None

    def __call__(self) -> object:
        self._picture = self._picture or dark_picture(self._size)
        return self._enhancer.enhance(self._picture)


@dataclass(frozen=True)
class _Peak:
    """Finds the memory that one `lowlight enhance` of its own takes for a picture."""

    model: _Model
    size: Size
    folder: Path

    def __call__(self) -> int | None:
        photo = _write_photo(self.folder / f"{self.size.called}.jpg", self.size)
        told = _run("-m", "lowlight_cli.bench.child", *_enhance_arguments(self.model, photo))
        return int(told.split()[-1]) or None


def _start_case(model: _Model, photo: Path) -> Case:
    command = ("-m", "lowlight_cli", *_enhance_arguments(model, photo))
    return Case("start", model.name, _SMALL.called, 1, "runs", lambda: _run(*command), repeats=5)


def _files_case(model: _Model, photos: list[Path], folder: Path) -> Case:
    plan = plan_jobs(photos, output=f"{folder}/bright/", overwrite=True)

    def run() -> None:
        for result in enhance_files(plan.jobs, model.enhancer, BatchSettings(overwrite=True)):
            if result.error:
                raise LowlightError(f"{result.input}: {result.error.message}")

    return Case("files", model.name, f"{len(photos)} x {_PHOTO.called}", len(photos), "photos", run, repeats=5)


def _fit_case(preset: Preset, device: torch.device) -> Case:
    picture = torch.from_numpy(dark_picture(_FIT).srgb())[None]
    steps = Fit([TensorSource(picture)], ZeroShot(preset, epochs=1_000_000), device=device).run()

    def run() -> None:
        for _ in range(_STEPS[preset]):
            next(steps)

    return Case("zero-shot", preset, _FIT.called, _STEPS[preset], "steps", run, repeats=5)


def dark_picture(size: Size) -> Picture:
    """Return a made-up dark picture: a slope of light with grain on it, the same for the same size."""
    slope = np.add.outer(np.linspace(0, 30, size.height), np.linspace(5, 40, size.width)).astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 4, (256, 256, 3)).astype(np.float32)
    repeats = (-(-size.height // 256), -(-size.width // 256), 1)
    grainy = slope[..., None] + np.tile(grain, repeats)[: size.height, : size.width]
    return Picture(np.rint(grainy.clip(0, 255)).astype(np.uint8), format="JPEG")


def _write_photo(path: Path, size: Size) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_picture(dark_picture(size), path, overwrite=True)
    return path


def _enhance_arguments(model: _Model, photo: Path) -> tuple[str, ...]:
    output = photo.with_name(f"{photo.stem}_bright.jpg")
    return ("enhance", str(photo), "-o", str(output), "--overwrite", "-q", *model.arguments)


def _run(*arguments: str) -> str:
    """Run this Python with arguments and return what it printed; raises LowlightError with what it complained about."""
    # -P: nothing is imported from the folder that one happens to be in, which may hold a stranger's torch.py.
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        told = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LowlightError(f"a process that the bench started failed: {told}")
    return done.stdout
