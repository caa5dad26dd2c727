"""DarkIR as a backend: settings read off the weights, light lifted before the network, tiles that agree."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lowlight_cli.backends import BACKENDS
from lowlight_cli.backends.base import TileEnhancer, WholeEnhancer, Window, bounded
from lowlight_cli.backends.darkir.inference import FoldedDarkIR, fold
from lowlight_cli.backends.darkir.lift import FULL_TRUST, Lift, lift, plan_lift, run_lifted
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.darkir.pooling import PoolRecord, pool_from
from lowlight_cli.compiling import compiled
from lowlight_cli.errors import WeightsError
from lowlight_cli.settings import Compiling
from lowlight_cli.weights_file import WeightsFile, load_strict

logger = logging.getLogger(__name__)

Settings = Mapping[str, object]

# Wider than any network known; files are not trusted.
_MOST_STAGES = 12
# The least and the most of a network's settings, where it is not blocks in a stage.
_LIMITS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("width", "img_channel", "csf_reduction"), (1, 4096)),
    **dict.fromkeys(("dilations", "encoder_dilations"), (1, 64)),
}
_BLOCKS = (0, 64)
_SWITCHES, _FRACTIONS = ("use_csf", "extra_depth_wise"), ("direction_floor",)
_LISTS = ("enc_blk_nums", "dec_blk_nums", "dilations", "encoder_dilations")
_LONGEST_NAME = 200


class DarkIRBackend:
    """A folded DarkIR on a device. A network with one conditioning channel gets its picture lifted, and is told."""

    info = BACKENDS["darkir"]

    def __init__(
        self, network: DarkIR, *, device: torch.device, dtype: torch.dtype, compiling: Compiling = "off"
    ) -> None:
        self._network: FoldedDarkIR = fold(network.to(device), dtype=dtype)
        self._alone = compiled(self._network, compiling)
        self._sharing = compiled(self._with_vectors, compiling)
        self._is_lifted = network.intro.in_channels > network.img_channel
        self._unshuffle = math.isqrt(network.img_channel // 3)
        # Measured on a CPU at 0.25 to 3 Mpx: 14 to 24 maps of `width` channels at the network's own resolution.
        maps = 24 * network.intro.out_channels / self._unshuffle**2
        self.peak_bytes_per_pixel = round(maps * dtype.itemsize) + 96

    def enhance(self, image: Tensor) -> Tensor:
        """Enhance a whole picture `(1, 3, H, W)`."""
        return self.whole_enhancer(image)(image)

    def whole_enhancer(self, image: Tensor) -> WholeEnhancer:
        """Plan the picture's lift, and return what lifts and cleans it."""
        return partial(self._run, planned=self._plan_lift(image), network=self._alone)

    def tile_enhancer(self, preview: Tensor, samples: Tensor) -> TileEnhancer:
        """Let tiles share what only the whole picture knows of its light.

        A network without a lift makes the light itself, and each tile's would differ: tiles get the pooled vectors of
        the preview, and the low frequencies of its result. A lifted picture's light is the lift, which tiles share
        anyhow, and its network only cleans. There the preview, its noise averaged away, misleads, and tiles get the
        pooled vectors of samples at full size: on six dark photos, in tiles of 256 or 512 pixels, that brings them
        within 40 to 53 dB of the whole picture, where their own vectors leave 32 to 47 and steps of up to 20/255.
        """
        planned = self._plan_lift(preview)
        record = PoolRecord()

        def recording(folded: Tensor) -> Tensor:
            result: Tensor = self._network(folded, record.record)
            return result

        def sharing(folded: Tensor) -> Tensor:
            return self._sharing(folded, *record.vectors)

        if self._is_lifted:
            self._run(samples, planned, recording)
            return lambda tile, _: self._run(tile, planned, sharing)
        guide = self._run(preview, planned, recording)

        def enhance_tile(tile: Tensor, window: Window) -> Tensor:
            return bounded(_with_low_frequencies(self._run(tile, planned, sharing), guide, window))

        return enhance_tile

    def _plan_lift(self, picture: Tensor) -> Lift:
        """Read the lift off a preview, whichever way the picture comes: whole and in tiles it must be the same."""
        if not self._is_lifted:
            return Lift(0.0)
        shrink = self.info.preview_side / max(picture.shape[-2:])
        if shrink < 1:
            height, width = (max(1, round(side * shrink)) for side in picture.shape[-2:])
            picture = F.adaptive_avg_pool2d(picture, (height, width))
        return plan_lift(picture)

    def _with_vectors(self, folded: Tensor, *vectors: Tensor) -> Tensor:
        result: Tensor = self._network(folded, pool_from(vectors))
        return result

    def _run(self, image: Tensor, planned: Lift, network: Callable[[Tensor], Tensor]) -> Tensor:
        told = None
        if self._is_lifted and planned.stops <= 0:
            return image.clone()  # well lit: `run_lifted` would give the network's correction no weight
        if self._is_lifted:
            image = lift(image, *planned)
            told = torch.full((1,), planned.stops, device=image.device)
        height, width = image.shape[-2:]
        step = self._unshuffle
        padded = F.pad(image, (0, -width % step, 0, -height % step), mode="replicate")
        result = run_lifted(network, padded, told, unshuffle=step, full_trust=FULL_TRUST)
        return bounded(result[..., :height, :width])


def _with_low_frequencies(tile: Tensor, guide: Tensor, window: Window) -> Tensor:
    """Give a tile the low frequencies of the guide, the whole picture at a small scale; same shape."""
    rows, columns = guide.shape[-2] / window.height, guide.shape[-1] / window.width
    box = (
        slice(round(window.top * rows), max(round(window.bottom * rows), round(window.top * rows) + 1)),
        slice(round(window.left * columns), max(round(window.right * columns), round(window.left * columns) + 1)),
    )
    wanted = guide[(..., *box)]
    difference = wanted - F.interpolate(tile, size=wanted.shape[-2:], mode="area")
    smooth = F.avg_pool2d(F.pad(difference, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    return tile + F.interpolate(smooth, size=tile.shape[-2:], mode="bilinear", align_corners=False)


def load_darkir(
    weights: WeightsFile,
    settings: Settings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    compiling: Compiling = "off",
) -> DarkIRBackend:
    """Build the network that the tensors describe and fill it; raises WeightsError when they describe none."""
    network = build_network(weights, settings)
    channels, more = network.img_channel, network.intro.in_channels - network.img_channel
    if channels != 3 * math.isqrt(channels // 3) ** 2 or more > 1:
        raise WeightsError(f"the weights are a DarkIR's of {channels} and {more} channels, which no picture has")
    return DarkIRBackend(network, device=device, dtype=dtype, compiling=compiling)


def build_network(weights: WeightsFile, settings: Settings) -> DarkIR:
    """Return a DarkIR with these weights, in eval mode, in float32.

    What the shapes cannot tell comes from `settings` (a manifest's or the user's), then from the file's metadata.
    """
    counts = _counts(weights.tensors)
    arguments = {**_infer_arguments(weights.tensors, counts), **_stated_arguments(weights.metadata), **settings}
    for name, stage in (("dilations", "decoders"), ("encoder_dilations", "encoders")):
        if name not in arguments:
            arguments[name] = _usual_dilations(counts[f"{stage}.0.modules_list.0.branches"])
    _refuse_absurd(arguments)
    try:
        with torch.device("meta"):
            network = DarkIR(**arguments)  # type: ignore[arg-type]
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise WeightsError(f"the weights' settings {arguments} make no DarkIR: {error}") from error
    width = arguments["width"]
    load_strict(network, weights.tensors, described_as=f"the file, read as DarkIR of width {width} with {arguments},")
    return network.eval()


def _counts(names: Iterable[str]) -> Counter[str]:
    """Return for each list of modules, by what stands before its numbers, how long it is."""
    counts: Counter[str] = Counter()
    for name in names:
        for match in re.finditer(r"\.(\d{1,9})(?=\.)", name[:_LONGEST_NAME]):
            before = name[: match.start()]
            counts[before] = max(counts[before], int(match[1]) + 1)
    return counts


def _refuse_absurd(arguments: Mapping[str, object]) -> None:
    """Refuse what nobody trains, before a file of a few bytes has memory taken for it."""
    for name, value in arguments.items():
        is_list = isinstance(value, list | tuple)
        numbers: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
        least, most = _LIMITS.get(name, _BLOCKS)
        # Exactly these: to Python a bool is an int, and a network of 1.5 blocks breaks at its first picture.
        kinds = (bool,) if name in _SWITCHES else (int, float) if name in _FRACTIONS else (int,)
        fits = [type(number) in kinds and least <= number <= most for number in numbers]
        if is_list != (name in _LISTS) or len(numbers) > _MOST_STAGES or not all(fits):
            raise WeightsError(f"the weights' setting {name} is {str(value)[:60]}, which makes no DarkIR")


def _infer_arguments(tensors: Mapping[str, Tensor], counts: Counter[str]) -> dict[str, object]:
    stages = range(min(counts["encoders"], _MOST_STAGES + 1)), range(min(counts["decoders"], _MOST_STAGES + 1))
    try:
        intro, ending = tensors["intro.weight"], tensors["ending.weight"]
        width, channels = intro.shape[0], ending.shape[0]
        arguments: dict[str, object] = {
            "img_channel": channels,
            "extra_channels": intro.shape[1] - channels,
            "width": width,
            "middle_blk_num_enc": counts["middle_blks_enc.modules_list"],
            "middle_blk_num_dec": counts["middle_blks_dec.modules_list"],
            "enc_blk_nums": [counts[f"encoders.{stage}.modules_list"] for stage in stages[0]],
            "dec_blk_nums": [counts[f"decoders.{stage}.modules_list"] for stage in stages[1]],
            "extra_depth_wise": any(name.endswith("extra_conv.weight") for name in tensors),
        }
        if "csf_blocks.0.gate.1.weight" in tensors:
            squeezed, wide = tensors["csf_blocks.0.gate.1.weight"].shape[:2]
            arguments |= {"use_csf": True, "csf_reduction": wide // squeezed}
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise WeightsError(
            "these are no DarkIR weights: 'intro.weight' and 'ending.weight' are not both there, as 4-d tensors"
        ) from error
    return arguments


def _stated_arguments(metadata: Mapping[str, str]) -> dict[str, object]:
    if "network" not in metadata:
        return {}
    try:
        stated = json.loads(metadata["network"])
    except ValueError as error:
        raise WeightsError(f"the weights' metadata does not describe a network: {error}") from error
    if not isinstance(stated, dict):
        raise WeightsError("the weights' metadata does not describe a network: it is no table of settings")
    # These two say how the network is used; its shapes say the same.
    return {name: value for name, value in stated.items() if name not in ("lift", "unshuffle")}


def _usual_dilations(branches: int) -> tuple[int, ...]:
    """Return the dilation rates that a number of branches usually means: the shapes cannot tell them."""
    if branches == 1:
        return (1,)
    if branches == 3:
        logger.warning("the weights do not say their dilation rates; three branches are taken as 1, 4 and 9")
        return (1, 4, 9)
    raise WeightsError(f"the weights have {branches} dilated branches and do not say their rates: give --dilations")
