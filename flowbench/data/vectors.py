"""Vector data made from known laws: mixtures of Gaussians, plain Gaussians, and 2-D shapes."""

import numpy as np
import torch

from flowbench.data.base import Arrays, Modes
from flowbench.mixtures import Mixture, gaussian

TRAIN, HELD_OUT = 100_000, 20_000


def mog128(root=None) -> Arrays:
    """Two equal Gaussians at (1, 1, 0, ...) and (-1, -1, 0, ...) in 128 dimensions.

    Standard deviation 0.1 in the first two coordinates and 1 in the others (LMM paper, Table 1).
    """

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        x = rng.standard_normal((n, 128), dtype=np.float32)
        signs = rng.choice(np.array([-1, 1], np.float32), size=(n, 1))
        x[:, :2] = signs + 0.1 * x[:, :2]
        return x

    modes = Modes(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), torch.tensor([0.1, 0.1]), (0, 1))
    return _arrays(draw, modes, _law(modes, 128))


def eight_gaussians(root=None) -> Arrays:
    """Eight Gaussians of standard deviation 0.1 on a circle of radius sqrt(2)."""
    angles = np.arange(8) * (np.pi / 4)
    means = (np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32)

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return means[rng.integers(8, size=n)] + 0.1 * _normal(rng, n)

    modes = Modes(torch.from_numpy(means), torch.tensor([0.1, 0.1]), (0, 1))
    return _arrays(draw, modes, _law(modes, 2))


def normal(dim: int) -> Arrays:
    """N(0, I) in `dim` dimensions: noise in the place of data, for studies of couplings."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_normal((n, dim), dtype=np.float32)

    return _arrays(draw, law=gaussian(dim))


def moons(root=None) -> Arrays:
    """Two interleaved half circles with noise 0.05, centred and scaled to about unit variance."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        angle, upper = rng.uniform(0, np.pi, n), rng.random(n) < 0.5
        x = np.where(upper, np.cos(angle), 1 - np.cos(angle))
        y = np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
        points = np.stack([x - 0.5, y - 0.25], 1) + 0.05 * _normal(rng, n)
        return points / np.array([0.87, 0.5])

    return _arrays(draw)


def checkerboard(root=None) -> Arrays:
    """Uniform on the dark fields of a 4x4 checkerboard over [-2, 2]^2."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        column, row = rng.integers(4, size=n), rng.integers(2, size=n)
        corner = np.stack([column, 2 * row + column % 2], 1)
        return corner - 2 + rng.random((n, 2))

    return _arrays(draw)


def rose(root=None) -> Arrays:
    """A rose of five petals, r = 2 cos(5 a), with noise 0.05."""

    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        angle = rng.uniform(0, np.pi, n)
        radius = 2 * np.cos(5 * angle)
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        return points + 0.05 * _normal(rng, n)

    return _arrays(draw)


def _normal(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, 2), dtype=np.float32)


def _law(modes: Modes, dim: int) -> Mixture:
    """Equally likely `modes` in their coordinates, which come first, and N(0, 1) in the others."""
    k, m = modes.means.shape
    means = torch.zeros(k, dim, dtype=torch.float64)
    stds = torch.ones(k, dim, dtype=torch.float64)
    means[:, :m], stds[:, :m] = modes.means, modes.std
    return Mixture(torch.full((k,), 1 / k, dtype=torch.float64), means, stds)


def _arrays(draw, modes: Modes | None = None, law: Mixture | None = None) -> Arrays:
    """Training and held-out draws from two streams of one law."""
    train, test = (
        draw(np.random.Generator(np.random.Philox(key=[0, stream])), n).astype(np.float32)
        for stream, n in ((0, TRAIN), (1, HELD_OUT))
    )
    return Arrays(train=train, test=test, modes=modes, law=law)
