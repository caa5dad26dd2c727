"""DarkIR equals its reference, in the trained and in the folded form, and reads every checkpoint that describes one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from darkir_literal import literal_darkir
from PIL import Image
from safetensors import safe_open
from torch import Tensor
from typer.testing import CliRunner

from lowlight_cli.backends import load_backend
from lowlight_cli.backends.darkir.adapter import build_network
from lowlight_cli.backends.darkir.inference import fold
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.darkir.pooling import PoolRecord, pool_from
from lowlight_cli.cli import app
from lowlight_cli.errors import WeightsError
from lowlight_cli.tiling import Window
from lowlight_cli.weights_file import WeightsFile, write_weights

DATA = Path(__file__).parents[1] / "data"
CASES = ["width8", "csf_width8", "edge_width16"]
CPU = torch.device("cpu")


class Golden:
    """A case run with the authors' code: settings, weights, input, output and side output."""

    def __init__(self, name: str) -> None:
        with safe_open(DATA / f"darkir_{name}.safetensors", "pt") as file:
            self.settings = json.loads(file.metadata()["config"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        self.weights = {key.removeprefix("weights."): t for key, t in tensors.items() if key.startswith("weights.")}
        self.input, self.output, self.side = tensors["input"], tensors["output"], tensors["side_output"]

    def network(self, **more: object) -> DarkIR:
        network = DarkIR(**self.settings, **more)
        network.load_state_dict(self.weights)
        return network.eval()


@pytest.fixture(params=CASES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def random_network(**settings: object) -> DarkIR:
    torch.manual_seed(7)
    network = DarkIR(**settings)
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def test_the_trained_form_equals_the_reference(golden):
    side, out = golden.network().as_trained(golden.input, side_loss=True)
    assert distance(out, golden.output) < 1e-5
    assert distance(side, golden.side) < 1e-5


def test_the_folded_form_equals_the_reference(golden):
    with torch.inference_mode():
        side, out = fold(golden.network()).with_side(golden.input)
        assert distance(fold(golden.network())(golden.input), golden.output) < 1e-5
    assert distance(out, golden.output) < 1e-5
    assert distance(side, golden.side) < 1e-5


def test_the_yardstick_equals_the_reference(golden):
    side, out = literal_darkir(golden.weights, golden.input, golden.settings["dilations"])
    assert distance(out, golden.output) < 1e-5
    assert distance(side, golden.side) < 1e-5


def test_evaluation_takes_the_folded_form_and_notices_changed_weights(golden):
    network = golden.network()
    with torch.no_grad():
        before = network(golden.input)
        assert distance(before, golden.output) < 1e-5
        network.ending.bias.add_(0.25)
        assert distance(network(golden.input), before + 0.25) < 1e-5


def test_bfloat16_stays_close(golden):
    with torch.inference_mode():
        out = fold(golden.network(), dtype=torch.bfloat16)(golden.input)
    assert -10 * torch.log10((out - golden.output).square().mean()) > 40


def test_folding_keeps_float_floors_batches_and_wide_dilations():
    network = random_network(
        width=8, dilations=[1, 6, 12, 18], encoder_dilations=[1, 3], direction_floor=0.05, extra_channels=1
    )
    images = torch.rand(3, 4, 45, 38)
    with torch.inference_mode():
        assert distance(fold(network)(images), network.as_trained(images)) < 1e-5


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_flat_pictures_have_a_direction_too(level):
    """In a flat picture most of the spectrum is exactly zero: its direction is 1, not 0/0."""
    network = random_network(width=8)
    flat = torch.full((1, 3, 40, 40), level)
    with torch.inference_mode():
        assert distance(fold(network)(flat), network.as_trained(flat)) < 1e-5


def test_key_and_shape_lists_equal_the_published_ones():
    for name, wanted in json.loads((DATA / "darkir_state_dict_keys.json").read_text()).items():
        with torch.device("meta"):
            network = DarkIR(width=int(name[5:7]), use_csf="csf" in name)
        assert {key: list(t.shape) for key, t in network.state_dict().items()} == wanted["tensors"]
        assert sum(p.numel() for p in network.parameters()) == wanted["parameters"]


def test_parameter_counts_are_the_published_ones():
    with torch.device("meta"):
        networks = DarkIR(width=16), DarkIR(), DarkIR(width=64), DarkIR(use_csf=True)
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [871_574, 3_321_638, 12_957_254, 3_375_902]


def test_gradients_stay_finite_with_a_direction_floor_even_on_black():
    network = random_network(width=8, direction_floor=0.1).train()
    out = network(torch.zeros(1, 3, 32, 32))
    out.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_network_is_read_off_the_shapes(golden):
    weights = WeightsFile(golden.weights, {}, "")
    settings = {"dilations": golden.settings["dilations"]}
    with torch.inference_mode():
        assert distance(build_network(weights, settings)(golden.input), golden.output) < 1e-5


def test_two_branches_without_their_rates_are_refused():
    golden = Golden("edge_width16")
    with pytest.raises(WeightsError, match="--dilations"):
        build_network(WeightsFile(golden.weights, {}, ""), {})
    stated = {"network": json.dumps({"dilations": [1, 2]})}
    build_network(WeightsFile(golden.weights, stated, ""), {})


def test_three_branches_without_their_rates_are_told_about(caplog):
    build_network(WeightsFile(Golden("width8").weights, {}, ""), {})
    assert "1, 4 and 9" in caplog.text


def test_weights_of_another_network_are_refused_by_name():
    weights = dict(Golden("width8").weights)
    weights["encoders.0.modules_list.0.conv9.weight"] = weights.pop("encoders.0.modules_list.0.conv1.weight")
    with pytest.raises(WeightsError, match=r"conv1\.weight.*conv9\.weight"):
        build_network(WeightsFile(weights, {}, ""), {})
    with pytest.raises(WeightsError, match="no DarkIR"):
        build_network(WeightsFile({"a": torch.zeros(1)}, {}, ""), {})


def test_a_picture_through_the_command_line_equals_the_network(golden, tmp_path):
    levels = (golden.input[0].permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    Image.fromarray(levels).save(tmp_path / "dark.png")
    write_weights(tmp_path / "net.safetensors", golden.weights, {"network": json.dumps(golden.settings)})
    arguments = ["enhance", f"{tmp_path}/dark.png", "--weights", f"{tmp_path}/net.safetensors", "--tile", "0"]
    ran = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    written = np.asarray(Image.open(tmp_path / "dark_lowlight.png")) / 255
    with torch.inference_mode():
        wanted = golden.network()(torch.from_numpy(levels / 255).float().permute(2, 0, 1)[None])
    assert np.abs(written - wanted[0].permute(1, 2, 0).clamp(0, 1).numpy()).max() <= 1 / 255


def test_the_backend_without_tiles_equals_the_bare_network(golden):
    weights = WeightsFile(golden.weights, {"network": json.dumps(golden.settings)}, "")
    backend = load_backend("darkir", weights, device=CPU, dtype=torch.float32)
    with torch.inference_mode():
        assert distance(backend.enhance(golden.input), golden.output.clamp(0, 1)) < 1e-5


def test_recorded_pools_replay_the_whole_picture(golden):
    """Injecting a picture's own pooled vectors changes nothing, so a tile that is the whole picture is exact."""
    network = fold(golden.network())
    record = PoolRecord()
    with torch.inference_mode():
        whole = network(golden.input, record.record)
        again = network(golden.input, pool_from(record.vectors))
    assert torch.equal(whole, again)
    assert len(record.vectors) >= 4


def test_tiles_take_their_low_frequencies_from_the_whole():
    """A tile's mean follows the guide, so neighbouring tiles do not step in brightness."""
    backend = load_backend(
        "darkir", WeightsFile(random_network(width=8).state_dict(), {}, ""), device=CPU, dtype=torch.float32
    )
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1)) * 0.3
    image[..., 128:] += 0.5
    preview = torch.nn.functional.avg_pool2d(image, 2)
    with torch.inference_mode():
        guide = backend.enhance(preview)
        tile = backend.tile_enhancer(preview, torch.empty(0, 3, 0, 0))(
            image[..., :128], Window(0, 256, 0, 128, 256, 256)
        )
    wanted = guide[..., :64].mean((2, 3))
    assert distance(tile.mean((2, 3)), wanted) < 0.02
