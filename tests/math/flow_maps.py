"""The exact average velocities of N(mean, std^2), beside independent noise, as networks."""

import torch
from torch import Tensor, nn

from flowbench.coordinates import like


def variance(t: Tensor, std: float) -> Tensor:
    """Of z = (1 - t) noise + t data."""
    return (t * std).square() + (1 - t).square()


def jump(z: Tensor, begin: Tensor, end: Tensor, mean: float, std: float) -> Tensor:
    """Where the path through `z` at time `begin` (B,) is at time `end` (B,)."""
    ratio = (variance(end, std) / variance(begin, std)).sqrt()
    return like(end, z) * mean + like(ratio, z) * (z - like(begin, z) * mean)


def average(z: Tensor, begin: Tensor, end: Tensor, mean: float, std: float) -> Tensor:
    """(jump - z) / (end - begin), written so that it holds at equal times too: the velocity."""
    first, last = variance(begin, std), variance(end, std)
    slope = ((1 + std**2) * (begin + end) - 2) / (first + (first * last).sqrt())
    return mean + like(slope, z) * (z - like(begin, z) * mean)


class Law(nn.Module):
    """A network for N(mean, std^2) with three weights that are to be zero.

    They multiply 1, the state and the second time.
    """

    def __init__(self, mean: float = 0.5, std: float = 0.5, shift: float = 0.0):
        super().__init__()
        self.mean, self.std = mean, std
        self.shift = nn.Parameter(torch.full((3,), shift, dtype=torch.float64))

    def exact(self, z: Tensor, times: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, z: Tensor, times: Tensor, y: Tensor | None = None) -> Tensor:
        shift = self.shift.to(z)
        return self.exact(z, times) + shift[0] + shift[1] * z + shift[2] * like(times[:, 1], z)
