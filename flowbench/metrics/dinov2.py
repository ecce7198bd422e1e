"""The DINOv2 vision transformers of FD-DINOv2, from the files that their authors publish."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flowbench import weights

SIZE, PATCH = 224, 14
GRID = SIZE // PATCH
SIZES = {384: "small", 768: "base", 1024: "large"}  # by the width of the embedding
OFFSET = 0.1  # that the authors add to the grid before they interpolate
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class DINOv2(nn.Module):
    """Images (B, 3, 224, 224), as `like_edm2` gives them, to the class token after the last norm.

    There are no logits and no spatial features.
    """

    def __init__(self, transformer: nn.Module, size: str):
        super().__init__()
        self.transformer = transformer
        self.title = f"dinov2-vit-{size}-14"

    def forward(self, x: Tensor) -> tuple[Tensor, None, None]:
        return self.transformer(x), None, None


def load(path: Path) -> DINOv2:
    """The ViT-S, B or L/14 that a file holds; raises FlowbenchError for other files."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = dict(weights.read(path, "dinov2"))
    try:
        state["pos_embed"] = _interpolate(state["pos_embed"])
        size = SIZES[state["pos_embed"].shape[2]]
        with torch.device("meta"):  # so that no weights are drawn
            network: Any = timm.create_model(
                f"vit_{size}_patch14_dinov2", pretrained=False, img_size=SIZE, num_classes=0
            )
        network.load_state_dict(checkpoint_filter_fn(state, network), assign=True)
    except (KeyError, RuntimeError, IndexError) as error:  # keys or shapes
        raise weights.wrong(path, "dinov2") from error
    return DINOv2(network, size).eval().requires_grad_(False)


def _interpolate(embedding: Tensor) -> Tensor:
    """Position embeddings (1, 1 + n * n, d) for a grid of 16 x 16 patches, as the authors do it.

    The scale factor has the offset in it, so the result differs from resizing to 16 x 16.
    """
    side = round((embedding.shape[1] - 1) ** 0.5)
    if side == GRID:
        return embedding
    grid = embedding[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (GRID + OFFSET) / side
    grid = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([embedding[:, :1], grid.flatten(2).mT], 1)


def like_edm2(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) to the network's input: bicubic with antialiasing, not clipped.

    The resizing of Karras et al. 2024 (EDM2); the PIL resizing of dgm-eval gives other numbers.
    """
    x = functional.interpolate(images.float(), (SIZE, SIZE), mode="bicubic", antialias=True) / 255
    mean, std = (torch.tensor(v, device=x.device).view(3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std
