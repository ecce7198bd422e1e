"""The frozen networks through which a projected discriminator looks: DeiT and EfficientNet."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flowbench import weights
from flowbench.losses.inputs import IMAGENET, Normalise, resize, three_channels
from flowbench.options import choose
from flowbench.records import FlowbenchError

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Known(NamedTuple):
    """A network of timm: its name there, how images are normalised, and the four maps taken."""

    model: str
    normalised: tuple
    stages: tuple[int, ...]  # indices as `forward_intermediates` counts them
    channels: tuple[int, ...]
    sides: tuple[int, ...]  # image pixels per pixel of a map
    size: int | None  # of images, where the network takes one size only


NETWORKS = {
    "deit": Known(
        "deit_base_distilled_patch16_224", IMAGENET, (2, 5, 8, 11), (768,) * 4, (16,) * 4, 224
    ),
    "efficientnet": Known(
        "tf_efficientnet_lite0", HALF, (1, 2, 3, 4), (24, 40, 112, 320), (4, 8, 16, 32), None
    ),
}


class Features(nn.Module):
    """Images (B, 1 or 3, H, W) in [-1, 1] to four maps (B, c, h, w), from large to small detail.

    They are normalised and resized to `size` pixels. The network is frozen and always evaluates,
    but gradients pass to the images. Raises FlowbenchError for images of other channels.
    """

    def __init__(self, network: Any, known: Known, size: int, dtype: torch.dtype | None):
        super().__init__()
        self.network, self.known, self.size, self.dtype = network, known, size, dtype
        self.normalise = Normalise(*known.normalised)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        h = resize(self.normalise(three_channels(x)), self.size)
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            maps = self.network.forward_intermediates(
                h, indices=list(self.known.stages), intermediates_only=True
            )
        return [part.to(x.dtype) for part in maps]


def load(name: str, path: Path, size: int = 224, dtype: torch.dtype | None = None) -> Features:
    """The network `name` with the weights that a file holds, frozen.

    `dtype` is its precision under autocast (None: as it is). Raises FlowbenchError for an unknown
    name, a file of something else, and a `size` that the network does not take.
    """
    import timm

    known = NETWORKS[choose("feature network", name, NETWORKS)]
    if size != (known.size or size) or size % 32 or size < 128:
        raise FlowbenchError(f"{name} does not take images of {size} pixels: take 224")
    state = {key: tensor.float() for key, tensor in weights.read(path, name).items()}
    with torch.device("meta"):  # so that no weights are drawn
        network = timm.create_model(known.model, pretrained=False)
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:  # keys or shapes
        raise weights.wrong(path, name) from error
    return Features(network, known, size, dtype)
