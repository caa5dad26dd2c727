"""Facts in words, as pages tell them."""

import importlib.metadata
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lowlight_cli import __version__

if TYPE_CHECKING:
    from lowlight_cli.quality import MethodSummary, QualityRow


def without_home(words: str) -> str:
    """Return words with `~` in place of the path of the user's own folder."""
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody's account
        return words
    if home == Path(home).anchor:
        return words
    return re.sub(rf"(?<![\w.~/\\-]){re.escape(home)}(?![\w.-])", "~", words)


def moment_in_words(seconds: float) -> str:
    """Return a moment of a clip as players show it, with hundredths."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    whole, hundredths = divmod(rest, 100)
    clock = f"{minutes}:{whole:02}.{hundredths:02}"
    return f"{hours}:{clock.zfill(8)}" if hours else clock


def size_in_words(width: int, height: int) -> str:
    """Return a size in pixels."""
    return f"{width} \N{MULTIPLICATION SIGN} {height}"


def duration_in_words(seconds: float) -> str:
    """Return a duration to about three digits."""
    if seconds < 99.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def figures_in_words(row: "QualityRow | MethodSummary", scores: Sequence[str]) -> list[str]:
    """Return PSNR, SSIM, both after GT-mean, the mean grey, seconds and the named scores; `-` for what there is not."""
    measured = ["-"] * 4
    if quality := row.quality:
        measured = [f"{quality.psnr:.2f}", f"{quality.ssim:.4f}"]
        measured += [f"{quality.psnr_gt_mean:.2f}", f"{quality.ssim_gt_mean:.4f}"]
    named = [f"{row.scores[name]:.3f}" if name in row.scores else "-" for name in scores]
    return [*measured, f"{row.mean:.3f}", f"{row.seconds:.3f}", *named]


def versions_in_words() -> str:
    """Return what results are made with: our version, torch's, Python's, and the system."""
    torch = importlib.metadata.version("torch")
    return f"lowlight {__version__}, torch {torch}, Python {platform.python_version()}, {platform.platform()}"
