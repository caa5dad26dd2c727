"""What a decoding child does: take files or mutants of files all the way through, and tell what became of each.

No torch here: a child is a fork of a small process, so that its memory can be judged.
"""

import contextlib
import functools
import io
import itertools
import json
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lowlight_cli.errors import LowlightError
from lowlight_cli.images import probe, read_animation, read_frames, read_picture, write_frames, write_picture

SECONDS = 10  # of computing; longer is a hang
_SECONDS_IN_ALL = 120  # on a machine that is busy with other work
_FRAMES = 30
_PIXELS_WRITTEN = 4_000_000
_SLOW_ENCODERS = ("AVIF", "HEIF")  # they see pixels, nothing of the damage


def load() -> None:
    """Load what Pillow loads late."""
    Image.init()
    for _, content in samples():
        through(content)


def through(source: Path | bytes, budget: int | None = None) -> str:
    """Probe, decode and encode again in the same format; return `read`, or raise what the package raises."""
    facts = probe(source, pixel_budget=budget)
    if facts.frames > 1:
        animation = read_animation(source, pixel_budget=budget)
        frames = list(itertools.islice(read_frames(animation), _FRAMES))
        if facts.width * facts.height * len(frames) <= _PIXELS_WRITTEN and facts.format not in _SLOW_ENCODERS:
            write_frames(iter(frames), io.BytesIO(), animation=animation)
    picture = read_picture(source, pixel_budget=budget)
    if picture.width * picture.height <= _PIXELS_WRITTEN and facts.format not in _SLOW_ENCODERS:
        write_picture(picture, io.BytesIO())
    return "read"


def tell(name: str, source: Callable[[], Path | bytes], budget: int | None = None) -> None:
    """Print one line of JSON on one file; a child that says nothing of it crashed or hung there."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(_SECONDS_IN_ALL)
    content, why = source(), ""
    started = time.process_time()
    try:
        outcome = through(content, budget)
    except LowlightError as error:
        outcome, why = "refused", str(error)
    except BaseException:
        outcome, why = "bug", traceback.format_exc()
    seconds = time.process_time() - started
    print(json.dumps({"name": name, "outcome": outcome, "why": why, "seconds": seconds}), flush=True)


def tell_file() -> None:
    """Be the child for one file, named by its path; a limit on its pixels may follow."""
    path = Path(sys.argv[1])
    tell(str(path), lambda: path, *map(int, sys.argv[2:]))


def tell_mutants() -> None:
    """Be the child for the mutants of seeds FIRST to LAST of the files that are listed in a file."""
    listed, first, last = sys.argv[1:4]
    names = Path(listed).read_text().splitlines()
    for seed in range(int(first), int(last)):
        tell(f"mutant {seed}", lambda: mutant(seed, names))  # noqa: B023  called at once


def mutant(seed: int, names: list[str]) -> bytes:
    """Return the damaged file of a seed: the same one for the same list."""
    chance = random.Random(seed)
    originals = [content for _, content in samples()] if not names else None
    pick = (lambda: chance.choice(originals)) if originals else (lambda: Path(chance.choice(names)).read_bytes())
    data = bytearray(pick())
    for _ in range(chance.choice((1, 1, 2, 4))):
        _damage(data, chance, pick)
    return bytes(data)


def _damage(data: bytearray, chance: random.Random, other: Callable[[], bytes]) -> None:
    if not data:
        return
    kind, at = chance.randrange(7), chance.randrange(len(data))
    near_head = chance.randrange(min(len(data), 512))
    piece = slice(at, at + chance.randint(1, 200))
    if kind == 0:
        del data[at:]
    elif kind == 1:
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        data[near_head] = chance.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
    elif kind == 3:  # a number of the header becomes a large one
        number = chance.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, chance.randrange(1 << 32)))
        data[near_head : near_head + 4] = number.to_bytes(4, chance.choice(("big", "little")))
    elif kind == 4:
        del data[piece]
    elif kind == 5:
        data[at:at] = data[piece] * chance.choice((1, 1, 40))
    else:
        data[piece] = other()[piece]


@functools.cache
def samples() -> tuple[tuple[str, bytes], ...]:
    """Return a small picture in every format and depth that Pillow writes here, an animation among them."""
    return tuple(_samples())


def _samples() -> Iterator[tuple[str, bytes]]:
    noise = np.random.default_rng(1).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    stills: list[tuple[str, Image.Image, dict[str, object]]] = [
        ("PNG", colour, {}),
        ("PNG", deep, {}),
        ("PNG", colour.convert("P"), {}),
        ("JPEG", colour, {"exif": Image.Exif().tobytes(), "comment": b"words"}),
        ("JPEG", colour.convert("CMYK"), {"progressive": True}),
        ("WEBP", colour, {}),
        ("WEBP", colour.convert("RGBA"), {"lossless": True}),
        ("TIFF", colour, {"compression": "tiff_lzw"}),
        ("TIFF", deep, {}),
        ("BMP", colour, {}),
        ("GIF", colour, {"save_all": True, "append_images": [colour.rotate(90)]}),
        ("PPM", colour, {}),
        ("AVIF", colour, {"speed": 10}),
    ]
    for name, image, options in stills:
        buffer = io.BytesIO()
        with contextlib.suppress(KeyError, OSError):  # a Pillow without that format
            image.save(buffer, name, **options)
            yield name, buffer.getvalue()
