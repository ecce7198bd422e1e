"""A file of Inception's weights in its real format, with random numbers of one seed in it.

Features of such a network mean nothing, but cost what those of the real one cost, and two programs
that read the same file must agree on them.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

KEEP = 0.3  # how far the factors of the batch norms are from 1


def write(path: Path) -> Path:
    """Write the state_dict of torch-fidelity's Inception; nothing is downloaded."""
    from torch_fidelity import FeatureExtractorInceptionV3 as Network

    loading = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with patch(loading), patch.object(Network, "load_state_dict"):
        network = Network("inception", ["2048"])
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        _fill(layer, generator)
    torch.save(network.state_dict(), path)
    return path


def _fill(layer: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the variance of what passes, and batch norms that do something."""

    def normal(like: Tensor, scale: float) -> Tensor:
        return scale * torch.randn(like.shape, generator=generator)

    def factors(like: Tensor) -> Tensor:
        return 1 + KEEP * (2 * torch.rand(like.shape, generator=generator) - 1)

    if isinstance(layer, nn.Conv2d | nn.Linear):
        layer.weight.copy_(normal(layer.weight, (2 / layer.weight[0].numel()) ** 0.5))
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None and layer.running_var is not None
        for scale, shift in (
            (layer.weight, layer.bias),
            (layer.running_var, layer.running_mean),
        ):
            scale.copy_(factors(scale))
            shift.copy_(normal(shift, 0.1))


def pictures(n: int, seed: int, contrast: float) -> Tensor:
    """Smooth colour fields with some noise: uint8 (n, 3, 32, 32)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator) - 0.5
    field = nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    noise = 0.05 * torch.randn(n, 3, 32, 32, generator=generator)
    return ((contrast * field + noise + 0.5).clamp(0, 1) * 255).round().byte()


def theirs(path: Path, device: str) -> Any:
    """torch-fidelity's network with these weights: uint8 images -> pool (B, 2048), logits."""
    from torch_fidelity import FeatureExtractorInceptionV3

    layers = ["2048", "logits_unbiased"]
    return FeatureExtractorInceptionV3("inception", layers, str(path)).to(device)
