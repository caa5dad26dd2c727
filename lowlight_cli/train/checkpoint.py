"""A training's whole state in one file: weights, moving average, optimiser, step."""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowlight_cli.atomic import write_atomically
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.train.recipe import Recipe

_TOLD, _LONGEST = 3, 40  # settings that differ, and letters of each


@dataclass
class State:
    """What training changes from step to step. `step` counts those done, `skipped` those that were not finite.

    `stalled` is how many of these were the last in a row; it is not kept in the checkpoint. `initial` is the sha256 of
    the weights that it started from; empty where chance made them.
    """

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    skipped: int = 0
    stalled: int = 0
    initial: str = ""


def _fixed(recipe: Recipe) -> str:
    """The recipe without its schedule, which may grow on resuming."""
    return json.dumps({**dataclasses.asdict(recipe), "schedule": None}, sort_keys=True)


def _differences(fixed: str, recipe: Recipe) -> str:
    """Say in which settings a recipe differs from one that `_fixed` wrote down."""
    there, here = (_settings(json.loads(text)) for text in (fixed, _fixed(recipe)))
    both = {name: (here.get(name, "unset"), there.get(name, "unset")) for name in {**here, **there}}
    told = [
        f"{name} is {_short(ours)} here and {_short(theirs)} there"
        for name, (ours, theirs) in both.items()
        if ours != theirs
    ]
    return ", ".join(told[:_TOLD]) + (f" and {len(told) - _TOLD} more differ" if len(told) > _TOLD else "")


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."


def _settings(recipe: Mapping[str, object]) -> dict[str, str]:
    """A recipe's settings by their full names, as JSON."""
    tables = {name: value if isinstance(value, dict) else {"": value} for name, value in recipe.items()}
    return {f"{name}.{key}".strip("."): json.dumps(one) for name, table in tables.items() for key, one in table.items()}


def write_checkpoint(path: Path, state: State, recipe: Recipe, *, pictures: str) -> None:
    """Write the state, complete or not at all; `pictures` is the digest of those trained on.

    Raises:
        OutputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    content = {
        "network": state.network.state_dict(),
        "average": state.average,
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "skipped": state.skipped,
        "initial": state.initial,
        "recipe": _fixed(recipe),
        "pictures": pictures,
    }
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue(), overwrite=True)


def restore_checkpoint(path: Path, state: State, recipe: Recipe) -> str:
    """Put a checkpoint's state into `state`; return the digest of its pictures, empty where it does not say.

    Raises:
        SettingsError: the checkpoint is of another recipe, or started from other weights.
        WeightsError: the file cannot be read.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        same = content["recipe"] == _fixed(recipe)
        differences = "" if same else _differences(content["recipe"], recipe)
    except PermissionError as error:
        raise WeightsError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except Exception as error:  # torch.load raises whatever a damaged pickle makes it raise
        raise _damaged(path) from error
    if not same:
        raise SettingsError(
            f"{path} was made by another recipe: {differences}; only the schedule may change on resuming, so give the "
            "same recipe, or another --output"
        )
    if content.get("initial", "") != state.initial:
        raise SettingsError(f"{path} started from other weights; give the same --init, or another --output")
    try:
        _take_over(state, content)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    return str(content.get("pictures", ""))


def _take_over(state: State, content: Mapping[str, Any]) -> None:
    state.network.load_state_dict(content["network"])
    # A checkpoint of another device says otherwise, and where the steps' counters go is read off this.
    for group, own in zip(content["optimiser"]["param_groups"], state.optimiser.param_groups, strict=True):
        group["fused"] = own["fused"]
    state.optimiser.load_state_dict(content["optimiser"])
    average = content["average"]
    state.average = {name: average[name].to(own.device) for name, own in state.average.items()}
    state.step, state.skipped = int(content["step"]), int(content["skipped"])


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"the checkpoint {path} is damaged; remove it to begin anew, or give another --output")
