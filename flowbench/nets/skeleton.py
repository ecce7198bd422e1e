"""The U shape of EDM's networks: an encoder whose outputs its decoder reads again."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flowbench.nets.layers import Conv2d, Style, UNetBlock
from flowbench.nets.settings import Settings


class Skeleton(nn.Module):
    """Encoder and decoder for images of `shape` (C, H, W); a subclass adds embedding and output.

    The first convolution has `first` outputs, what `trunk` returns has `width` channels.
    """

    def __init__(self, settings: Settings, shape: Sequence[int], style: Style, first: int):
        super().__init__()
        self.style = style
        self.width = settings.channels * settings.mult[0]
        self.enc, widths = encoder(settings, shape, style, first)
        self.dec = decoder(settings, shape, style, widths)

    def trunk(self, x: Tensor, embedding: Tensor, second: Tensor | None = None) -> Tensor:
        """What the output layers get for images (B, C, H, W) and embeddings (B, E)."""
        skips: list[Tensor] = []
        image = x
        for name, layer in self.enc.items():
            if "aux_residual" in name:
                x = image = skips[-1] = (x + layer(image)) * self.style.skip_scale
                continue
            x = layer(x, embedding, second) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], 1)
            if isinstance(layer, UNetBlock):  # what else is there belongs to the output
                x = layer(x, embedding, second)
        return x


def encoder(
    settings: Settings, shape: Sequence[int], style: Style, first: int
) -> tuple[nn.ModuleDict, list[int]]:
    """The layers down to the lowest resolution, in order, and the channels of each skip."""
    channels, width, widths = shape[0], first, [first]
    top = Conv2d(channels, first, 3, style.init)
    layers = nn.ModuleDict({f"{shape[-1]}x{shape[-1]}_conv": top})
    for level, factor in enumerate(settings.mult):
        side = shape[-1] >> level
        if level:
            layers[f"{side}x{side}_down"] = UNetBlock(style, width, width, "down")
            widths.append(width)
        if level and style.residual:
            residual = Conv2d(channels, width, 3, style.init, "down", style.taps, fused=True)
            layers[f"{side}x{side}_aux_residual"] = residual
            channels = width
        for i in range(settings.blocks):
            attention = side in settings.attention
            wide = settings.channels * factor
            layers[f"{side}x{side}_block{i}"] = UNetBlock(style, width, wide, "", attention)
            width = wide
            widths.append(width)
    return layers, widths


def decoder(
    settings: Settings, shape: Sequence[int], style: Style, widths: Sequence[int]
) -> nn.ModuleDict:
    """The layers up from the lowest resolution, in order; each `block` gets the latest skip too."""
    layers, skips, width = nn.ModuleDict(), list(widths), widths[-1]
    for level in reversed(range(len(settings.mult))):
        side = shape[-1] >> level
        if not layers:
            layers[f"{side}x{side}_in0"] = UNetBlock(style, width, width, "", attention=True)
            layers[f"{side}x{side}_in1"] = UNetBlock(style, width, width)
        else:
            layers[f"{side}x{side}_up"] = UNetBlock(style, width, width, "up")
        for i in range(settings.blocks + 1):
            last = style.everywhere or i == settings.blocks
            attention = last and side in settings.attention
            wide = settings.channels * settings.mult[level]
            block = UNetBlock(style, width + skips.pop(), wide, "", attention)
            layers[f"{side}x{side}_block{i}"] = block
            width = wide
    return layers
