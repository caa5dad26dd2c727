"""Loops over numbers, compiled for the processor at hand when they are first called, and kept for later runs.

torch's operations each pass over memory. Where a dozen of them would work on the same few kilobytes, a loop does it
all while they are in the processor's registers.

Numba calls back into Python while it compiles, through C, and an interrupt that arrives there is lost or leaves half a
function: it waits. And it numbers the files that it keeps, without asking whether another process gives one the same
number, so that a function may find the code of another for its own: one process compiles at a time.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, cast

import numba
import numpy as np
from numba.core import event as events
from numba.core.codegen import get_host_cpu_features
from numpy.typing import NDArray

from lowlight_cli.interrupts import interrupts_held
from lowlight_cli.locks import one_process

Floats: TypeAlias = NDArray[np.floating[Any]]
Function = TypeVar("Function", bound=Callable[..., Any])

_FLOATS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}  # a product and a sum may round once
_LOCK_SECONDS = 60  # a function takes one at most


def _use_whole_vectors() -> None:
    """Have loops use 512 bits where a processor has them.

    LLVM takes half of that for Intel's, so that other programs' clocks stay high; here the matrix library, between
    two loops, takes all of them anyway.
    """
    features = get_host_cpu_features()  # type: ignore[no-untyped-call]
    config = cast(Any, numba.config)
    if config.CPU_FEATURES is None and "+avx512vl" in features:
        config.CPU_FEATURES = f"{features},-prefer-256-bit"


_use_whole_vectors()


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers; other threads of Python go on while it runs."""
    try:
        loop = numba.njit(nogil=True, cache=True, **_FLOATS)(function)
    except RuntimeError:  # no folder to keep anything in
        loop = numba.njit(nogil=True, **_FLOATS)(function)
    _COMPILING.kept_in(loop.stats.cache_path)
    return cast(Function, loop)


def inlined(function: Function) -> Function:
    """Write a function out wherever a compiled one calls it."""
    return cast(Function, numba.njit(inline="always", **_FLOATS)(function))


class _Compiling(events.Listener):
    """What holds while Numba looks for a function's code, compiles it and keeps it."""

    def __init__(self) -> None:
        self._folders: set[Path] = set()
        self._here = threading.local()  # depth: of compilers within one another; block: what is held meanwhile

    def kept_in(self, folder: str | None) -> None:
        """Tell where code is kept; None where it is not."""
        if folder is not None:
            self._folders.add(Path(folder))

    def on_start(self, event: object) -> None:
        """Wait for other processes, and have interrupts wait for us."""
        del event
        depth = getattr(self._here, "depth", 0)
        if depth == 0:
            with ExitStack() as block:
                for folder in sorted(self._folders):
                    block.enter_context(one_process(folder / "loops.lock", seconds=_LOCK_SECONDS))
                block.enter_context(interrupts_held())
                self._here.block = block.pop_all()
        self._here.depth = depth + 1

    def on_end(self, event: object) -> None:
        """Let other processes go on; raise what an interrupt raises if one came."""
        del event
        self._here.depth -= 1
        if self._here.depth == 0:
            self._here.block.close()


_COMPILING = _Compiling()
events.register("numba:compiler_lock", _COMPILING)  # type: ignore[no-untyped-call]  # Numba's own gap
