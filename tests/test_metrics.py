"""Metrics: the same numbers as scikit-image, GT-mean as the field takes it, multiply-adds as published."""

from importlib.util import find_spec
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.errors import InputError, SettingsError
from lowlight_cli.metrics import count_macs, count_parameters, load_score, match_mean, measure_quality, psnr, ssim


def a_pair(seed: int) -> tuple[Tensor, Tensor]:
    """Make a picture with flat, smooth and noisy parts, and a darker, noisier one, in 8-bit steps."""
    random = np.random.default_rng(seed)
    height, width = random.integers(11, 90, 2)
    rows, columns = np.mgrid[:height, :width] / 20
    waves = 0.5 + 0.4 * np.sin(rows + random.uniform(0, 6, (3, 1, 1))) * np.cos(columns)
    reference = waves * (random.random((3, height, width)) > 0.2)
    image = reference * random.uniform(0.05, 1.2) + random.normal(0, random.uniform(0, 0.1), reference.shape)
    return tuple(torch.from_numpy(np.rint(np.clip(each, 0, 1) * 255) / 255).float() for each in (image, reference))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(20))
def test_psnr_and_ssim_equal_scikit_image(seed: int) -> None:
    image, reference = a_pair(seed)
    ours, theirs = image.double().numpy(), reference.double().numpy()
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(theirs, ours, data_range=1, channel_axis=0, **gaussian)
    assert ssim(image, reference) == pytest.approx(expected, abs=1e-5)
    assert psnr(image, reference) == pytest.approx(peak_signal_noise_ratio(theirs, ours, data_range=1), abs=1e-6)


def test_equal_pictures_are_as_good_as_can_be() -> None:
    image, _ = a_pair(0)
    quality = measure_quality(image, image.clone())
    assert (quality.psnr, quality.ssim) == (inf, pytest.approx(1))
    assert (quality.psnr_gt_mean, quality.ssim_gt_mean) == (inf, pytest.approx(1))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.05, 1))
def test_gt_mean_forgives_exposure_and_nothing_else(seed: int, gain: float) -> None:
    image, reference = a_pair(seed)
    quality, darker = measure_quality(image, reference), measure_quality(image * gain, reference)
    assert darker.psnr_gt_mean == pytest.approx(quality.psnr_gt_mean, abs=1e-3)
    assert darker.ssim_gt_mean == pytest.approx(quality.ssim_gt_mean, abs=1e-4)


def test_gt_mean_scales_to_the_reference_and_clamps() -> None:
    reference = torch.full((3, 12, 12), 0.6)
    image = torch.full((3, 12, 12), 0.1)
    image[0] = 0.2  # grey is weighted: 0.299 * 0.2 + 0.701 * 0.1 = 0.1299
    matched = match_mean(image, reference)
    assert matched[1, 0, 0].item() == pytest.approx(0.1 * 0.6 / 0.1299)
    assert match_mean(image, torch.ones_like(image)).max() == 1
    assert match_mean(torch.zeros_like(image), reference).max() == 0


def test_pictures_are_left_as_they_were() -> None:
    image, reference = a_pair(1)
    before = image.clone(), reference.clone()
    measure_quality(image, reference)
    assert torch.equal(image, before[0])
    assert torch.equal(reference, before[1])


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="11x11"):
        ssim(torch.rand(3, 10, 40), torch.rand(3, 10, 40))
    with pytest.raises(ValueError, match="shapes"):
        psnr(torch.rand(3, 12, 12), torch.rand(3, 12, 13))
    with pytest.raises(ValueError, match="shapes"):
        ssim(torch.rand(1, 3, 12, 12), torch.rand(1, 3, 12, 12))


@pytest.mark.skipif(find_spec("piq") is not None, reason="the extra is installed")
def test_a_score_without_its_extra_says_what_to_install() -> None:
    with pytest.raises(SettingsError, match=r"pip install 'lowlight-cli\[metrics\]'"):
        load_score("lpips")


@pytest.mark.weights
def test_learned_scores_fall_as_a_picture_nears_its_reference() -> None:
    pytest.importorskip("piq")
    image, reference = (torch.rand(3, 96, 96, generator=torch.manual_seed(seed)) for seed in (0, 1))
    lpips = load_score("lpips")
    far, near = lpips(image, reference), lpips(0.9 * reference + 0.1 * image, reference)
    assert far is not None
    assert near is not None
    assert near < far
    assert lpips(image, None) is None
    assert load_score("brisque")(image, None) is not None


def test_multiply_adds_of_single_layers_are_right() -> None:
    image = torch.rand(2, 8, 10, 12)
    grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
    assert count_macs(grouped, image) == 2 * 16 * 10 * 12 * (2 * 9 + 1)
    transposed = nn.ConvTranspose2d(8, 16, 2, stride=2, bias=False)
    assert count_macs(transposed, image) == 2 * 16 * 20 * 24 * 8
    assert count_macs(nn.Linear(12, 5, bias=False), image) == 2 * 8 * 10 * 12 * 5


@pytest.mark.parametrize(
    ("width", "use_csf", "parameters", "published"),
    [(32, False, 3_321_638, 7.25e9), (32, True, 3_375_902, 7.67e9), (64, False, 12_957_254, 27.19e9)],
)
def test_darkir_costs_what_was_published(width: int, use_csf: bool, parameters: int, published: float) -> None:
    network = DarkIR(width=width, use_csf=use_csf).eval().requires_grad_(False)
    assert count_parameters(network) == parameters
    # A picture's cost is its area times a number, and what the pooled vectors cost: two small ones tell both.
    small, larger = (count_macs(network, torch.zeros(1, 3, side, side)) for side in (32, 64))
    per_pixel = (larger - small) / (64**2 - 32**2)
    assert per_pixel * (256**2 - 64**2) + larger == pytest.approx(published, rel=0.01)
