"""What a caller may choose about a zero-shot fit. No torch here: the command line reads the defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import require_ending
from lowlight_cli.settings import check_denoise, require_choice

Preset = Literal["fast", "paper"]
Save = Literal["denoised", "enhanced", "both"]
OnInterrupt = Literal["discard", "save"]

PAPER_STEPS, PAPER_RATE = 2000, 3e-4
FAST_STEPS, FAST_RATE = 160, 3e-3


@dataclass(frozen=True)
class ZeroShot:
    """How photos are fitted. `epochs` is the exact number of optimiser steps; None leaves it to the preset.

    `lr` of None is the preset's learning rate. The same seed gives the same bytes on a CPU.
    """

    preset: Preset = "fast"
    epochs: int | None = None
    lr: float | None = None
    seed: int = 2

    def __post_init__(self) -> None:
        require_choice(self.preset, Preset, "--preset")
        if self.epochs is not None and self.epochs < 1:
            raise SettingsError("--epochs is at least 1")
        if not 0 <= self.seed < 1 << 63:
            raise SettingsError("--seed is 0 or more, and less than 2^63")
        if self.lr is not None and not 0 < self.lr <= 1:
            raise SettingsError("--lr lies between 0 and 1")

    @property
    def steps(self) -> int:
        """The number of steps, or the most there can be when the preset may stop earlier."""
        return self.epochs or (PAPER_STEPS if self.preset == "paper" else FAST_STEPS)

    @property
    def rate(self) -> float:
        """The learning rate to start with."""
        return self.lr or (PAPER_RATE if self.preset == "paper" else FAST_RATE)


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is kept of a fit: its picture, and what tells of it.

    `weights` is a file for the fitted weights, `log` one for a JSON line per step (`curve`, drawn of it, lies beside
    it); every `preview_every` steps a preview goes to `preview_folder`. With `on_interrupt` "save" a fit that is
    interrupted leaves its latest state as `<stem>.stepN<ext>`.

    Of the picture itself, `save` says with or without its noise, `denoise` (0..1, None for 1) how much of it goes, and
    `white_balance` and `contrast` what is done to it then.
    """

    save: Save = "denoised"
    denoise: float | None = None
    weights: Path | None = None
    log: Path | None = None
    preview_every: int = 0
    preview_folder: Path | None = None
    on_interrupt: OnInterrupt = "discard"
    white_balance: bool = False
    contrast: bool = False

    def __post_init__(self) -> None:
        require_choice(self.save, Save, "--save")
        require_choice(self.on_interrupt, OnInterrupt, "--on-interrupt")
        check_denoise(self.denoise)
        if (self.preview_every > 0) != (self.preview_folder is not None):
            raise SettingsError("--preview-every and --preview-dir belong together")
        if self.weights is not None:
            require_ending(self.weights, (".safetensors",), "--save-weights")
        if self.log is not None:
            require_ending(self.log, (".jsonl", ".json"), "--log")

    @property
    def curve(self) -> Path | None:
        """The picture of the loss over the steps, beside `log`; no photo is called so."""
        return None if self.log is None else self.log.with_name(f"{self.log.stem}_loss.png")

    @property
    def records(self) -> tuple[Path, ...]:
        """The files that tell of the fit itself."""
        return tuple(path for path in (self.weights, self.log, self.curve) if path is not None)
