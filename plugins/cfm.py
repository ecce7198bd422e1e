"""Conditional flow matching with independent coupling: on straight paths (Lipman et al. 2023,
arXiv:2210.02747, there "OT-CFM"; Tong et al. 2024, arXiv:2302.00482, there "I-CFM"), or on
trigonometric ones (InterFlow: Albergo and Vanden-Eijnden 2023, arXiv:2209.15571)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from flowbench import FlowbenchError, coordinates, hookimpl, nets, solvers, training


@dataclass(frozen=True)
class CFM:
    """Regress the velocity of straight lines from independent noise to data."""

    path: Literal["linear", "trig"] = "linear"  # trig: InterFlow's cos(pi t/2) x0 + sin(pi t/2) x1
    solver: Literal["euler", "midpoint", "heun", "dopri5"] = "euler"  # dopri5 needs --nfe auto
    tolerance: float = 1e-5  # dopri5: relative and absolute, the papers' value
    times: Literal["uniform", "skewed"] = "uniform"  # skewed: t = 1/(1+s), ln s ~ N(-1.2, 1.2^2)
    sigma_min: float = 0.0  # width of the path at the data; Lipman et al. write 1e-5 and the like
    lr: float = 2e-3  # Adam's step size; the papers, with networks 100 times larger: 2e-4, 5e-4
    ema: float = 0.999  # decay of the weight average
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    def __post_init__(self):
        if self.path == "trig" and self.sigma_min:
            raise FlowbenchError("path=trig has no width: leave sigma_min at 0, or use path=linear")

    def network(self, data):
        """The untrained velocity v(z, t, y)."""
        return nets.default(data, width=self.width).to(data.device)

    def draw_times(self, n, device):
        """Times of one training batch on the path's clock, (n,)."""
        if self.times == "uniform":
            return torch.rand(n, device=device)
        return coordinates.time((1.2 * torch.randn(n, device=device) - 1.2).exp())

    def interpolate(self, noise, x, t):
        """The path at times `t` (B,) of its own clock, and its velocity; both shaped like `x`."""
        t = coordinates.like(t, x)
        if self.path == "trig":
            sin, cos = (math.pi / 2 * t).sin(), (math.pi / 2 * t).cos()
            return cos * noise + sin * x, math.pi / 2 * (cos * x - sin * noise)
        end = x + self.sigma_min * noise  # Lipman et al., eq. 23
        return torch.lerp(noise, end, t), end - noise

    @hookimpl
    def train(self, data, run):
        net = self.network(data)

        def loss(x, y):
            t = self.draw_times(len(x), x.device)
            z, target = self.interpolate(torch.randn_like(x), x, t)
            return (net(z, t, y) - target).square().mean()

        return training.fit(net, loss, data.train, run, lr=self.lr, ema=self.ema)

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
        if self.path == "linear":
            return network(z, t, labels)
        # The trig path passes z / length, in the direction of (noise, data) = (1 - t, t).
        length = coordinates.like(torch.hypot(t, 1 - t), z)
        sin, cos = coordinates.like(t, z) / length, coordinates.like(1 - t, z) / length
        own = torch.atan2(t, 1 - t) * (2 / math.pi)
        slope = network(z / length, own, labels) * (2 / math.pi)
        return (sin - cos) * z / length + (sin + cos) * slope
