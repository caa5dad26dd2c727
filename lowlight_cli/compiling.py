"""Functions of tensors made quicker before they run often: CUDA graphs, and torch's compiler."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from lowlight_cli.errors import DeviceError, SettingsError
from lowlight_cli.settings import Compiling

TensorFunction = Callable[[Tensor], Tensor]

_WARM_UPS: Final = 3  # plans, algorithms and work spaces are chosen in the first calls, which no graph may record
_MOST_GRAPHS: Final = 4  # sizes whose graphs are kept; each holds all memory that its size needs


def compiled(function: TensorFunction, how: Compiling, device: torch.device) -> TensorFunction:
    """Return a function of a picture on `device` that gives the same as `function`, made quicker as `how` says.

    `off` returns it as it is. `graph` records its kernels once for each size of picture and replays them, which
    spares the time between them; `full` has torch's compiler write new kernels too, minutes for each size.

    Raises:
        SettingsError: graphs are asked for on another device than a CUDA one.
    """
    if how == "off":
        return function
    if how == "graph":
        if device.type != "cuda":
            raise SettingsError("--compile graph records CUDA graphs, so it needs --device cuda")
        return _Graphs(function)
    return _Compiled(function)


class _Graphs:
    """A function, recorded for each size that it is called with."""

    def __init__(self, function: TensorFunction) -> None:
        self._function = function
        self._recorded: OrderedDict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = OrderedDict()

    def __call__(self, image: Tensor) -> Tensor:
        key = (image.shape, image.dtype, image.stride())
        if key not in self._recorded:
            while len(self._recorded) >= _MOST_GRAPHS:
                self._recorded.popitem(last=False)
            self._recorded[key] = self._record(image)
        self._recorded.move_to_end(key)
        graph, given, result = self._recorded[key]
        given.copy_(image)
        graph.replay()
        return result.clone()  # the next replay overwrites it

    def _record(self, image: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = image.clone()
        aside = torch.cuda.Stream(image.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream(image.device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._function(given)
        torch.cuda.current_stream(image.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as a clip's decoder, go on sending pictures to the device meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = self._function(given)
        return graph, given, result


class _Compiled:
    """A function compiled by torch, with a sentence where that fails."""

    def __init__(self, function: TensorFunction) -> None:
        self._function: TensorFunction = torch.compile(function, dynamic=False)

    def __call__(self, image: Tensor) -> Tensor:
        try:
            return self._function(image)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(f"torch cannot compile the network here; leave --compile off ({reason})") from error
