"""How images in [-1, 1] are prepared for pretrained networks of photographs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench.records import FlowbenchError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std of levels in [0, 1]


def resize(x: Tensor, size: int | None) -> Tensor:
    """Images (B, C, H, W) at `size` x `size` pixels, bilinear with half-pixel centres.

    None leaves them as they are. There is no antialiasing, as in the code of CM and CTM.
    """
    if size is None or x.shape[-2:] == (size, size):
        return x
    return functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)


def three_channels(x: Tensor) -> Tensor:
    """Images (B, 3, H, W) from those of three channels, or of one, which is repeated.

    Raises FlowbenchError for everything else.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise FlowbenchError(
            "pretrained networks look at images of 1 or 3 channels, not at rows of shape"
            f" {'x'.join(map(str, x.shape[1:]))}: take a loss without them"
        )
    return x.expand(-1, 3, -1, -1)


class Normalise(nn.Module):
    """From [-1, 1] to what a network was trained on: (level - mean) / std, level in [0, 1]."""

    shift: Tensor
    scale: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("shift", 2 * torch.tensor(mean).view(-1, 1, 1) - 1)
        self.register_buffer("scale", 2 * torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.shift) / self.scale
