"""The embedding of time and class that every backbone uses."""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """Time (B,) or two times (B, 2) and class (B,) or None to features (B, width).

    Sines and cosines of 16 log-spaced frequencies from 0.5 to 40 resolve both t in [0, 1] and
    EDM's ln(sigma)/4 in [-1.6, 1.1]. The last row of the class table means "no class". What the
    second time adds is zero at the start.
    """

    def __init__(self, width: int, classes: int, frequencies: int = 16, times: int = 1):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-0.30103, 1.60206, frequencies))
        self.frequencies: Tensor
        self.time = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU())
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.mix = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.second = _second(2 * times * frequencies, width) if times == 2 else None

    def forward(self, t: Tensor, y: Tensor | None) -> Tensor:
        waves = self._waves(t if self.second is None else t[:, 0])
        h = self.time(waves)
        if self.label is not None:
            nothing = self.label.num_embeddings - 1
            none = torch.full((len(t),), nothing, device=t.device)
            h = h + self.label(none if y is None else y)
        if self.second is None:
            return self.mix(h)
        return self.mix(h) + self.second(torch.cat([waves, self._waves(t[:, 1])], 1))

    def _waves(self, t: Tensor) -> Tensor:
        """Sines and cosines of (B,) times."""
        angles = t.float()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], 1)


def _second(inputs: int, width: int) -> nn.Module:
    """What two times together add to the embedding of the first: an MLP, zero at the start."""
    output = nn.Linear(width, width)
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), output)


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
