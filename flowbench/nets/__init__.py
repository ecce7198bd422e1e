"""The backbones that all methods share, so that methods differ and networks do not."""

from torch import nn

from flowbench.nets.denoiser import Denoiser
from flowbench.nets.mlp import MLP
from flowbench.nets.unet import UNet

__all__ = ["MLP", "Denoiser", "UNet", "default"]


def default(data, width: int | None = None) -> nn.Module:
    """The network for `data`, called as net(x, t, y) with t (B,) and y (B,) int64 or None.

    A gated MLP for vectors, a small U-Net for images; `width` None takes the default of each.
    """
    if data.kind == "image":
        return UNet(data.shape, data.classes, width or 32)
    return MLP(data.shape, data.classes, width or 128)
