"""A batch's loss and gradients: computed, or on a CUDA device replayed from a recording."""

import torch
from torch import Tensor, nn

from lowlight_cli.compiling import record
from lowlight_cli.train.network import training_loss
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Batch


class Gradients:
    """Fills a network's gradients from batches.

    A small network's pass is some 1,500 kernels, and giving them to a GPU one by one takes longer than running them: on
    a CUDA device they are recorded once for each shape of batch and replayed. A schedule's stages follow one another,
    so only the latest recording is kept.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self._network, self._recipe = network, recipe
        self._given: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._loss: Tensor | None = None

    def fill(self, batch: Batch) -> Tensor:
        """Replace every parameter's gradient by that of the batch's loss, and return the loss, a scalar."""
        if not batch.lifted.is_cuda:
            return self._computed(batch)
        if self._given is None or self._given.lifted.shape != batch.lifted.shape:
            self._record(batch)
        assert self._given is not None
        assert self._graph is not None
        assert self._loss is not None
        for held, new in zip(self._given, batch, strict=True):
            held.copy_(new)
        self._graph.replay()
        return self._loss

    def _computed(self, batch: Batch) -> Tensor:
        self._network.zero_grad(set_to_none=True)
        loss = training_loss(self._network, batch, self._recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _record(self, batch: Batch) -> None:
        self._graph = self._loss = None  # before the next recording asks for memory
        given = Batch(*(part.clone() for part in batch))
        self._given = given
        # Gradients that are absent when a pass begins are written by every replay, not added to.
        self._graph, self._loss = record(lambda: self._computed(given), batch.lifted.device)
