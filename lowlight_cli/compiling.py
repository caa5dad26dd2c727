"""Functions of tensors made quicker before they run often: CUDA graphs, and torch's compiler."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from lowlight_cli.cache import private_folder
from lowlight_cli.errors import DeviceError
from lowlight_cli.settings import Compiling

logger = logging.getLogger(__name__)

TensorFunction = Callable[..., Tensor]
"""A function of tensors alone."""

_CODE_FOLDER: Final = "TORCHINDUCTOR_CACHE_DIR"
_WARM_UPS: Final = 3  # plans, algorithms and work spaces are chosen in the first calls, which no graph may record
_MOST_GRAPHS: Final = 4  # sizes whose graphs are kept
_RECORDING: Final = threading.Lock()  # a process may record one graph at a time


def compiled(function: TensorFunction, how: Compiling) -> TensorFunction:
    """Return a function of tensors that gives the same as `function`, made quicker as `how` says.

    `off` returns it as it is, and so does `auto`, which is for others to decide. `graph`, for tensors on a CUDA device,
    records its kernels once for each shape of its tensors and replays them, which spares the time between them; `full`
    has torch's compiler write new kernels too, minutes for each shape, and keeps them in the cache folder; raises what
    `private_folder` raises. What cannot be recorded is run as it is, after a warning.
    """
    if how in ("auto", "off"):
        return function
    return _Graphs(function) if how == "graph" else _Compiled(function)


class Recording:
    """What a function of tensors launches on a CUDA device, recorded once for tensors like those at hand.

    Recordings of one `pool` share their memory, and may not be replayed at the same time.
    """

    def __init__(self, function: TensorFunction, tensors: Sequence[Tensor], *, pool: Any = None) -> None:
        device = tensors[0].device
        self._given = [tensor.clone() for tensor in tensors]
        self._graph = torch.cuda.CUDAGraph()
        with _RECORDING, torch.cuda.device(device):
            aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UPS):
                    function(*self._given)
            torch.cuda.current_stream(device).wait_stream(aside)
            # Other threads, such as a clip's decoder, go on sending to the device meanwhile.
            with torch.cuda.graph(self._graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
                self._result = function(*self._given)

    def replay(self, tensors: Sequence[Tensor]) -> Tensor:
        """Run on other tensors of the same shapes; the next replay overwrites the result."""
        for held, new in zip(self._given, tensors, strict=True):
            held.copy_(new)
        self._graph.replay()
        return self._result


class Gradients:
    """Fills a network's gradients again and again, for tensors of one shape or a few in a row.

    A small network's pass there and back is some thousand kernels, and giving them to a GPU one by one takes longer
    than running them: on a CUDA device they are recorded once for each shape and replayed. Only the latest recording is
    kept, so where shapes take turns `may_record` should be false.
    """

    def __init__(self, network: nn.Module, compute: TensorFunction, *, may_record: bool = True) -> None:
        """Take a function that adds the gradients of a loss to the network's own, and returns what is to be told of it.

        It must not wait for the device, nor bring it numbers: a recording holds what the device does, and no more.
        """
        self._network, self._compute, self._may_record = network, compute, may_record
        self._recording: Recording | None = None
        self._shapes: tuple[torch.Size, ...] = ()
        self._recorded: tuple[Tensor | None, ...] = ()

    def fill(self, *tensors: Tensor) -> Tensor:
        """Replace every parameter's gradient, and return what the function does; the next pass may overwrite both."""
        if not (self._may_record and tensors[0].is_cuda):
            return self._computed(*tensors)
        shapes = tuple(tensor.shape for tensor in tensors)
        if self._recording is None or self._shapes != shapes:
            self._recording, self._recorded = None, ()  # before the next one asks for memory
            self._recording, self._shapes = self._record(tensors), shapes
            if self._recording is None:
                return self._computed(*tensors)
            self._recorded = tuple(parameter.grad for parameter in self._network.parameters())
        for parameter, gradient in zip(self._network.parameters(), self._recorded, strict=True):
            parameter.grad = gradient  # another recording's may be there
        return self._recording.replay(tensors)

    def _record(self, tensors: tuple[Tensor, ...]) -> Recording | None:
        before = [buffer.clone() for buffer in self._network.buffers()]
        try:
            return Recording(self._computed, tensors)
        except RuntimeError as error:  # for want of memory, too: a pass by itself asks for less, or tells
            _warn_of(error)
            self._may_record = False
            return None
        finally:
            # What the first passes of a recording leave in a batch norm is no step's.
            for buffer, value in zip(self._network.buffers(), before, strict=True):
                buffer.copy_(value)

    def _computed(self, *tensors: Tensor) -> Tensor:
        # Gradients that are absent when a pass begins are written by every replay, not added to.
        self._network.zero_grad(set_to_none=True)
        return self._compute(*tensors)


class _Graphs:
    """A function, recorded for each shape that it is called with; where that fails, the function itself."""

    def __init__(self, function: TensorFunction) -> None:
        self._function = function
        self._is_refused = False
        self._pool: Any = None
        self._recorded: OrderedDict[tuple[object, ...], Recording] = OrderedDict()

    def __call__(self, *tensors: Tensor) -> Tensor:
        key = tuple((tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors)
        if key not in self._recorded:
            while len(self._recorded) >= _MOST_GRAPHS:
                self._recorded.popitem(last=False)
            recorded = None if self._is_refused else self._record(tensors)
            if recorded is None:
                return self._function(*tensors)
            self._recorded[key] = recorded
        self._recorded.move_to_end(key)
        return self._recorded[key].replay(tensors).clone()

    def _record(self, tensors: Sequence[Tensor]) -> Recording | None:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            return Recording(self._function, tensors, pool=self._pool)
        except torch.OutOfMemoryError:
            # Smaller tiles will be tried, and what idle graphs hold is theirs.
            self._recorded.clear()
            self._pool = None
            torch.cuda.empty_cache()
            raise
        except RuntimeError as error:
            _warn_of(error)
            self._is_refused = True
            return None


def _warn_of(error: RuntimeError) -> None:
    reason = str(error).strip().partition("\n")[0]
    logger.warning("the network could not be recorded and goes on without, more slowly: %s", reason)


class _Compiled:
    """A function compiled by torch, with a sentence where that fails."""

    def __init__(self, function: TensorFunction) -> None:
        # torch runs what it finds where it keeps its code: left alone, in a folder of /tmp whose name all can guess.
        if _CODE_FOLDER not in os.environ:
            os.environ[_CODE_FOLDER] = str(private_folder("compiled"))
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
