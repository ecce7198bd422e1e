"""The projected discriminator of StyleGAN-XL and CTM: learned heads on frozen features.

Sauer et al. 2021 (arXiv:2111.01007) and 2022 (arXiv:2202.00273).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from flowbench.losses.diffaugment import diffaugment
from flowbench.losses.features import Known, load
from flowbench.losses.projection import CHANNELS, Projection
from flowbench.records import FlowbenchError

EMBEDDING, CODE = 320, 64  # of a class: as it is learned, and as a head compares it
WIDTHS = {64: 64, 32: 128, 16: 256, 8: 512}  # channels of a head by nominal side


class Discriminator(nn.Module):
    """Images (B, 1 or 3, H, W) in [-1, 1] to logits (B, 64 for each network), high where real.

    Each network of `features` (names of `losses.features`, with their files) sees the images
    through a DiffAugment of its own, at `size` pixels, of 224 for the published design; its four
    maps are projected and judged by four heads. With `classes` > 0 labels (B,) int64 are needed:
    a head then compares its features with a learned embedding of the class.

    Heads and embedding are what learns. The random projections are frozen, but they belong to the
    state, unlike the networks, which come from files. All that is drawn hangs on `seed` alone. The
    batch norms keep no running statistics: they use those of the batch, in training and in
    evaluation. `dtype` is the precision of the networks under autocast.
    Raises FlowbenchError for unknown networks, wrong files and missing labels.
    """

    def __init__(
        self,
        features: Mapping[str, Path],
        classes: int,
        seed: int,
        size: int = 224,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not features:
            raise FlowbenchError("a discriminator looks through networks: name deit, efficientnet")
        # Not a module: so they are in no state, and nothing sets them to training.
        self._frozen = {name: load(name, features[name], size, dtype) for name in sorted(features)}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.branches = nn.ModuleDict(
                {name: Branch(network.known, classes) for name, network in self._frozen.items()}
            )
            self.embedding = nn.Embedding(classes, EMBEDDING) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        code = None
        if self.embedding is not None:
            if labels is None:
                raise FlowbenchError("this discriminator is conditional: it needs labels")
            code = self.embedding(labels)
        logits = [
            self.branches[name](network(diffaugment(x)), code)
            for name, network in self._frozen.items()
        ]
        return torch.cat(logits, 1)

    def _apply(self, fn, recurse=True):
        """What `to`, `cuda` and the like do, to the frozen networks too."""
        for network in self._frozen.values():
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)


class Branch(nn.Module):
    """Four maps of a network to logits (B, 64 at 224 pixels), by a frozen projection and heads."""

    def __init__(self, network: Known, classes: int):
        super().__init__()
        self.projection = Projection(network.channels, network.sides)
        self.heads = nn.ModuleList(Head(n, 128 >> i, classes) for i, n in enumerate(CHANNELS))

    def forward(self, maps: Sequence[Tensor], embedding: Tensor | None = None) -> Tensor:
        seen = zip(self.heads, self.projection(maps), strict=True)
        return torch.cat([head(part, embedding) for head, part in seen], 1)


class Head(nn.Module):
    """Judges a map (B, channels, h, w), halved until its nominal side is 8, by a 4x4 window.

    Logits are (B, k), one for each place of the window. With `classes`, the features there are
    compared with a code made of the class's embedding (B, EMBEDDING).
    """

    def __init__(self, channels: int, side: int, classes: int):
        super().__init__()
        blocks = []
        while side > 8:
            side //= 2
            blocks.append(_halving(channels, WIDTHS[side]))
            channels = WIDTHS[side]
        self.body = nn.Sequential(*blocks)
        self.last = spectral_norm(nn.Conv2d(channels, CODE if classes else 1, 4, bias=False))
        self.code = Code() if classes else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.last(self.body(x))
        if self.code is not None:
            h = (h * self.code(embedding)[:, :, None, None]).sum(1) / CODE**0.5
        return h.flatten(1)


class Code(nn.Module):
    """Embeddings (B, EMBEDDING) to codes (B, CODE): linear at an equalised learning rate, lrelu.

    Weights are unit normal and scaled when used (Karras et al. 2018, section 4.1), so that their
    step size does not hang on the width.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CODE, EMBEDDING))
        self.bias = nn.Parameter(torch.zeros(CODE))

    def forward(self, x: Tensor) -> Tensor:
        h = functional.linear(x, self.weight / EMBEDDING**0.5, self.bias)
        return 2**0.5 * functional.leaky_relu(h, 0.2)


def _halving(channels: int, width: int) -> nn.Module:
    convolution = spectral_norm(nn.Conv2d(channels, width, 4, 2, 1))
    norm = nn.BatchNorm2d(width, track_running_stats=False)
    return nn.Sequential(convolution, norm, nn.LeakyReLU(0.2, inplace=True))
