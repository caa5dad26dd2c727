"""Time and memory of an exact ZERO-IG step against the literal yardstick.

python tests/backends/bench_zeroig.py [PAIRS] [SIDE] [THREADS]

Each writing has a process of its own, as its users would run it: buffers are reused in ours alone, and the peak of
memory is its own. They step in turn, so that what else the machine does touches both, and the median of the ratios
counts. CPU seconds mean more than seconds where other programs compete. Memory is counted above what the process
held before its first step: networks, optimiser and all of torch, but not Numba, which the first step brings.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from zeroig_literal import literal_step

from lowlight_cli.backends.zeroig import losses
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.machine import reuse_large_buffers


class Cost(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def stepper(writing: str, side: int) -> Callable[[], object]:
    torch.manual_seed(0)
    network = ZeroIG().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, weight_decay=3e-4)
    image = torch.rand(1, 3, side, side) * 0.2
    if writing == "literal":
        return lambda: literal_step(network, optimizer, image)
    reuse_large_buffers()
    network.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        losses.add_gradients(network, image)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()

    return step


def memory_megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def serve(writing: str, side: int, threads: int) -> None:
    """Take a step for every line read, and print what it cost."""
    torch.set_num_threads(threads)
    step = stepper(writing, side)
    before = memory_megabytes("VmRSS")
    for _ in sys.stdin:
        started, cpu_started = time.perf_counter(), time.process_time()
        step()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        print(seconds, cpu_seconds, memory_megabytes("VmHWM") - before, flush=True)


def one_step(child: "subprocess.Popen[str]") -> Cost:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return Cost(*map(float, child.stdout.readline().split()))


def main(pairs: int = 5, side: int = 512, threads: int = 2) -> None:
    literal, ours = (
        subprocess.Popen(
            [sys.executable, __file__, writing, str(side), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writing in ("literal", "ours")
    )
    one_step(literal), one_step(ours)  # the first asks for memory that later ones have
    costs = []
    for _ in range(pairs):
        slow, fast = one_step(literal), one_step(ours)
        costs.append((slow, fast))
        print(
            f"literal {slow.seconds:.2f} s ({slow.cpu_seconds:.2f} CPU), ours {fast.seconds:.2f} s "
            f"({fast.cpu_seconds:.2f} CPU): {slow.seconds / fast.seconds:.2f} times faster",
            flush=True,
        )
    for child in (literal, ours):
        child.communicate()
    sooner = statistics.median(slow.seconds / fast.seconds for slow, fast in costs)
    cheaper = statistics.median(slow.cpu_seconds / fast.cpu_seconds for slow, fast in costs)
    slow, fast = costs[-1]
    print(f"median of {pairs}: {sooner:.2f} times faster, {cheaper:.2f} times less CPU time")
    print(
        f"memory: literal {slow.peak_megabytes:.0f} MB, ours {fast.peak_megabytes:.0f} MB, "
        f"{100 * fast.peak_megabytes / slow.peak_megabytes:.0f} %"
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["literal"], ["ours"]):
        serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(*(int(argument) for argument in sys.argv[1:]))
