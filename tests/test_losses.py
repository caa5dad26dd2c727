import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from lowlight_cli import losses

EVERY = [
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
