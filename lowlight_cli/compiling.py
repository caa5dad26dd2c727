"""Functions of tensors made quicker before they run often: CUDA graphs, and torch's compiler."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from lowlight_cli.errors import DeviceError, SettingsError
from lowlight_cli.settings import Compiling

TensorFunction = Callable[..., Tensor]
"""A function of tensors alone."""

_WARM_UPS: Final = 3  # plans, algorithms and work spaces are chosen in the first calls, which no graph may record
_MOST_GRAPHS: Final = 4  # sizes whose graphs are kept
_RECORDING: Final = threading.Lock()  # a process may record one graph at a time


def check_compiling(how: Compiling, device: torch.device) -> None:
    """Refuse what means nothing on a device.

    Raises:
        SettingsError: graphs are asked for on another device than a CUDA one.
    """
    if how == "graph" and device.type != "cuda":
        raise SettingsError("--compile graph records CUDA graphs, so it needs --device cuda")


def compiled(function: TensorFunction, how: Compiling, device: torch.device) -> TensorFunction:
    """Return a function of tensors on `device` that gives the same as `function`, made quicker as `how` says.

    `off` returns it as it is. `graph` records its kernels once for each shape of its tensors and replays them, which
    spares the time between them; `full` has torch's compiler write new kernels too, minutes for each shape.

    Raises:
        SettingsError: as `check_compiling`.
    """
    check_compiling(how, device)
    if how == "off":
        return function
    return _Graphs(function, device) if how == "graph" else _Compiled(function)


def record(
    function: Callable[[], Tensor], device: torch.device, *, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Record what `function` launches on a CUDA device; returns the graph, and the result that a replay fills.

    It must read from and write to the same tensors at every call. Graphs of one `pool` share their memory, and may
    not run at the same time.
    """
    with _RECORDING, torch.cuda.device(device):
        aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a clip's decoder, go on sending to the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
            result = function()
    return graph, result


class _Recording(NamedTuple):
    """A graph, the tensors that it reads and the one that it writes."""

    graph: torch.cuda.CUDAGraph
    given: Sequence[Tensor]
    result: Tensor


class _Graphs:
    """A function, recorded for each shape that it is called with."""

    def __init__(self, function: TensorFunction, device: torch.device) -> None:
        self._function, self._device = function, device
        self._pool: Any = None
        self._recorded: OrderedDict[tuple[object, ...], _Recording] = OrderedDict()

    def __call__(self, *tensors: Tensor) -> Tensor:
        key = tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors)
        if key not in self._recorded:
            while len(self._recorded) >= _MOST_GRAPHS:
                self._recorded.popitem(last=False)
            self._recorded[key] = self._record(tensors)
        self._recorded.move_to_end(key)
        graph, given, result = self._recorded[key]
        for held, new in zip(given, tensors, strict=True):
            held.copy_(new)
        graph.replay()
        return result.clone()  # the next replay overwrites it

    def _record(self, tensors: Sequence[Tensor]) -> "_Recording":
        given = [tensor.clone() for tensor in tensors]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            graph, result = record(lambda: self._function(*given), self._device, pool=self._pool)
        except torch.OutOfMemoryError:
            # Smaller tiles will be tried, and what idle graphs hold is theirs.
            self._recorded.clear()
            self._pool = None
            torch.cuda.empty_cache()
            raise
        return _Recording(graph, given, result)


class _Compiled:
    """A function compiled by torch, with a sentence where that fails."""

    def __init__(self, function: TensorFunction) -> None:
        self._function: TensorFunction = torch.compile(function, dynamic=False)
        self._refusal: DeviceError | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self._refusal:  # every picture of a batch would try again, for as long
            raise self._refusal
        try:
            return self._function(*tensors)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            self._refusal = DeviceError(f"torch cannot compile the network here; leave --compile off ({reason})")
            raise self._refusal from error
