"""Memory for arrays of a few sizes that are asked for over and over, by one thread, and let go of by another.

The C library keeps what is freed for the thread that asked for it, cut into whatever that thread wants next. Frames on
their way from thread to thread took two and three times their own memory that way, and more by the minute. Here a
buffer is a buffer for good: when nobody holds the array any more, the next one of its size gets it.
"""

import math
import mmap
from collections import defaultdict, deque
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_CACHE_LINE = 64  # bytes
_OWN_PAGES = 128 << 10  # bytes from which memory lies apart from the C library's, and leaves no holes there


class Buffers:
    """Lends memory, and has it back by itself. For any number of threads."""

    def __init__(self) -> None:
        self._free: defaultdict[int, deque[NDArray[np.uint8]]] = defaultdict(deque)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike, *, roomy: bool = False) -> NDArray[Any]:
        """Return an array as `np.empty` does, contiguous and with anything in it.

        Where it may be `roomy` it has the memory of the next power of two bytes, which arrays of other sizes can take.
        """
        kind = np.dtype(dtype)
        length = kind.itemsize * math.prod(shape)
        size = 1 << max(length - 1, 0).bit_length() if roomy else length
        free = self._free[size]
        try:
            memory = free.pop()
        except IndexError:
            memory = _new(size)
        return np.asarray(_Lent(memory, free))[:length].view(kind).reshape(shape)


def _new(size: int) -> NDArray[np.uint8]:
    """Return memory that begins where a cache line does, so that no vector of a processor lies in two of them."""
    if size >= _OWN_PAGES:
        return np.frombuffer(mmap.mmap(-1, size), np.uint8)
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size]


class _Lent:
    """The last to be held of what makes up an array: it goes when the array and all views of it have gone."""

    def __init__(self, memory: NDArray[np.uint8], free: "deque[NDArray[np.uint8]]") -> None:
        self._memory, self._free = memory, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._free.append(self._memory)
