"""Keeps libtiff from writing to the terminal.

On a damaged file it prints its own lines to stderr, in the middle of a progress bar; what matters of it reaches us
through Pillow. The library has one switch for it, which Pillow does not offer.
"""

import ctypes
from contextlib import suppress
from functools import cache
from pathlib import Path

import PIL


@cache
def silence_libtiff() -> None:
    """Turn off libtiff's own messages, where Pillow brings it as a library (Linux and macOS wheels)."""
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for path in (*folder.glob("libtiff-*.so*"), *folder.glob("libtiff*.dylib")):
            with suppress(OSError, AttributeError):
                library = ctypes.CDLL(str(path))
                library.TIFFSetErrorHandler(None)
                library.TIFFSetWarningHandler(None)
