"""Sources of plugins for tests: a good method, and ways to spoil it."""

GOOD = '''"""My idea (nobody, never)."""

from dataclasses import dataclass

import torch

from flowbench import coordinates, hookimpl, nets, solvers, training


@dataclass(frozen=True)
class MyIdea:
    """Learn straight lines."""

    lr: float = 1e-3  # step size

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
'''
SPIRAL = """
import numpy as np
from flowbench import Budget, Dataset, Metric, hookimpl
from flowbench.data.base import Arrays

def load(root):
    rows = np.random.default_rng(0).standard_normal((300, 2)).astype(np.float32)
    return Arrays(train=rows[:200], test=rows[200:])

@hookimpl
def datasets():
    return [Dataset("spiral", "for the test", load, Budget(10, 16), samples=50)]

@hookimpl
def metrics():
    return [Metric("wide", lambda e: float(e.samples.std()), goal="")]
"""
TINY = ("--dataset", "moons", "--steps", "4", "--batch", "8", "--nfe", "1", "--samples", "20")


def without(part: str, instead: str) -> str:
    """The good method with `part` of its source replaced."""
    assert part in GOOD
    return GOOD.replace(part, instead)
