"""What every backend must keep; `test_contract.py` runs it for each."""

import torch

from lowlight_cli.backends.base import Backend
from lowlight_cli.tiling import spread_windows, tiled

SIZES = [(1, 1), (1, 7), (9, 1), (16, 16), (33, 70), (64, 47)]


def dark_picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 100 + width)) * 0.3


def keeps_shape_range_and_input(backend: Backend) -> None:
    for height, width in SIZES:
        image = dark_picture(height, width)
        before = image.clone()
        out = backend.enhance(image)
        assert out.shape == image.shape
        assert out.dtype == image.dtype
        assert out.isfinite().all()
        assert 0 <= out.min() <= out.max() <= 1
        assert torch.equal(image, before), "the caller's tensor was changed"


def is_deterministic(backend: Backend) -> None:
    image = dark_picture(40, 52)
    assert torch.equal(backend.enhance(image), backend.enhance(image))


def decides_beforehand_what_it_decides_at_once(backend: Backend) -> None:
    pictures = [dark_picture(40, 52), dark_picture(40, 52) * 0.2]
    begun = [backend.whole_enhancer(image) for image in pictures]
    for enhance, image in zip(begun, pictures, strict=True):
        assert torch.equal(enhance(image), backend.enhance(image))


def says_nan_where_numbers_break(backend: Backend) -> None:
    image = dark_picture(32, 32)
    image[..., 5, 5] = torch.nan
    assert not backend.enhance(image).isfinite().all()


def pictures_stay_finer_than_their_dtype(backend: Backend) -> None:
    """A network in half precision must not leave a 16-bit picture the 128 levels that bfloat16 has above a half."""
    ramp = torch.linspace(0, 0.3, 64 * 1024).view(1, 1, 64, 1024).expand(1, 3, -1, -1).contiguous()
    for out in (backend.enhance(ramp), backend.whole_enhancer(ramp)(ramp)):
        assert out.dtype == torch.float32
        assert out[:, 1].unique().numel() > 20_000


def tiles_agree_with_the_whole(backend: Backend, *, within: float) -> None:
    """Exactly as the facts promise: within rounding with a halo, nearly without."""
    image = dark_picture(150, 170)
    side = backend.info.preview_side
    preview = torch.nn.functional.adaptive_avg_pool2d(image, min(side, 150)) if side else torch.empty(1, 3, 0, 0)
    halo, multiple_of = backend.info.halo or 0, backend.info.multiple_of
    windows = spread_windows(150, 170, count=backend.info.samples, side=64, multiple_of=multiple_of)
    parts = [image[..., one.top : one.bottom, one.left : one.right] for one in windows]
    enhance_tile = backend.tile_enhancer(preview, torch.cat(parts) if parts else torch.empty(0, 3, 0, 0))
    out = tiled(enhance_tile, image, size=96, overlap=16, halo=halo, multiple_of=multiple_of)
    assert (out - backend.enhance(image)).abs().mean() < within
