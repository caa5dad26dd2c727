"""What can be measured of clips: a made-up night film end to end, and the network alone on the same frames."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowlight_cli.bench.measure import Case
from lowlight_cli.bench.settings import Size, read_size
from lowlight_cli.clip import ClipResult, ClipSettings, enhance_clips, ready
from lowlight_cli.clip.frames import floats
from lowlight_cli.enhancer import Enhancer
from lowlight_cli.errors import LowlightError
from lowlight_cli.paths import plan_jobs
from lowlight_cli.video import CLIPS
from lowlight_cli.video.facts import probe_clip
from lowlight_cli.video.reading import ClipFrame, ClipReader

_USUAL_SIZES = ("640x360", "1080p")
_LARGEST_MEGAPIXELS = 9.0
"""No film is larger than 4K, whatever sizes of pictures are asked for."""

# Enough that filling and emptying the queues does not count.
_FRAMES = {"cpu": 48, "mps": 240, "cuda": 240}
_RATE = 30
_FRAMES_IN_MEMORY = 8
_SETTINGS = ClipSettings(overwrite=True)


def plan_film_cases(name: str, enhancer: Enhancer, sizes: tuple[Size, ...] | None, folder: Path) -> Iterator[Case]:
    """Yield for each size the clip end to end and the network alone; clips are written into `folder` when needed."""
    wanted = sizes or tuple(read_size(size) for size in _USUAL_SIZES)
    frames = _FRAMES[enhancer.device.type]
    for size in sorted(wanted, key=lambda size: size.megapixels):
        if size.megapixels > _LARGEST_MEGAPIXELS:
            continue
        clip = _Clip(size, frames, folder / f"{size.called}.mp4")
        for called, run in ((name, _EndToEnd(enhancer, clip)), (f"{name}, network alone", _Network(enhancer, clip))):
            yield Case("video", called, size.called, frames, "frames", run, repeats=3, optional=sizes is None)


class _Clip:
    """A night film that is written when it is first asked for."""

    def __init__(self, size: Size, frames: int, path: Path) -> None:
        self._size, self._frames, self._path = size, frames, path

    @property
    def path(self) -> Path:
        if not self._path.exists():
            write_night_clip(self._path, self._size, self._frames)
        return self._path


class _EndToEnd:
    """`lowlight video` on a clip, from file to file, with the model already loaded."""

    def __init__(self, enhancer: Enhancer, clip: _Clip, settings: ClipSettings = _SETTINGS) -> None:
        self._enhancer, self._clip, self._settings = enhancer, clip, settings

    def __call__(self) -> None:
        source = self._clip.path
        target = source.with_name(f"{source.stem}_bright.mp4")
        plan = plan_jobs([source], media=CLIPS, output=str(target), overwrite=True)
        for told in enhance_clips(plan.jobs, ready(self._enhancer), self._settings):
            if isinstance(told, ClipResult) and told.error:
                raise LowlightError(f"{told.input}: {told.error.message}")


class _Network:
    """The network on as many frames of the clip, which lie ready on the device: no files, no conversion."""

    def __init__(self, enhancer: Enhancer, clip: _Clip) -> None:
        self._enhancer, self._clip = enhancer, clip
        self._images: list[Tensor] = []

    @torch.inference_mode()
    def __call__(self) -> None:
        enhancer = self._enhancer
        self._images = self._images or _first_frames(self._clip.path, enhancer)
        whole = enhancer.tile_size(*self._images[0].shape[-2:]) == 0
        for image in itertools.islice(itertools.cycle(self._images), _FRAMES[enhancer.device.type]):
            if whole:
                enhancer.backend(enhancer.dtype).enhance(image)
            else:
                enhancer.enhance_tensor(image)


def _first_frames(path: Path, enhancer: Enhancer) -> list[Tensor]:
    with ClipReader(probe_clip(path)) as reader:
        frames = (item for item in reader.read() if isinstance(item, ClipFrame))
        return [floats(frame.pixels, enhancer.device) for frame in itertools.islice(frames, _FRAMES_IN_MEMORY)]


def write_night_clip(path: Path, size: Size, frames: int) -> None:
    """Write a film of dark blocks that pass by, with grain that is fresh in each frame; the same for the same size."""
    draw = np.random.default_rng(0)
    blocks = draw.uniform(2, 60, (-(-size.height // 16), -(-size.width // 16), 3))
    scene = np.kron(blocks, np.ones((16, 16, 1)))[: size.height, : size.width].astype(np.float32)
    grain = draw.normal(0, 3, (256, 256, 3)).astype(np.float32)
    repeats = (-(-size.height // 256), -(-size.width // 256), 1)
    with av.open(str(path), "w") as output:
        film = output.add_stream("libx264", rate=_RATE)
        film.width, film.height, film.pix_fmt = size.width // 2 * 2, size.height // 2 * 2, "yuv420p"
        film.codec_context.options = {"preset": "veryfast", "crf": "20"}
        for number in range(frames):
            moved = np.roll(grain, draw.integers(0, 256, 2), axis=(0, 1))
            grainy = np.roll(scene, number, axis=1) + np.tile(moved, repeats)[: size.height, : size.width]
            film_frame = av.VideoFrame.from_ndarray(_eight_bits(grainy[: film.height, : film.width]), format="rgb24")
            film_frame.pts, film_frame.time_base = number, Fraction(1, _RATE)
            output.mux(film.encode(film_frame))
        output.mux(film.encode(None))


def _eight_bits(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.rint(picture.clip(0, 255)).astype(np.uint8))
