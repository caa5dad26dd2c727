"""Time and memory of an exact ZERO-IG step against the literal yardstick. Run it on a quiet machine.

python tests/backends/bench_zeroig.py [PAIRS] [SIDE] [THREADS]

Both step in one process, in turn, so that what else the machine does touches both; the median of the ratios counts.
Memory is the peak of a fresh process each, above what it held before the first step.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from zeroig_literal import literal_step

from lowlight_cli.backends.zeroig import losses
from lowlight_cli.backends.zeroig.network import ZeroIG

WRITINGS = ("literal", "ours")


def stepper(writing: str, side: int) -> Callable[[], object]:
    torch.manual_seed(0)
    network = ZeroIG().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, weight_decay=3e-4)
    image = torch.rand(1, 3, side, side) * 0.2
    if writing == "literal":
        return lambda: literal_step(network, optimizer, image)
    network.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        losses.add_gradients(network, image)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()

    return step


def seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def memory_megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main(pairs: int = 5, side: int = 512, threads: int = 2) -> None:
    torch.set_num_threads(threads)
    literal, ours = (stepper(writing, side) for writing in WRITINGS)
    literal(), ours()
    ratios = []
    for _ in range(pairs):
        slow, fast = seconds(literal), seconds(ours)
        ratios.append(slow / fast)
        print(f"literal {slow:.2f} s, ours {fast:.2f} s: {ratios[-1]:.2f} times faster", flush=True)
    print(f"median of {pairs}: {statistics.median(ratios):.2f} times faster")
    for writing in WRITINGS:
        subprocess.run([sys.executable, __file__, "memory", writing, str(side), str(threads)], check=True)


def measure_memory(writing: str, side: int, threads: int) -> None:
    torch.set_num_threads(threads)
    before = memory_megabytes("VmRSS")
    step = stepper(writing, side)
    step()
    step()
    print(f"{writing}: peak {memory_megabytes('VmHWM') - before:.0f} MB above {before:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["memory"]:
        measure_memory(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
