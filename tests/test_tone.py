import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lowlight_cli.settings import Tone
from lowlight_cli.tone import apply_tone, curvature_of, exposed, stops_of, to_encoded, to_linear

LEVELS = torch.linspace(0, 1, 513)
SHARES = st.floats(0, 1, width=32)
pictures = hnp.arrays(np.float32, (1, 3, 4, 5), elements=SHARES).map(torch.from_numpy)
tones = st.builds(Tone, SHARES, st.floats(-8, 8), SHARES)


def grey(levels):
    return levels.expand(1, 3, 1, -1)


def toned(before, after, tone):
    """The levels that grey levels get which were `before` and have become `after`."""
    return apply_tone(grey(before), grey(after), tone)[0, 0, 0]


@given(pictures, pictures, tones)
def test_any_tone_gives_a_picture(original, result, tone):
    out = apply_tone(original, result, tone)
    assert out.shape == result.shape
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


@given(SHARES, st.floats(-8, 8), st.floats(0.2, 200.0), SHARES)
def test_what_is_brighter_stays_brighter(amount, exposure, lift, strength):
    """However a network has lifted: no tone turns neighbouring tones over."""
    lifted = to_encoded(exposed(to_linear(LEVELS), lift))
    for after in (lifted, LEVELS, LEVELS * 0.4):
        assert toned(LEVELS, after, Tone(strength, exposure, amount)).diff().min() > -1e-5


def test_protected_highlights_keep_their_pattern_and_colour_and_shadows_their_light():
    lifted = to_encoded(exposed(to_linear(LEVELS), 40.0))
    free, kept = (toned(LEVELS, lifted, Tone(protect_highlights=amount)) for amount in (0.0, 1.0))
    assert free[LEVELS > 0.5].min() > 0.98
    assert kept[LEVELS > 0.95] == pytest.approx(LEVELS[LEVELS > 0.95], abs=0.01)
    assert kept[LEVELS > 0.86].diff().min() > 0.5 / 512
    assert torch.equal(kept[lifted < 0.5], free[lifted < 0.5])
    orange, yellow = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ((0.97, 0.5, 0.1), (1.0, 0.9, 0.4)))
    assert torch.allclose(apply_tone(orange, yellow, Tone(protect_highlights=1)), orange, atol=0.01)


@given(st.floats(-8, 8), SHARES)
def test_a_picture_that_was_left_alone_has_no_highlights_to_protect(exposure, amount):
    assert toned(LEVELS, LEVELS, Tone(protect_highlights=amount)) == pytest.approx(LEVELS, abs=1e-6)
    if exposure > 0:
        assert toned(LEVELS, LEVELS, Tone(exposure=exposure))[-1] == pytest.approx(1.0, abs=1e-6)


@given(st.floats(0, 8))
def test_exposure_gives_shadows_its_stops_and_keeps_white(stops):
    dark = torch.tensor([1e-6, 1.0], dtype=torch.float64)
    out = exposed(dark, curvature_of(stops))
    assert float(out[0] / dark[0]) == pytest.approx(2**stops, rel=0.01)
    assert float(out[1]) == pytest.approx(1.0)
    assert stops_of(curvature_of(stops)) == pytest.approx(stops, abs=1e-3)
    assert toned(LEVELS, LEVELS, Tone(exposure=-stops))[-1] == pytest.approx(
        float(to_encoded(torch.tensor(2.0**-stops))), abs=1e-5
    )
