"""How many pixels a header may ask for: what this machine's memory can hold, and never absurdly many."""

from functools import cache

from lowlight_cli.machine import ram_bytes

# Decoder's copy, our integers and the result's, in the worst case (16-bit with alpha), with room for a network.
_BYTES_PER_PIXEL = 32
_MOST_PIXELS = 1 << 28
_LEAST_PIXELS = 1 << 24


@cache  # it is asked for several times a picture
def default_pixel_budget() -> int:
    """Return the default limit in pixels: memory over 32 bytes, between 16 and 268 million."""
    return max(_LEAST_PIXELS, min(_MOST_PIXELS, ram_bytes() // _BYTES_PER_PIXEL))
