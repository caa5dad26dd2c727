"""A GPU gives what the CPU gives: networks, pictures, fits and clips."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clipmaking import make_clip
from PIL import Image
from typer.testing import CliRunner

import lowlight_cli.zero_shot.fit as fit_module
from lowlight_cli.backends import load_backend
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.losses import zero_shot_loss
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.cli import app
from lowlight_cli.compiling import Gradients, compiled
from lowlight_cli.device import free_bytes
from lowlight_cli.enhancer import PictureSource, load_enhancer
from lowlight_cli.images import Picture
from lowlight_cli.images.colour import parse_profile
from lowlight_cli.images.gamma import adobe_rgb
from lowlight_cli.metrics import measure_quality
from lowlight_cli.settings import Compute, Tiling, Tone
from lowlight_cli.tiling import TensorSource
from lowlight_cli.weights_file import WeightsFile
from lowlight_cli.zero_shot.fit import Fit
from lowlight_cli.zero_shot.settings import ZeroShot

pytestmark = pytest.mark.cuda

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _exact_products(monkeypatch):
    """Without TF32, whose ten bits would hide what is to be compared."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def lowlight(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def dark(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 3, height, width, generator=generator) * torch.linspace(0.01, 0.25, width)


def trained_like(network):
    """Random weights where fresh ones are zero, so that every part of the network counts."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def psnr(found, wanted):
    return measure_quality(found.float().cpu()[0].clamp(0, 1), wanted.float().cpu()[0].clamp(0, 1)).psnr


def backends(network, name, dtype):
    weights = WeightsFile({key: tensor.detach() for key, tensor in network.state_dict().items()}, {}, "made up")
    arguments = {"network": {"dilations": [1, 4, 9]}} if name == "darkir" else {}
    on_cpu = load_backend(name, weights, device=torch.device("cpu"), dtype=torch.float32, **arguments)
    return on_cpu, load_backend(name, weights, device=CUDA, dtype=dtype, **arguments)


@torch.inference_mode()
@pytest.mark.parametrize("use_csf", [False, True])
@pytest.mark.parametrize("size", [(96, 128), (67, 131)])
def test_darkir_gives_the_same_in_fp32_and_nearly_in_half_precision(use_csf, size):
    network = trained_like(DarkIR(width=16, use_csf=use_csf)).eval()
    image = dark(*size)
    for dtype, least in ((torch.float32, 90), (torch.bfloat16, 35), (torch.float16, 45)):
        on_cpu, on_gpu = backends(network, "darkir", dtype)
        assert psnr(on_gpu.enhance(image.to(CUDA)), on_cpu.enhance(image)) > least, dtype


@torch.inference_mode()
def test_zeroig_gives_the_same(tmp_path):
    torch.manual_seed(0)
    on_cpu, on_gpu = backends(ZeroIG().eval(), "zeroig", torch.float32)
    image = dark(67, 131)
    assert (on_gpu.enhance(image.to(CUDA)).cpu() - on_cpu.enhance(image)).abs().max() < 1e-4


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 50), (torch.float16, 65)])
def test_zeroig_gives_nearly_the_same_in_half_precision(dtype, least):
    torch.manual_seed(0)
    on_cpu, on_gpu = backends(ZeroIG().eval(), "zeroig", dtype)
    image = dark(67, 131)
    found = on_gpu.enhance(image.to(CUDA))
    assert found.dtype == torch.float32
    assert psnr(found, on_cpu.enhance(image)) > least


def test_the_seven_losses_and_their_gradients_are_the_same():
    torch.manual_seed(0)
    network = ZeroIG().double()
    image = dark(64, 80).double()
    found = {}
    for device in ("cpu", "cuda"):
        network.to(device)
        network.zero_grad()
        loss = zero_shot_loss(network, image.to(device))
        loss.backward()
        found[device] = [
            loss.detach().cpu(),
            *(p.grad.cpu().clone() for p in network.parameters() if p.grad is not None),
        ]
    for on_cpu, on_gpu in zip(found["cpu"], found["cuda"], strict=True):
        assert (on_gpu - on_cpu).abs().max() <= 1e-7 * on_cpu.abs().max() + 1e-9


@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_graphs_give_what_the_network_gives_for_every_picture_and_size(precision):
    enhancers = [
        load_enhancer("darkir-small", compute=Compute("cuda", precision, compile=how), offline=True)
        for how in ("off", "graph")
    ]
    for seed, size in enumerate([(64, 96), (64, 96), (96, 64), (80, 80), (96, 96), (112, 112), (64, 96)]):
        image = dark(*size, seed).to(CUDA)
        plain, graphed = (enhancer.backend(enhancer.dtype).enhance(image) for enhancer in enhancers)
        torch.testing.assert_close(graphed, plain, atol=1e-2 if precision == "bf16" else 1e-5, rtol=0)


def test_results_of_a_recorded_function_are_the_callers_own():
    double = compiled(lambda image: image * 2, "graph")
    first, second = double(torch.ones(2, device=CUDA)), double(torch.full((2,), 3.0, device=CUDA))
    assert first.tolist() == [2, 2]
    assert second.tolist() == [6, 6]


@pytest.mark.parametrize("how", ["off", "graph"])
def test_a_photo_is_enhanced_as_on_the_cpu(tmp_path, how):
    results = []
    for device, compiling in (("cpu", "off"), ("cuda", how)):
        output = tmp_path / f"{device}.png"
        arguments = ("--device", device, "--precision", "fp32", "--compile", compiling, "--format", "png")
        ran = lowlight("enhance", EXAMPLES / "car.jpg", "-o", output, *arguments)
        assert ran.exit_code == 0, ran.output
        results.append(np.asarray(Image.open(output)).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_become_the_very_floats_that_they_become_on_the_cpu(dtype, channels):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(16, -1, 1)
    picture = Picture(np.tile(levels, (1, 1, channels)))
    rows, columns = slice(3, 11), slice(1, 16)
    on_cpu, on_gpu = (PictureSource(picture, torch.device(device)).read(rows, columns) for device in ("cpu", "cuda"))
    assert on_gpu.is_cuda
    assert on_gpu.is_contiguous()
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.parametrize("tone", [Tone(), Tone(strength=0.7, exposure=0.5, protect_highlights=0.8)])
@pytest.mark.parametrize("kind", ["plain", "deep", "grey", "profile", "alpha", "tiles"])
def test_pictures_of_every_kind_are_enhanced_as_on_the_cpu(kind, tone):
    dtype = np.uint16 if kind == "deep" else np.uint8
    pixels = np.rint(dark(150, 200)[0].permute(1, 2, 0).numpy() * np.iinfo(dtype).max).astype(dtype)
    picture = Picture(
        pixels[..., :1].copy() if kind == "grey" else pixels,
        alpha=np.full((150, 200), 200, np.uint8) if kind == "alpha" else None,
        profile=parse_profile(adobe_rgb()) if kind == "profile" else None,
    )
    found = [
        load_enhancer(
            "darkir-small", compute=Compute(device, "fp32", Tiling(128 if kind == "tiles" else 0)), offline=True
        ).enhance(picture, tone=tone)
        for device in ("cpu", "cuda")
    ]
    on_cpu, on_gpu = (one.picture.pixels.astype(float) * 255 / np.iinfo(dtype).max for one in found)
    assert on_cpu.mean() > 2 * pixels.mean() * 255 / np.iinfo(dtype).max
    assert np.abs(on_cpu - on_gpu).max() <= 1


@pytest.mark.parametrize(("preset", "steps"), [("paper", 6), ("fast", 20)])
def test_a_recorded_fit_takes_the_steps_of_one_that_is_not(preset, steps, monkeypatch):
    fits = []
    for may_record in (False, True):
        monkeypatch.setattr(
            fit_module, "Gradients", lambda *given, may_record=may_record, **_: Gradients(*given, may_record=may_record)
        )
        fit = Fit([TensorSource(dark(96, 128))], ZeroShot(preset, epochs=steps), device=CUDA)
        fits.append(([(step.loss, tuple(step.terms)) for step in fit.run()], fit.state_dict()))
    (plain, weights), (recorded, same) = fits
    assert [names for _, names in plain] == [names for _, names in recorded]
    assert [loss for loss, _ in recorded] == pytest.approx([loss for loss, _ in plain], rel=1e-3)
    for name, tensor in weights.items():
        # A bias that a batch norm takes away again has rounding noise for a gradient, and Adam goes its way.
        if not tensor.is_floating_point():
            assert torch.equal(same[name], tensor), name
        elif name not in ("enhance.conv.0.bias", "enhance.conv.1.running_mean"):
            assert (same[name] - tensor).abs().mean() < 1e-2 * tensor.abs().mean() + 1e-5, name


def test_photos_of_several_sizes_are_fitted_as_of_one():
    photos = [TensorSource(dark(96, 128)), TensorSource(dark(80, 64, seed=1))]
    for preset in ("paper", "fast"):
        steps = list(Fit(photos, ZeroShot(preset, epochs=12), device=CUDA).run())
        assert len(steps) == 12


def test_tiles_on_a_gpu_agree_with_the_whole_picture():
    image = dark(400, 600)
    whole, tiled = (
        load_enhancer("darkir-small", compute=Compute("cuda", "fp32", Tiling(size)), offline=True).enhance_tensor(image)
        for size in (0, 256)
    )
    assert psnr(tiled, whole) > 40


def test_a_gpu_whose_memory_is_short_cuts_smaller_tiles_and_finishes(monkeypatch):
    """This process may hold 0.35 GB more than it does: the picture that does not fit is cut."""
    enhancer = load_enhancer("darkir-small", compute=Compute("cuda", "fp32", Tiling(0)), offline=True)
    image = dark(1536, 2048)
    wanted = enhancer.enhance_tensor(image)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    sizes: list[int] = []
    backend = enhancer.backend(torch.float32)
    made = backend.tile_enhancer

    def told(preview, samples):
        enhance_tile = made(preview, samples)
        return lambda tile, window: sizes.append(max(tile.shape[-2:])) or enhance_tile(tile, window)

    monkeypatch.setattr(backend, "tile_enhancer", told)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 0.35e9) / total)
    try:
        assert psnr(enhancer.enhance_tensor(image), wanted) > 38
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sizes
    assert max(sizes) <= 1024


def test_a_fit_runs_on_a_gpu_and_its_weights_on_a_cpu(tmp_path):
    picture = tmp_path / "night.png"
    Image.fromarray(np.rint(dark(96, 128)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(picture)
    fitted = tmp_path / "fitted.safetensors"
    ran = lowlight("zero-shot", picture, "--preset", "paper", "--epochs", 5, "--device", "cuda", "--log",
                   tmp_path / "log.jsonl", "--save-weights", fitted, "-o", tmp_path / "a.png")  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5
    ran = lowlight("enhance", picture, "--weights", fitted, "--device", "cpu", "-o", tmp_path / "b.png")
    assert ran.exit_code == 0, ran.output
    first, second = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    assert np.abs(first - second).max() <= 1
    ran = lowlight("zero-shot", picture, "--epochs", 40, "--device", "cuda", "-o", tmp_path / "c.png")
    assert ran.exit_code == 0, ran.output


def test_a_second_gpu_gives_what_the_first_does():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    image = dark(160, 224)
    results = [
        load_enhancer("darkir-small", compute=Compute(device, compile=how), offline=True).enhance_tensor(one)
        for device in ("cuda:0", "cuda:1")
        for how in ("off", "graph")
        for one in (image, image.flip(3))
    ]
    for found, wanted in zip(results[2:], results[:2] * 3, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    "more",
    [
        ("--compile", "off"),
        ("--compile", "graph", "--frames-per-batch", "3"),
        ("--tile", "128", "--no-stabilize-light", "--strength", "0.5", "--protect-highlights", "1"),
    ],
)
def test_a_clip_is_enhanced_as_on_the_cpu(tmp_path, more):
    """Frame by frame, over more frames than are under way: threads share the device, and none may see another's."""
    options = [word for word in more if not word.startswith("--compile") and word not in ("off", "graph")]
    films = []
    for device, words in (("cpu", options), ("cuda", more)):
        output = tmp_path / f"{device}.mp4"
        ran = lowlight("video", EXAMPLES / "night.mp4", "-o", output, "--end", "1.6", "--device", device, "--crf", 0,
                       "--precision", "fp32", *words, "--json")  # fmt: skip
        assert ran.exit_code == 0, ran.output
        with av.open(str(output)) as film:
            films.append([frame.to_ndarray(format="rgb24").astype(float) for frame in film.decode(video=0)])
    on_cpu, on_gpu = films
    assert len(on_cpu) == len(on_gpu) > 20
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert np.abs(one - other).mean() < 0.5


@pytest.mark.parametrize("more", [(), ("--no-stabilize-light",)])
def test_a_clip_of_ten_bits_is_enhanced_as_on_the_cpu(tmp_path, more):
    source = make_clip(tmp_path / "deep.mp4", frames=16, size=(96, 64), pixel_format="yuv420p10le", sound=None)
    films = []
    for device in ("cpu", "cuda"):
        output = tmp_path / f"{device}.mkv"
        ran = lowlight("video", source, "-o", output, "--device", device, "--crf", 0, "--precision", "fp32", *more)
        assert ran.exit_code == 0, ran.output
        with av.open(str(output)) as film:
            films.append([frame.to_ndarray(format="gbrp10le").astype(float) for frame in film.decode(video=0)])
    assert len(films[0]) == len(films[1]) == 16
    for one, other in zip(*films, strict=True):
        assert np.abs(one - other).mean() < 2  # of 1023


def test_memory_that_a_picture_leaves_behind_is_free_for_the_next():
    enhancer = load_enhancer("darkir-small", compute=Compute("cuda", "bf16"), offline=True)
    image = dark(720, 1280)
    before = enhancer.tile_size(2160, 3840), free_bytes(CUDA)
    enhancer.enhance_tensor(image)
    assert enhancer.tile_size(2160, 3840) == before[0]
    assert free_bytes(CUDA) > 0.98 * before[1]
