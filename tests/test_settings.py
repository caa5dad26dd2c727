"""What settings refuse from Python, where no command line has looked at them."""

import pytest

from lowlight_cli.clip import ClipSettings
from lowlight_cli.errors import SettingsError
from lowlight_cli.settings import Comparison, Compute, Encoding, Engine
from lowlight_cli.zero_shot.settings import Keep, ZeroShot


@pytest.mark.parametrize(
    ("settings", "choice"),
    [
        (Compute, "precision"), (Compute, "compile"), (Engine, "kind"), (Encoding, "metadata"),
        (Comparison, "style"), (Comparison, "size"), (ZeroShot, "preset"), (Keep, "save"), (Keep, "on_interrupt"),
        (ClipSettings, "metadata"),
    ],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused_rather_than_taken_for_another(settings, choice):
    with pytest.raises(SettingsError, match="not 'no_gps'"):
        settings(**{choice: "no_gps"})
