"""Exact optima on mixtures of Gaussians: the field of probability-flow ODEs (Song et al. 2021,
arXiv:2011.13456), of straight lines, and of Local Flow Matching (arXiv:2410.02548)."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from flowbench import FlowbenchError, coordinates, hookimpl, noise_levels, solvers
from flowbench.mixtures import Factored, Mixture, factor

RULES = {"euler": solvers.euler, "midpoint": solvers.midpoint, "heun": solvers.heun}


@dataclass(frozen=True)
class Exact:
    """The closed-form optimum of a method on mixtures of Gaussians: no training, no network.

    A row for what a perfect network would score, measured by the code that measures the others.
    """

    field: Literal["cfm", "edm", "lines", "lfm"] = "cfm"  # whose; lines: LMM's and 2-RF's
    solver: Literal["auto", "euler", "midpoint", "heun", "dopri5"] = "auto"  # auto: the method's
    tolerance: float = 1e-5  # dopri5: relative and absolute
    blocks: int = 4  # lfm: number of blocks, of which the last one ends in pure noise
    c: float = 0.1  # lfm: Ornstein-Uhlenbeck time of the first block; the paper: 0.025 to 0.5
    rho: float = 1.5  # lfm: factor from one block's time to the next; the paper: 1 to 1.5
    sigma_min: float = 0.002  # edm: lowest noise level, the paper's value
    sigma_max: float = 80.0  # edm: highest noise level, the paper's value

    def __post_init__(self):
        if self.blocks < 1 or self.c <= 0 or self.rho <= 0:
            raise FlowbenchError("blocks is at least 1, c and rho are above 0")
        if self.field == "edm" and self.solver in ("midpoint", "dopri5"):
            raise FlowbenchError("field=edm walks down noise levels: solver is auto, euler or heun")
        if not 0 < self.sigma_min < self.sigma_max:
            raise FlowbenchError("sigma_min lies above 0 and below sigma_max")

    @property
    def interval(self):
        """The canonical times over which the field is defined."""
        if self.field == "edm":
            return 1 / (1 + self.sigma_max), 1 / (1 + self.sigma_min)
        return 0.0, 1.0

    @property
    def knots(self):
        """The canonical times at which blocks meet, where the field jumps."""
        return self.edges[1:-1] if self.field == "lfm" else ()

    @property
    def decays(self):
        """How much of the data each block of LFM starts with: exp of minus the time so far."""
        times = [self.c * self.rho**n for n in range(self.blocks - 1)]
        return tuple(math.exp(-total) for total in itertools.accumulate(times, initial=0.0))

    @property
    def edges(self):
        """The canonical times at which the blocks of LFM end, from noise (0) to data (1)."""
        return 0.0, *(a / (a + math.sqrt(1 - a * a)) for a in reversed(self.decays))

    def network(self, data):
        """The field as a module without parameters; raises FlowbenchError for unsuitable data."""
        if data.law is None:
            raise FlowbenchError(f"{data.name} has no closed form: take mog128 or another mixture")
        if self.field == "lfm":
            return Chain(data.law, self.decays).to(data.device)
        return {"cfm": Flow, "edm": Denoiser, "lines": Lines}[self.field](data.law).to(data.device)

    @hookimpl
    def train(self, data):
        return self.network(data)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        if self.field == "edm":
            return self.denoise(network, noise, labels, nfe)
        if self.field == "lfm":
            return self.chain(network, noise, labels, nfe)
        return self.solve(network, noise, labels, nfe, 0.0, 1.0)

    def solve(self, field, z, labels, nfe, begin, end):
        """Integrate `field` from time `begin` to `end` with the chosen solver."""
        if nfe is None:
            return solvers.dopri5(
                field, z, labels, self.tolerance, self.tolerance, begin=begin, end=end
            )
        auto = "midpoint" if self.field == "lfm" else "euler"
        rule = RULES[auto if self.solver == "auto" else self.solver]
        return rule(field, z, labels, nfe, begin=begin, end=end)

    def denoise(self, network, noise, labels, nfe):
        """EDM's sampler: Heun on its own levels, Euler at uniform canonical times."""
        heun = self.solver == "heun" or (self.solver == "auto" and nfe >= 35)
        steps = nfe // 2 + 1 if heun else nfe
        levels = noise_levels.uniform(steps, self.sigma_max)
        if heun:
            levels = noise_levels.karras(steps, self.sigma_min, self.sigma_max)
        # An even NFE leaves the correction out of the first step, where the path is straightest.
        corrected = range(1 - nfe % 2, steps - 1) if heun else range(0)
        return solvers.sigma_heun(network, self.sigma_max * noise, labels, levels, corrected)

    def chain(self, network, z, labels, nfe):
        """LFM's blocks in reverse, from noise to data."""
        for n in reversed(range(self.blocks)):
            share = None if nfe is None else self.divide(nfe, n)
            z = self.solve(network.block(n), z, labels, share, 1.0, 0.0)
        return z

    def divide(self, nfe, n):
        """The evaluations of block `n`: whole steps, most for the noisiest; an odd one first."""
        step = 1 if self.solver == "euler" or nfe < 2 * self.blocks else 2
        return step * ((nfe // step + n) // self.blocks) + nfe % step * (n == 0)

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if (nfe is None) != (self.solver == "dopri5"):
            return "only --nfe auto goes with solver=dopri5, and only solver=dopri5 with --nfe auto"
        if self.field == "lfm" and nfe is not None and nfe < self.blocks:
            return f"each of its {self.blocks} blocks needs one: give {self.blocks} or more"
        return None

    @hookimpl
    def velocity(self, network, z, t, labels):
        if self.field == "edm":
            return coordinates.velocity_of(network)(z, t, labels)
        if self.field != "lfm":
            return network(z, t, labels)
        edges = torch.tensor(self.edges, dtype=t.dtype, device=t.device)
        part = torch.bucketize(t.contiguous(), edges[1:-1], right=True)
        length = edges.diff()[part]
        own = (edges[1:][part] - t) / length
        slope = network(z, own, labels, self.blocks - 1 - part)
        return -slope / coordinates.like(length, z)


class Law(nn.Module):
    """A mixture that moves between devices with the module: buffers, no parameters."""

    weights: torch.Tensor
    means: torch.Tensor
    stds: torch.Tensor

    def __init__(self, law):
        super().__init__()
        for name in ("weights", "means", "stds"):
            self.register_buffer(name, getattr(law, name).clone())

    @property
    def law(self):
        """The mixture."""
        return Mixture(self.weights, self.means, self.stds)


class Flow(Law):
    """The velocity of the probability-flow ODE in canonical coordinates."""

    def forward(self, z, t, y=None):
        return self.law.velocity(z, t)


class Denoiser(Law):
    """The perfect denoiser D(x, sigma)."""

    def forward(self, x, sigma, y=None):
        return self.law.denoiser(x, sigma)


class Lines(Law):
    """The velocity of straight lines from noise to where the probability-flow ODE takes it."""

    axis: torch.Tensor
    scale: torch.Tensor

    def __init__(self, law):
        factored = factor(law)
        if factored is None:
            raise FlowbenchError(
                "field=lines needs modes on one line through 0 that differ along it only,"
                " as those of mog128"
            )
        super().__init__(factored.law)
        self.register_buffer("axis", factored.axis)
        self.register_buffer("scale", factored.scale)

    def forward(self, z, t, y=None):
        start, end = Factored(self.axis, self.scale, self.law).line(z, t)
        return (end - start).to(z)


class Chain(Law):
    """The velocities of LFM's blocks in their own time: 0 at the side of the data, 1 of noise.

    Block n draws a line from x1 to kept x1 + added x0, with unit noise x0 and x1 as the blocks
    before it left the data; `decays` says how much they left.
    """

    decay: torch.Tensor
    kept: torch.Tensor

    def __init__(self, law, decays):
        super().__init__(law)
        decay = torch.tensor(decays, dtype=torch.float64)
        kept = torch.cat([decay[1:] / decay[:-1], decay.new_zeros(1)])
        self.register_buffer("decay", decay)
        self.register_buffer("kept", kept)  # 0 in the last block, which ends in pure noise

    def forward(self, x, tau, y=None, block=None):
        """dx/dtau at `x` (B, d), `tau` (B,), in the blocks with the numbers `block` (B,)."""
        kept = self.kept.to(x)[block]
        added = (1 - kept.square()).sqrt()
        data, noise = 1 - tau + tau * kept, tau * added
        clean, unit = self.law.posterior(x, data, noise, self.decay.to(x)[block])
        return (kept - 1)[:, None] * clean + added[:, None] * unit

    def block(self, n):
        """The field of block number `n`."""
        return lambda x, tau, y: self(x, tau, y, torch.full_like(tau, n, dtype=torch.long))
