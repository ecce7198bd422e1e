"""Random projections that mix the maps of a feature network; they are drawn and never trained.

Sauer et al. 2021, "Projected GANs Converge Faster" (arXiv:2111.01007), section 3.2: mixing across
channels (CCM), then across scales (CSM); the sizes are those of StyleGAN-XL and of CTM's code.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

MIXED = (64, 128, 256, 512)  # channels after the mixing across channels
CHANNELS = (64, 64, 128, 256)  # of the maps that come out, at 1/2, 1/4, 1/8 and 1/16 of the image
PYRAMID = (96, 192, 384, 768)  # channels of a transformer's four maps once their sizes differ


class Projection(nn.Module):
    """Four maps of a network, at 1/4 to 1/32 of the image, to four (B, CHANNELS[i], h, w).

    A map comes out at twice the side at which it goes in. Those of a transformer, which are all
    at 1/16 (`sides`), are brought to these sizes first. Weights are drawn from the global
    generator as PyTorch draws them.
    """

    def __init__(self, channels: Sequence[int], sides: Sequence[int]):
        super().__init__()
        flat = len(set(sides)) == 1
        resized = [_resized(i, n) if flat else nn.Identity() for i, n in enumerate(channels)]
        self.resized = nn.ModuleList(resized)
        inputs = PYRAMID if flat else channels
        self.across_channels = nn.ModuleList(
            nn.Conv2d(n, m, 1) for n, m in zip(inputs, MIXED, strict=True)
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(n, m, 1) for n, m in zip(MIXED, CHANNELS, strict=True)
        )
        self.requires_grad_(False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        projected: list[Tensor] = []
        for i in reversed(range(len(MIXED))):
            h = self.across_channels[i](self.resized[i](maps[i]))
            if projected:
                h = h + projected[-1]
            # A 1x1 convolution and an interpolation commute; in this order it costs a quarter.
            h = self.across_scales[i](h)
            projected.append(
                functional.interpolate(h, scale_factor=2, mode="bilinear", align_corners=True)
            )
        return projected[::-1]


def _resized(index: int, channels: int) -> nn.Module:
    """Brings the map `index` of a transformer from 1/16 of the image to 1/4, 1/8, 1/16, 1/32."""
    width = PYRAMID[index]
    narrow = nn.Conv2d(channels, width, 1)
    if index < 2:
        factor = 4 >> index
        return nn.Sequential(narrow, nn.ConvTranspose2d(width, width, factor, factor))
    return nn.Sequential(narrow, nn.Conv2d(width, width, 3, 2, 1)) if index == 3 else narrow
