"""Loops over numbers, compiled for the processor at hand when they are first called, and kept for later runs.

torch's operations each pass over memory. Where a dozen of them would work on the same few kilobytes, a loop does it
all while they are in the processor's registers.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

_FLOATS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}  # a product and a sum may round once


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers; other threads of Python go on while it runs."""
    try:
        return cast(Function, numba.njit(nogil=True, cache=True, **_FLOATS)(function))
    except RuntimeError:  # no folder to keep anything in
        return cast(Function, numba.njit(nogil=True, **_FLOATS)(function))


def inlined(function: Function) -> Function:
    """Write a function out wherever a compiled one calls it."""
    return cast(Function, numba.njit(inline="always", **_FLOATS)(function))
