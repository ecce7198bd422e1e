"""Seeded random weights of the networks that losses look through, in the files' real formats.

Losses on them mean nothing by themselves; they have the size, the depth and the names of the real
ones. Each function writes its file into `folder`, under its published name, where it is missing.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from inception_weights import Draw
from torch import Tensor

from flowbench.known_weights import KNOWN


def vgg16(folder: Path) -> Path:
    """torchvision's VGG-16; its classifier is one number, repeated, so that the file is small."""
    return written(folder, "vgg16", vgg16_state)


def efficientnet(folder: Path) -> Path:
    """timm's EfficientNet-Lite0, its batch norms far from the identity."""
    return written(folder, "efficientnet", efficientnet_state)


def deit(folder: Path) -> Path:
    """The distilled DeiT-B/16, in its authors' wrapping.

    All blocks have the weights of the first, which makes the file a tenth as large.
    """
    return written(folder, "deit", deit_state)


def vgg16_state() -> dict[str, Tensor]:
    from torchvision.models import vgg16 as network

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in network(weights=None).state_dict().items()}
    draw, state = Draw(0), OrderedDict()
    for name, shape in shapes.items():
        if name.startswith("classifier"):
            state[name] = torch.zeros(1).expand(shape)
        else:
            state[name] = drawn(draw, shape)
    return state


def efficientnet_state() -> dict[str, Tensor]:
    draw, state = Draw(1), OrderedDict()
    for name, value in skeleton("tf_efficientnet_lite0").items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            state[name] = draw.uniform(value.shape, 0.8, 1.2)
        else:
            state[name] = drawn(draw, value.shape)
    return state


def deit_state() -> dict[str, dict[str, Tensor]]:
    draw, state = Draw(2), OrderedDict()
    for name, value in skeleton("deit_base_distilled_patch16_224").items():
        first = ".".join(["blocks.0", *name.split(".")[2:]])
        if name.startswith("blocks.") and name != first:
            state[name] = state[first]
        elif name.endswith("weight") and value.ndim == 1:
            state[name] = draw.uniform(value.shape, 0.8, 1.2)
        else:
            state[name] = drawn(draw, value.shape)
    return {"model": state}


def skeleton(model: str) -> dict[str, Tensor]:
    """The state of a network of timm, without memory."""
    import timm

    with torch.device("meta"):
        return timm.create_model(model, pretrained=False).state_dict()


def drawn(draw: Draw, shape) -> Tensor:
    """Weights that keep the size of what goes through, small biases and embeddings."""
    matrix = len(shape) > 1 and shape[0] > 1
    return draw.normal(shape) * ((2 / shape[1:].numel()) ** 0.5 if matrix else 0.1)


def written(folder: Path, name: str, state: Callable[[], dict]) -> Path:
    path = folder / KNOWN[name].file
    if not path.exists():
        torch.save(state(), path)
    return path
