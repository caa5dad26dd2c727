"""Enhance pictures: a loaded model, the tiles it runs on, and the way of one picture through both."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight_cli import cache
from lowlight_cli.backends import BACKENDS, SAMPLE_SIDE, BackendInfo, load_backend
from lowlight_cli.backends.base import Backend, TileEnhancer
from lowlight_cli.bars import Box, within_bars
from lowlight_cli.device import (
    bound_threads,
    choose_device,
    choose_dtype,
    explained_memory,
    free_bytes,
    is_out_of_memory,
    precision_name,
    usable_precision,
)
from lowlight_cli.errors import NumericsError, SettingsError, WeightsError
from lowlight_cli.images import Canvas, Picture, Pixels
from lowlight_cli.manifest import find_entry, read_manifest
from lowlight_cli.settings import Compute, Tiling, Tone, check_compiling, check_denoise
from lowlight_cli.tiling import SMALLEST_TILE, Source, TensorSource, Window, count_tiles, spread_windows, tiled_rows
from lowlight_cli.tone import apply_tone
from lowlight_cli.weights_file import WeightsFile, read_weights

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Is told how much is done and how much there is in all: tiles, or bytes of a download."""

# The smaller tiles are, the more is computed twice where they overlap; a GPU wants work for all its cores besides.
_LARGEST_TILE = {"cpu": 1024, "mps": 1024, "cuda": 2048}
# Of a picture that a network takes whole; and of a tile, for a picture that is cut is large itself.
_CPU_BYTES, _CPU_TILE_BYTES = 1400 << 20, 700 << 20
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Enhanced:
    """A finished picture, with the tile side (0: whole) and the precision that it was made with."""

    picture: Picture
    tile: int
    precision: str


class Enhancer:
    """A model on a device, ready for any number of pictures. Not for several threads at once."""

    def __init__(
        self, model: str, load: Callable[[torch.dtype], Backend], compute: Compute, *, made_of: str = ""
    ) -> None:
        self.model = model
        self.made_of = made_of or model  # equal for equal networks only, where a name is not
        self.device = choose_device(compute.device)
        check_compiling(compute.compile, self.device.type)
        self.compiling = compute.compile
        self.dtype = choose_dtype(compute.precision, self.device)
        self.tiling = compute.tiling
        self._load = load
        self._backends: dict[torch.dtype, Backend] = {}

    @property
    def info(self) -> BackendInfo:
        """The facts of the model's backend."""
        return self.backend(self.dtype).info

    @property
    def precision(self) -> str:
        """The precision asked for: fp32, bf16 or fp16."""
        return precision_name(self.dtype)

    def backend(self, dtype: torch.dtype) -> Backend:
        """Return the backend in a dtype; loaded once."""
        if dtype not in self._backends:
            self._backends[dtype] = self._load(dtype)
        return self._backends[dtype]

    def tile_size(self, height: int, width: int) -> int:
        """Return the side of the tiles for a picture of this size, 0 for none: as set, or chosen from memory."""
        size = self._chosen_tile(height, width) if self.tiling.size is None else self.tiling.size
        return 0 if size >= max(height, width) else size

    def _chosen_tile(self, height: int, width: int) -> int:
        cost = self.backend(self.dtype).peak_bytes_per_pixel
        whole = tile = free_bytes(self.device) // 2
        if self.device.type == "cpu":
            tile = min(tile, _CPU_TILE_BYTES)
            whole = min(whole, _CPU_BYTES if self.info.needs_weights else _CPU_TILE_BYTES)
        if height * width * cost <= whole:
            return 0
        side = min(math.isqrt(tile // cost), _LARGEST_TILE[self.device.type])
        return max(side // 16 * 16, SMALLEST_TILE)

    def at_once(self, height: int, width: int) -> int:
        """Return how many whole pictures of this size go best side by side: on a CPU one a core, as memory allows.

        What has no weights is done in less time than it is handed over in.
        """
        if self.device.type != "cpu" or self.compiling == "full" or not self.info.needs_weights:
            return 1
        cost = height * width * self.backend(self.dtype).peak_bytes_per_pixel
        return max(min(torch.get_num_threads(), free_bytes(self.device) // 2 // cost), 1)

    def enhance(self, picture: Picture, *, tone: Tone = Tone(), on_tile: Progress | None = None) -> Enhanced:
        """Enhance one picture; its format, depth, profile, alpha and tags stay as they are, and so do black bars.

        Raises ResourceError when memory runs out at the smallest tile and NumericsError when the result is not
        finite in fp32 either.
        """
        if self.info.needs_weights and (box := box_of(picture)):
            inner = self._enhanced(picture.part(*box), tone, on_tile)
            return replace(inner, picture=picture.with_part(*box, inner.picture))
        return self._enhanced(picture, tone, on_tile)

    def _enhanced(self, picture: Picture, tone: Tone, on_tile: Progress | None) -> Enhanced:
        source = PictureSource(picture, self.device)
        run = _Run(self, source, on_tile=on_tile)
        canvas = Canvas(picture)
        for band in run.bands(tone):
            if canvas.takes_levels:
                canvas.add_levels(_levels(band[0], picture.pixels.dtype))
            else:
                canvas.add(band[0].cpu().numpy())
        return Enhanced(canvas.picture(), run.size, precision_name(run.dtype))

    def enhance_tensor(self, image: Tensor, *, tone: Tone = Tone()) -> Tensor:
        """Enhance RGB float pictures `(N, 3, H, W)` in [0, 1], one by one; same shape, dtype and device out.

        Raises as `enhance` does.
        """
        results = [torch.cat(list(_Run(self, _TensorSource(one[None].float())).bands(tone)), dim=-2) for one in image]
        return torch.cat(results).to(image)


def box_of(picture: Picture) -> Box | None:
    """Return what lies within a picture's bars, None where it has none; black that alpha hides is no bar."""
    return None if picture.alpha is not None else within_bars([picture.pixels])


def _geometry(info: BackendInfo, tiling: Tiling, size: int) -> dict[str, int]:
    overlap = min(tiling.overlap, size // 2)
    return {"size": size, "overlap": overlap, "halo": info.halo or 0, "multiple_of": info.multiple_of}


class _Previewed(Source, Protocol):
    """A source that can show itself scaled down."""

    def preview(self, side: int) -> Tensor:
        """Return the whole as `(1, 3, h, w)`, area-averaged so that the long side is at most `side` pixels."""


@torch.inference_mode()
def _levels(band: Tensor, dtype: "np.dtype[np.integer]") -> Pixels:
    """Return floats `(3, h, W)` in [0, 1], which are overwritten, as the nearest levels of a depth: `(h, W, 3)`."""
    levels = band.clamp_(0, 1).mul_(np.iinfo(dtype).max).round_()
    if levels.device.type != "cpu":
        kind = torch.uint8 if dtype == np.uint8 else torch.int32  # torch cannot compute in 16 bits without a sign
        moved: Pixels = levels.to(kind).permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)
        return moved
    found = np.empty((*levels.shape[1:], len(levels)), dtype)
    for channel, plane in enumerate(levels.numpy()):  # on one core in half the time that torch takes on two
        np.copyto(found[..., channel], plane, casting="unsafe")
    return found


class PictureSource:
    """A picture's own integers, as floats part by part; instead of colours that alpha hides, of what is seen."""

    def __init__(self, picture: Picture, device: torch.device = _CPU) -> None:
        self._picture, self._device = picture.without_hidden(), device
        self.height, self.width = picture.height, picture.width

    def read(self, rows: slice, columns: slice) -> Tensor:
        """Return the part `(1, 3, h, w)` as sRGB floats on the device."""
        if self._picture.profile is not None:
            return torch.from_numpy(self._picture.srgb(rows, columns))[None].to(self._device)
        # As `srgb`, by torch. Integers travel, a quarter of the bytes; but not all devices know 16 bits without a sign.
        place = self._device if self._device.type == "cuda" else _CPU
        pixels = self._picture.pixels[rows, columns]
        if place.type == "cuda":
            held = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())  # torch wants to be let write
            planes = held.to(place).permute(2, 0, 1).contiguous()
        else:
            planes = torch.from_numpy(np.stack([pixels[..., channel] for channel in range(pixels.shape[2])]))
        # A number as divisor would be taken for a factor on a GPU: its inverse, rounded.
        most = torch.full((), np.iinfo(pixels.dtype).max, dtype=torch.float32, device=place)
        return planes.to(torch.float32).div_(most).expand(3, -1, -1).contiguous()[None].to(self._device)

    def preview(self, side: int) -> Tensor:
        """Return the whole, area-averaged so that its long side is at most `side` pixels."""
        return torch.from_numpy(self._picture.preview(side))[None]


class _TensorSource(TensorSource):
    def preview(self, side: int) -> Tensor:
        scale = min(1.0, side / max(self.height, self.width))
        size = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        return F.adaptive_avg_pool2d(self.image, size)


class _Run:
    """One picture's way through the tiles: to the device and back, with a second try in fp32 where numbers break."""

    def __init__(self, enhancer: Enhancer, source: _Previewed, *, on_tile: Progress | None = None) -> None:
        self._enhancer, self._source, self._on_tile = enhancer, source, on_tile
        self.size = enhancer.tile_size(source.height, source.width)
        self.dtype = enhancer.dtype
        self._geometry = _geometry(enhancer.info, enhancer.tiling, self.size)
        self._total = count_tiles(source.height, source.width, **self._geometry)
        self._done = 0
        self._tile_enhancers: dict[torch.dtype, TileEnhancer] = {}

    @torch.inference_mode()
    def bands(self, tone: Tone) -> Iterator[Tensor]:
        """Yield the finished picture from top to bottom, `(1, 3, rows, W)` in [0, 1]; made of tiles, on the CPU."""
        done = 0
        for band in tiled_rows(self, self._source, **self._geometry):
            rows = slice(done, done + band.shape[-2])
            done = rows.stop
            if tone != Tone():
                band = apply_tone(self._source.read(rows, slice(None)).to(band.device), band, tone)
            yield band

    def __call__(self, tile: Tensor, window: Window) -> Tensor:
        result = self._computed(tile, window)
        # What is not a number shows in the sum, and infinities are none once `bounded`.
        if not math.isfinite(result.sum().item()):
            if self.dtype == torch.float32:
                raise NumericsError("the network gave numbers that are not finite; nothing was written")
            logger.warning("%s overflowed; going on in fp32", precision_name(self.dtype))
            self.dtype = torch.float32
            return self(tile, window)
        self._done += 1
        if self._on_tile:
            self._on_tile(min(self._done, self._total), self._total)
        return result

    def _computed(self, tile: Tensor, window: Window) -> Tensor:
        try:
            moved = tile.to(self._enhancer.device)
            if tile.shape[-2:] == (window.height, window.width):
                return self._enhancer.backend(self.dtype).enhance(moved)
            return self._tile_enhancer()(moved, window).cpu()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise

    def _tile_enhancer(self) -> TileEnhancer:
        if self.dtype not in self._tile_enhancers:
            side = self._enhancer.info.preview_side
            preview = self._source.preview(side) if side else torch.empty(1, 3, 0, 0)
            self._tile_enhancers[self.dtype] = self._prepared(preview.to(self._enhancer.device), self._samples())
        return self._tile_enhancers[self.dtype]

    def _samples(self) -> Tensor:
        source, info = self._source, self._enhancer.info
        windows = spread_windows(
            source.height, source.width, count=info.samples, side=SAMPLE_SIDE, multiple_of=info.multiple_of
        )
        parts = [source.read(slice(one.top, one.bottom), slice(one.left, one.right)) for one in windows]
        return torch.cat(parts).to(self._enhancer.device) if parts else torch.empty(0, 3, 0, 0)

    def _prepared(self, preview: Tensor, samples: Tensor) -> TileEnhancer:
        """Let the backend see the whole picture; where memory runs out, fewer samples of it."""
        while True:
            try:
                return self._enhancer.backend(self.dtype).tile_enhancer(preview, samples)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(samples) < 2:
                    raise
            samples = samples[::2]


@dataclass(frozen=True)
class Model:
    """A network's weights and settings, found and read, and on no device yet: it can be sent to other machines."""

    name: str
    backend: str
    weights: WeightsFile | None = None
    network: Mapping[str, object] = field(default_factory=dict)
    denoise: float | None = None

    def on(self, compute: Compute, *, for_clips: bool = False) -> Enhancer:
        """Make the network ready on a device, where `compute` leaves it open the best way for pictures or for clips.

        Raises DeviceError, WeightsError for weights that do not fit, and ResourceError when memory runs out.
        """
        device = _CPU if self.weights is None else choose_device(compute.device)
        bound_threads()
        precision = usable_precision(compute.precision, device)
        if precision != compute.precision:
            logger.warning("%s has no bf16 arithmetic, so it computes in fp32: faster here, and more exact", device)

        compiling = compute.compile
        if compiling == "auto":
            compiling = "graph" if for_clips and device.type == "cuda" else "off"

        def load(dtype: torch.dtype) -> Backend:
            return load_backend(
                self.backend,
                self.weights,
                device=device,
                dtype=dtype,
                network=self.network,
                denoise=self.denoise,
                compiling=compiling,
            )

        digest = "" if self.weights is None else self.weights.sha256
        made_of = repr((self.backend, digest, sorted(self.network.items()), self.denoise))
        enhancer = Enhancer(self.name, load, replace(compute, precision=precision, compile=compiling), made_of=made_of)
        with explained_memory(f"memory ran out on {device} as the network was loaded; close other programs"):
            enhancer.backend(enhancer.dtype)  # weights that do not fit are an error now, not at the first picture
        return enhancer


def find_model(
    model: str,
    *,
    weights: Path | None = None,
    network: Mapping[str, object] | None = None,
    denoise: float | None = None,
    offline: bool = False,
    on_download: Progress | None = None,
) -> Model:
    """Find and read a model: a name of the weights manifest, `identity`, or a file of weights.

    With `weights`, `model` only names the result. `network` holds settings that a file of weights cannot tell, and
    `denoise` (0..1) is how much of the noise goes, for backends that part it from light; None is the backend's own.

    Raises SettingsError for an unknown name, settings of another backend or a `denoise` beyond its bounds, and
    WeightsError when weights cannot be had or read.
    """
    check_denoise(denoise)
    if weights is None and model == "identity":
        return Model(model, "identity", network=_told(network, "identity"), denoise=denoise)
    if weights is not None:
        held = read_weights(weights)
        name = _backend_of(held)
        return Model(model, name, held, _told(network, name), denoise)
    entry = find_entry(read_manifest(), model)
    path = cache.fetch(entry, offline=offline, progress=on_download, notice=logger.warning)
    # Only the digest of the very bytes that are loaded protects.
    held = read_weights(path, sha256=cache.known_digest(entry))
    return Model(model, entry.backend, held, {**entry.network, **_told(network, entry.backend)}, denoise)


def load_enhancer(
    model: str,
    *,
    weights: Path | None = None,
    compute: Compute = Compute(),
    network: Mapping[str, object] | None = None,
    denoise: float | None = None,
    offline: bool = False,
    on_download: Progress | None = None,
) -> Enhancer:
    """Find a model as `find_model` does and make it ready; raises as it does, and DeviceError before all else."""
    check_compiling(compute.compile, choose_device(compute.device).type)
    found = find_model(
        model, weights=weights, network=network, denoise=denoise, offline=offline, on_download=on_download
    )
    return found.on(compute)


def _told(network: Mapping[str, object] | None, backend: str) -> Mapping[str, object]:
    """Return the settings that somebody gave a network; of all, only DarkIR takes any."""
    if network and backend != "darkir":
        raise SettingsError(f"{' and '.join(f'--{name}' for name in network)} means nothing to {backend}")
    return network or {}


def _backend_of(weights: WeightsFile) -> str:
    signatures = {name: info.signature for name, info in BACKENDS.items() if info.signature}
    for backend, names in signatures.items():
        if weights.tensors.keys() >= set(names):
            return backend
    known = ", ".join(f"{names[0]!r} ({backend})" for backend, names in signatures.items())
    raise WeightsError(f"the file holds weights of no network we know: none of {known} is in it")
