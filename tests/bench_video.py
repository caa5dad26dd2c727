"""What `lowlight video` costs beside the network, and how calm its light is.

python tests/bench_video.py speed [MODEL]      frames a second: ours, a plain loop, the network alone
python tests/bench_video.py flicker            clips that stand, move, step and fade, with the default network

The loop decodes a frame to RGB, copies it, and encodes it, with PyAV and the same encoder and options: what one writes
in ten lines. With one thread each for decoder and encoder these come one after the other; left alone, both use all
cores, in slices, as PyAV asks. All take turns, so that what else the machine does touches each, and medians of ratios
count. The network's frames lie ready in memory.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch

from lowlight_cli.bench.film import _EndToEnd, write_night_clip
from lowlight_cli.bench.settings import read_size
from lowlight_cli.clip import ClipSettings
from lowlight_cli.clip.frames import floats
from lowlight_cli.enhancer import Enhancer, load_enhancer
from lowlight_cli.settings import DEFAULT_MODEL, Compute
from lowlight_cli.video.facts import probe_clip
from lowlight_cli.video.reading import ClipFrame, ClipReader


class Clip:
    """A made-up film of 360p."""

    def __init__(self, folder: Path, frames: int) -> None:
        self.path, self.frames = folder / "night.mp4", frames
        write_night_clip(self.path, read_size("640x360"), frames)


def loop(clip: Clip, *, threads: int = 0) -> None:
    """Decode, copy, encode; 0 threads for decoder and encoder are as many as they like."""
    target = clip.path.with_name("loop.mp4")
    with av.open(str(clip.path)) as source, av.open(str(target), "w") as output:
        film = source.streams.video[0]
        film.codec_context.thread_count = threads
        made = output.add_stream("libx264", rate=film.average_rate)
        made.width, made.height, made.pix_fmt = film.width, film.height, "yuv420p"
        made.codec_context.thread_count = threads
        made.codec_context.options = {"preset": "veryfast", "crf": "18"}
        for frame in source.decode(film):
            copy = av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24").copy(), format="rgb24")
            copy.pts, copy.time_base = frame.pts, frame.time_base
            output.mux(made.encode(copy))
        output.mux(made.encode(None))


def ours(clip: Clip, enhancer: Enhancer, stabilize: float | None = None) -> Callable[[], None]:
    return _EndToEnd(enhancer, clip, ClipSettings(overwrite=True, stabilize=stabilize))  # type: ignore[arg-type]


def network(clip: Clip, enhancer: Enhancer) -> Callable[[], None]:
    """Return what runs the network on as many frames as the clip has."""
    with ClipReader(probe_clip(clip.path)) as reader:
        read = (item for item in reader.read() if isinstance(item, ClipFrame))
        images = [floats(frame.pixels, enhancer.device) for frame in itertools.islice(read, 8)]
    backend = enhancer.backend(enhancer.dtype)

    @torch.inference_mode()
    def run() -> None:
        for image in itertools.islice(itertools.cycle(images), clip.frames):
            backend.enhance(image)

    return run


def ratio(ours: Callable[[], object], other: Callable[[], object], *, rounds: int, frames: int) -> None:
    """Print how many times as fast as `other` ours is: the median over rounds in turn."""
    ours()
    found: list[tuple[float, float]] = []
    for _ in range(rounds):
        found.append((_seconds(other), _seconds(ours)))
    a, b = (statistics.median(frames / pair[place] for pair in found) for place in (1, 0))
    times = statistics.median(theirs / own for theirs, own in found)
    sys.stdout.write(f"{a:.1f} frames a second against {b:.1f}: {times:.2f} times as fast\n")


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def print_loop_ratios(folder: Path, *, rounds: int = 7) -> None:
    """Print how many times as fast as the loop the identity goes through `lowlight video`."""
    clip = Clip(folder, 400)
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    for light, stabilize in (("as it is", None), ("steadied", 1.0)):
        for what, threads in (("one after the other", 1), ("on all cores", 0)):
            sys.stdout.write(f"identity, light {light}, against a loop {what}: ")
            ratio(
                ours(clip, enhancer, stabilize), partial(loop, clip, threads=threads), rounds=rounds, frames=clip.frames
            )


def print_network_ratio(folder: Path, model: str = DEFAULT_MODEL, *, rounds: int = 3) -> None:
    """Print what share of the bare network's frames a second `lowlight video` keeps."""
    clip = Clip(folder, 72)
    enhancer = load_enhancer(model, compute=Compute("cpu"), offline=True)
    sys.stdout.write(f"{model}, against the network alone: ")
    ratio(ours(clip, enhancer), network(clip, enhancer), rounds=rounds, frames=clip.frames)


def print_flicker() -> None:
    """Print the figures of the anti-flicker filter with the default network."""
    from test_stabilize import (
        LIGHTS,
        RATE,
        filmed,
        luma,
        psnr,
        render,
        steadied,
        street,
        tensor,
        with_passer_by,
        wobbles,
    )

    enhance = load_enhancer(DEFAULT_MODEL, offline=True).enhance_tensor
    for name, light in wobbles(60).items():
        made, calm = (luma(one) for one in steadied(filmed([street()] * 60, light), enhance))
        told = f"{made.std():.5f} frame by frame, {calm.std():.5f} steadied: {calm.std() / made.std():.3f}"
        sys.stdout.write(f"wobble {name}: standard deviation of mean luma {told}\n")
    scenes = [with_passer_by(street(frame), frame) for frame in range(30)]
    made, calm = steadied(filmed(scenes, np.ones(30)), enhance)
    clean = [tensor(render(scene)) for scene in scenes]
    lost = np.mean([psnr(a, c) - psnr(b, c) for a, b, c in zip(made, calm, clean, strict=True)])
    sys.stdout.write(f"moving: {lost:.3f} dB lost to the clean frames\n")
    for what, level in LIGHTS.items():
        made, calm = steadied(filmed([street()] * 72, [level(frame) for frame in range(72)]), enhance)
        off = np.abs(luma(calm) / luma(made) - 1)[30 + RATE // 2 :].max()
        sys.stdout.write(f"{what}: after half a second at most {off:.1%} from frame by frame\n")


def main() -> None:
    if sys.argv[1:2] == ["flicker"]:
        print_flicker()
        return
    with TemporaryDirectory() as folder:
        if not sys.argv[2:]:
            print_loop_ratios(Path(folder))
        print_network_ratio(Path(folder), *sys.argv[2:3])


if __name__ == "__main__":
    main()
