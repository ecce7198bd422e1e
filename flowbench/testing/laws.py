"""Flows with closed forms, and the networks that are exact for them in the forms that are known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowbench.coordinates import like, time

QUARTER = math.pi / 2
LEVELS = 7  # halvings of a step up to the smallest, 1/128 (Frans et al. 2024): level 1


@dataclass(frozen=True)
class Affine:
    """The flow z_t = shift t + r(t) z_0 in canonical coordinates, all of it in float64.

    With `straight`, r is linear: every line ends at shift + scale z_0, and none meets another.
    Otherwise r(t)^2 = (1 - t)^2 + (scale t)^2: the probability-flow ODE of N(shift, scale^2).
    """

    shift: float = 0.3
    scale: float = 0.5
    straight: bool = False

    def ratio(self, t: Tensor) -> Tensor:
        """r(t)."""
        if self.straight:
            return 1 - t + self.scale * t
        return ((1 - t).square() + (self.scale * t).square()).sqrt()

    def slope(self, t: Tensor) -> Tensor:
        """The derivative of r."""
        if self.straight:
            return torch.full_like(t, self.scale - 1)
        return (self.scale**2 * t - (1 - t)) / self.ratio(t)

    def velocity(self, z: Tensor, t: Tensor) -> Tensor:
        """dz/dt at states `z` (B, *shape) and times `t` (B,)."""
        z, t = z.double(), t.double()
        return self.shift + like(self.slope(t) / self.ratio(t), z) * (z - self.shift * like(t, z))

    def move(self, z: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """Where the flow takes `z` (B, *shape) from times `t` (B,) to `end` (B,)."""
        z, t, end = z.double(), t.double(), end.double()
        moved = like(self.ratio(end) / self.ratio(t), z) * (z - self.shift * like(t, z))
        return self.shift * like(end, z) + moved

    def average(self, z: Tensor, t: Tensor, end: Tensor) -> Tensor:
        """The average velocity from `t` to `end`; where they are equal, the velocity."""
        same = like(t == end, z)
        length = torch.where(same, 1.0, like((end - t).double(), z))
        moved = (self.move(z, t, end) - z.double()) / length
        return torch.where(same, self.velocity(z, t), moved)

    def denoised(self, x: Tensor, level: Tensor, low: Tensor) -> Tensor:
        """g with x_low = (low/level) x + (1 - low/level) g; the denoiser where low = level."""
        x, level, low = x.double(), level.double(), low.double()
        t, same = time(level), like(low == level, x)
        clean = x * like(t, x) + like(1 - t, x) * self.velocity(x * like(t, x), t)
        end = self.move(x * like(t, x), t, time(low)) * like(1 + low, x)
        share = like(low / level, x)
        jump = (end - share * x) / torch.where(same, 1.0, 1 - share)
        return torch.where(same, clean, jump)

    def turned(self, x: Tensor, t: Tensor) -> Tensor:
        """dx/dt on the path cos(pi t/2) x0 + sin(pi t/2) x1, at its own times `t`."""
        x, t = x.double(), t.double()
        sine, cosine = (QUARTER * t).sin(), (QUARTER * t).cos()
        length = sine + cosine  # x = length z at the canonical time sine / length
        growth = QUARTER * (cosine - sine)
        pace = QUARTER / length.square()  # of canonical time
        z = x / like(length, x)
        field = self.velocity(z, sine / length)
        return like(growth, x) * z + like(length * pace, x) * field


Answer = Callable[[Affine, Tensor, Tensor, Tensor | None], Tensor]


def _times(t: Tensor, other: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two times (B,) each, given as (B, 2), or one after the other."""
    if t.ndim == 2:
        return t[:, 0], t[:, 1]
    return t, t if other is None else other


def _velocity(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    return law.velocity(x, t)


def _denoiser(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    level, low = _times(t, other)
    return law.denoised(x, level, low)


def _turned(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    return law.turned(x, t)


def _between(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    return law.average(x, *_times(t, other))


def _over(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    begin, length = _times(t, torch.zeros_like(t) if other is None else other)
    return law.average(x, begin, begin + length)


def _halved(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    begin, level = _times(t, torch.ones_like(t) if other is None else other)
    return law.average(x, begin, begin + 0.5 ** (LEVELS * level))


def _backwards(law: Affine, x: Tensor, t: Tensor, other: Tensor | None) -> Tensor:
    end, begin = _times(t, other)
    return law.average(x, begin, end)


FORMS: dict[str, Answer] = {
    "velocity net(z, t, y)": _velocity,
    "denoiser net(x, sigma, y, s)": _denoiser,
    "velocity on the trigonometric path": _turned,
    "average velocity net(z, (t, end), y)": _between,
    "average velocity net(z, (t, length), y)": _over,
    "average velocity net(z, (t, level), y)": _halved,
    "average velocity net(z, (end, t), y)": _backwards,
}
STRAIGHT = frozenset(FORMS) - {"velocity on the trigonometric path"}  # whose lines stay lines


class Closed(nn.Module):
    """The exact network of a law in one of the forms."""

    def __init__(self, law: Affine, form: str):
        super().__init__()
        self.law, self.answer = law, FORMS[form]

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, other: Tensor | None = None
    ) -> Tensor:
        return self.answer(self.law, x, t, other).to(x.dtype)


def begin_at(noise: Tensor, begin: float) -> Tensor:
    """The canonical state at time `begin` of a sampler that starts from this unit noise."""
    return (1 - begin) * noise.double()
