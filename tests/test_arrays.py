"""From Python: the same kind of picture comes back, in its own depth and shape."""

import numpy as np
import pytest
import torch
from PIL import Image

import lowlight_cli
from lowlight_cli.errors import SettingsError


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


@pytest.mark.parametrize("shape", [(3, 9, 11), (2, 3, 9, 11)])
def test_tensors_come_back_as_tensors(shape):
    picture = torch.rand(shape, dtype=torch.float64)
    out = lowlight_cli.enhance(picture, model="identity")
    assert out.dtype == torch.float64
    assert torch.allclose(out, picture, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", ["a.png", np.zeros((4, 4, 7)), np.zeros(3), np.zeros((4, 4), np.int32), torch.zeros(4, 4)]
)
def test_other_things_are_refused(wrong):
    with pytest.raises(SettingsError):
        lowlight_cli.enhance(wrong, model="identity")
