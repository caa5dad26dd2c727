"""What a folder of photos costs beside the network: `python tests/bench_folder.py [PHOTOS [ROUNDS]]`, 50 and 3.

`lowlight enhance FOLDER`, from the command line to its end, against as many times the embedded network on a picture of
the same 2 Mpx that lies ready in memory. So that what else the machine does touches both, the command is stopped every
four seconds, and while it stands still, which is not counted, the network runs three times in this process.
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lowlight_cli.bench.cases import _write_photo, dark_picture
from lowlight_cli.bench.settings import read_size
from lowlight_cli.enhancer import load_enhancer
from lowlight_cli.settings import DEFAULT_MODEL, Compute

_SLICE_SECONDS, _RUNS = 4.0, 3


class Network:
    """The embedded network in fp32 on the CPU, and a picture for it."""

    def __init__(self) -> None:
        self._backend = load_enhancer(DEFAULT_MODEL, compute=Compute("cpu", "fp32")).backend(torch.float32)
        self._picture = torch.from_numpy(dark_picture(read_size("1080p")).srgb())[None]
        self.seconds: list[float] = []
        self._run()

    @torch.inference_mode()
    def _run(self) -> None:
        self._backend.enhance(self._picture)

    def measure(self) -> None:
        """Run and note the seconds of each time."""
        for _ in range(_RUNS):
            started = time.perf_counter()
            self._run()
            self.seconds.append(time.perf_counter() - started)


def measured(photos: Path, network: Network) -> float:
    """Return the seconds of the command, as far as it was let run."""
    command = ("enhance", str(photos), "-o", f"{photos}-bright/", "--overwrite", "--precision", "fp32", "-q")
    running = subprocess.Popen([sys.executable, "-m", "lowlight_cli", *command])
    try:
        return _seconds_of(running, network)
    finally:
        running.kill()  # what stands still would do so for ever, if we were interrupted


def _seconds_of(running: "subprocess.Popen[bytes]", network: Network) -> float:
    seconds = 0.0
    while True:
        started = time.perf_counter()
        try:
            code = running.wait(_SLICE_SECONDS)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGSTOP)
            seconds += time.perf_counter() - started
            network.measure()
            running.send_signal(signal.SIGCONT)
            continue
        if code:
            sys.exit(code)
        return seconds + time.perf_counter() - started


def main() -> None:
    """Measure in rounds and tell each."""
    count, rounds = (*(int(argument) for argument in sys.argv[1:3]), *(50, 3)[len(sys.argv) - 1 :])
    network, ratios = Network(), []
    with TemporaryDirectory() as folder:
        shoot = Path(folder, "shoot")
        for number in range(count):
            _write_photo(shoot / f"{number:03}.jpg", read_size("1080p"))
        for _ in range(rounds):
            network.seconds.clear()
            whole, alone = measured(shoot, network), count * statistics.mean(network.seconds)
            ratios.append(whole / alone)
            print(f"{count} photos {whole:.1f} s, the network alone {alone:.1f} s: {ratios[-1]:.3f}", flush=True)
    print(f"median {statistics.median(ratios):.3f}; {os.cpu_count()} CPUs, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
