"""Seeded random weights of the feature extractors, in the files' real formats and sizes.

Distances on them mean nothing by themselves; two programs that read one file must agree on them.
"""

from collections import OrderedDict
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn


def write_inception(path: Path, seed: int = 0) -> Path:
    """A file as torch-fidelity and pytorch-fid publish it: the state_dict of its Inception."""
    from torch_fidelity import FeatureExtractorInceptionV3

    with (
        patch("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"),
        patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
        torch.random.fork_rng(devices=[]),
    ):
        network = FeatureExtractorInceptionV3("inception", ["2048"])
    draw = Draw(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.copy_(draw.normal(module.weight.shape) * (2 / fan_in) ** 0.5)
        if isinstance(module, nn.Linear):
            module.bias.copy_(draw.normal(module.bias.shape))
        if isinstance(module, nn.BatchNorm2d):  # far from the identity, so that folding is seen
            module.weight.copy_(draw.uniform(module.weight.shape, 0.7, 1.3))
            module.running_var.copy_(draw.uniform(module.weight.shape, 0.7, 1.3))
            module.bias.copy_(0.1 * draw.normal(module.weight.shape))
            module.running_mean.copy_(0.1 * draw.normal(module.weight.shape))
    torch.save(network.state_dict(), path)
    return path


def dinov2_state(width: int = 384, depth: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """The state_dict of a DINOv2 ViT/14 in its authors' names, as their files hold it."""
    draw = Draw(seed)
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + 37 * 37, width)}
    shapes |= {"mask_token": (1, width), "patch_embed.proj.weight": (width, 3, 14, 14)}
    shapes |= {"patch_embed.proj.bias": (width,)}
    for i in range(depth):
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"blocks.{i}.{name}.bias": shape[:1] for name, shape in layers.items()}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"blocks.{i}.{name}"] = (width,)
        shapes |= {f"blocks.{i}.ls1.gamma": (width,), f"blocks.{i}.ls2.gamma": (width,)}
    shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return OrderedDict(
        (name, draw.normal(shape) / (shape[1] if len(shape) == 2 else 4) ** 0.5)
        for name, shape in shapes.items()
    )


class Draw:
    """Random numbers of one seed, whatever else draws."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, shape) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator)

    def uniform(self, shape, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(tuple(shape), generator=self.generator)
