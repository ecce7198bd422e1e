"""The embedding of time and class that every backbone uses."""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """Time (B,) and class (B,) or None to features (B, width).

    Sines and cosines of 16 log-spaced frequencies from 0.5 to 40 resolve both t in [0, 1] and
    EDM's ln(sigma)/4 in [-1.6, 1.1]. The last row of the class table means "no class".
    """

    def __init__(self, width: int, classes: int, frequencies: int = 16):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-0.30103, 1.60206, frequencies))
        self.frequencies: Tensor
        self.time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU())
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        angles = t.float()[:, None] * self.frequencies
        h = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        if self.label is not None:
            nothing = self.label.num_embeddings - 1
            h = h + self.label(t.new_full(t.shape, nothing, dtype=torch.int64) if y is None else y)
        return self.mix(h)


class Gate(nn.Module):
    """A learned scalar a(t), zero at the start, that multiplies the network's input.

    Where data have coordinates that equal the noise in law, the ideal field there is a(t) x.
    """

    def __init__(self, width: int):
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return x * self.linear(h).reshape(-1, *[1] * (x.ndim - 1))
