"""Time of DarkIR, folded, against the literal yardstick. Run it on a quiet machine.

    python tests/backends/bench_darkir.py [--rounds 7] [--side 512] [--width 32] [--threads 2]

Literal, folded in fp32 and folded in bf16 take turns in one process, so that what else the machine does touches all of
them; the median of the ratios of each round counts. `fold` tells the C library to keep large buffers, which speeds up
the literal form as well, so the turns are taken in two processes: with buffers kept, and as the library is by itself.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from darkir_literal import literal_darkir
from torch import Tensor

from lowlight_cli.backends.darkir import inference
from lowlight_cli.backends.darkir.network import DarkIR

DILATIONS = [1, 4, 9]


def network_of(width: int) -> DarkIR:
    """Return a network whose every path counts: `beta` and `gamma` start at 0, and would hide a difference."""
    torch.manual_seed(7)
    network = DarkIR(width=width)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def writings(width: int, side: int) -> dict[str, Callable[[], Tensor]]:
    network = network_of(width)
    image = torch.rand(1, 3, side, side) * 0.2
    state = dict(network.state_dict())
    folded, halved = (inference.fold(network, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    return {
        "literal": lambda: literal_darkir(state, image, DILATIONS)[1],
        "fp32": lambda: folded(image),
        "bf16": lambda: halved(image.bfloat16()).float(),
    }


def seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@torch.inference_mode()
def take_turns(rounds: int, side: int, width: int) -> None:
    runs = writings(width, side)
    wanted = runs["literal"]()
    for name in ("fp32", "bf16"):
        error = (runs[name]() - wanted).abs()
        decibels = -10 * math.log10(error.square().mean().item())
        print(f"  {name} differs by {error.max():.1e} at most, {decibels:.0f} dB")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    for name in runs:
        ratios = [literal / own for literal, own in zip(times["literal"], times[name], strict=True)]
        told = f"{median(ratios):.2f} times the literal ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:8}{median(times[name]):7.3f} s, {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("rounds", 7), ("side", 512), ("width", 32), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--buffers", choices=("kept", "fresh"), help="one process of the two, without starting them")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.buffers is None:
        for buffers in ("kept", "fresh"):
            print(
                f"buffers {buffers}, width {chosen.width}, {chosen.side}x{chosen.side}, {chosen.threads} threads",
                flush=True,
            )
            subprocess.run([sys.executable, *sys.argv, "--buffers", buffers], check=True)
        return
    if chosen.buffers == "fresh":
        inference.reuse_large_buffers = lambda: False
    take_turns(chosen.rounds, chosen.side, chosen.width)


if __name__ == "__main__":
    main()
