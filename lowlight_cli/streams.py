"""A CUDA device's streams: work of several threads on one GPU, none of which waits for the others' by accident.

A stream runs what is sent to it in order, and streams run beside each other. Memory belongs to the stream on which it
was asked for: freed, it serves that stream's next tensor at once, although another stream may still be reading it.
So whoever uses a tensor of another stream says so (`Tensor.record_stream`), or waits until it is done before the
tensor is let go. On other devices all of this is nothing.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Self

import torch
from torch import Tensor


class OwnStream:
    """A stream for one thread. A `with` block sends its work along it, and ends when that is done.

    What others made must be complete, or be waited for by `after`.
    """

    def __init__(self, device: torch.device) -> None:
        # Short steps between a network's long ones: they go first.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._way: AbstractContextManager[object] = nullcontext()
        if self._stream is not None:
            self._way = torch.cuda.stream(self._stream)

    def __enter__(self) -> Self:
        self._way.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._stream is not None:
                self._stream.synchronize()
        finally:
            self._way.__exit__(None, None, None)

    def after(self, moment: torch.cuda.Event | None) -> None:
        """Let what is sent from now on wait for a moment of another stream."""
        if self._stream is not None and moment is not None:
            self._stream.wait_event(moment)


@cache
def own_stream(device: torch.device, purpose: str) -> OwnStream:
    """Return the stream for a purpose, always the same one: a new stream could not use what the last one left."""
    del purpose
    return OwnStream(device)


def moment_of(device: torch.device) -> torch.cuda.Event | None:
    """Return the moment at which all that this thread has sent to a CUDA device will be done; None elsewhere."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def used_here(tensor: Tensor) -> Tensor:
    """Tell the memory of a tensor of another stream that this thread's stream uses it; return the tensor."""
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    return tensor


class Fetched:
    """A tensor on its way to the CPU: `get` waits for it, and not for what is sent to its device in the meantime."""

    def __init__(self, tensor: Tensor) -> None:
        self._here = tensor
        if tensor.device.type == "cuda":
            self._here = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._here.copy_(tensor, non_blocking=True)
        self._moment = moment_of(tensor.device)

    def get(self) -> Tensor:
        """Return the tensor on the CPU."""
        if self._moment is not None:
            self._moment.synchronize()
        return self._here.cpu()
