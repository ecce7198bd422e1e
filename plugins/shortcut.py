"""Shortcut models (Frans et al. 2024, arXiv:2410.12557): steps of sizes 1, 1/2, 1/4, ..., each
learned from two steps of half its size, and the smallest from the data."""

from dataclasses import dataclass
from typing import Literal

import torch

from flowbench import FlowbenchError, hookimpl, nets, training
from flowbench.coordinates import like


@dataclass(frozen=True)
class Shortcut:
    """Learn the average velocity over a step from two steps of half its size."""

    grid: int = 128  # the smallest step is 1/grid, a power of two; the paper's value
    share: float = 0.25  # of rows that learn from two half steps; the paper: 1/4, its code 1/8
    target: Literal["ema", "live"] = "ema"  # weights of the half steps; ema: the paper's
    clip: float = 0.0  # largest entry of a state or target in half steps; its code: 4; 0: any
    lr: float = 2e-3  # Adam's step size; the paper, with networks 100 times larger: 1e-4
    ema: float = 0.999  # decay of the weight average, which is the target too; the paper's value
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        if self.grid < 2 or self.grid & (self.grid - 1):
            raise FlowbenchError(f"grid={self.grid} is no power of two above 1: take 128")
        if not 0 <= self.share <= 1 or self.clip < 0:
            raise FlowbenchError("share goes from 0 to 1, and clip is not negative")

    @property
    def finest(self):
        """The level of the smallest step; a step of level j has size 2^-j."""
        return self.grid.bit_length() - 1

    def network(self, data):
        """The untrained s(z, (t, level), y)."""
        return nets.default(data, width=self.width, times=2).to(data.device)

    def step(self, network, z, t, level, y=None):
        """The average velocity of a step of `level` (B,) from `z` at times `t` (B,).

        The network is told the level, on a scale from 0 to 1: sizes crowd together near 0.
        """
        return network(z, torch.stack([t, level / self.finest], 1), y)

    def draw_steps(self, n, large, device):
        """Times and levels of one batch, (n,) each: `large` steps first, then smallest ones.

        Levels are equally likely; times are multiples of the size, as they are in sampling.
        """
        level = torch.randint(self.finest, (n,), device=device)
        level[large:] = self.finest
        size = 2.0**-level
        return (torch.rand(n, device=device) / size).floor() * size, level.to(size)

    def half_steps(self, network, z, t, level, y=None):
        """The mean velocity of two steps of half the size: what one of `level` should be."""
        half = 0.5 ** (level + 1)
        first = self.step(network, z, t, level + 1, y)
        middle = self.bounded(z + like(half, z) * first)
        second = self.step(network, middle, t + half, level + 1, y)
        return self.bounded((first + second) / 2)

    def bounded(self, values):
        """`values` with no entry above `clip`."""
        return values.clamp(-self.clip, self.clip) if self.clip else values

    def count_large(self, n):
        """How many of `n` rows learn from half steps; `share` of them in the mean, for any `n`."""
        return int(self.share * n + torch.rand(()).item())

    def loss(self, net, averaged, x, y=None):
        """The mean squared error of smallest steps against the data, of others against halves."""
        large, noise = self.count_large(len(x)), torch.randn_like(x)
        t, level = self.draw_steps(len(x), large, x.device)
        z, target = torch.lerp(noise, x, like(t, x)), x - noise
        if large:
            rows = (part if part is None else part[:large] for part in (z, t, level, y))
            with torch.no_grad():
                source = averaged if self.target == "ema" else net
                target[:large] = self.half_steps(source, *rows)
        return (self.step(net, z, t, level, y) - target).square().mean()

    @hookimpl
    def train(self, data, run):
        net = self.network(data)
        average = training.Average(net, self.ema)

        def loss(x, y):
            return self.loss(net, average.net, x, y)

        return training.fit(net, loss, data.train, run, lr=self.lr, average=average)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        z, t = noise, 0.0
        for level in self.levels(nfe):
            now, told = (z.new_full((len(z),), value) for value in (t, level))
            z = z + 0.5**level * self.step(network, z, now, told, labels)
            t += 0.5**level
        return z

    def levels(self, nfe):
        """The levels of `nfe` steps from noise to data, each of a size and time it has learned.

        Where `nfe` is no power of two, the steps of the power below it are halved from the data
        backwards until there are enough.
        """
        level = nfe.bit_length() - 1
        halved = nfe - 2**level
        return [level] * (2**level - halved) + [level + 1] * (2 * halved)

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if nfe is None:
            return "it has no adaptive solver"
        if nfe > self.grid:
            return f"its smallest step is 1/{self.grid}: at most {self.grid} evaluations"
        return None

    @hookimpl
    def velocity(self, network, z, t, labels):
        return self.step(network, z, t, torch.full_like(t, self.finest), labels)
