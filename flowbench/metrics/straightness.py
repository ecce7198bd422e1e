"""How straight a method's trajectories are, in canonical coordinates and without normalisation."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from flowbench.coordinates import Field

STEPS = 50
NUDGE = 1e-6
ENTRIES = 2**26  # numbers that the velocities of one batch may hold


@torch.no_grad()
def straightness(
    velocity: Field,
    noise: Tensor,
    labels: Tensor | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    knots: Sequence[float] = (),
    steps: int = STEPS,
) -> tuple[float, float]:
    """(S, S2): the mean over trajectories of the mean over time of |v - u| and of |v - u|^2.

    v is the velocity along the trajectory and u = (z_end - z_start) / (t_end - t_start) its
    chord (S: the caption of the LMM paper's Table 1; S2: Liu et al. 2023, sum over dimensions).
    Trajectories start at z = (1 - t_start) noise and take `steps` Heun steps of equal length over
    `interval`, which is [0, 1] unless the field is not defined there; between `knots`, where the
    field jumps, as many in each part. Straight lines give 0.
    """
    grid = steps_between(interval, knots, steps)
    size = max(1, ENTRIES // (len(grid) * noise[0].numel()))
    totals = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(noise), size):
        rows = slice(start, start + size)
        y = None if labels is None else labels[rows]
        totals += _deviations(velocity, (1 - interval[0]) * noise[rows], y, grid)
    first, second = (totals / len(noise)).tolist()
    return first, second


def steps_between(
    interval: tuple[float, float], knots: Sequence[float] = (), steps: int = STEPS
) -> list[tuple[float, float]]:
    """(begin, end) of each step over `interval`, none of which crosses a knot.

    `steps` of equal length in each of `parts_between`.
    """
    grid = []
    for begin, end in parts_between(interval, knots):
        h = (end - begin) / steps
        grid += [(begin + i * h, begin + (i + 1) * h) for i in range(steps - 1)]
        grid.append((begin + (steps - 1) * h, end))
    return grid


def parts_between(
    interval: tuple[float, float], knots: Sequence[float] = ()
) -> list[tuple[float, float]]:
    """(begin, end) of each part of `interval` between two knots, where a field jumps.

    The ends at a knot lie 1e-6 inside, so that the field is asked on the side where the part is.
    """
    ends = [interval[0], *sorted(k for k in knots if interval[0] < k < interval[1]), interval[1]]
    return [
        (begin + NUDGE * (begin in knots), end - NUDGE * (end in knots))
        for begin, end in pairwise(ends)
    ]


def _deviations(velocity: Field, z: Tensor, labels, grid: list[tuple[float, float]]) -> Tensor:
    """Sums over rows of the time averages of |v - u| and |v - u|^2, (2,), float64."""
    velocities = []
    for begin, end in grid:
        first = velocity(z, z.new_full((len(z),), begin), labels)
        second = velocity(z + (end - begin) * first, z.new_full((len(z),), end), labels)
        velocities.append(((first + second) / 2).flatten(1))
        z = z + (end - begin) * velocities[-1].view_as(z)
    field = torch.stack(velocities).double()
    weight = torch.tensor([end - begin for begin, end in grid], dtype=torch.float64)
    weight = (weight / weight.sum()).to(field.device)[:, None]
    gaps = (field - (weight[:, :, None] * field).sum(0)).norm(dim=2)
    return torch.stack([(weight * gaps).sum(), (weight * gaps.square()).sum()]).cpu()
