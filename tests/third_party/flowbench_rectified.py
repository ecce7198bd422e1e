"""Rectified flow (Liu, Gong and Liu 2022, arXiv:2209.03003), by somebody else."""

from dataclasses import dataclass

import torch

from flowbench import coordinates, hookimpl, nets, solvers, training


@dataclass(frozen=True)
class RectifiedFlow:
    """Learn the constant velocity of straight lines from noise to data."""

    lr: float = 1e-3  # Adam's step size

    @hookimpl
    def train(self, data, run):
        net = nets.default(data).to(data.device)

        def loss(x, y):
            t, noise = torch.rand(len(x), device=x.device), torch.randn_like(x)
            z = torch.lerp(noise, x, coordinates.like(t, x))
            return (net(z, t, y) - (x - noise)).square().mean()

        return training.fit(net, loss, data.train, run, lr=self.lr)

    @hookimpl
    def sample(self, network, noise, labels, nfe):
        return solvers.euler(network, noise, labels, nfe)
