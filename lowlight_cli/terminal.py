"""Pictures in terminals that can show them.

Which can, and how, is read from the environment: nothing is asked of the terminal, for its answer would lie in wait on
standard input, as would what a terminal says to a picture (kitty is told to say nothing). Within tmux and screen, which
swallow pictures or garble them, none is shown.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Literal

import numpy as np
from PIL import Image

from lowlight_cli.images import Thumbnail

Protocol = Literal["kitty", "iterm", "sixel"]

_KITTY_TERMS, _KITTY_PROGRAMS = ("xterm-kitty", "xterm-ghostty"), ("ghostty",)
_ITERM_PROGRAMS = ("iTerm.app", "WezTerm")
_SIXEL_TERMS, _SIXEL_PROGRAMS = ("foot", "foot-extra", "mlterm", "contour", "yaft-256color"), ("mintty",)
_CHUNK = 4096  # what kitty takes at a time
_COLOURS = 128


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Return how the terminal of this environment shows pictures; None if it does not, or does not say so."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or term.startswith(("screen", "tmux")):
        return None
    if term in _KITTY_TERMS or program in _KITTY_PROGRAMS:
        return "kitty"
    if program in _ITERM_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if term in _SIXEL_TERMS or program in _SIXEL_PROGRAMS else None


def drawn(picture: Thumbnail, protocol: Protocol) -> str:
    """Return what makes a terminal show `(h, w, 3)` sRGB at its own size, below the cursor."""
    image = Image.fromarray(picture)
    if protocol == "sixel":
        return "".join(_sixel(image))
    written = io.BytesIO()
    image.save(written, "PNG")
    text = base64.b64encode(written.getvalue()).decode("ascii")
    if protocol == "iterm":
        return f"\x1b]1337;File=inline=1;preserveAspectRatio=1;size={len(written.getvalue())}:{text}\a"
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    heads = ["a=T,f=100,q=2,", *[""] * (len(chunks) - 1)]
    lasts = [*[1] * (len(chunks) - 1), 0]
    return "".join(
        f"\x1b_G{head}m={more};{chunk}\x1b\\" for head, more, chunk in zip(heads, lasts, chunks, strict=True)
    )


def _sixel(image: Image.Image) -> Iterator[str]:
    """Yield a picture in DEC's sixels: colours in per cent, then bands of six rows, one colour after the other."""
    flat = image.quantize(_COLOURS)
    levels, palette = np.asarray(flat), np.asarray(flat.getpalette()).reshape(-1, 3)
    yield f'\x1bPq"1;1;{image.width};{image.height}'
    yield from (f"#{place};2;{red};{green};{blue}" for place, (red, green, blue) in enumerate(palette * 100 // 255))
    for top in range(0, len(levels), 6):
        band = levels[top : top + 6]
        for colour in np.unique(band):
            bits = ((band == colour) << np.arange(len(band))[:, None]).sum(axis=0)
            runs = ((chr(63 + int(value)), len(list(run))) for value, run in groupby(bits))
            yield f"#{colour}{''.join(f'!{length}{sign}' if length > 3 else sign * length for sign, length in runs)}$"
        yield "-"
    yield "\x1b\\"
