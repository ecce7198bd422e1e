"""Flow matching with minibatch optimal transport: "BatchOT" of Pooladian et al. 2023
(arXiv:2304.14772), "OT-CFM" of Tong et al. 2024 (arXiv:2302.00482), not Lipman et al.'s OT-CFM."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from flowbench import FlowbenchError, coordinates, coupling, hookimpl, nets, solvers, training

MEASURED = 5120  # coupled rows behind the measured correlation


@dataclass(frozen=True)
class BOTCFM:
    """Regress the velocity of straight lines between noise and data that transport has coupled."""

    n: int = 256  # rows coupled at once, whatever the batch; papers: 50, 128, 256
    coupling: Literal["exact", "sinkhorn"] = "exact"  # sinkhorn: rows drawn from entropic plans
    reg: float = 0.05  # sinkhorn: in standard deviations of the cost; torchcfm: 0.05, absolute
    per_class: bool = True  # couple within each class, so its noise stays Gaussian; papers: false
    solver: Literal["euler", "midpoint", "heun", "dopri5"] = "euler"  # dopri5 needs --nfe auto
    tolerance: float = 1e-5  # dopri5: relative and absolute, the papers' value
    lr: float = 2e-3  # Adam's step size; the papers, with networks 100 times larger: 2e-4
    ema: float = 0.999  # decay of the weight average
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        if self.n < 2:
            raise FlowbenchError(f"n={self.n} couples nothing: give 2 or more, or run cfm")
        if not self.reg > 0:
            raise FlowbenchError(f"reg={self.reg} must be above 0, or use -o coupling=exact")

    def network(self, data):
        """The untrained velocity v(z, t, y)."""
        return nets.default(data, width=self.width).to(data.device)

    def source(self, data, run):
        """Coupled batches (noise, x, y)."""
        solve = coupling.exact
        if self.coupling == "sinkhorn":
            solve = partial(coupling.sinkhorn, reg=self.reg)
        return coupling.Coupled(data, run, self.n, solve, self.per_class)

    @hookimpl
    def train(self, data, run):
        net = self.network(data)

        def loss(noise, x, y):
            t = torch.rand(len(x), device=x.device)
            z = torch.lerp(noise, x, coordinates.like(t, x))
            return (net(z, t, y) - (x - noise)).square().mean()

        with self.source(data, run) as source:
            return training.fit(net, loss, source, run, lr=self.lr, ema=self.ema)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        if nfe is None:
            return solvers.dopri5(network, noise, labels, self.tolerance, self.tolerance)
        rule = {"euler": solvers.euler, "midpoint": solvers.midpoint, "heun": solvers.heun}
        return rule[self.solver](network, noise, labels, nfe)

    def refuses(self, nfe):
        """Why this method cannot sample with `nfe` evaluations, or None."""
        if (nfe is None) == (self.solver == "dopri5"):
            return None
        return "only --nfe auto goes with solver=dopri5, and only solver=dopri5 with --nfe auto"

    @hookimpl
    def velocity(self, network, z, t, labels):
        return network(z, t, labels)

    @hookimpl
    def measure(self, data, run):
        """How far the coupling correlates noise with data, and the bound on it."""
        pools = max(5, MEASURED // self.n)
        with self.source(data, run) as source:
            noise, x, _ = zip(*(source.pool(number) for number in range(pools)), strict=True)
        return {
            "coupling": coupling.correlation(torch.cat(noise), torch.cat(x)),
            "coupling-bound": coupling.bound(self.n, math.prod(data.shape)),
        }
