"""Time of DarkIR, as its users run it, against the literal yardstick. Run it on a quiet machine.

    python tests/backends/bench_darkir.py [--rounds 7] [--side 512] [--width 32] [--threads 2] [--keep-buffers]

The literal writing, ours in fp32 and ours in bf16 have a process each, as programs of their own, and take turns, so
that what else the machine does touches all of them; the median of the ratios of each round counts. Ours tells the C
library to keep large buffers; `--keep-buffers` tells the literal writing's as well, and what is left is the network's
own gain.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from darkir_literal import literal_darkir
from torch import Tensor

from lowlight_cli.backends.darkir.inference import fold
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.machine import reuse_large_buffers

DILATIONS = [1, 4, 9]
WRITINGS = ("literal", "fp32", "bf16")


def network_of(width: int) -> DarkIR:
    """Return a network whose every path counts: `beta` and `gamma` start at 0, and would hide a difference."""
    torch.manual_seed(7)
    network = DarkIR(width=width)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def runner(writing: str, width: int, side: int) -> Callable[[], Tensor]:
    network = network_of(width)
    image = torch.rand(1, 3, side, side) * 0.2
    if writing == "literal":
        state = dict(network.state_dict())
        return lambda: literal_darkir(state, image, DILATIONS)[1]
    if writing == "fp32":
        folded = fold(network, dtype=torch.float32)
        return lambda: folded(image)
    halved = fold(network, dtype=torch.bfloat16)
    return lambda: halved(image)


@torch.inference_mode()
def serve(writing: str, width: int, side: int, output: Path) -> None:
    """Run once for every line read and print the seconds that it took; the first result is kept."""
    run = runner(writing, width, side)
    torch.save(run(), output)
    for _ in sys.stdin:
        started = time.perf_counter()
        run()
        print(time.perf_counter() - started, flush=True)


def seconds(child: "subprocess.Popen[str]") -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("rounds", 7), ("side", 512), ("width", 32), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--keep-buffers", action="store_true", help="for the literal writing too")
    parser.add_argument("--serve", nargs=2, metavar=("WRITING", "FILE"), help="be one of the processes")
    chosen = parser.parse_args()
    if chosen.serve:
        torch.set_num_threads(chosen.threads)
        if chosen.keep_buffers:
            reuse_large_buffers()
        serve(chosen.serve[0], chosen.width, chosen.side, Path(chosen.serve[1]))
        return
    with TemporaryDirectory() as folder:
        outputs = {writing: Path(folder) / f"{writing}.pt" for writing in WRITINGS}
        children = {
            writing: subprocess.Popen(
                [sys.executable, *sys.argv, "--serve", writing, str(output)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for writing, output in outputs.items()
        }
        for child in children.values():
            seconds(child)  # waits for the start
        rounds = [{writing: seconds(child) for writing, child in children.items()} for _ in range(chosen.rounds)]
        for child in children.values():
            child.communicate()
        found = {writing: torch.load(output) for writing, output in outputs.items()}
    print(f"width {chosen.width}, {chosen.side}x{chosen.side}, {chosen.threads} threads")
    for writing in WRITINGS:
        ratios = [each["literal"] / each[writing] for each in rounds]
        print(
            f"{writing:8}{median(each[writing] for each in rounds):7.3f} s, {median(ratios):.2f} times the literal "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )
    for writing in WRITINGS[1:]:
        error = (found[writing] - found["literal"]).abs()
        decibels = -10 * math.log10(error.square().mean().item())
        print(f"{writing} differs by {error.max():.1e} at most, {decibels:.0f} dB")


if __name__ == "__main__":
    main()
