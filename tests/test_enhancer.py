"""A picture's way through a model: tiles chosen from memory, half precision that breaks, memory that runs out."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.base import TileEnhancer
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.cli import app
from lowlight_cli.enhancer import Enhancer, PictureSource, load_enhancer
from lowlight_cli.errors import NumericsError, ResourceError
from lowlight_cli.images import Picture
from lowlight_cli.settings import Compute, Tiling
from lowlight_cli.weights_file import write_weights


class Fake:
    """Returns its input, but NaN in the precisions named, and out of memory at the calls named."""

    info = BACKENDS["identity"]
    peak_bytes_per_pixel = 100

    def __init__(self, dtype: torch.dtype, *, breaks: tuple[torch.dtype, ...] = (), fails: set[int] = frozenset()):
        self._breaks, self._fails, self._calls = dtype in breaks, fails, 0

    def enhance(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.float32
        self._calls += 1
        if self._calls - 1 in self._fails:
            raise torch.OutOfMemoryError("no more")
        return image * torch.nan if self._breaks else image.clone()

    def tile_enhancer(self, preview: torch.Tensor, samples: torch.Tensor) -> TileEnhancer:
        return lambda tile, window: self.enhance(tile)


def enhancer(tile: int | None = None, precision: str = "fp32", **faults: object) -> Enhancer:
    compute = Compute("cpu", precision, Tiling(tile, 8))
    return Enhancer("fake", lambda dtype: Fake(dtype, **faults), compute)


def picture(height: int = 300, width: int = 400) -> Picture:
    return Picture(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_network_that_memory_has_no_room_for_is_told_in_a_sentence(monkeypatch):
    def has_no_room(*_, **__):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr("lowlight_cli.enhancer.load_backend", has_no_room)
    with pytest.raises(ResourceError, match=r"^memory ran out on cpu as the network was loaded; close other programs$"):
        load_enhancer("darkir-small", offline=True)


@pytest.mark.parametrize("tile", [0, 128])
def test_half_precision_that_breaks_is_computed_again_in_fp32(tile, caplog):
    own = picture()
    with caplog.at_level(logging.WARNING):
        done = enhancer(tile, "bf16", breaks=(torch.bfloat16,)).enhance(own)
    assert done.precision == "fp32"
    assert (done.picture.pixels == own.pixels).all()
    assert caplog.text.count("fp32") == 1, "one sentence for the whole picture"


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_numbers_that_break_in_fp32_too_fail_the_picture(precision):
    with pytest.raises(NumericsError, match="not finite"):
        enhancer(0, precision, breaks=(torch.bfloat16, torch.float32)).enhance(picture())


@pytest.mark.parametrize("failing_call", range(6))
@pytest.mark.parametrize("tile", [0, 256])
def test_memory_that_runs_out_at_any_tile_gives_the_same_picture(tile, failing_call):
    own = picture(500, 600)
    done = enhancer(tile, fails={failing_call}).enhance(own)
    assert (done.picture.pixels == own.pixels).all()


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_source_reads_the_very_floats_that_its_picture_gives(dtype, channels, is_ours):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(16, -1, 1)
    own = Picture(np.tile(levels, (1, 1, channels)))
    own.pixels.flags.writeable = is_ours
    whole = PictureSource(own).read(slice(None), slice(None))
    assert whole.is_contiguous()
    assert np.array_equal(whole[0].numpy(), own.srgb())
    part = slice(3, 11), slice(1, 16)
    assert np.array_equal(PictureSource(own).read(*part)[0].numpy(), own.srgb(*part))


def test_memory_that_never_suffices_is_an_error():
    with pytest.raises(ResourceError, match="out of memory at a tile"):
        enhancer(0, fails=set(range(1000))).enhance(picture())


def test_tiles_are_chosen_by_size_and_memory():
    small = enhancer().tile_size(100, 100)
    large = enhancer().tile_size(20_000, 20_000)
    assert small == 0
    assert 128 <= large <= 1024
    assert large % 16 == 0
    assert enhancer(0).tile_size(20_000, 20_000) == 0


def test_progress_counts_every_tile():
    told: list[tuple[int, int]] = []
    enhancer(128).enhance(picture(), on_tile=lambda done, total: told.append((done, total)))
    total = told[0][1]
    assert told == [(index + 1, total) for index in range(total)]
    assert total > 4


def test_a_network_that_overflows_writes_nothing(tmp_path):
    network = DarkIR(width=8, enc_blk_nums=[1], dec_blk_nums=[1], middle_blk_num_enc=1, middle_blk_num_dec=1)
    weights = {name: tensor * 1e20 if "ending" in name else tensor for name, tensor in network.state_dict().items()}
    weights["intro.weight"] = weights["intro.weight"] * 1e30
    write_weights(tmp_path / "wild.safetensors", weights, {})
    Image.new("RGB", (40, 30), (20, 20, 30)).save(tmp_path / "a.png")
    ran = CliRunner().invoke(
        app, ["enhance", f"{tmp_path}/a.png", "--weights", f"{tmp_path}/wild.safetensors", "--json", "--device", "cpu"]
    )
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["error"]["code"] == "numerics"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "wild.safetensors"]


def test_the_embedded_default_needs_no_network_and_brightens_the_examples(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # any download would fail at once
    examples = Path(__file__).parents[1] / "examples"
    default = load_enhancer("darkir-small", compute=Compute("cpu"), offline=True)
    for name in ("portrait.jpg", "car.jpg"):
        dark = np.asarray(Image.open(examples / name))
        done = default.enhance(Picture(dark)).picture.pixels
        assert done.mean() > 2.5 * dark.mean()
        assert done.shape == dark.shape


def test_the_same_input_gives_the_same_bytes():
    default = load_enhancer("darkir-small", compute=Compute("cpu"), offline=True)
    dark = Picture((picture(96, 128).pixels // 8).astype(np.uint8))
    first = default.enhance(dark).picture.pixels
    assert all((default.enhance(dark).picture.pixels == first).all() for _ in range(3))


def test_tiles_of_a_noisy_dark_photo_agree_because_they_share_what_the_whole_picture_knows():
    """One half is smooth and one full of detail, so that a tile's own means would mislead it."""
    rng = np.random.default_rng(1)
    light = np.full((384, 640, 3), 10.0)
    light[:, 320:] = np.kron(rng.uniform(0, 40, (48, 40, 1)), np.ones((8, 8, 3)))
    dark = torch.from_numpy((light + rng.normal(0, 4, light.shape)).clip(0, 255).round() / 255)
    image = dark.permute(2, 0, 1)[None].float()
    whole, tiled = (
        load_enhancer("darkir-small", compute=Compute("cpu", "fp32", Tiling(size)), offline=True).enhance_tensor(image)
        for size in (0, 192)
    )
    off = torch.nn.functional.avg_pool2d(tiled - whole, 32).abs().max()
    assert off < 4 / 255  # their own means: 19
    assert (tiled - whole).square().mean() < 1e-4  # 40 dB; their own means: 28


def test_memory_that_runs_out_while_samples_are_seen_leaves_fewer_of_them():
    seen: list[int] = []

    class Sampling(Fake):
        info = replace(BACKENDS["identity"], samples=16)

        def tile_enhancer(self, preview: torch.Tensor, samples: torch.Tensor) -> TileEnhancer:
            seen.append(len(samples))
            if len(samples) > 4:
                raise torch.OutOfMemoryError("no more")
            return super().tile_enhancer(preview, samples)

    own = picture(600, 700)
    done = Enhancer("fake", Sampling, Compute("cpu", "fp32", Tiling(256, 8))).enhance(own)
    assert seen == [16, 8, 4]
    assert (done.picture.pixels == own.pixels).all()
