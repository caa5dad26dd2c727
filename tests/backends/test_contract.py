"""Each backend keeps the contract of `backends.base`."""

import contract
import pytest
import torch

from lowlight_cli.backends import BACKENDS, load_backend
from lowlight_cli.backends.base import Backend
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.weights_file import WeightsFile

CPU = torch.device("cpu")


def random_weights(name: str) -> WeightsFile | None:
    torch.manual_seed(3)
    if name == "identity":
        return None
    if name == "zeroig":
        return WeightsFile(ZeroIG().state_dict(), {}, "")
    network = DarkIR(img_channel=12, extra_channels=1, width=8, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1])
    for place, parameter in network.named_parameters():
        if place.endswith(("beta", "gamma")):  # 0 to begin with, which hides what the blocks do
            torch.nn.init.normal_(parameter, std=0.2)
    return WeightsFile(network.state_dict(), {}, "")


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return load_backend(request.param, random_weights(request.param), device=CPU, dtype=torch.float32)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def test_shape_range_and_input_are_kept(backend):
    contract.keeps_shape_range_and_input(backend)


def test_the_same_input_gives_the_same_output(backend):
    contract.is_deterministic(backend)


def test_decides_beforehand_what_it_decides_at_once(backend):
    contract.decides_beforehand_what_it_decides_at_once(backend)


def test_numbers_that_break_are_not_hidden(backend):
    contract.says_nan_where_numbers_break(backend)


@pytest.mark.parametrize("name", list(BACKENDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_stay_finer_than_a_half_precision(name, dtype):
    contract.pictures_stay_finer_than_their_dtype(load_backend(name, random_weights(name), device=CPU, dtype=dtype))


def test_tiles_agree_as_the_facts_say(backend):
    contract.tiles_agree_with_the_whole(backend, within=1e-5 if backend.info.halo is not None else 0.02)


@pytest.mark.parametrize("name", [name for name, info in BACKENDS.items() if info.needs_weights])
def test_weights_with_wrong_keys_are_refused_naming_two(name):
    weights = random_weights(name)
    assert weights is not None
    renamed = dict(weights.tensors)
    victims = [key for key in renamed if key.endswith(("conv1.bias", "conv3.bias", "conv2.bias"))][:2]
    for key in victims:
        renamed[f"{key}_renamed"] = renamed.pop(key)
    with pytest.raises(WeightsError) as caught:
        load_backend(name, WeightsFile(renamed, {}, ""), device=CPU, dtype=torch.float32)
    assert all(key in str(caught.value) for key in victims)


def test_unknown_backends_and_meaningless_options_are_refused():
    with pytest.raises(SettingsError, match="there is no backend"):
        load_backend("magic", device=CPU, dtype=torch.float32)
    with pytest.raises(SettingsError, match="--denoise means nothing"):
        load_backend("identity", device=CPU, dtype=torch.float32, denoise=0.5)
