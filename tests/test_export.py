"""Exported networks: the same results as ours in programs that do not have this package, or no file at all."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from forks import Forks, forks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.darkir.blocks import FreMLP
from lowlight_cli.backends.darkir.lift import lift, plan_lift
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.cli import app
from lowlight_cli.enhancer import find_model
from lowlight_cli.errors import NumericsError
from lowlight_cli.export import export_model, files
from lowlight_cli.export.graphs import graph_of
from lowlight_cli.export.lifting import lifted, planned_lift
from lowlight_cli.export.spectrum import MatrixFreMLP
from lowlight_cli.settings import Compute
from lowlight_cli.weights_file import write_weights

SIZES = ((1, 1), (2, 3), (31, 47), (64, 16), (90, 129))
PREVIEW = BACKENDS["darkir"].preview_side


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def picture(size: tuple[int, int], light: float = 0.1, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed)) * light


def stirred(network: nn.Module) -> Mapping[str, Tensor]:
    """Give every parameter a part to play: as made, a DarkIR's blocks add nothing."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return network.state_dict()


@pytest.fixture(params=["plain", "lifted", "zeroig"])
def weights(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small random network of each kind, as a file."""
    path = tmp_path / f"{request.param}.safetensors"
    if request.param == "zeroig":
        write_weights(path, stirred(ZeroIG(denoise_1=4, enhance=4, denoise_2=4)), {})
        return path
    channels = {"img_channel": 12, "extra_channels": 1, "direction_floor": 0.1} if request.param == "lifted" else {}
    network = {"width": 4, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1], **channels}
    arguments = {**network, "middle_blk_num_enc": 1, "middle_blk_num_dec": 1, "dilations": [1, 4, 9]}
    write_weights(path, stirred(DarkIR(**arguments)), {"network": json.dumps(arguments)})
    return path


def ours(model_file: Path, image: Tensor) -> Tensor:
    model = find_model(model_file.stem, weights=model_file)
    with torch.no_grad():
        return model.on(Compute("cpu", "fp32")).backend(torch.float32).enhance(image)


# The parts that are written anew for graphs.


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.1]), st.booleans())
def test_the_matrix_filter_is_the_filter(height, width, floor, is_black):
    torch.manual_seed(height * 41 + width)
    original = FreMLP(6, floor)
    x = torch.zeros(2, 6, height, width) if is_black else torch.randn(2, 6, height, width)
    with torch.no_grad():
        assert torch.allclose(MatrixFreMLP(original)(x), original(x), atol=1e-5)


@settings(max_examples=40)
@given(
    st.integers(1, 60) | st.integers(350, 900),
    st.integers(1, 60) | st.integers(350, 500),
    st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.2, 0.35, 0.5, 1.0]),
)
def test_the_lift_in_tensors_is_the_lift(height, width, light):
    image = picture((height, width), light, seed=height * 1000 + width)
    shrink = PREVIEW / max(height, width)
    size = [max(1, round(side * min(shrink, 1))) for side in (height, width)]
    wanted = plan_lift(torch.nn.functional.adaptive_avg_pool2d(image, size))
    stops, roll_off = planned_lift(image, preview_side=PREVIEW)
    assert float(stops) == pytest.approx(wanted.stops, abs=1e-5)
    assert float(roll_off) == pytest.approx(wanted.roll_off, abs=1e-5)
    if wanted.stops > 0:
        assert torch.allclose(lifted(image, stops, roll_off), lift(image, *wanted), atol=2e-5)


def test_graphs_are_the_backends(weights):
    for real in (False, True):
        graph = graph_of(find_model(weights.stem, weights=weights), real=real)
        for size in SIZES:
            for light in (0.0, 0.1):
                with torch.no_grad():
                    assert torch.allclose(graph(picture(size, light)), ours(weights, picture(size, light)), atol=2e-5)


# Files.


STRANGER = """
import sys, torch
net = torch.jit.load("net.pt")
torch.save({size: net(image) for size, image in torch.load("in").items()}, "out")
assert not any(name.startswith("lowlight") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def strangers() -> Iterator[Forks]:
    """Forks programs that have torch and nothing of ours."""
    with forks("torch") as server:
        yield server


def test_torchscript_gives_our_results_without_this_package(weights, strangers, tmp_path):
    ran = lowlight("export", "--weights", weights, "--format", "torchscript", "-o", tmp_path / "net.pt", "--json")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert told["difference"] < 1e-4
    assert told["bytes"] == (tmp_path / "net.pt").stat().st_size
    torch.save({size: picture(size) for size in SIZES}, tmp_path / "in")
    other = strangers.run(STRANGER, call="forks:execute", folder=tmp_path)
    assert other.code == 0, other.said
    for size, result in torch.load(tmp_path / "out").items():
        assert torch.allclose(result, ours(weights, picture(size)), atol=1e-4)


@pytest.mark.slow
def test_onnx_gives_our_results(weights, tmp_path):
    pytest.importorskip("onnxscript", reason="needs lowlight-cli[onnx]")
    runtime = pytest.importorskip("onnxruntime", reason="needs lowlight-cli[onnx]")
    ran = lowlight("export", "--weights", weights, "--format", "onnx", "-o", tmp_path / "net.onnx", "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["difference"] < 1e-4
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"] == ["net.onnx"]
    session = runtime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["model"] == weights.stem
    for size in SIZES:
        (result,) = session.run(["enhanced"], {"image": picture(size).numpy()})
        assert torch.allclose(torch.from_numpy(result), ours(weights, picture(size)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_the_default_network_is_exported(tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxscript", reason="needs lowlight-cli[onnx]")
        pytest.importorskip("onnxruntime", reason="needs lowlight-cli[onnx]")
    done = export_model(find_model("darkir-small"), tmp_path / "net", format)
    assert done.difference < 1e-4


def test_a_file_that_differs_is_not_kept(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "TOLERANCE", -1.0)
    with pytest.raises(NumericsError, match="differs"):
        export_model(find_model("x", weights=weights), tmp_path / "net.pt", "torchscript")
    assert [path.name for path in tmp_path.iterdir()] == [weights.name]


def test_numbers_that_are_not_finite_are_no_agreement(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_load_torchscript", lambda part: lambda image: image * float("nan"))
    with pytest.raises(NumericsError):
        export_model(find_model("x", weights=weights), tmp_path / "net.pt", "torchscript")
    assert not (tmp_path / "net.pt").exists()


def test_an_existing_file_is_not_replaced_unless_asked(tmp_path):
    (tmp_path / "net.pt").write_bytes(b"mine")
    ran = lowlight("export", "--format", "torchscript", "-o", tmp_path / "net.pt")
    assert ran.exit_code == 2
    assert "--overwrite" in ran.stderr
    assert (tmp_path / "net.pt").read_bytes() == b"mine"


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_library_is_one_sentence_that_says_what_to_install(tmp_path, monkeypatch, library):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == library else sys)
    ran = lowlight("export", "-o", tmp_path / "net.onnx")
    assert ran.exit_code == 2
    assert f"ONNX needs an extra ({library}): pip install 'lowlight-cli[onnx]'" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--format", "coreml"], 2, "--format"),
        (["--format", "torchscript", "--model", "identity"], 2, "identity"),
        (["--format", "torchscript", "--model", "nosuch"], 2, "nosuch"),
        (["--format", "torchscript", "--denoise", "0.5"], 2, "--denoise"),
        (["--format", "torchscript", "--weights", "nowhere.pt"], 3, "nowhere.pt"),
        (["--format", "torchscript", "-o", "/dev/null/net.pt"], 2, "/dev/null"),
        (["--format", "torchscript", "-o", "-"], 2, ".pt"),
        (["--format", "torchscript", "-o", "new/"], 2, ".pt"),
        (["--format", "torchscript", "-o", "net.onnx"], 2, ".pt"),
        (["--format", "onnx", "-o", "net.pt"], 2, ".onnx"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    ran = lowlight("export", *arguments)
    assert (ran.exit_code, "Traceback" in ran.output) == (code, False), ran.output
    assert said in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_weights_that_are_exported_are_not_replaced(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mine.pt"
    own.write_bytes(weights.read_bytes())
    ran = lowlight("export", "--weights", own, "--format", "torchscript", "--overwrite")
    assert ran.exit_code == 2
    assert "mine.pt" in ran.stderr
    assert own.read_bytes() == weights.read_bytes()
