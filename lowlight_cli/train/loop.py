"""The training loop, as a generator of typed events."""

import logging
import math
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lowlight_cli.atomic import make_folder, write_atomically
from lowlight_cli.compiling import Gradients
from lowlight_cli.device import describe_device
from lowlight_cli.enhancer import Model
from lowlight_cli.errors import LowlightError, NumericsError
from lowlight_cli.interrupts import interrupts_held
from lowlight_cli.losses import load_vgg
from lowlight_cli.train.checkpoint import State, restore_checkpoint, write_checkpoint
from lowlight_cli.train.events import Event, Progress, Saved, Started
from lowlight_cli.train.loading import coming_batches, usual_workers
from lowlight_cli.train.network import build_network, export_weights, gradients_of, start_from
from lowlight_cli.train.processes import Processes, average_gradients, joined_processes, own_device
from lowlight_cli.train.recipe import Recipe, recipe_toml
from lowlight_cli.train.samples import Batch, Sources
from lowlight_cli.train.settings import Run
from lowlight_cli.train.validation import validate, validation_batches

logger = logging.getLogger(__name__)

_MOST_STALLED = 50  # steps in a row that are not finite: nothing will change any more


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, counted from 0: up linearly, held, down by a cosine."""
    schedule, settings = recipe.schedule, recipe.optimiser
    if step < schedule.warm_up:
        return settings.learning_rate * (step + 1) / schedule.warm_up
    decay = schedule.steps - schedule.warm_up if schedule.decay is None else schedule.decay
    done = max(0.0, 1 - (schedule.steps - step) / max(decay, 1))
    span = settings.learning_rate - settings.final_learning_rate
    return settings.final_learning_rate + span * (1 + math.cos(math.pi * done)) / 2


def fresh_state(recipe: Recipe, device: torch.device, initial: Model | None = None) -> State:
    """A recipe's network and optimiser before the first step; the recipe's seed, or `initial`, decides every weight.

    Raises:
        WeightsError: `initial` is another network than the recipe's.
    """
    torch.manual_seed(recipe.seed)
    built = build_network(recipe.network)
    if initial is not None:
        start_from(built, initial, recipe)
    network = built.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    settings = recipe.optimiser
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=device.type == "cuda",
    )
    begun_from = "" if initial is None or initial.weights is None else initial.weights.sha256
    return State(network, average, optimiser, initial=begun_from)


def advance(
    state: State, batch: Batch, recipe: Recipe, processes: Processes, *, gradients: Gradients
) -> tuple[float, float]:
    """One step; returns the loss and the gradient's norm. A step that is not finite changes no weight."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(recipe, state.step)
    own_loss = gradients.fill(*batch)
    loss = float(average_gradients(state.network, own_loss, processes))
    norm = float(nn.utils.clip_grad_norm_(state.network.parameters(), recipe.optimiser.gradient_clip))
    if math.isfinite(norm) and math.isfinite(loss):
        state.optimiser.step()
        state.stalled = 0
    else:
        state.skipped += 1
        state.stalled += 1
    # Early on the average would remember the first weights for too long: it starts short and grows.
    keep = min(recipe.optimiser.ema, (1 + state.step) / (10 + state.step))
    tensors = state.network.state_dict()
    blend = get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
    blend([state.average[name] for name in tensors], list(tensors.values()), None)
    state.step += 1
    return loss, norm


def train(
    recipe: Recipe, training: Sources, held_out: Sources, *, run: Run, initial: Model | None = None
) -> Iterator[Event]:
    """Train a recipe's network, onwards from `checkpoint.pt` in `run.output` if there is one; yields events.

    With `initial` it starts from these weights, and is validated before the first step, too. `recipe.toml` keeps the
    recipe beside the weights.

    On a CPU the same recipe, pictures and number of threads give the same weights to the byte, however often the
    training was stopped and resumed; a GPU sums in any order. Started by torchrun, the processes share each batch and
    only the first one writes. Nothing is validated when `held_out` is empty.

    Raises:
        SettingsError: the checkpoint is of another recipe or started from other weights, a batch cannot be shared out,
            or the perceptual loss lacks its extra.
        WeightsError: the checkpoint or the perceptual loss's weights cannot be read, or `initial` is another network
            than the recipe's.
        InputError: none of the pictures can be read any more; of fewer that cannot, others take the place.
        WorkerError: a process that makes samples was killed.
        NumericsError: steps are not finite again and again, or the weights are not so in half precision.
        DeviceError: the device is not there.
        OutputError: a file cannot be written.
    """
    device = own_device(run.device)
    if device.type == "cuda":  # what names no device, such as pinned memory, belongs to this one
        torch.cuda.set_device(device)
    if recipe.loss.perceptual:
        load_vgg(device)  # before a step is recorded, and before anything is written
    make_folder(run.output / "checkpoint.pt")
    with joined_processes(device) as processes:
        state = fresh_state(recipe, device, initial)
        yield from _train(state, recipe, training, held_out, run=run, device=device, processes=processes)


def _train(
    state: State,
    recipe: Recipe,
    training: Sources,
    held_out: Sources,
    *,
    run: Run,
    device: torch.device,
    processes: Processes,
) -> Iterator[Event]:
    files = _Files(state, recipe, run, pictures=training.digest, warns=processes.leads)
    if processes.leads:
        counted = (len(training), len(held_out), training.left_out)
        yield Started(state.step, recipe.schedule.steps, describe_device(device), *counted)
        # Not before: a log that is no training's ends it there.
        write_atomically(run.output / "recipe.toml", recipe_toml(recipe).encode(), overwrite=True)
    validation = validation_batches(recipe, held_out, device) if processes.leads else []
    if validation and state.initial and state.step == 0:
        yield validate(state, validation, recipe, run.output / "preview.png")
    recent: list[tuple[float, float]] = []
    since = time.monotonic()
    if state.step >= recipe.schedule.steps:
        return
    gradients = gradients_of(state.network, recipe)
    workers = usual_workers(device) if run.workers is None else run.workers
    is_whole = True  # the state is that after some step
    try:
        for batch in coming_batches(recipe, training, state.step, processes=processes, workers=workers, device=device):
            with interrupts_held():  # also while the caller looks at what is told
                is_whole = False
                recent.append(advance(state, batch, recipe, processes, gradients=gradients))
                _require_progress(state, recipe)  # going on from here would be no better, so it is not kept
                is_whole = True
                last = state.step == recipe.schedule.steps
                if processes.leads and (state.step % run.report_every == 0 or last):
                    loss, gradient = (sum(values) / len(values) for values in zip(*recent, strict=True))
                    rate = learning_rate(recipe, state.step - 1)
                    seconds = (time.monotonic() - since) / len(recent)
                    yield Progress(state.step, recipe.schedule.steps, loss, gradient, rate, state.skipped, seconds)
                    recent, since = [], time.monotonic()
                if processes.leads and (state.step % run.save_every == 0 or last):
                    files.write()
                    yield Saved(state.step, files.weights)
            if validation and (state.step % run.validate_every == 0 or last):
                found = validate(state, validation, recipe, run.output / "preview.png")
                with interrupts_held():
                    yield found
    except (KeyboardInterrupt, LowlightError):
        if processes.leads and is_whole:
            files.write_last()
        raise


def _require_progress(state: State, recipe: Recipe) -> None:
    if state.stalled >= min(_MOST_STALLED, recipe.schedule.steps):
        raise NumericsError(
            f"the last {state.stalled} steps up to {state.step} were not finite and changed nothing; begin anew in "
            "another --output with a lower learning_rate in the recipe"
        )


class _Files:
    """A training's checkpoint, which `state` begins with if there is one, and its weights."""

    def __init__(self, state: State, recipe: Recipe, run: Run, *, pictures: str, warns: bool) -> None:
        self._state, self._recipe, self._data, self._pictures = state, recipe, run.data, pictures
        self._checkpoint, self.weights = run.output / "checkpoint.pt", run.output / f"{recipe.name}.safetensors"
        if self._checkpoint.exists():
            before = restore_checkpoint(self._checkpoint, state, recipe)
            if warns and before and before != pictures:
                logger.warning("%s was trained on other pictures than these; another --output begins anew", run.output)
        self._written = state.step

    def write(self) -> None:
        """Write both; raises OutputError, and NumericsError where the weights are none to be written."""
        self._written = self._state.step  # also where it fails: what stops the training is not tried again
        # In this order: killed in between, the same file is written again.
        export_weights(self.weights, self._state, self._recipe, data=self._data)
        write_checkpoint(self._checkpoint, self._state, self._recipe, pictures=self._pictures)

    def write_last(self) -> None:
        """Write both if that is not done, and say so; nothing that fails outweighs why the training stops."""
        if self._state.step == self._written:
            return
        try:
            self.write()
            logger.warning("stopped after step %d, from which the same command goes on", self._state.step)
        except LowlightError as error:
            logger.warning("the steps since the last checkpoint are lost: %s", error)
