"""From Python: the same kind of picture comes back, in its own depth and shape."""

import numpy as np
import pytest
import torch
from PIL import Image

import lowlight_cli
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.enhancer import find_model
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.weights_file import write_weights


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_arrays_come_back_in_their_shape_and_depth(shape, dtype):
    top = 1 if np.issubdtype(dtype, np.floating) else np.iinfo(dtype).max
    picture = (np.random.default_rng(1).random(shape) * top).astype(dtype)
    before = picture.copy()
    out = lowlight_cli.enhance(picture, model="identity")
    assert out.shape == shape
    assert out.dtype == dtype
    assert np.abs(out.astype(float) - picture).max() <= 1e-6 * top
    assert (picture == before).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pil_images_keep_their_mode_and_alpha(mode):
    picture = Image.effect_noise((30, 20), 50).convert(mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize((30, 20)))
    out = lowlight_cli.enhance(picture, model="identity", exposure=1.0)
    assert (out.mode, out.size) == (mode, picture.size)
    if "A" in mode:
        assert out.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
    assert np.asarray(out.convert("L")).mean() > np.asarray(picture.convert("L")).mean()


def test_a_sixteen_bit_pil_image_keeps_its_depth():
    levels = np.random.default_rng(0).integers(0, 3000, (20, 30)).astype(np.uint16)
    native = Image.fromarray(levels)
    swapped = Image.frombytes("I;16B", native.size, levels.astype(">u2").tobytes())
    for picture in (native, swapped):
        out = lowlight_cli.enhance(picture, model="identity")
        assert out.mode == "I;16"
        assert np.abs(np.asarray(out).astype(int) - levels).max() <= 1
    assert np.asarray(lowlight_cli.enhance(native, model="identity", exposure=1.0)).mean() > 1.4 * levels.mean()


def test_grey_is_as_bright_as_its_colours_are_in_linear_light():
    grey = np.full((16, 16), 40, np.uint8)
    out = lowlight_cli.enhance(grey, offline=True)
    path_like = lowlight_cli.enhance(np.repeat(grey[..., None], 3, axis=2), offline=True)
    linear = ((path_like / 255 + 0.055) / 1.055) ** 2.4 @ np.array([0.2126, 0.7152, 0.0722])
    assert np.abs(out - 255 * (1.055 * linear ** (1 / 2.4) - 0.055)).max() <= 1.5


@pytest.mark.parametrize("shape", [(3, 9, 11), (2, 3, 9, 11)])
def test_tensors_come_back_as_tensors(shape):
    picture = torch.rand(shape, dtype=torch.float64)
    out = lowlight_cli.enhance(picture, model="identity")
    assert out.dtype == torch.float64
    assert torch.allclose(out, picture, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        "a.png",
        np.zeros((4, 4, 7)),
        np.zeros(3),
        np.zeros((4, 4), np.int32),
        torch.zeros(4, 4),
        np.full((4, 4, 3), 200.0),
        torch.full((3, 4, 4), 200.0),
        np.full((4, 4, 3), -1.0),
        torch.full((3, 4, 4), -1.0),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(3, 0, 8),
        Image.new("F", (4, 4)),
        Image.new("I", (4, 4)),
    ],
)
def test_other_things_are_refused(wrong):
    with pytest.raises(SettingsError):
        lowlight_cli.enhance(wrong, model="identity")


def test_tiles_may_be_smaller_than_twice_the_overlap():
    picture = np.random.default_rng(1).random((40, 50, 3))
    assert np.allclose(lowlight_cli.enhance(picture, model="identity", tile=32), picture, atol=1e-6)


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(SettingsError, match="precision"):
        lowlight_cli.enhance(np.zeros((4, 4), np.uint8), model="identity", precision="int8")


@pytest.mark.parametrize("model", ["identity", "darkir-lolblur"])
def test_a_share_of_noise_that_cannot_be_is_refused_before_anything_is_fetched(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LOWLIGHT_CACHE_DIR", str(tmp_path))
    with pytest.raises(SettingsError, match="--denoise lies between 0 and 1"):
        lowlight_cli.enhance(np.zeros((4, 4), np.uint8), model=model, denoise=1.5)


def test_rates_that_weights_do_not_tell_can_be_told(tmp_path):
    torch.manual_seed(0)
    network, picture = DarkIR(width=4, dilations=(1, 2)), np.full((16, 16, 3), 40, np.uint8)
    torch.save(network.state_dict(), tmp_path / "m.pt")
    with pytest.raises(WeightsError, match="give --dilations"):
        lowlight_cli.enhance(picture, weights=tmp_path / "m.pt")
    bright = lowlight_cli.enhance(picture, weights=tmp_path / "m.pt", dilations=(1, 2))
    assert bright.shape == picture.shape
    with pytest.raises(SettingsError, match="dilations belong to weights"):
        lowlight_cli.enhance(picture, dilations=(1, 2))


def test_weights_that_were_written_anew_are_read_anew(tmp_path):
    file, picture = tmp_path / "m.safetensors", np.full((16, 16, 3), 40, np.uint8)
    weights = find_model("darkir-small").weights
    outs = []
    for factor in (1.0, 0.5, 0.5):
        tensors = {name: tensor * factor for name, tensor in weights.tensors.items()}
        write_weights(file, tensors, weights.metadata)
        outs.append(lowlight_cli.enhance(picture, weights=file))
    assert (outs[0] != outs[1]).any()
    assert (outs[1] == outs[2]).all()
