"""What is settled before torch is loaded: how its threads wait, and what of it is not loaded before it is needed."""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Final

_SPINS: Final = "2000"
_TABLES: Final = "torch._meta_registrations"
_NEEDS_NO_TABLES: Final = "torch.utils._device"  # what networks are built by, before they have their weights


def spin_briefly() -> None:
    """Have threads that wait for each other do so asleep after a tenth of a millisecond.

    GNU's OpenMP, which torch computes with on Linux, spins for some ten milliseconds at every operation. Where another
    program wants the processor too, that keeps from it the very thread that is waited for: a folder of photos beside
    two busy programs then takes twice as long. On an idle machine there is no difference. What the environment says
    of it stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def load_torch_lean() -> None:
    """Have `import torch` leave out what only its compiler and its exporter read, a third of it, until they are needed.

    At its end torch registers in Python the shapes that each of its operators gives and what it can be taken apart
    into; a network that only runs asks for none of it. Whatever else of torch is loaded afterwards, such as
    `torch._dynamo`, finds it registered as always: it is seen to first. Python's garbage collector rests meanwhile, for
    most of what it would look through, over and over, stays for good.

    Without effect where torch is loaded already.
    """
    if "torch" not in sys.modules:
        sys.meta_path.insert(0, _LeanTorch())


class _LeanTorch(MetaPathFinder):
    """Finds torch for Python's import, and has the tables loaded before anything that is loaded later than torch."""

    def __init__(self) -> None:
        self._is_searching = False
        self._left_out = False

    def find_spec(self, fullname: str, *_: Sequence[str] | ModuleType | None) -> ModuleSpec | None:
        if fullname == "torch" and not self._is_searching:
            return self._found()
        if self._left_out and fullname.startswith("torch.") and fullname != _NEEDS_NO_TABLES:
            self._end()
            if fullname == _TABLES:
                return None
            importlib.import_module(_TABLES)
            if fullname in sys.modules:
                return _Loaded(sys.modules[fullname]).spec
        return None

    def _found(self) -> ModuleSpec | None:
        self._is_searching = True  # by all other finders
        try:
            spec = find_spec("torch")
        finally:
            self._is_searching = False
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            was_collecting = gc.isenabled()
            gc.disable()
            sys.modules[_TABLES] = ModuleType(_TABLES)
            try:
                load(module)
            except BaseException:
                self._end()
                raise
            finally:
                del sys.modules[_TABLES]
                vars(module).pop(_TABLES.rpartition(".")[2], None)
                gc.freeze()
                if was_collecting:
                    gc.enable()
            self._left_out = True

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _end(self) -> None:
        self._left_out = False
        sys.meta_path.remove(self)


class _Loaded(Loader):
    """Gives a module that was loaded, by another, while it was being looked for: Python would load it once more.

    It would do so by the module's own `__spec__`, which until then is this loader's.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module, self._own = module, module.__spec__
        self.spec = module.__spec__ = ModuleSpec(module.__name__, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own
