"""EDM (Karras, Aittala, Aila and Laine 2022, arXiv:2206.00364)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from flowbench import coordinates, hookimpl, nets, noise_levels, solvers, training


@dataclass(frozen=True)
class EDM:
    """Denoise at every noise level; follow the probability-flow ODE with Heun's rule."""

    sigmas: Literal["log-normal", "uniform", "karras"] = "log-normal"  # law of training levels
    p_mean: float = -1.2  # log-normal: mean of ln(sigma), the paper's value
    p_std: float = 1.2  # log-normal: its standard deviation, the paper's value
    solver: Literal["auto", "heun", "euler"] = "auto"  # auto: heun from NFE 35, else euler
    schedule: Literal["auto", "karras", "uniform"] = "auto"  # auto: karras for heun, else uniform
    sigma_min: float = 0.002  # lowest level of the schedule, the paper's value
    sigma_max: float = 80.0  # highest level, where sampling starts, the paper's value
    rho: float = 7.0  # curvature of the karras schedule, the paper's value
    churn: float = 0.0  # S_churn of the stochastic sampler; 0 is the deterministic one
    churn_min: float = 0.05  # S_min: no noise is added below this level
    churn_max: float = 50.0  # S_max: nor above this one
    churn_noise: float = 1.003  # S_noise: standard deviation of what is added
    lr: float = 2e-3  # Adam's step size; the paper, with networks 100 times larger: 1e-3
    ema: float = 0.999  # decay of the weight average
    width: int | None = None  # of the network; None: 128 for vectors, 32 for images

    @property
    def interval(self):
        """The canonical times over which the field is defined."""
        return 1 / (1 + self.sigma_max), 1 / (1 + self.sigma_min)

    def network(self, data):
        """The untrained denoiser D(x, sigma, y)."""
        return nets.Denoiser(nets.default(data, width=self.width), data.std).to(data.device)

    def draw_sigmas(self, n, device):
        """Noise levels of one training batch, (n,)."""
        if self.sigmas == "log-normal":
            return noise_levels.draw_log_normal(n, self.p_mean, self.p_std, device)
        if self.sigmas == "uniform":
            return noise_levels.draw_uniform(n, self.sigma_min, self.sigma_max, device)
        return noise_levels.draw_karras(n, self.sigma_min, self.sigma_max, self.rho, device)

    @hookimpl
    def train(self, data, run):
        net = self.network(data)

        def loss(x, y):
            sigma = self.draw_sigmas(len(x), x.device)
            noisy = x + coordinates.like(sigma, x) * torch.randn_like(x)
            error = (net(noisy, sigma, y) - x).square().flatten(1).mean(1)
            return (net.weight(sigma) * error).mean()

        return training.fit(net, loss, data.train, run, lr=self.lr, ema=self.ema)

    @hookimpl
    def sample(self, network, noise, labels, nfe, rng):
        # auto: 35 is the smallest budget of the paper; at low budgets its sampler overshoots.
        heun = self.solver == "heun" or (self.solver == "auto" and nfe >= 35)
        steps = nfe // 2 + 1 if heun else nfe
        levels = self.levels(steps, heun)
        # An even NFE leaves Heun's correction out of the first step, where the path is straightest.
        corrected = range(1 - nfe % 2, steps - 1) if heun else range(0)
        churn = self.churner(steps, rng) if self.churn else None
        x = self.sigma_max * noise
        return solvers.sigma_heun(network, x, labels, levels, corrected, churn)

    def levels(self, steps, heun):
        """The noise levels of the sampler, from `sigma_max` down."""
        if self.schedule == "karras" or (self.schedule == "auto" and heun):
            return noise_levels.karras(steps, self.sigma_min, self.sigma_max, self.rho)
        return noise_levels.uniform(steps, self.sigma_max)

    def churner(self, steps, rng):
        """The step that raises the noise level before each ODE step (Algorithm 2)."""
        gamma = min(self.churn / steps, math.sqrt(2) - 1)

        def churn(x, sigma):
            if not self.churn_min <= sigma <= self.churn_max:
                return x, sigma
            raised = sigma * (1 + gamma)
            return x + math.sqrt(raised**2 - sigma**2) * self.churn_noise * rng().to(x), raised

        return churn

    @hookimpl
    def velocity(self, network, z, t, labels):
        return coordinates.velocity_of(network)(z, t, labels)
