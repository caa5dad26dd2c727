"""ZERO-IG equals the published method, fits in tiles, and refuses what is not its own."""

import threading
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from threadcount import torch_threads
from torch import Tensor
from torch.nn import functional as F
from zeroig_literal import literal_loss

from lowlight_cli.backends import load_backend
from lowlight_cli.backends.zeroig import losses
from lowlight_cli.backends.zeroig.adapter import ZeroIGBackend
from lowlight_cli.backends.zeroig.network import (
    EPS,
    HALO,
    SLOPE,
    Denoiser,
    Illuminator,
    ZeroIG,
    load_network,
    new_network,
)
from lowlight_cli.errors import WeightsError
from lowlight_cli.tiling import tiled
from lowlight_cli.weights_file import WeightsFile, read_weights

DATA = Path(__file__).resolve().parents[1] / "data"
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
NO_GRADIENT = "enhance.conv.0.bias"  # before batch norm: its true gradient is zero

needs_shared = pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="the golden files lie beside the checkout")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def off_by(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, in units of the largest wanted number."""
    return ((found.double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()


def train_ten_steps(network: ZeroIG, image: Tensor) -> tuple[list[float], dict[str, Tensor]]:
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, weight_decay=3e-4)
    values, first_gradients = [], {}
    for _ in range(10):
        optimizer.zero_grad()
        loss = losses.zero_shot_loss(network, image)
        loss.backward()
        first_gradients = first_gradients or {
            name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None
        }
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        values.append(loss.item())
    return values, first_gradients


def random_network(seed: int = 0, **widths: int) -> ZeroIG:
    """A network whose batch norm has statistics of its own, as after a fit."""
    torch.manual_seed(seed)
    network = ZeroIG(**widths)
    norm = network.enhance.conv[1]
    norm.running_mean.normal_(0, 0.1)
    norm.running_var.uniform_(0.05, 0.2)
    return network


def test_ten_steps_give_the_losses_and_first_gradients_of_the_published_code():
    golden = load_file(DATA / "zeroig_ten_steps.safetensors")
    values, gradients = train_ten_steps(load_network(part(golden, "initial.")).train(), golden["input"])
    assert values == pytest.approx(golden["losses"].tolist(), rel=1e-12)
    for name, wanted in part(golden, "grad0.").items():
        if name == NO_GRADIENT:
            assert gradients[name].abs().max() < 1e-8
        else:
            assert off_by(gradients[name], wanted) < 1e-6  # the file keeps them in single precision


@needs_shared
@pytest.mark.parametrize("case", [pytest.param("even", marks=pytest.mark.slow), "odd"])
def test_every_golden_number_in_double_precision(case: str):
    golden = load_file(SHARED / "golden" / f"zeroig_train_{case}.safetensors")
    image = golden["input"]
    check_forward(golden, load_network(part(golden, "initial.")).train(), image, within=1e-8)

    network = load_network(part(golden, "initial.")).train()
    values, gradients = train_ten_steps(network, image)
    assert values == pytest.approx(golden["losses"].tolist(), rel=1e-8)
    for name, wanted in part(golden, "grad0.").items():
        assert gradients[name].abs().max() < 1e-8 if name == NO_GRADIENT else off_by(gradients[name], wanted) < 1e-8
    after = part(golden, "after10.")
    assert network.state_dict().keys() == after.keys()
    for name, tensor in network.state_dict().items():
        if name == NO_GRADIENT:
            assert (tensor - after[name]).abs().max() < 1e-8  # Adam enlarges rounding noise; batch norm takes it out
        else:
            assert off_by(tensor, after[name]) < 1e-7
    with torch.no_grad():
        result = network.eval()(image)
    assert off_by(result.enhanced, golden["eval.H2"]) < 1e-7
    assert off_by(result.denoised, golden["eval.H3"]) < 1e-7


@needs_shared
@pytest.mark.parametrize("case", ["even", "odd"])
def test_single_precision_as_users_run_it(case: str):
    golden = load_file(SHARED / "golden" / f"zeroig_train_{case}.safetensors")
    network, image = load_network(part(golden, "initial.")).float().train(), golden["input"].float()
    assert losses.zero_shot_loss(network, image).item() == pytest.approx(golden["losses"][0].item(), rel=1e-5)
    check_forward(golden, network, image, within=5e-5)


def check_forward(golden: dict[str, Tensor], network: ZeroIG, image: Tensor, *, within: float) -> None:
    passes = losses.training_passes(network, image)
    first, second = passes.enhanced_halves.chunk(2)
    cleaned_first, cleaned_second = passes.denoised_halves.chunk(2)
    noisy_first, noisy_second = passes.clean_halves.chunk(2)
    found = {
        "L2": passes.clean,
        "L_pred1": noisy_first,
        "L_pred2": noisy_second,
        "s2": passes.light,
        "s21": first[:, 3:],
        "s22": second[:, 3:],
        "H2": passes.enhanced,
        "H11": first[:, :3],
        "H12": second[:, :3],
        "H3_pred": cleaned_first,
        "H13": cleaned_first[:, :3],
        "s13": cleaned_first[:, 3:],
        "H4_pred": cleaned_second,
        "H14": cleaned_second[:, :3],
        "s14": cleaned_second[:, 3:],
        "H3": passes.denoised,
        "s3": passes.denoised_light,
        "H2_blur": losses.blur((passes.clean / passes.light).clamp(0, 1)),
        "H3_blur": losses.blur(passes.denoised),
        "texture_H3": losses.texture_mask(*losses.halves(passes.denoised).chunk(2)),
    }
    for name, tensor in found.items():
        assert off_by(tensor, golden[f"forward.{name}"]) < within, name


@needs_shared
@pytest.mark.parametrize("name", ["LOL", "LSRW-Huawei", "LSRW-Nikon"])
def test_published_checkpoints_load_with_their_repeated_block_and_give_the_published_pictures(name: str):
    path = SHARED / "weights" / "zeroig" / f"{name}.pt"
    if not path.exists():
        pytest.skip("the published checkpoints are not part of the project")
    golden = load_file(SHARED / "golden" / "zeroig_pretrained.safetensors")
    network = load_network(read_weights(path).tensors)
    for picture in "ab":
        with torch.no_grad():
            result = network(golden[f"{picture}.input"])
        assert (result.enhanced - golden[f"{picture}.{name}.H2"]).abs().max() < 1e-4
        assert (result.denoised - golden[f"{picture}.{name}.H3"]).abs().max() < 1e-4


@settings(max_examples=6)
@given(height=st.integers(24, 41), width=st.integers(24, 41), count=st.integers(1, 2), bright=st.floats(0.02, 1.0))
def test_loss_and_gradients_equal_the_literal_writing(height: int, width: int, count: int, bright: float):
    network = random_network(1, denoise_1=5, enhance=6, denoise_2=7).double().train()
    image = bright * torch.rand(count, 3, height, width, dtype=torch.float64)
    found = losses.zero_shot_loss(network, image)
    wanted = literal_loss(network, image)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-10)
    weights = [weight for name, weight in network.named_parameters() if name != NO_GRADIENT]
    for ours, theirs in zip(torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True):
        assert off_by(ours, theirs) < 1e-9


@settings(max_examples=25)
@given(count=st.integers(1, 2), height=st.integers(1, 9), width=st.integers(2, 11), cores=st.integers(1, 3))
def test_fused_functions_are_the_layers_one_by_one(count: int, height: int, width: int, cores: int):
    torch.manual_seed(3)
    networks = (
        Denoiser(3, 4).double(),
        random_network(enhance=4).enhance.double().train(),
        random_network(enhance=4).enhance.double().eval(),
    )
    image = torch.randn(count, 3, height, width, dtype=torch.float64, requires_grad=True)
    with torch_threads(cores):
        for network in networks:
            plain = deepcopy(network)
            found, wanted = network(image), layer_by_layer(plain, image)
            assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-10)
            share = torch.randn_like(wanted)
            gradients = torch.autograd.grad(found, (image, *network.parameters()), share)
            expected = torch.autograd.grad(wanted, (image, *plain.parameters()), share)
            for one, other in zip(gradients, expected, strict=True):
                assert torch.allclose(one, other, rtol=1e-7, atol=1e-8)
            for one, other in zip(network.buffers(), plain.buffers(), strict=True):
                assert torch.allclose(one, other, rtol=1e-10)


def layer_by_layer(network: Denoiser | Illuminator, image: Tensor) -> Tensor:
    if isinstance(network, Denoiser):
        hidden = F.leaky_relu(network.conv1(image), SLOPE)
        return network.conv3(F.leaky_relu(network.conv2(hidden), SLOPE))
    hidden = F.relu(network.in_conv(image))
    for _ in range(3):
        hidden = hidden + F.relu(network.conv(hidden))
    return network.out_conv(hidden).sigmoid().clamp(EPS, 1)


def test_a_network_in_bf16_has_gradients_too():
    network = random_network(denoise_1=4, enhance=4, denoise_2=4).to(torch.bfloat16)
    network(torch.rand(1, 3, 16, 16, dtype=torch.bfloat16)).denoised.sum().backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_second_backward_pass_through_the_illuminator_is_refused():
    network = random_network(enhance=4).enhance.train()
    light = network(torch.rand(1, 3, 8, 8)).sum()
    light.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        light.backward()


def test_the_terms_by_name_add_up_to_the_loss():
    network = random_network(denoise_1=4, enhance=4, denoise_2=4).train()
    image = torch.rand(1, 3, 20, 22)
    terms = losses.zero_shot_terms(losses.training_passes(network, image))
    assert sum(term.item() for term in terms) == pytest.approx(losses.zero_shot_loss(network, image).item(), rel=1e-5)
    assert all(term.item() >= 0 for term in terms)


def test_gradients_taken_in_two_parts_are_those_of_the_loss():
    network = random_network(2, denoise_1=4, enhance=4, denoise_2=4).double().train()
    image = torch.rand(2, 3, 21, 24, dtype=torch.float64)
    wanted = torch.autograd.grad(losses.zero_shot_loss(network, image), list(network.parameters()))
    losses.add_gradients(network, image)
    for (name, weight), gradient in zip(network.named_parameters(), wanted, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, rtol=1e-10, atol=1e-9), name


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (13, 16), (31, 17)])
def test_any_size_gives_its_own_size_and_leaves_the_input_alone(size: tuple[int, int]):
    backend = ZeroIGBackend(random_network(), device=torch.device("cpu"), dtype=torch.float32)
    image = torch.rand(1, 3, *size)
    before = image.clone()
    with torch.inference_mode():
        result = backend.enhance(image)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert 0 <= result.min() <= result.max() <= 1
    assert torch.equal(image, before)


@pytest.mark.parametrize("tile", [40, 64])
def test_tiles_equal_the_whole_picture(tile: int):
    backend = ZeroIGBackend(random_network(), device=torch.device("cpu"), dtype=torch.float32)
    image = torch.rand(1, 3, 90, 131) * 0.3
    with torch.inference_mode():
        enhancer = backend.tile_enhancer(torch.empty(1, 3, 0, 0), torch.empty(0, 3, 0, 0))
        joined = tiled(enhancer, image, size=tile, overlap=8, halo=HALO)
        assert (joined - backend.enhance(image)).abs().max() < 1e-5


def test_nothing_reaches_further_than_the_halo_and_the_halo_is_needed():
    network = random_network().double().eval()
    image = torch.rand(1, 3, 41, 41, dtype=torch.float64)
    changed = image.clone()
    changed[..., 20, 20] = 1 - changed[..., 20, 20]
    with torch.no_grad():
        touched = ((network(image).denoised - network(changed).denoised).abs() > 0).any(dim=1)[0].nonzero()
    assert touched.min() >= 20 - HALO
    assert touched.max() <= 20 + HALO
    assert touched.max() - touched.min() > 2 * (HALO - 2)


def test_denoise_leads_from_the_noisy_to_the_clean_picture():
    network, image = random_network(), torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        wanted = network.eval()(image)
        noisy, half, clean = (load_zeroig_with(network, denoise).enhance(image) for denoise in (0.0, 0.5, None))
    assert torch.allclose(noisy, wanted.enhanced, atol=1e-6)
    assert torch.allclose(clean, wanted.denoised, atol=1e-6)
    assert torch.allclose(half, (wanted.enhanced + wanted.denoised) / 2, atol=1e-6)


def load_zeroig_with(network: ZeroIG, denoise: float | None) -> ZeroIGBackend:
    weights = WeightsFile(tensors=network.state_dict(), metadata={}, sha256="")
    backend = load_backend("zeroig", weights, device=torch.device("cpu"), dtype=torch.float32, denoise=denoise)
    assert isinstance(backend, ZeroIGBackend)
    return backend


def test_widths_are_read_off_the_tensors():
    network = random_network(denoise_1=5, enhance=9, denoise_2=96)
    again = load_network(network.state_dict())
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_a_repeated_block_may_not_differ_from_the_shared_one():
    tensors = dict(random_network(denoise_1=4, enhance=4, denoise_2=4).state_dict())
    tensors["enhance.blocks.1.0.weight"] = tensors["enhance.conv.0.weight"].clone()
    load_network(tensors)
    tensors["enhance.blocks.1.0.weight"][0, 0, 0, 0] += 1
    with pytest.raises(WeightsError, match=r"enhance\.blocks\.1\.0\.weight"):
        load_network(tensors)


def test_wrong_keys_are_refused_and_two_are_named():
    tensors = dict(random_network(denoise_1=4, enhance=4, denoise_2=4).state_dict())
    del tensors["denoise_2.conv3.bias"]
    tensors["intro.weight"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"denoise_2\.conv3\.bias.*intro\.weight"):
        load_network(tensors)
    with pytest.raises(WeightsError, match=r"enhance\.in_conv"):
        load_network({"intro.weight": torch.zeros(3)})


def test_initial_weights_are_their_seeds_own_whatever_other_threads_build():
    wanted = new_network(7).state_dict()
    over = threading.Event()

    def build() -> None:
        while not over.is_set():
            load_network(wanted)

    other = threading.Thread(target=build)
    other.start()
    try:
        found = [new_network(7).state_dict() for _ in range(60)]
    finally:
        over.set()
        other.join()
    assert all(torch.equal(state[name], tensor) for state in found for name, tensor in wanted.items())
