"""The Inception network of FID, and the two ways in which images are resized for it."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flowbench import weights

SIZE = 299
CHANNELS = 7  # of the spatial features: the first of `mixed_6/conv` in TensorFlow's graph
STAGES = (
    *["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"],
    *["Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"],
    *["Mixed_5b", "Mixed_5c", "Mixed_5d"],
    *["Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"],
    *["Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool"],
)


class Inception(nn.Module):
    """torch-fidelity's `inception-v3-compat`, its batch norms folded into the convolutions.

    Images (B, 3, 299, 299), as `normalise` gives them, to the features `2048` of the last pool
    (B, 2048), `logits_unbiased` (B, 1008) and those of sFID (B, 17 * 17 * 7) in the order of
    guided-diffusion's evaluator: height, width, channel.
    """

    title = "inception-v3-compat"
    classes: Tensor  # (1008, 2048)

    def __init__(self, original: Any):
        super().__init__()
        self.stages = nn.ModuleDict({name: getattr(original, name) for name in STAGES})
        self.register_buffer("classes", original.fc.weight)
        _fold(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for name, stage in self.stages.items():
            if name == "Mixed_6d":
                branch = stage.get_submodule("branch1x1")(x)
                spatial = branch[:, :CHANNELS].permute(0, 2, 3, 1).flatten(1)
            x = stage(x)
        pool = x.flatten(1)
        return pool, pool @ self.classes.T, spatial  # without the bias, as IS has always been


def load(path: Path) -> Inception:
    """The network with the weights of a file; raises FlowbenchError where they do not fit."""
    from torch_fidelity import FeatureExtractorInceptionV3

    file = BytesIO()  # that class unpickles what it is given, so it is given what was read safely
    torch.save(weights.read(path, "inception"), file)
    file.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            original = FeatureExtractorInceptionV3("inception", ["2048"], file)
    except RuntimeError as error:  # keys or shapes
        raise weights.wrong(path, "inception") from error
    return Inception(original).eval().requires_grad_(False)


def _fold(network: Any) -> None:
    """Put each batch norm into the convolution before it, in float64."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for block in list(network.modules()):
        if hasattr(block, "conv") and hasattr(block, "bn"):
            fused = fuse_conv_bn_eval(block.conv.double().eval(), block.bn.double().eval())
            block.conv, block.bn = fused.float(), nn.Identity()


def normalise(x: Tensor) -> Tensor:
    """Levels 0 to 255 as the graph takes them."""
    return (x - 128) / 128


def like_tensorflow(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to the network's input, by bilinear interpolation as in TensorFlow 1.

    Pixel i is read at i * H / 299, without half-pixel centres and without antialiasing.
    """
    rows, columns = (_interpolation(size, images.device) for size in images.shape[2:])
    return normalise(rows @ images.float() @ columns.T)


@cache
def _interpolation(size: int, device: torch.device) -> Tensor:
    """The matrix (299, size) of weights along one side."""
    numbers = torch.arange(SIZE)
    at = numbers * torch.tensor(size / SIZE)  # in float32, as TensorFlow's
    low = at.long()
    matrix = torch.zeros(SIZE, size)
    matrix[numbers, low] += 1 - (at - low)
    matrix[numbers, (low + 1).clamp(max=size - 1)] += at - low
    return matrix.to(device)


def like_clean_fid(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to the network's input, by clean-fid's own resizer on the host.

    PIL's bicubic filter for each channel in float, clipped to 0 and 255.
    """
    from cleanfid.resize import build_resizer

    with ThreadPoolExecutor() as pool:  # PIL lets other threads work
        resized = list(pool.map(build_resizer("clean"), images.permute(0, 2, 3, 1).cpu().numpy()))
    x = torch.from_numpy(np.stack(resized)).to(images.device)
    return normalise(x.permute(0, 3, 1, 2))
