"""How good the moving average is on crops of pictures it was not trained on, in numbers and as a sheet to look at."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowlight_cli.metrics import measure_quality
from lowlight_cli.sheet import Cell, Thumbnail, write_sheet
from lowlight_cli.train.checkpoint import State
from lowlight_cli.train.events import Validation
from lowlight_cli.train.network import build_network, predict, total_loss
from lowlight_cli.train.recipe import Recipe
from lowlight_cli.train.samples import Batch, Sources

logger = logging.getLogger(__name__)

_SAMPLES, _CROP = 24, 128
_STEP = 2**40  # far beyond any training step: other random numbers
_PREVIEWS = 6
_PSNR_CEILING = 99.0  # equal pictures, such as empty frames, have an infinite one


def validation_batches(recipe: Recipe, held_out: Sources, device: torch.device) -> list[Batch]:
    """Crops of held-out pictures, one by one, the same at every validation; InputError where no picture can be read."""
    if held_out.is_empty:
        return []
    crop = min(_CROP, max(stage.crop for stage in recipe.schedule.stages))
    told: list[str] = []
    batches = [
        held_out.batch(recipe, _STEP, crop=crop, places=range(place, place + 1), tell=told.append).to(device)
        for place in range(_SAMPLES)
    ]
    for sentence in dict.fromkeys(told):
        logger.warning("%s", sentence)
    return batches


def validate(state: State, batches: Sequence[Batch], recipe: Recipe, preview: Path) -> Validation:
    """Measure the moving average on the validation batches, and write a sheet of the first few pictures.

    Raises:
        OutputError: the sheet cannot be written.
    """
    network = build_network(recipe.network).to(batches[0].lifted.device).eval()
    network.load_state_dict(state.average)
    rows: list[tuple[float, float, float, float]] = []
    lines: list[list[Cell]] = []
    for batch in batches:
        with torch.inference_mode():
            output = predict(network, batch, recipe)
        for index, result in enumerate(output):
            reference = batch.reference[index]
            loss = total_loss(result[None], reference[None], recipe.loss)
            quality = measure_quality(result.clamp(0, 1), reference)
            rows.append(
                (float(loss), min(quality.psnr, _PSNR_CEILING), min(quality.psnr_gt_mean, _PSNR_CEILING), quality.ssim)
            )
            if len(lines) < _PREVIEWS:
                named = (
                    ("input", batch.lifted[index]),
                    (f"{quality.psnr:.1f} dB", result),
                    ("reference", reference),
                )
                lines.append([Cell(_thumbnail(picture), label) for label, picture in named])
    write_sheet(preview, lines, overwrite=True)
    means = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return Validation(state.step, len(rows), batches[0].lifted.shape[-1], *means)


def _thumbnail(picture: Tensor) -> Thumbnail:
    levels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0)
    return np.asarray(levels.cpu())
