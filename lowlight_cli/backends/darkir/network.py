"""The DarkIR network and its cross-scale-fusion variant."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lowlight_cli.backends.darkir.blocks import CrossScaleFusion, DBlock, EBlock, Stage, pad_to_multiple
from lowlight_cli.backends.darkir.inference import FoldedDarkIR, fold

_FOLDABLE = (torch.float32, torch.bfloat16, torch.float16)


class DarkIR(nn.Module):
    """DarkIR: an encoder that lifts the light in the frequency domain and a decoder that removes blur and noise.

    `forward(image)` takes RGB `(N, 3, H, W)` in [0, 1], any size, and returns the same shape, not clamped;
    `forward(image, side_loss=True)` returns `(side, out)`, `side` being the deep-supervision picture at
    1/2^n of the padded size, n = len(enc_blk_nums).

    Published sizes: width 32 (DarkIR-m), width 64 (DarkIR-l). Beyond the paper: `use_csf` and `csf_reduction` select
    the cross-scale-fusion variant; `encoder_dilations` puts dilated branches in the encoder too; `extra_channels`
    more input channels condition the network without being part of the picture; `direction_floor` as in `FreMLP`.
    """

    def __init__(
        self,
        img_channel: int = 3,
        width: int = 32,
        middle_blk_num_enc: int = 2,
        middle_blk_num_dec: int = 2,
        enc_blk_nums: Sequence[int] = (1, 2, 3),
        dec_blk_nums: Sequence[int] = (3, 1, 1),
        dilations: Sequence[int] = (1, 4, 9),
        extra_depth_wise: bool = True,
        *,
        use_csf: bool = False,
        csf_reduction: int = 4,
        encoder_dilations: Sequence[int] = (1,),
        extra_channels: int = 0,
        direction_floor: float = 0.0,
    ) -> None:
        super().__init__()
        if len(enc_blk_nums) != len(dec_blk_nums):
            raise ValueError("the encoder and the decoder need the same number of stages")

        def encoder(channels: int, count: int) -> Stage:
            return Stage(
                [
                    EBlock(
                        channels,
                        encoder_dilations,
                        extra_depth_wise=extra_depth_wise,
                        direction_floor=direction_floor,
                    )
                    for _ in range(count)
                ]
            )

        def decoder(channels: int, count: int) -> Stage:
            blocks = [DBlock(channels, dilations, extra_depth_wise=extra_depth_wise) for _ in range(count)]
            return Stage(blocks)

        widths = [width * 2**level for level in range(len(enc_blk_nums) + 1)]
        deepest = widths[-1]
        self.intro = nn.Conv2d(img_channel + extra_channels, width, 3, padding=1)
        self.encoders = nn.ModuleList(encoder(c, n) for c, n in zip(widths, enc_blk_nums, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks_enc = encoder(deepest, middle_blk_num_enc)
        self.middle_blks_dec = decoder(deepest, middle_blk_num_dec)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)) for c in reversed(widths[1:])
        )
        up_widths = widths[-2::-1]
        self.csf_blocks = nn.ModuleList(CrossScaleFusion(c, csf_reduction) for c in up_widths if use_csf)
        self.decoders = nn.ModuleList(decoder(c, n) for c, n in zip(up_widths, dec_blk_nums, strict=True))
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.side_out = nn.Conv2d(deepest, img_channel, 3, padding=1)
        self.img_channel = img_channel
        self._folded: tuple[tuple[object, ...], FoldedDarkIR] | None = None
        self.multiple_of: int = 2 ** len(enc_blk_nums)

    def forward(self, image: Tensor, side_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Enhance `(N, 3, H, W)`; without gradients, in eval mode, through the folded form."""
        if self.training or torch.is_grad_enabled() or image.dtype not in _FOLDABLE:
            return self.as_trained(image, side_loss)
        folded = self._up_to_date_fold(image)
        return folded.with_side(image) if side_loss else folded(image)

    def _up_to_date_fold(self, image: Tensor) -> FoldedDarkIR:
        if any(p.is_inference() for p in self.parameters()):  # these keep no count of their changes
            return fold(self, dtype=image.dtype)
        stamp = (image.dtype, image.device, *((id(p), p._version) for p in self.parameters()))
        if self._folded is None or self._folded[0] != stamp:
            self._folded = (stamp, fold(self, dtype=image.dtype))
        return self._folded[1]

    def as_trained(self, image: Tensor, side_loss: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Do what `forward` does, in any mode by the form that is trained: with a gradient, and nothing in place."""
        padded = pad_to_multiple(image, self.multiple_of)
        x = self.intro(padded)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        light = self.middle_blks_enc(x)
        x = self.middle_blks_dec(light) + light
        for level, (up, decoder) in enumerate(zip(self.ups, self.decoders, strict=True)):
            x, skip = up(x), skips.pop()
            x = decoder(self.csf_blocks[level](skip, x) if self.csf_blocks else x + skip)
        out = self.ending(x) + padded[:, : self.img_channel]
        out = out[..., : image.shape[-2], : image.shape[-1]]
        return (self.side_out(light), out) if side_loss else out
