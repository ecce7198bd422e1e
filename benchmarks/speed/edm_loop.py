"""A training step like that of EDM's code (Karras et al. 2022, NVlabs/edm), and ours of `edm`.

Both have one denoiser of `nets`, and images are not augmented. Left out of theirs are the data
loader (rows are on the device, and drawn by index, as ours are) and the statistics of losses.
"""

import copy
from dataclasses import dataclass

import torch
from flowbench_plugins.edm import EDM
from torch import Tensor, nn

from benchmarks.speed import networks
from benchmarks.speed.loops import EMA, LR, Case, Loop, Train, Turns, draw

# Of its training on CIFAR-10; images, not steps.
STEP_SIZE, WARMUP = 1e-3, 10_000_000  # Adam's, and how long it rises in proportion from 0
HALF_LIFE, SHARE = 500_000, 0.05  # of the average; at most this share of the images so far
MEAN, STD = -1.2, 1.2  # of ln(sigma)
LARGEST = 1e5  # entry of a gradient that overflowed


class EDMStyle(Loop):
    """Weighted denoising loss, Adam with a rising step size, mended gradients, average by weight.

    `net` is D(x, sigma, y); `images` are those that went through it so far.
    """

    def __init__(self, case: Case):
        self.case, self.net, self.images = case, copy.deepcopy(case.network), 0
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=STEP_SIZE, betas=(0.9, 0.999), eps=1e-8
        )

    def step(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        x = draw(self.case).to(torch.float32) / 127.5 - 1
        loss = self.loss(x).sum() / len(x)
        loss.backward()
        self.move()
        self.images += len(x)
        return loss.detach()

    def loss(self, x: Tensor) -> Tensor:
        """The weighted squared error of each entry at noise levels of one batch, like x."""
        sigma = torch.randn(len(x), 1, 1, 1, device=x.device).mul(STD).add(MEAN).exp()
        weight = (sigma**2 + networks.SIGMA_DATA**2) / (sigma * networks.SIGMA_DATA) ** 2
        found = self.net(x + torch.randn_like(x) * sigma, sigma.flatten(), None)
        return weight * (found - x) ** 2

    def move(self) -> None:
        """Move the weights down their gradients, and the average towards the weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = STEP_SIZE * min(self.images / WARMUP, 1)
        for weight in self.net.parameters():
            if weight.grad is not None:
                torch.nan_to_num(
                    weight.grad, nan=0, posinf=LARGEST, neginf=-LARGEST, out=weight.grad
                )
        self.optimizer.step()
        self._average()

    def _average(self) -> None:
        half_life = min(HALF_LIFE, SHARE * self.images)
        keep = 0.5 ** (self.case.batch / max(half_life, 1e-8))
        for old, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
            old.copy_(new.detach().lerp(old, keep))


@dataclass(frozen=True)
class Ready:
    """What the method `edm` asks of its data, and the network that it shall train."""

    network: nn.Module
    train: Turns


class Given(EDM):
    """The method `edm` on a network that is there already."""

    def network(self, data: Ready) -> nn.Module:
        return data.network


def training(case: Case) -> Train:
    """What trains a copy of the case's denoiser by the method `edm`, its loss and its loop."""
    method = Given(lr=LR, ema=EMA)
    return lambda turns, run: method.train(Ready(copy.deepcopy(case.network), turns), run)
