"""Mixtures of Gaussians with diagonal covariances: the laws whose fields have closed forms."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BISECTIONS = 64  # of an interval of length 10 to 100: to rounding
TINY = 1e-12


@dataclass(frozen=True)
class Mixture:
    """Weights (K,), means (K, d) and standard deviations (K, d) > 0, float64.

    Functions take states (B, d) and times or levels (B,), and answer in the states' dtype.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """E[x1 - x0 | z] at z = (1 - t) x0 + t x1, x0 unit noise, x1 of this law; t in [0, 1]."""
        data, noise = self.posterior(z, t, 1 - t)
        return data - noise

    def denoiser(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x1 | x] at x = x1 + sigma x0; sigma >= 0."""
        return self.posterior(x, torch.ones_like(sigma), sigma)[0]

    def posterior(
        self, x: Tensor, data: Tensor, noise: Tensor, decay: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """E[x1 | x] and E[x0 | x] at x = data x1 + noise x0, with factors (B,).

        With `decay` (B,), x1 is decay times a draw of this law plus sqrt(1 - decay^2) times unit
        noise: what the Ornstein-Uhlenbeck process makes of it.
        """
        means, variances = self.means.to(x), self.stds.to(x).square()
        if decay is not None:
            kept = decay[:, None, None]
            means, variances = kept * means, 1 + kept.square() * (variances - 1)
        a, b = data[:, None, None], noise[:, None, None]
        total = a.square() * variances + b.square()
        gap = x[:, None, :] - a * means
        logits = (gap.square() / total + total.log()).sum(2) / -2
        share = (logits + self.weights.to(x).log()).softmax(1)[:, :, None]
        clean = (share * (means + a * variances / total * gap)).sum(1)
        return clean, (share * b / total * gap).sum(1)

    def log_density(self, x: Tensor) -> Tensor:
        """The logarithm of the density at `x` (B, d), (B,), in nats."""
        means, stds = self.means.to(x), self.stds.to(x)
        parts = ((x[:, None, :] - means) / stds).square() + (2 * math.pi * stds.square()).log()
        return (parts.sum(2) / -2 + self.weights.to(x).log()).logsumexp(1)


@dataclass(frozen=True)
class Factored:
    """A law that is the mixture `law` (1-D) along the unit vector `axis` (d,), zero-mean Gaussians
    of standard deviations `scale` (d,) across it, all independent.

    Its probability-flow ODE moves the coordinate along the axis by the monotone map from N(0, 1),
    and scales the others. The straight lines to the ends of that map never meet.
    """

    axis: Tensor
    scale: Tensor
    law: Mixture

    def line(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end (B, d), float64, of the lines that are at `z` (B, d) at `t` (B,)."""
        z, t = z.double(), t.double()
        along = z @ self.axis
        start, end = self._line(along, t)
        rest = z - along[:, None] * self.axis
        across = rest / (1 + t[:, None] * (self.scale - 1))
        return (
            across + start[:, None] * self.axis,
            across * self.scale + end[:, None] * self.axis,
        )

    def _line(self, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same along the axis, (B,): bisection for the end, whose start is smooth in it.

        The last Newton step gives the derivatives with respect to `z` and `t`.
        """
        at, when = z.detach(), t.detach()
        high = self.law.means.abs().max() + 40 * self.law.stds.max() + at.abs()
        low = -high
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            below = torch.lerp(self._start(middle)[0], middle, when) < at
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        guess = (low + high) / 2
        start, slope = self._start(guess)
        step = (z - torch.lerp(start, guess, t)) / torch.lerp(slope, torch.ones_like(t), t)
        return start + slope * step, guess + step

    def _start(self, end: Tensor) -> tuple[Tensor, Tensor]:
        """The quantile of N(0, 1) that goes to `end` (B,), and its derivative, above 0."""
        stds, weights = self.law.stds[:, 0], self.law.weights.log()
        gap = (end[:, None] - self.law.means[:, 0]) / stds
        below = (torch.special.log_ndtr(gap) + weights).logsumexp(1)
        above = (torch.special.log_ndtr(-gap) + weights).logsumexp(1)
        # The smaller tail keeps its digits.
        tail = torch.special.ndtri(torch.minimum(below, above).exp()).clamp_min(-37)
        density = (weights - stds.log() - gap.square() / 2).logsumexp(1)
        slope = (density + tail.square() / 2).exp().clamp_min(TINY)
        return torch.where(below < above, tail, -tail), slope


def factor(law: Mixture) -> Factored | None:
    """`law` along its one line of modes through the origin; None where it has no such line.

    The modes may differ along the line only, and have one standard deviation there.
    """
    d = law.means.shape[1]
    axis = torch.linalg.svd(law.means).Vh[0] if law.means.any() else torch.eye(d).double()[0]
    centres, on = law.means @ axis, axis.abs() > TINY
    straight = torch.allclose(law.means, centres[:, None] * axis)
    along, across = law.stds[:, on], law.stds[:, ~on]
    if not straight or (along != along[:, :1]).any() or (across != across[:1]).any():
        return None
    return Factored(axis, law.stds[0], Mixture(law.weights, centres[:, None], along[:, :1]))


def gaussian(dim: int) -> Mixture:
    """N(0, I) in `dim` dimensions."""
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(one, torch.zeros(1, dim, dtype=torch.float64), one.expand(1, dim).contiguous())
