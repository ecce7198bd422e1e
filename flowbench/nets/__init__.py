"""The backbones that all methods share, so that methods differ and networks do not.

Nothing here imports torch before a network is asked for: the catalogue lists them without it.
"""

import dataclasses
from bisect import bisect_left
from importlib import import_module
from typing import TYPE_CHECKING, Any

from flowbench.nets.network import Network, Precision
from flowbench.records import FlowbenchError

if TYPE_CHECKING:
    from torch import nn

    from flowbench.nets.denoiser import Denoiser, Jumps, last_weight
    from flowbench.nets.embedding import Embedding
    from flowbench.nets.mlp import MLP
    from flowbench.nets.unet import UNet

__all__ = [
    "MLP",
    "Denoiser",
    "Embedding",
    "Jumps",
    "Network",
    "Precision",
    "UNet",
    "default",
    "last_weight",
    "parameters_of",
    "width_for",
]
PLACES = {
    **dict.fromkeys(("Denoiser", "Jumps", "last_weight"), "denoiser"),
    **{"Embedding": "embedding", "MLP": "mlp", "UNet": "unet"},
}


def __getattr__(name: str) -> Any:
    """What needs torch, imported when it is asked for."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"flowbench.nets.{PLACES[name]}"), name)


def default(data, width: int | None = None, times: int = 1) -> "nn.Module":
    """The network for `data`, called as net(x, t, y) with t (B,) and y (B,) int64 or None.

    The backbone that the run has chosen (`data.network`), or a gated MLP for vectors and a small
    U-Net for images; `width` None takes the default of each. With `times` 2 it is called with
    t (B, 2), and starts as the network of the first time.
    """
    if data.network is not None:
        return _backbone(data, width, times)
    from flowbench.nets.mlp import MLP
    from flowbench.nets.unet import UNet

    kind, usual = (UNet, 32) if data.kind == "image" else (MLP, 128)
    return kind(data.shape, data.classes, width or usual, times=times)


def _backbone(data, width: int | None, times: int) -> "nn.Module":
    from flowbench.nets.backbone import Backbone

    settings = data.network
    if width is not None:
        settings = dataclasses.replace(settings, channels=width)
    return Backbone(settings, data.shape, data.classes, times)


def parameters_of(data, width: int | None = None) -> int:
    """How many parameters `default(data, width)` has; nothing is allocated."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in default(data, width).parameters())


def width_for(data, parameters: float) -> int:
    """The width whose network has a number of parameters nearest to this; from 8 to 1024.

    Of a small U-Net it is a multiple of 8, which its normalisation counts on, and of a backbone
    one of 8 that its settings allow; raises FlowbenchError where they allow none.
    """
    if data.network is not None:
        widths = [width for width in range(8, 1025, 8) if data.network.fits(width)]
        if not widths:
            problem = "fits no multiple of 8 channels up to 1024"
            raise FlowbenchError(f"network {data.network.name} {problem}: give the method a width")
    else:
        widths = list(range(8, 1025, 8 if data.kind == "image" else 1))
    position = bisect_left(widths, parameters, key=lambda width: parameters_of(data, width))
    near = widths[max(0, position - 1) : position + 1] or widths[-1:]
    return min(near, key=lambda width: abs(parameters_of(data, width) - parameters))
