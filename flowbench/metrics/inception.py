"""The Inception network of FID, and the two ways in which images are resized for it."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench import weights

SIZE = 299
CHANNELS = 7  # of the spatial features: the first of `mixed_6/conv` in TensorFlow's graph
STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
POOLED = ("2b_3x3", "4a_3x3")  # of the stem, those that a max pool follows
BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
# Images in the stem at once on a CPU: its maps of more would be above 32 MB, and such memory is
# asked of the system, page by page, for every call.
TOGETHER = 4


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
        _fold(original)
        self.stem = nn.ModuleDict({name: getattr(original, f"Conv2d_{name}").conv for name in STEM})
        self.blocks = nn.ModuleDict(
            {name: Block(getattr(original, f"Mixed_{name}")) for name in BLOCKS}
        )
        self.register_buffer("classes", original.fc.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        together = TOGETHER if x.device.type == "cpu" else len(x)
        x = torch.cat([self._edges(part) for part in x.split(together)])
        for name, block in self.blocks.items():
            x = block(x)
            if name == "6d":  # whose first branch is the layer of sFID
                spatial = x[:, :CHANNELS].permute(0, 2, 3, 1).flatten(1)
        pool = x.mean((2, 3))
        return pool, pool @ self.classes.T, spatial  # without the bias, as IS has always been

    def _edges(self, x: Tensor) -> Tensor:
        """What comes before the first block: (B, 192, 35, 35)."""
        for name, convolution in self.stem.items():
            x = convolution(x)
            if name in POOLED:
                x = functional.max_pool2d(x, 3, 2)
            x = x.relu_()  # after the pool, with which it commutes: there is less of it
        return x


class Block(nn.Module):
    """A mixed block of the original: branches of convolutions beside a pool, joined at the end."""

    def __init__(self, original: Any):
        super().__init__()
        branches: dict[str, dict[str, nn.ModuleList]] = {}
        for name, layer in original.named_children():
            if name != "branch_pool":
                branch, _, step = name.partition("_")  # two of one step, 2a and 2b, are the ends
                steps = branches.setdefault(branch, {})
                steps.setdefault(step[:1], nn.ModuleList()).append(layer)
        self.branches: Any = nn.ModuleList(nn.ModuleList(b.values()) for b in branches.values())
        self.pool = _pool(original)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for branch in self.branches:
            ends = [x]
            for step in branch:
                ends = [layer(ends[0]) for layer in step]
            outputs += ends
        return torch.cat([*outputs, self.pool(x)], 1)


def _pool(block: Any) -> nn.Module:
    """The pool of a mixed block, which leaves out the padding where it averages.

    The original averages before its 1 x 1 convolution. Both are linear and keep a constant, so
    they commute; after it there are fewer channels.
    """
    if not hasattr(block, "branch_pool"):
        return nn.MaxPool2d(3, 2)
    if type(block).__name__ == "InceptionE_2":
        return nn.Sequential(nn.MaxPool2d(3, 1, 1), block.branch_pool)
    average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Sequential(block.branch_pool.conv, average, nn.ReLU(inplace=True))


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
    return rows @ normalise(images.float()) @ columns.T  # weights of a pixel have the sum 1


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
