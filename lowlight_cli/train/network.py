"""The network of a recipe: built, run on a batch, judged, and exported."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli import losses
from lowlight_cli.backends.darkir.adapter import build_network as darkir_of
from lowlight_cli.backends.darkir.lift import run_lifted
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.compiling import Gradients
from lowlight_cli.enhancer import Model
from lowlight_cli.errors import NumericsError, WeightsError
from lowlight_cli.train.basis import fold_basis, haar_basis, turn
from lowlight_cli.train.checkpoint import State
from lowlight_cli.train.recipe import LossRecipe, NetworkRecipe, Recipe
from lowlight_cli.train.samples import Batch
from lowlight_cli.weights_file import load_strict, write_weights

_LOSSES = {
    "charbonnier": losses.charbonnier,
    "l1": losses.l1,
    "ssim": losses.ssim_loss,
    "ms_ssim": losses.ms_ssim_loss,
    "low_frequency": losses.low_frequency,
    "detail": losses.detail,
    "edge": losses.edge,
    "frequency": losses.frequency,
    "perceptual": losses.perceptual,
}


def _darkir_arguments(recipe: NetworkRecipe) -> dict[str, object]:
    """What a recipe's network is made with: the recipe, but for how pictures come to it."""
    arguments: dict[str, object] = asdict(recipe)
    for name in ("unshuffle", "lift", "haar"):
        del arguments[name]
    return arguments | {"img_channel": 3 * recipe.unshuffle**2, "extra_channels": int(recipe.lift)}


def build_network(recipe: NetworkRecipe) -> DarkIR:
    """The network of a recipe, freshly initialised from torch's global generator."""
    network = DarkIR(**_darkir_arguments(recipe))  # type: ignore[arg-type]
    if recipe.haar:
        nn.init.zeros_(network.ending.weight)
        nn.init.zeros_(cast(Tensor, network.ending.bias))
    return network


def start_from(network: DarkIR, initial: Model, recipe: Recipe) -> None:
    """Give a recipe's network the weights of another training of the same network.

    Raises:
        WeightsError: `initial` is no DarkIR, or another than the recipe's.
    """
    if initial.weights is None:
        raise WeightsError(f"{initial.name} has no weights to start from")
    theirs = darkir_of(initial.weights, initial.network)
    described = f"{initial.name}, taken for the network of the recipe {recipe.name},"
    load_strict(network, theirs.state_dict(), described_as=described)
    if _rates(theirs) != _rates(network):
        raise WeightsError(f"{described} does not fit: its dilation rates are others")
    if recipe.network.haar:
        network.load_state_dict(fold_basis(network.state_dict(), haar_basis(recipe.network.unshuffle).T))


def _rates(network: nn.Module) -> list[tuple[int, ...]]:
    """The dilation rates of all convolutions, which no shape tells."""
    return [module.dilation for module in network.modules() if isinstance(module, nn.Conv2d)]


def predict(network: Callable[[Tensor], Tensor], batch: Batch, recipe: Recipe) -> Tensor:
    """Run a network on a batch: `(n, 3, h, w)`, float32, not clamped."""
    settings = recipe.network
    basis = haar_basis(settings.unshuffle, batch.lifted.device) if settings.haar else None

    def in_basis(folded: Tensor) -> Tensor:
        if basis is None:
            return network(folded)
        picture, told = folded[:, : len(basis)], folded[:, len(basis) :]
        return turn(network(torch.cat([turn(picture, basis), told], dim=1)), basis.T)

    lifted = batch.lifted.contiguous(memory_format=torch.channels_last)
    stops = batch.stops if settings.lift else None
    return run_lifted(in_basis, lifted, stops, unshuffle=settings.unshuffle).float()


def total_loss(output: Tensor, reference: Tensor, recipe: LossRecipe) -> Tensor:
    """The weighted sum of a recipe's losses between two batches of pictures; the side loss is not among them."""
    weights = asdict(recipe)
    terms = [weights[name] * loss(output, reference) for name, loss in _LOSSES.items() if weights[name]]
    return torch.stack(terms).sum() if terms else output.new_zeros(())


def side_loss(side: Tensor, reference: Tensor, unshuffle: int) -> Tensor:
    """Mean absolute difference of the side output, enlarged by repetition, and the full-size reference."""
    wanted = F.pixel_unshuffle(reference, unshuffle)
    return losses.l1(F.interpolate(side.float(), size=wanted.shape[-2:], mode="nearest"), wanted)


def training_loss(network: nn.Module, batch: Batch, recipe: Recipe) -> Tensor:
    """All of a recipe's losses on a batch, a scalar with a gradient; the network's pass in the recipe's precision."""
    sides: list[Tensor] = []

    def listening(folded: Tensor) -> Tensor:
        side, out = network(folded, side_loss=True)
        sides.append(side)
        return cast(Tensor, out)

    # Not in `predict`: without gradients the network takes its folded form, which has a precision of its own.
    with torch.autocast(batch.lifted.device.type, torch.bfloat16, enabled=recipe.optimiser.precision == "bf16"):
        output = predict(listening if recipe.loss.side else network, batch, recipe)
    loss = total_loss(output, batch.reference, recipe.loss)
    if not sides:
        return loss
    side = turn(sides[0], haar_basis(recipe.network.unshuffle, sides[0].device).T) if recipe.network.haar else sides[0]
    return loss + recipe.loss.side * side_loss(side, batch.reference, recipe.network.unshuffle)


def gradients_of(network: nn.Module, recipe: Recipe) -> Gradients:
    """Return what fills the network's gradients from the parts of a `Batch`, and returns its `training_loss`."""

    def compute(*parts: Tensor) -> Tensor:
        loss = training_loss(network, Batch(*parts), recipe)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return Gradients(network, compute)


def export_weights(path: Path, state: State, recipe: Recipe, *, data: str) -> None:
    """Write the moving average in half precision, with all that is needed to use it and to make it again.

    Raises:
        NumericsError: a weight is too large for half precision, or is no number.
        OutputError: the file cannot be written.
    """
    tensors = state.average
    if recipe.network.haar:
        tensors = fold_basis(tensors, haar_basis(recipe.network.unshuffle, tensors["intro.weight"].device))
    metadata = {
        "backend": "darkir",
        "network": json.dumps(_darkir_arguments(recipe.network), sort_keys=True),
        "lift": "shoulder" if recipe.network.lift else "none",
        "recipe": recipe.name,
        "recipe_sha256": recipe.digest,
        "data": data,
        "step": str(state.step),
        "steps": str(recipe.schedule.steps),
    }
    if state.initial:
        metadata["initial_sha256"] = state.initial
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    if not all(tensor.isfinite().all() for tensor in halves.values()):
        raise NumericsError(
            f"the weights after step {state.step} are not finite in half precision, and {path} was not written; begin "
            "anew in another --output with a lower learning_rate in the recipe"
        )
    write_weights(path, halves, metadata)
