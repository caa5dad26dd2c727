"""Quicker is not different: what is recorded or compiled gives what the network gives."""

import os
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lowlight_cli import compiling
from lowlight_cli.backends import load_backend
from lowlight_cli.cli import app
from lowlight_cli.compiling import Gradients, compiled
from lowlight_cli.enhancer import find_model, load_enhancer
from lowlight_cli.errors import DeviceError, OutputError, SettingsError
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import WeightsFile


def enhanced(image, device, how, precision="fp32"):
    compute = Compute(device, precision, compile=how)
    enhancer = load_enhancer("darkir-small", compute=compute, offline=True)
    with torch.inference_mode():
        return enhancer.backend(enhancer.dtype).enhance(image.to(enhancer.device)).cpu()


def test_off_is_the_function_itself():
    assert compiled(torch.sqrt, "off") is torch.sqrt


def test_left_open_is_off_but_for_clips_on_a_gpu():
    assert compiled(torch.sqrt, "auto") is torch.sqrt
    model = find_model("darkir-small", offline=True)
    compute = Compute("cpu", "fp32")
    assert compute.compile == "auto"
    assert [model.on(compute, for_clips=clips).compiling for clips in (False, True)] == ["off", "off"]


def test_what_cannot_be_recorded_goes_on_without_and_says_so_once(monkeypatch, caplog):
    tried = []

    def refused(*_, **__):
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    monkeypatch.setattr(compiling, "Recording", refused)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    root = compiled(torch.sqrt, "graph")
    assert [root(torch.full((size,), 4.0)).tolist() for size in (1, 2, 1)] == [[2.0], [2.0, 2.0], [2.0]]
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the network could not be recorded and goes on without, more slowly: "
        "operation not permitted when stream is capturing"
    ]


def test_memory_that_runs_out_in_a_recording_is_told_to_whoever_can_cut_tiles(monkeypatch):
    def refused(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(compiling, "Recording", refused)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    root = compiled(torch.sqrt, "graph")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            root(torch.ones(1))


def test_gradients_are_those_of_the_latest_pass_alone():
    network = torch.nn.Linear(2, 1)

    def compute(given):
        loss = network(given).sum()
        loss.backward()
        return loss.detach()

    gradients = Gradients(network, compute)
    for given in (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])):
        assert gradients.fill(given) == network(given).sum()
        assert network.weight.grad.tolist() == given.tolist()
        assert network.bias.grad.tolist() == [1]


def test_a_pass_that_cannot_be_recorded_is_computed_and_leaves_no_trace_of_the_attempt(monkeypatch, caplog):
    network = torch.nn.BatchNorm1d(2)
    given = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
    tried = []

    def refused(function, tensors):
        tried.append(function(*tensors))
        raise RuntimeError("not while it is recorded")

    def compute(batch):
        loss = network(batch).square().sum()
        loss.backward()
        return loss.detach()

    monkeypatch.setattr(compiling, "Recording", refused)
    gradients = Gradients(network, compute)
    for steps in (1, 2):
        assert gradients.fill(given) == pytest.approx(4, abs=1e-3)
        assert network.num_batches_tracked == steps
        assert network.weight.grad.tolist() == pytest.approx([4, 4], abs=1e-3)
    assert len(tried) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the network could not be recorded and goes on without, more slowly: not while it is recorded"
    ]


def test_graphs_need_cuda():
    with pytest.raises(SettingsError, match="--device cuda"):
        load_backend(
            "darkir", WeightsFile({}, {}, ""), device=torch.device("cpu"), dtype=torch.float32, compiling="graph"
        )
    with pytest.raises(SettingsError, match="--device cuda"):
        Compute("cpu", compile="graph")


@pytest.mark.parametrize(
    "words", [["--compile", "graph"], ["--compile", "quick"], ["--compile", "full", "--model", "identity"]]
)
def test_what_cannot_be_meant_is_refused(tmp_path, words):
    (tmp_path / "photo.png").write_bytes(b"never read")
    ran = CliRunner().invoke(app, ["enhance", str(tmp_path / "photo.png"), "--device", "cpu", *words])
    assert ran.exit_code == 2
    assert "--compile" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_function_that_torch_cannot_compile_is_named():
    def opaque(image):
        return torch.mkldnn_convolution(image, torch.ones(1, 1, 1, 1), None, (0, 0), (1, 1), (1, 1), 1)

    root = compiled(opaque, "full")
    for _ in range(2):
        with pytest.raises(DeviceError, match="--compile off"):
            root(torch.ones(1, 1, 2, 2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_was_compiled_is_kept_where_nobody_else_can_write(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "kept by the fixture for afterwards")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("LOWLIGHT_CACHE_DIR", str(tmp_path / "cache"))
    compiled(torch.sqrt, "full")
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder.parent == tmp_path / "cache"
    assert folder.stat().st_mode & 0o077 == 0
    for planted in ("link", "file"):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        folder.rmdir() if folder.is_dir() and not folder.is_symlink() else folder.unlink()
        folder.symlink_to(tmp_path) if planted == "link" else folder.write_bytes(b"")
        with pytest.raises(OutputError, match="compiled"):
            compiled(torch.sqrt, "full")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on loading its compiler
@pytest.mark.filterwarnings("ignore:Torchinductor does not support")
def test_the_compiled_network_gives_what_the_network_gives():
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 0.1
    assert (enhanced(image, "cpu", "full") - enhanced(image, "cpu", "off")).abs().max() < 1e-5
