"""A batch's loss and gradients: computed, or on a CUDA device replayed from a recording."""

import torch
from torch import Tensor, nn

from lowlight_cli.compiling import Recording
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
        self._recording: Recording | None = None
        self._shape: torch.Size | None = None

    def fill(self, batch: Batch) -> Tensor:
        """Replace every parameter's gradient by that of the batch's loss, and return the loss, a scalar."""
        if not batch.lifted.is_cuda:
            return self._computed(*batch)
        if self._recording is None or self._shape != batch.lifted.shape:
            self._recording = None  # before the next one asks for memory
            self._recording, self._shape = Recording(self._computed, batch), batch.lifted.shape
        return self._recording.replay(batch)

    def _computed(self, *parts: Tensor) -> Tensor:
        # Gradients that are absent when a pass begins are written by every replay, not added to.
        self._network.zero_grad(set_to_none=True)
        loss = training_loss(self._network, Batch(*parts), self._recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
