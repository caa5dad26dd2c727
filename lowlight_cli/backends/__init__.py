"""The methods on offer, as a table. No torch here: `--help` and planning read these facts.

A new backend is one folder and one line in `BACKENDS`; `load_backend` brings it to life. `base` says what each takes
and gives; there are `darkir`, `zeroig`, and `identity`, which has no network.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.settings import Compiling, check_compiling, check_denoise

if TYPE_CHECKING:
    import torch

    from lowlight_cli.backends.base import Backend
    from lowlight_cli.weights_file import WeightsFile


SAMPLE_SIDE = 128


@dataclass(frozen=True)
class BackendInfo:
    """Facts about a backend, as data.

    `halo` is the receptive radius in pixels when tiles with that much real context are exact, or None when the
    backend is global and tiles only agree approximately. `preview_side` is the long side in pixels of the scaled-down
    picture that `tile_enhancer` wants to see first (0: none), and `samples` the number of its parts at full size,
    squares of `SAMPLE_SIDE` pixels. `can_denoise`: noise is parted from light, so that `--denoise` means something.
    `signature` are names of tensors that all its weights hold, and no other backend's.
    """

    name: str
    halo: int | None
    preview_side: int = 0
    samples: int = 0
    needs_weights: bool = True
    multiple_of: int = 1
    can_denoise: bool = False
    signature: tuple[str, ...] = ()


BACKENDS: Mapping[str, BackendInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            BackendInfo(
                "darkir",
                halo=None,
                preview_side=384,
                samples=16,
                multiple_of=16,
                signature=("intro.weight", "ending.weight"),
            ),
            BackendInfo(
                "zeroig",
                halo=9,
                can_denoise=True,
                signature=("enhance.in_conv.0.weight", "denoise_1.conv1.weight"),
            ),
            BackendInfo("identity", halo=0, needs_weights=False),
        )
    }
)


def require_backend(weights: "WeightsFile", name: str) -> None:
    """Refuse weights of another backend; raises WeightsError."""
    lacking = set(BACKENDS[name].signature) - weights.tensors.keys()
    if lacking:
        raise WeightsError(f"it is not for {name}: it lacks {', '.join(sorted(lacking))}")


def load_backend(
    name: str,
    weights: "WeightsFile | None" = None,
    *,
    device: "torch.device",
    dtype: "torch.dtype",
    network: Mapping[str, object] | None = None,
    denoise: float | None = None,
    compiling: Compiling = "off",
) -> "Backend":
    """Make the backend called `name` ready on a device, in a dtype.

    `network` holds settings of the network that the tensors cannot tell, such as dilation rates; `denoise` (0..1) is
    for backends whose facts say `can_denoise`; `compiling` is as in `Compute.compile`.

    Raises SettingsError for an unknown name, a `denoise` or a `compiling` that means nothing or lies beyond its bounds,
    WeightsError for weights that do not fit.
    """
    if name not in BACKENDS:
        raise SettingsError(f"there is no backend {name!r}; there are {', '.join(BACKENDS)}")
    info = BACKENDS[name]
    check_compiling(compiling, device.type)
    check_denoise(denoise)
    if denoise is not None and not info.can_denoise:
        raise SettingsError(f"--denoise means nothing to {name}: its network removes noise and darkness in one step")
    if not info.needs_weights:
        if compiling != "off":
            raise SettingsError(f"--compile means nothing to {name}: it has no network")
        from lowlight_cli.backends.identity import Identity

        return Identity()
    if weights is None:
        raise SettingsError(f"the backend {name} needs weights")
    if name == "darkir":
        from lowlight_cli.backends.darkir.adapter import load_darkir

        return load_darkir(weights, network or {}, device=device, dtype=dtype, compiling=compiling)
    from lowlight_cli.backends.zeroig.adapter import load_zeroig

    told = 1.0 if denoise is None else denoise
    return load_zeroig(weights, device=device, dtype=dtype, denoise=told, compiling=compiling)
