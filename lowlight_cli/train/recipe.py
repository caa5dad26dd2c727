"""A recipe: everything that decides what a training produces, as frozen dataclasses read from TOML."""

import dataclasses
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args, get_origin, get_type_hints

from lowlight_cli.degrade import Camera
from lowlight_cli.errors import SettingsError
from lowlight_cli.train.settings import RECIPES, published_recipes

T = TypeVar("T")

_SMALLEST_CROP = 16
_DETAIL_CELL = 16  # pixels: `losses.detail` takes crops of whole cells


@dataclass(frozen=True)
class NetworkRecipe:
    """The network: DarkIR's own arguments, and how pictures come to it.

    `lift` puts the analytic exposure step of `backends.darkir.lift` before the network and tells it the gain;
    `unshuffle` s folds s x s pixels into channels, so that the network works at 1/s of the size. `haar` lets it learn
    in the basis of `train.basis`, and start as the identity, which leaves no trace in the exported network.
    """

    width: int = 32
    middle_blk_num_enc: int = 2
    middle_blk_num_dec: int = 2
    enc_blk_nums: tuple[int, ...] = (1, 2, 3)
    dec_blk_nums: tuple[int, ...] = (3, 1, 1)
    dilations: tuple[int, ...] = (1, 4, 9)
    encoder_dilations: tuple[int, ...] = (1,)
    extra_depth_wise: bool = True
    use_csf: bool = False
    csf_reduction: int = 4
    direction_floor: float = 0.1
    lift: bool = True
    unshuffle: int = 1
    haar: bool = False

    def __post_init__(self) -> None:
        if self.unshuffle not in (1, 2):
            raise SettingsError("unshuffle is 1 or 2")
        blocks = (self.middle_blk_num_enc, self.middle_blk_num_dec, *self.enc_blk_nums, *self.dec_blk_nums)
        if not self.enc_blk_nums or len(self.enc_blk_nums) != len(self.dec_blk_nums) or min(blocks) < 0:
            raise SettingsError("enc_blk_nums and dec_blk_nums are as many numbers, one or more, none below 0")
        if not 0 <= self.direction_floor < math.inf:
            raise SettingsError("direction_floor is 0 or more")
        if not (self.dilations and self.encoder_dilations):
            raise SettingsError("dilations and encoder_dilations are one number or more")
        if min(self.width, self.csf_reduction, *self.dilations, *self.encoder_dilations) < 1:
            raise SettingsError("width, dilations and csf_reduction are 1 or more")


@dataclass(frozen=True)
class DataRecipe:
    """What the network sees.

    Files whose stem is in `held_out`, and pairs of that name, are validated on, never trained on; where there is none,
    `train` chooses. `view_share` is the share of samples taken from HDR panoramas when there are any. `native_share`
    says how much of a photo's own brightness its reference keeps (1: all; 0: every reference of a dark picture is as
    bright as the lift aims at). `lift_jitter` is the standard deviation, in stops, of the lift's error that the network
    learns to stand.
    """

    held_out: tuple[str, ...] = ()
    view_share: float = 0.2
    native_share: float = 0.5
    lift_jitter: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.view_share <= 1 and 0 <= self.native_share <= 1):
            raise SettingsError("view_share and native_share are from 0 to 1")
        if not 0 <= self.lift_jitter < math.inf:
            raise SettingsError("lift_jitter is 0 or more")


@dataclass(frozen=True)
class LossRecipe:
    """Weights of the losses of `lowlight_cli.losses`; those at 0 are not computed.

    `perceptual` needs the extra `metrics`, which fetches VGG-19 when a training begins.
    """

    charbonnier: float = 1.0
    l1: float = 0.0
    ssim: float = 0.0
    ms_ssim: float = 0.0
    low_frequency: float = 0.0
    detail: float = 0.0
    edge: float = 0.0
    frequency: float = 0.0
    perceptual: float = 0.0
    side: float = 0.0

    def __post_init__(self) -> None:
        weights = dataclasses.astuple(self)
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise SettingsError("losses have weights of 0 or more, and one of them has more")


@dataclass(frozen=True)
class OptimiserRecipe:
    """AdamW, gradient clipping, and the moving average whose weights are exported.

    `precision` is that of the network's pass: fp32, or bf16 by autocast, where the device is fast at it.
    """

    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    gradient_clip: float = 5.0
    ema: float = 0.998
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise SettingsError("precision is fp32 or bf16")
        if not all(0 <= share < 1 for share in (*self.betas, self.ema)):
            raise SettingsError("betas and ema are from 0 to below 1")
        if not (0 <= self.weight_decay < math.inf and self.gradient_clip > 0):
            raise SettingsError("weight_decay is 0 or more, gradient_clip more than 0")
        if not 0 <= self.final_learning_rate <= self.learning_rate < math.inf or not self.learning_rate:
            raise SettingsError("learning_rate is more than 0, and final_learning_rate from 0 to that")


@dataclass(frozen=True)
class Stage:
    """A stretch of training: `steps` of `batch` crops with sides of `crop` pixels."""

    steps: int
    crop: int
    batch: int

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or self.crop < _SMALLEST_CROP:
            raise SettingsError(f"a stage has 1 step, 1 crop of {_SMALLEST_CROP} pixels a batch, or more")


@dataclass(frozen=True)
class Schedule:
    """How long, and how the learning rate goes: up in `warm_up` steps, held, down by a cosine in the last `decay`.

    `decay` of None is the whole training after the warm-up. The only part that may change when a training is
    resumed, and only where it lies ahead: holding the rate lets a run be lengthened without starting again.
    """

    stages: tuple[Stage, ...] = (Stage(1000, 96, 8),)
    warm_up: int = 50
    decay: int | None = None

    def __post_init__(self) -> None:
        if not self.stages or not all(isinstance(stage, Stage) for stage in self.stages):
            raise SettingsError("stages are tables of steps, crop and batch, one or more")
        if self.warm_up < 0 or (self.decay is not None and self.decay < 0):
            raise SettingsError("warm_up and decay are numbers of steps, 0 or more")

    @property
    def steps(self) -> int:
        """Steps in all."""
        return sum(stage.steps for stage in self.stages)

    def stage(self, step: int) -> Stage:
        """The stage that `step`, counted from 0, belongs to."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError("the step lies beyond the schedule")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training produces, but for the pictures themselves."""

    name: str
    seed: int = 0
    network: NetworkRecipe = field(default_factory=NetworkRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    loss: LossRecipe = field(default_factory=LossRecipe)
    optimiser: OptimiserRecipe = field(default_factory=OptimiserRecipe)
    schedule: Schedule = field(default_factory=Schedule)
    camera: Camera = field(default_factory=Camera)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise SettingsError(f"the name {self.name!r} is not of letters, digits, '.', '_' and '-'")
        if not 0 <= self.seed < 2**63:
            raise SettingsError("the seed is 0 or more, of 63 bits")
        step, asks = (_DETAIL_CELL, "the loss detail") if self.loss.detail else (self.network.unshuffle, "unshuffle")
        for stage in self.schedule.stages:
            if stage.crop % step:
                raise SettingsError(f"{asks} asks for crops of a multiple of {step} pixels, and {stage.crop} is none")

    @property
    def digest(self) -> str:
        """The sha256 of the recipe's values, in hexadecimal."""
        values = dataclasses.asdict(self)
        # What is not computed decides nothing, and a loss that is new leaves the digests of recipes without it.
        values["loss"] = {name: weight for name, weight in values["loss"].items() if weight}
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _fitted(value: object, wanted: object, place: str) -> object:
    """Turn a TOML value into what a field declares, or raise SettingsError."""
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return _built(wanted, value, place)
    if get_origin(wanted) is tuple and isinstance(value, list):
        kinds = get_args(wanted)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        elif len(kinds) != len(value):
            raise SettingsError(f"{place} takes {len(kinds)} values, not {len(value)}")
        return tuple(_fitted(item, kind, place) for item, kind in zip(value, kinds, strict=True))
    simple = {float: (int, float), int: (int,), bool: (bool,), str: (str,), int | None: (int,)}
    allowed = simple.get(wanted)  # type: ignore[call-overload]
    if not allowed or not isinstance(value, allowed) or (wanted is not bool and isinstance(value, bool)):
        raise SettingsError(f"{place} cannot be {value!r}")
    return float(value) if wanted is float else value


def _built(kind: type[T], table: object, place: str) -> T:
    if not isinstance(table, Mapping):
        raise SettingsError(f"{place} must be a table")
    hints = get_type_hints(kind)
    unknown = [key for key in table if key not in hints]
    if unknown:
        raise SettingsError(f"{place or 'it'} has no setting {unknown[0]!r}; there are {', '.join(hints)}")
    values = {key: _fitted(value, hints[key], f"{place}.{key}".lstrip(".")) for key, value in table.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise SettingsError(f"{place or 'it'} is incomplete") from error


def parse_recipe(text: str, named: str = "the recipe") -> Recipe:
    """Read a recipe from TOML; refusals begin with what it is `named`.

    Raises:
        SettingsError: it is no TOML, or names a setting that does not exist.
    """
    try:
        return _built(Recipe, tomllib.loads(text), "")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{named} is no TOML: {error}") from error
    except SettingsError as error:
        raise SettingsError(f"{named}: {error}") from error


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as TOML, every setting told: `parse_recipe` reads the same recipe from it."""
    lines: list[str] = []
    for name, value in dataclasses.asdict(recipe).items():
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *(f"{key} = {_toml(one)}" for key, one in value.items() if one is not None)]
        else:
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    # JSON's strings are TOML's, but for characters beyond 16 bits and the one that is called delete.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def read_recipe(name_or_path: str) -> Recipe:
    """Read a published recipe by its name, or any other by its path.

    Raises:
        SettingsError: there is no such recipe, or it says something that cannot be meant.
    """
    if name_or_path in published_recipes():
        return parse_recipe((RECIPES / f"{name_or_path}.toml").read_text("utf-8"))
    try:
        return parse_recipe(Path(name_or_path).read_text("utf-8"), f"the recipe {name_or_path}")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(published_recipes())
        raise SettingsError(f"no recipe {name_or_path}: give a TOML file or one of {known}") from error
