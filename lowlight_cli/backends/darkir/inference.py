"""DarkIR in the form that pictures run through: the same function as the trained one, written for speed.

What changes, block by block, and why it is the same (measured on a CPU, where the convolutions are a small part):

- `beta` and `gamma` are factors on the output of a linear map, so they go into its weights. In the encoder `gamma`
  scales irfft2(magnitude * direction) channel by channel, which is linear in the magnitude: into `process1`.
- Channel attention scales the channels that `conv3` reads: for one picture it goes into `conv3`'s weights.
- A 3x3 convolution with two channels per group is slow everywhere. It is the sum of two depthwise ones: on the
  channels as they are and on the channels swapped in pairs, and `conv1`, linear, can put out both.
- The spectrum wants channels-first memory, all else channels-last. One copy between the two jumps a whole plane from
  number to number, which caches do not forgive; by way of rows `(H, C, W)` either half of it stays within a row of
  pixels or moves whole rows, and both together take half the time.
- A bias costs a pass over the result in most matrix products: a row of ones below the magnitudes makes it a weight.
- Convolutions go by the quickest way there is (`convolutions`), and blocks write their result over their input.
- On a CUDA GPU other steps are slow; `kernels` has them.
- Pooled vectors pass through a `Pool`, so that tiles can share those of the whole picture.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowlight_cli.backends.darkir import kernels
from lowlight_cli.backends.darkir.blocks import CrossScaleFusion, pad_to_multiple
from lowlight_cli.backends.darkir.convolutions import pointwise
from lowlight_cli.backends.darkir.folded import Folded, FoldedFusion, as_conv, bias_of, folded_stage
from lowlight_cli.backends.darkir.pooling import Pool, pool_here
from lowlight_cli.device import has_bf16
from lowlight_cli.machine import reuse_large_buffers

if TYPE_CHECKING:
    from lowlight_cli.backends.darkir.network import DarkIR


class FoldedDarkIR(Folded):
    """A DarkIR ready for pictures: same numbers as the network it was folded from, several times sooner."""

    intro_weight: Tensor
    intro_bias: Tensor
    ending_weight: Tensor
    ending_bias: Tensor
    side_weight: Tensor
    side_bias: Tensor

    def __init__(self, network: "DarkIR", dtype: torch.dtype) -> None:
        super().__init__(dtype)
        for name, conv in (("intro", network.intro), ("ending", network.ending), ("side", network.side_out)):
            self.keep(f"{name}_weight", conv.weight)
            self.keep(f"{name}_bias", bias_of(conv))

        self.encoders = nn.ModuleList(folded_stage(stage, dtype) for stage in network.encoders)
        self.middle_enc = folded_stage(network.middle_blks_enc, dtype)
        self.middle_dec = folded_stage(network.middle_blks_dec, dtype)
        self.decoders = nn.ModuleList(folded_stage(stage, dtype) for stage in network.decoders)
        fusions = (block for block in network.csf_blocks if isinstance(block, CrossScaleFusion))
        self.fusions = nn.ModuleList(FoldedFusion(fusion, dtype) for fusion in fusions)
        for level, down in enumerate(network.downs):
            self.keep(f"down{level}_weight", as_conv(down).weight)
            self.keep(f"down{level}_bias", bias_of(down))
        for level, up in enumerate(network.ups):
            assert isinstance(up, nn.Sequential)
            self.keep(f"up{level}_weight", as_conv(up[0]).weight)
        self.img_channel = network.img_channel
        self.multiple_of = network.multiple_of

    def forward(self, image: Tensor, pool: Pool = pool_here) -> Tensor:
        """Enhance `(N, C, H, W)` in [0, 1]; the result is not clamped. Same shape, less the conditioning channels.

        Only what is added to the image is computed in the network's dtype; the sum has the image's.
        """
        return self._run(image, pool)[1]

    def with_side(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(side, out)` as the training network does with `side_loss=True`."""
        light, out = self._run(image, pool_here)
        side = F.conv2d(light, self.side_weight, self.side_bias, padding=1)
        return side.to(image.dtype), out

    def _run(self, image: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
        padded = pad_to_multiple(image, self.multiple_of).contiguous(memory_format=torch.channels_last)
        x = F.conv2d(padded.to(self.dtype), self.intro_weight, self.intro_bias, padding=1)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoders):
            x = self._through(encoder, x, pool)
            skips.append(x)
            x = F.conv2d(x, getattr(self, f"down{level}_weight"), getattr(self, f"down{level}_bias"), stride=2)
        light = self._through(self.middle_enc, x, pool)
        x = self._through(self.middle_dec, light.clone(), pool).add_(light)
        for level, decoder in enumerate(self.decoders):
            x = F.pixel_shuffle(pointwise(x, getattr(self, f"up{level}_weight"), None), 2)
            x = x.contiguous(memory_format=torch.channels_last)
            skip = skips.pop()
            x = self.fusions[level](skip, x, pool) if len(self.fusions) else x.add_(skip)
            del skip
            x = self._through(decoder, x, pool)
        change = F.conv2d(x, self.ending_weight, self.ending_bias, padding=1)
        out = change.to(image.dtype).add_(padded[:, : self.img_channel])
        return light, out[..., : image.shape[-2], : image.shape[-1]]

    @staticmethod
    def _through(blocks: nn.Module, x: Tensor, pool: Pool) -> Tensor:
        for block in blocks.children():
            x = block(x, pool)
        return x


def fold(network: "DarkIR", *, dtype: torch.dtype = torch.float32) -> FoldedDarkIR:
    """Fold a trained network, where it lies, for inference in float32 or a half precision.

    The spectrum stays in float32 either way, and so does all else for bfloat16 on a CPU without it: what torch has
    for that case takes minutes for a picture. The network then still takes and gives bfloat16.
    """
    reuse_large_buffers()
    kernels.prepare(network.intro.weight.device)
    is_slow = dtype == torch.bfloat16 and not has_bf16(network.intro.weight.device)
    return FoldedDarkIR(network, torch.float32 if is_slow else dtype).eval()
