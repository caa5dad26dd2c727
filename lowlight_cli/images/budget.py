"""How many pixels a header may ask for: what this machine's memory can hold, and never absurdly many."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

# Decoder's copy, our integers and the result's, in the worst case (16-bit with alpha), with room for a network.
_BYTES_PER_PIXEL = 32
_MOST_PIXELS = 1 << 28
_LEAST_PIXELS = 1 << 24


@cache  # it is asked for several times a picture
def default_pixel_budget() -> int:
    """Return the default limit in pixels: memory over 32 bytes, between 16 and 268 million."""
    return max(_LEAST_PIXELS, min(_MOST_PIXELS, _memory_bytes() // _BYTES_PER_PIXEL))


def _memory_bytes() -> int:
    """Return the machine's memory, or what its container may use of it."""
    limits = [_LEAST_PIXELS * _BYTES_PER_PIXEL * 16]
    with suppress(AttributeError, ValueError, OSError):
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            limits.append(int((Path("/sys/fs/cgroup") / name).read_text()))
    return min(limits)
