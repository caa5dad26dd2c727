"""The same from Python: a PIL image, a numpy array or a torch tensor in, the same kind out."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lowlight_cli.enhancer import Enhancer, load_enhancer
from lowlight_cli.errors import SettingsError
from lowlight_cli.images import Picture
from lowlight_cli.images.colour import grey_of
from lowlight_cli.images.hidden import without_hidden
from lowlight_cli.paths import facts_of
from lowlight_cli.settings import DEFAULT_MODEL, Compute, Precision, Tiling, Tone

AnyPicture = TypeVar("AnyPicture", Image.Image, NDArray[np.generic], Tensor)

_PLAIN_MODES = ("L", "LA", "RGB", "RGBA")
_BARE_MODES = ("F", "I")
# In floats: a little above white or below black comes of filters, 255 and -1 of other scales.
_LEAST, _MOST = -0.5, 4.0


def enhance(
    picture: AnyPicture,
    *,
    model: str = DEFAULT_MODEL,
    weights: str | Path | None = None,
    dilations: Sequence[int] | None = None,
    strength: float = Tone.strength,
    exposure: float = Tone.exposure,
    protect_highlights: float = Tone.protect_highlights,
    denoise: float | None = None,
    device: str = Compute.device,
    precision: Precision = Compute.precision,
    tile: int | None = None,
    offline: bool = False,
) -> AnyPicture:
    """Make a dark picture bright and clean, as `lowlight enhance` does; the options are the command's.

    - A PIL image: any mode but F and I, whose numbers have no agreed white; L, LA, I;16 (and its kin), RGB and RGBA
      come back in their mode, others as RGB. Alpha is untouched, as is what it hides. The values are taken as sRGB and
      the image as upright: profiles and EXIF are the caller's.
    - A numpy array: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`, RGB order; uint8, uint16, or floats in [0, 1].
    - A tensor: `(3, H, W)` or `(N, 3, H, W)`, RGB floats in [0, 1], any device.

    The result has the input's shape and type. The model stays loaded for the next call with the same choice, as
    long as a file of weights does not change. Raises SettingsError for anything else, and the errors of
    `enhancer.load_enhancer` and `Enhancer.enhance`.

    It sets what the whole process has, and leaves it so: torch's threads are lowered to the CPUs that the process may
    use, and glibc is told to use one arena and to keep freed buffers of up to 1 GB, which makes a CPU 1.3 to 1.5 times
    as fast.
    """
    tone = Tone(strength, exposure, protect_highlights)
    file = None if weights is None else Path(weights)
    if dilations is not None and file is None:
        raise SettingsError("dilations belong to weights: a model of a name has its own")
    compute = Compute(device, precision, Tiling(tile))
    enhancer = _loaded(model, file, _version_of(file), tuple(dilations or ()), compute, denoise, offline)
    if isinstance(picture, Image.Image):
        return Image.fromarray(_enhance_array(_array_of(picture), enhancer, tone))
    if isinstance(picture, Tensor):
        return _enhance_tensor(picture, enhancer, tone)
    if isinstance(picture, np.ndarray):
        return _enhance_array(picture, enhancer, tone)
    raise SettingsError(f"a picture is a PIL image, a numpy array or a torch tensor, not {type(picture).__name__}")


def _version_of(weights: Path | None) -> object:
    """Return what changes with a file's content: who trains on and looks again must see the new weights."""
    facts = None if weights is None else facts_of(weights)
    return facts and (facts.st_ino, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(
    model: str,
    weights: Path | None,
    version: object,  # noqa: ARG001 (it parts one content of the file from the next)
    dilations: tuple[int, ...],
    compute: Compute,
    denoise: float | None,
    offline: bool,
) -> Enhancer:
    network = {"dilations": dilations} if dilations else None
    return load_enhancer(model, weights=weights, network=network, compute=compute, denoise=denoise, offline=offline)


def _array_of(image: Image.Image) -> NDArray[np.generic]:
    if image.mode in _BARE_MODES:
        raise SettingsError(f"a PIL image of mode {image.mode} has no agreed white; give an array of floats in [0, 1]")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)  # in this machine's order of bytes
    return np.asarray(image if image.mode in _PLAIN_MODES else image.convert("RGB"))


def _enhance_tensor(picture: Tensor, enhancer: Enhancer, tone: Tone) -> Tensor:
    is_picture = picture.dim() in (3, 4) and picture.shape[-3] == 3 and picture.numel() > 0
    if not is_picture or not picture.is_floating_point():
        raise SettingsError(
            f"a tensor holds floats (3, H, W) or (N, 3, H, W), not {picture.dtype} {tuple(picture.shape)}"
        )
    _require_range(float(picture.amin()), float(picture.amax()))
    batch = picture if picture.dim() == 4 else picture[None]
    return enhancer.enhance_tensor(batch, tone=tone).view_as(picture)


def _enhance_array(picture: NDArray[np.generic], enhancer: Enhancer, tone: Tone) -> NDArray[np.generic]:
    planes = picture[..., None] if picture.ndim == 2 else picture
    if planes.ndim != 3 or planes.shape[2] not in (1, 2, 3, 4) or 0 in planes.shape:
        raise SettingsError(f"an array is (H, W), or (H, W, C) with 1 to 4 channels, not {picture.shape}")
    count = 3 if planes.shape[2] > 2 else 1
    colours, alpha = planes[..., :count], planes[..., count] if planes.shape[2] > count else None
    result = planes.copy()
    if np.issubdtype(picture.dtype, np.floating):
        _require_range(float(colours.min()), float(colours.max()))
        result[..., :count] = _enhance_floats(colours.astype(np.float32), alpha, enhancer, tone)
    else:
        depth = _depth(picture)
        whole = Picture(colours.astype(depth, copy=False), None if alpha is None else alpha.astype(depth, copy=False))
        result[..., :count] = enhancer.enhance(whole, tone=tone).picture.pixels
    return result.reshape(picture.shape)


def _enhance_floats(
    colours: NDArray[np.float32], alpha: NDArray[np.generic] | None, enhancer: Enhancer, tone: Tone
) -> NDArray[np.float32]:
    shown = colours if alpha is None else without_hidden(colours, alpha)
    image = torch.from_numpy(np.ascontiguousarray(shown)).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
    bright = enhancer.enhance_tensor(image, tone=tone)[0].numpy()
    if colours.shape[2] == 1:
        bright = grey_of(bright)[None]
    bright = bright.transpose(1, 2, 0)
    return bright if alpha is None else np.where(alpha[..., None] == 0, colours, bright)


def _require_range(least: float, most: float) -> None:
    if most > _MOST:
        raise SettingsError(f"floats lie in [0, 1], and these reach {most:g}: divide them, or give integers")
    if least < _LEAST:
        raise SettingsError(f"floats lie in [0, 1], and these reach {least:g}: bring [-1, 1] to it by (x + 1) / 2")


def _depth(picture: NDArray[np.generic]) -> type[np.integer]:
    for depth in (np.uint8, np.uint16):
        if picture.dtype == depth:
            return depth
    raise SettingsError(f"an array holds uint8, uint16 or floats in [0, 1], not {picture.dtype}")
