"""The GPU's kernels, run number by number by Triton's interpreter, equal torch's own steps."""

import importlib
import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from lowlight_cli.backends.darkir import kernels

COMPARISON = """
import torch
import torch.nn.functional as F
from lowlight_cli.backends.darkir import kernels
from lowlight_cli.backends.darkir.kernels import Tap

torch.manual_seed(0)
for channels, height, width, count in ((8, 13, 21, 1), (24, 12, 37, 2), (96, 9, 11, 1)):
    x = torch.randn(count, channels, height, width).contiguous(memory_format=torch.channels_last)
    swapped = x[:, torch.arange(channels) ^ 1]
    weights = [torch.randn(channels, 1, 3, 3) for _ in range(3)]
    bias, rates = torch.randn(channels), (1, 4, 9)

    def sum_of(taps):
        parts = (
            F.conv2d(
                swapped if tap.swapped else x, weight, padding=tap.dilation, dilation=tap.dilation, groups=channels
            )
            for tap, weight in zip(taps, weights)
        )
        return sum(parts) + bias[:, None, None]

    for taps in ([Tap(1)], [Tap(1), Tap(1, swapped=True)], [Tap(rate) for rate in rates]):
        given = kernels.tap_weights(weights[: len(taps)])
        wanted = sum_of(taps)
        torch.testing.assert_close(kernels.depthwise(x, given, bias, taps), wanted, atol=2e-5, rtol=1e-5)
        first, second = wanted.chunk(2, dim=1)
        gated = kernels.depthwise(x, given, bias, taps, gated=True)
        torch.testing.assert_close(gated, first * second, atol=2e-4, rtol=1e-4)
    weight = torch.randn(channels)
    rows = F.layer_norm(x.permute(0, 2, 3, 1), (channels,), weight, bias, 1e-6)
    normal = kernels.norm(x, weight, bias, 1e-6, dtype=torch.float32)
    torch.testing.assert_close(normal, rows.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)
    assert kernels.norm(x, weight, bias, 1e-6, dtype=torch.bfloat16).dtype == torch.bfloat16
    planes = kernels.norm_planes(x[:1], weight, bias, 1e-6)
    assert planes.is_contiguous()
    torch.testing.assert_close(planes, rows[0].permute(2, 0, 1), atol=1e-5, rtol=1e-5)
    wanted = x[:1] * (1 + planes)
    assert kernels.add_product(x[:1], planes).data_ptr() == x.data_ptr()
    torch.testing.assert_close(x[:1], wanted)
    torch.testing.assert_close(kernels.mean(x), x.mean((2, 3), keepdim=True), atol=1e-6, rtol=1e-5)

large = torch.randn(2, 8, 350, 310).contiguous(memory_format=torch.channels_last)
torch.testing.assert_close(kernels.mean(large), large.mean((2, 3), keepdim=True), atol=1e-6, rtol=1e-5)

for channels, hidden, floor in ((8, 16, 0.0), (24, 48, 0.5), (80, 100, 0.0)):
    spectrum = torch.randn(channels, 7, 11, dtype=torch.complex64)
    spectrum[:, 2, 3] = 0
    into, outof = torch.randn(hidden, channels + 1), torch.randn(channels, hidden + 1)
    moved = spectrum + 1e-18
    size = (moved.real.square() + moved.imag.square() + floor**2).sqrt().flatten(1)
    inner = F.leaky_relu(into[:, :-1] @ size + into[:, -1:], 0.1)
    gain = (outof[:, :-1] @ inner + outof[:, -1:]) / size
    for in_place in (False, True):
        made = kernels.filter_spectrum(
            spectrum, kernels.filter_weights(into, outof), tiny=1e-18, floor=floor, exact=True, in_place=in_place
        )
        torch.testing.assert_close(made, moved * gain.view(spectrum.shape), atol=1e-3, rtol=1e-4)
    assert made.data_ptr() == spectrum.data_ptr()
    # In TF32's numbers; the interpreter has float32 only, so it is the way there that this tries.
    rough = kernels.filter_spectrum(
        torch.ones_like(spectrum), kernels.filter_weights(into, outof), tiny=0.0, floor=0.0, exact=False
    )
    assert rough.isfinite().all()

kernels._try_all(torch.device("cpu"))
"""


COMPILED = """
import torch
from lowlight_cli.backends.darkir import kernels, operators
from lowlight_cli.backends.darkir.inference import fold
from lowlight_cli.backends.darkir.network import DarkIR

torch.manual_seed(0)
network = DarkIR(width=8, middle_blk_num_enc=1, middle_blk_num_dec=1, enc_blk_nums=[1], dec_blk_nums=[1],
                 dilations=[1, 4], extra_depth_wise=True)
for parameter in network.parameters():
    if not parameter.detach().any():
        torch.nn.init.normal_(parameter, std=0.1)
folded, image = fold(network.eval()), torch.rand(2, 3, 12, 16)
with torch.inference_mode():
    wanted = folded(image)
    kernels.is_quick_for = lambda x: True
    found = folded(image)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph.forward

    from torch._dynamo.backends.common import aot_autograd
    for backend in (compiler, aot_autograd(fw_compiler=compiler)):
        torch._dynamo.reset()
        compiled = torch.compile(folded, backend=backend, dynamic=False, fullgraph=True)
        torch.testing.assert_close(compiled(image), wanted, atol=1e-5, rtol=1e-5)
    used = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    for name in ("depthwise", "norm", "norm_planes", "add_product", "mean", "filter_spectrum"):
        assert any(f"lowlight.{name}" in one for one in used), (name, used)
"""


def run_interpreted(program):
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only"
)


@needs_triton
def test_kernels_equal_torchs_own_steps():
    run_interpreted(COMPARISON)


def test_a_gpu_on_which_a_kernel_fails_gets_torchs_own_steps_and_a_warning(monkeypatch, caplog):
    """As where Triton is absent: the probe goes through every kernel, and its failure is told once."""
    monkeypatch.setattr(kernels, "_RUNS_ON", {})
    monkeypatch.setattr(kernels, "_try_all", lambda device: importlib.import_module("no_triton_here"))
    for _ in range(2):
        kernels.prepare(torch.device("cuda", 0))
    assert kernels._RUNS_ON == {0: False}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no_triton_here" in caplog.text
    kernels.prepare(torch.device("cpu"))
    assert kernels._RUNS_ON == {0: False}


def test_a_gpu_that_is_full_for_the_moment_is_asked_again(monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError(str(device))

    monkeypatch.setattr(kernels, "_RUNS_ON", {})
    monkeypatch.setattr(kernels, "_try_all", full)
    with pytest.raises(torch.OutOfMemoryError):
        kernels.prepare(torch.device("cuda", 0))
    assert kernels._RUNS_ON == {}


@needs_triton
def test_torchs_compiler_takes_the_kernels_as_they_are():
    run_interpreted(COMPILED)
