from functools import cache
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch import nn

from lowlight_cli import losses
from lowlight_cli.errors import SettingsError

try:
    MODELS = import_module("torchvision.models")
except (ImportError, RuntimeError):  # RuntimeError: built for another torch
    MODELS = None


@cache
def narrow_vgg():
    """VGG-19's layers with a sixteenth of its channels and random weights, behind one that normalises."""
    torch.manual_seed(0)
    layers, channels = [losses._normalising()], 3
    for block, (width, count) in enumerate([(4, 2), (8, 2), (16, 4), (32, 4), (32, 4)]):
        layers += [nn.MaxPool2d(2)] if block else []
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers[:31]).eval().requires_grad_(False)


def feature_distance(output, reference):
    return losses.feature_distance(narrow_vgg(), output, reference)


EVERY = [
    feature_distance,
    losses.charbonnier,
    losses.l1,
    losses.low_frequency,
    losses.detail,
    losses.edge,
    losses.frequency,
    losses.ssim_loss,
    losses.ms_ssim_loss,
]


def pictures(seed=0, side=64):
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(2, 3, side // 8, side // 8, generator=generator)
    reference = torch.nn.functional.interpolate(reference, scale_factor=8.0, mode="bilinear")
    return (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize("loss", EVERY)
def test_equal_pictures_lose_nothing_and_different_ones_something(loss):
    output, reference = pictures()
    assert float(loss(reference, reference)) == pytest.approx(0, abs=1e-5)
    assert float(loss(output, reference)) > 1e-3


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_are_finite_also_where_the_pictures_are_equal_or_flat(loss):
    for output, reference in (pictures(), (pictures()[1], pictures()[1]), (torch.zeros(1, 3, 32, 32),) * 2):
        output = output.clone().requires_grad_()
        loss(output, reference).backward()
        assert torch.isfinite(output.grad).all()


@pytest.mark.parametrize("loss", EVERY)
def test_more_noise_loses_more(loss):
    _, reference = pictures()
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1))
    values = [float(loss(reference + strength * noise, reference)) for strength in (0.01, 0.03, 0.1)]
    assert values == sorted(values)


def test_ssim_equals_scikit_image():
    output, reference = pictures()
    wanted = [
        structural_similarity(
            x.permute(1, 2, 0).numpy(), y.permute(1, 2, 0).numpy(), gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=1, channel_axis=2,
        )
        for x, y in zip(output, reference, strict=True)
    ]  # fmt: skip
    assert float(1 - losses.ssim_loss(output, reference)) == pytest.approx(sum(wanted) / 2, abs=1e-4)


@given(st.floats(-0.5, 0.5))
def test_detail_does_not_see_brightness_and_low_frequency_sees_nothing_else(shift):
    _, reference = pictures()
    assert float(losses.detail(reference + shift, reference)) == pytest.approx(0, abs=1e-4)
    assert float(losses.low_frequency(reference + shift, reference)) == pytest.approx(abs(shift), abs=1e-5)


def test_ms_ssim_takes_the_scales_that_fit():
    for side in (11, 22, 176):
        output, reference = torch.rand(1, 3, side, side), torch.rand(1, 3, side, side)
        assert 0 < float(losses.ms_ssim_loss(output, reference)) <= 1


def test_features_are_compared_as_published():
    output, reference = pictures()

    def seen(picture):
        mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        x, found = (picture - mean) / deviation, []
        for layer in narrow_vgg()[1:]:
            x = layer(x)
            found.append(x.clone())
        return [found[place] for place in (1, 6, 11, 20, 29)]  # relu1_1, relu2_1, relu3_1, relu4_1, relu5_1

    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)
    terms = zip(weights, seen(output), seen(reference), strict=True)
    wanted = sum(weight * (x - y).abs().mean() for weight, x, y in terms)
    assert float(feature_distance(output, reference)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.skipif(MODELS is not None, reason="the extra is installed")
def test_the_perceptual_loss_without_its_extra_says_what_to_install():
    with pytest.raises(SettingsError, match=r"pip install 'lowlight-cli\[metrics\]'"):
        losses.perceptual(*pictures())


@pytest.mark.skipif(MODELS is None, reason="needs torchvision (lowlight-cli[metrics]) that works with this torch")
@pytest.mark.slow
def test_the_perceptual_loss_takes_torchvisions_network(tmp_path, monkeypatch):
    network = MODELS.vgg19(weights=None)
    file = tmp_path / "checkpoints" / MODELS.VGG19_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    file.parent.mkdir()
    torch.save(network.state_dict(), file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    losses.load_vgg.cache_clear()
    output, reference = pictures()
    try:
        found = losses.perceptual(output.requires_grad_(), reference)
        wanted = losses.feature_distance(
            nn.Sequential(losses._normalising(), *network.features[:30]).eval(), output, reference
        )
        assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
        found.backward()
        assert output.grad.abs().max() > 0
    finally:
        losses.load_vgg.cache_clear()
