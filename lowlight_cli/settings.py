"""What a caller may choose, as frozen dataclasses. Every default stands here once; the command line reads them.

Standard library only: the command line imports this module to print `--help`.
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from lowlight_cli.errors import SettingsError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Compiling = Literal["auto", "off", "graph", "full"]
EngineKind = Literal["local", "ray"]
ExportFormat = Literal["onnx", "torchscript"]
Metadata = Literal["keep", "strip", "no-gps"]
CompareStyle = Literal["side", "split"]
CompareSize = Literal["full", "preview"]

DEFAULT_MODEL = "darkir-small"
DEFAULT_SUFFIX = "_lowlight"
DEFAULT_QUALITY = 92  # visually lossless for photographs; a JPEG of higher quality keeps its own


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


def require_choice(value: str, choices: object, option: str) -> None:
    """Refuse a value that is none of the strings of a `Literal`, as `option`'s, by a SettingsError."""
    known: tuple[str, ...] = get_args(choices)
    _require(value in known, f"{option} is one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut. `size` is a tile's side in pixels, 0 for the whole picture, None to choose from memory.

    `overlap` is the width in pixels over which neighbouring tiles are blended, on top of the backend's exact halo; at
    most half of a tile, however much it says.
    """

    size: int | None = None
    overlap: int = 32

    def __post_init__(self) -> None:
        _require(self.size is None or self.size == 0 or self.size >= 16, "--tile is auto, 0 or at least 16")
        _require(0 <= self.overlap <= 1024, "--overlap lies between 0 and 1024 pixels")


@dataclass(frozen=True)
class Tone:
    """How far the result goes. The defaults leave the backend's result as it is.

    `strength` blends from the input (0) to the result (1); `exposure` moves the result by that many stops in
    linear light, upwards with a shoulder; `protect_highlights` (0..1) keeps the input's own bright areas apart.
    """

    strength: float = 1.0
    exposure: float = 0.0
    protect_highlights: float = 0.0

    def __post_init__(self) -> None:
        _require(0.0 <= self.strength <= 1.0, "--strength lies between 0 and 1")
        _require(-8.0 <= self.exposure <= 8.0, "--exposure lies between -8 and 8 stops")
        _require(0.0 <= self.protect_highlights <= 1.0, "--protect-highlights lies between 0 and 1")


def check_denoise(denoise: float | None) -> None:
    """Refuse a share of the noise, to be taken by backends that part it from light, beyond 0 to 1 by a SettingsError.

    None leaves it at the backend's own.
    """
    _require(denoise is None or 0.0 <= denoise <= 1.0, "--denoise lies between 0 and 1")


@dataclass(frozen=True)
class Compute:
    """Where and how precisely to compute. `device` is auto, cpu, cuda, cuda:N or mps; for files also cuda:all.

    `compile` is worth its wait only on long jobs of one size: `graph` records CUDA graphs, `full` runs torch's
    compiler. `auto` records for clips on a CUDA device, and is off for all else.
    """

    device: str = "auto"
    precision: Precision = "auto"
    tiling: Tiling = Tiling()
    compile: Compiling = "auto"

    def __post_init__(self) -> None:
        check_device(self.device)
        require_choice(self.precision, Precision, "--precision")
        require_choice(self.compile, Compiling, "--compile")
        if self.device != "auto":
            check_compiling(self.compile, self.device)


def check_device(name: str) -> None:
    """Refuse a `Compute.device` that is no device's name, whatever this machine has, by a SettingsError."""
    known = re.fullmatch(r"auto|cpu|mps|cuda(:([0-9]+|all))?", name)
    _require(known is not None, f"--device is auto, cpu, cuda, cuda:N, cuda:all or mps, not {name!r}")


def check_compiling(compiling: Compiling, device: str) -> None:
    """Refuse a `Compute.compile` that means nothing on the device of this name, by a SettingsError."""
    fits = compiling != "graph" or device.startswith("cuda")
    _require(fits, "--compile graph records CUDA graphs, so it needs --device cuda")


@dataclass(frozen=True)
class Engine:
    """Who computes: this process, or workers of a Ray cluster.

    `address` is the cluster's; None for the one that RAY_ADDRESS names, or else one made of this machine for this run.
    `workers` of None is as many as there are GPUs to give, or one a machine. A worker has `gpus_per_worker` GPUs, a
    share of one if less than 1, and 0 for none; None is one GPU where the cluster has any.
    """

    kind: EngineKind = "local"
    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        require_choice(self.kind, EngineKind, "--engine")
        told = (self.address, self.workers, self.gpus_per_worker) != (None, None, None)
        _require(self.kind == "ray" or not told, "--ray-address, --workers and --gpus-per-worker go with --engine ray")
        _require(self.workers is None or self.workers >= 1, "--workers is at least 1")
        _require(
            self.gpus_per_worker is None or 0 <= self.gpus_per_worker <= 1, "--gpus-per-worker lies between 0 and 1"
        )


@dataclass(frozen=True)
class Encoding:
    """How results are written. `format` and `quality` of None mean the input's own format and quality."""

    format: str | None = None
    quality: int | None = None
    metadata: Metadata = "keep"

    def __post_init__(self) -> None:
        require_choice(self.metadata, Metadata, "--metadata")
        _require(self.quality is None or 1 <= self.quality <= 100, "--quality lies between 1 and 100")


@dataclass(frozen=True)
class Comparison:
    """How a picture of before and after looks: side by side or split in the middle, at full size or small."""

    style: CompareStyle = "side"
    size: CompareSize = "full"

    def __post_init__(self) -> None:
        require_choice(self.style, CompareStyle, "--compare-style")
        require_choice(self.size, CompareSize, "--compare-size")
