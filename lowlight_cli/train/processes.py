"""Several processes that train one network, as `torchrun` starts them; alone, all of this does nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lowlight_cli.device import choose_device
from lowlight_cli.errors import SettingsError


@dataclass(frozen=True)
class Processes:
    """This process's number, from 0, and how many there are. Each takes an equal share of every batch."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The places in a batch that this process computes.

        Raises:
            SettingsError: the batch cannot be shared out evenly.
        """
        if batch % self.count:
            raise SettingsError(f"a batch of {batch} cannot be shared by {self.count} processes")
        size = batch // self.count
        return range(self.rank * size, (self.rank + 1) * size)


def own_device(wanted: str) -> torch.device:
    """The device called `wanted`, as `choose_device` has it; one without a number is the GPU that torchrun means."""
    device = choose_device(wanted)
    if device.type == "cuda" and ":" not in wanted and "LOCAL_RANK" in os.environ:
        return choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return device


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started (its environment says so), for the length of the block."""
    if "WORLD_SIZE" not in os.environ or not dist.is_available():
        yield Processes()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def average_gradients(network: nn.Module, loss: Tensor, processes: Processes) -> Tensor:
    """Replace every gradient by its mean over the processes; returns the mean of the loss."""
    if processes.count == 1:
        return loss.detach()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([loss.detach().reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    dist.all_reduce(flat)
    flat /= processes.count
    parts = torch.split(flat[1:], [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return flat[0]
