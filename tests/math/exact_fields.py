"""Exact fields, maps and networks of laws that have closed forms; all of them in the input's dtype.

Mixtures have weights (K,), means (K, d) and standard deviations (K, d); noise is N(0, I) and
independent of the data.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowbench import nets
from flowbench.coordinates import like
from flowbench.data.base import Arrays, load


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with diagonal covariances, on (B, d)."""

    weights: Tensor
    means: Tensor
    stds: Tensor

    def _posterior(self, x: Tensor, data: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
        """E[X | x] and E[N | x] at x = data X + noise N, with X from the mixture, N unit noise."""
        means, stds = self.means.to(x), self.stds.to(x)
        a, b = data[:, None, None], noise[:, None, None]
        total = a.square() * stds.square() + b.square()
        gap = x[:, None, :] - a * means
        logits = (gap.square() / total + total.log()).sum(2).mul(-0.5)
        share = (logits + self.weights.to(x).log()).softmax(1)[:, :, None]
        clean = (share * (means + a * stds.square() / total * gap)).sum(1)
        unit = (share * b / total * gap).sum(1)
        return clean, unit

    def velocity(self, z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x1 - x0 | z], regular on all of [0, 1]."""
        clean, unit = self._posterior(z, t, 1 - t)
        return clean - unit

    def denoiser(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """E[x1 | x1 + sigma x0 = x]."""
        return self._posterior(x, torch.ones_like(sigma), sigma)[0]

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Samples (n, d), float64."""
        generator = torch.Generator().manual_seed(seed)
        rows = self.weights.multinomial(n, replacement=True, generator=generator)
        unit = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[rows] + self.stds[rows] * unit

    def cdf(self, x: Tensor, extra: float = 0.0) -> Tensor:
        """P(X + extra N <= x) of a 1-D mixture, x (n,)."""
        spread = (self.stds[:, 0].square() + extra**2).sqrt()
        return (self.weights * torch.special.ndtr((x[:, None] - self.means[:, 0]) / spread)).sum(1)

    def quantile(self, p: Tensor) -> Tensor:
        """The inverse of `cdf` by bisection."""
        low, high = torch.full_like(p, -50), torch.full_like(p, 50)
        for _ in range(80):
            middle = (low + high) / 2
            below = self.cdf(middle) < p
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def gaussian(mean: float | Tensor, std: float | Tensor, dim: int = 1) -> Mixture:
    """N(mean, diag(std^2)) in `dim` dimensions."""
    full = torch.ones(1, dim, dtype=torch.float64)
    return Mixture(torch.ones(1, dtype=torch.float64), mean * full, std * full)


def pair(centre: float, std: float) -> Mixture:
    """The 1-D mixture of N(-centre, std^2) and N(centre, std^2), equally likely."""
    means = torch.tensor([[-centre], [centre]], dtype=torch.float64)
    half = torch.full((2,), 0.5, dtype=torch.float64)
    return Mixture(half, means, torch.full((2, 1), std, dtype=torch.float64))


M1 = pair(1.0, 0.1)
MODAL = Mixture(  # the first two coordinates of mog128
    torch.full((2,), 0.5, dtype=torch.float64),
    torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64),
    torch.full((2, 2), 0.1, dtype=torch.float64),
)


def mog128_velocity(z: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    """The exact field of mog128: two modal coordinates and 126 unit Gaussians, all independent."""
    s = like(t, z)
    rest = (2 * s - 1) / (s.square() + (1 - s).square()) * z[:, 2:]
    return torch.cat([MODAL.velocity(z[:, :2], t), rest], 1)


def mog128_denoiser(x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
    """The exact denoiser of mog128."""
    rest = x[:, 2:] / (1 + like(sigma, x).square())
    return torch.cat([MODAL.denoiser(x[:, :2], sigma), rest], 1)


class Net(nn.Module):
    """A function (x, t, y) as a network. `dummy` lets optimisers accept it; it changes nothing."""

    def __init__(self, function, std: float = 1.0):
        super().__init__()
        self.function, self.std = function, std
        self.dummy = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.function(x, t, y)

    def weight(self, sigma: Tensor) -> Tensor:
        """EDM's loss weight."""
        return (sigma.square() + self.std**2) / (sigma * self.std).square()


def lines(std: float, top: float = 80.0) -> Net:
    """The perfect LMM network c x/(c + sigma) of N(0, std^2), whose pairs are x1 = c x0."""
    c = slope(std, top)
    return Net(lambda x, sigma, y: c / (c + like(sigma, x)) * x, std)


def slope(std: float, top: float = 80.0) -> float:
    """c of the exact map x1 = c x0 that the ODE makes of N(0, std^2) from top * x0."""
    return std * top / math.hypot(std, top)


def calls(network: nn.Module) -> list:
    """A list that grows by (batch, times) with each forward of `network`."""
    seen: list = []
    network.register_forward_hook(lambda module, args, out: seen.append((len(args[0]), args[1])))
    return seen


def basis(rows: int):
    """(noise, rng): the first unit vector of `rows` dimensions, then one after the other.

    A linear sampler turns them into its coefficients, so its output's norm is the exact standard
    deviation that unit noise would give.
    """
    vectors = iter(torch.eye(rows, dtype=torch.float64)[:, None])
    return next(vectors), lambda: next(vectors)


def vectors(values: Tensor, labels: Tensor | None = None, classes: int = 0):
    """Vector `Data` on the CPU with `values` (N, D) as its training split."""
    y = None if labels is None else labels.numpy()
    return load("toy", Arrays(values.float().numpy(), labels=y, classes=classes), "cpu")


def loss_of(method, data, network: nn.Module, monkeypatch, **kwargs):
    """The training loss that `method` would minimise over `data`, with `network` as its network."""
    found = []
    monkeypatch.setattr(type(method), "network", lambda self, data: network)
    monkeypatch.setattr(
        "flowbench.training.fit", lambda net, loss, *args, **options: found.append(loss) or net
    )
    method.train(data, **kwargs)
    return found[0]


def ratio(std, start, end):
    """The exact multiplier of N(0, std^2)'s path from one noise level to another."""
    return ((std**2 + end**2) / (std**2 + start**2)) ** 0.5


class Ends(nn.Module):
    """The exact consistency function of N(0, std^2), down to `low`."""

    def __init__(self, std=0.5, low=0.002):
        super().__init__()
        self.std, self.low = std, low

    def forward(self, x, t, y=None):
        return like(ratio(self.std, t, self.low), x) * x

    def weight(self, sigma):
        return nets.Denoiser(nn.Identity(), self.std).weight(sigma)
