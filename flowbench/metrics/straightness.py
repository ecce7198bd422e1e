"""How straight a method's trajectories are, in canonical coordinates and without normalisation."""

import torch
from torch import Tensor

from flowbench.coordinates import Field

STEPS = 50
ENTRIES = 2**26  # numbers that the velocities of one batch may hold


@torch.no_grad()
def straightness(
    velocity: Field,
    noise: Tensor,
    labels: Tensor | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    steps: int = STEPS,
) -> tuple[float, float]:
    """(S, S2): the mean over trajectories of the mean over time of |v - u| and of |v - u|^2.

    v is the velocity along the trajectory and u = (z_end - z_start) / (t_end - t_start) its
    chord (S: the caption of the LMM paper's Table 1; S2: Liu et al. 2023, sum over dimensions).
    Trajectories start at z = (1 - t_start) noise and take `steps` Heun steps of equal length over
    `interval`, which is [0, 1] unless the field is not defined there. Straight lines give 0.
    """
    size = max(1, ENTRIES // (steps * noise[0].numel()))
    totals = torch.zeros(2, dtype=torch.float64)
    for start in range(0, len(noise), size):
        rows = slice(start, start + size)
        y = None if labels is None else labels[rows]
        gaps = _deviations(velocity, noise[rows], y, interval, steps)
        totals += torch.stack([gaps.mean(0).sum(), gaps.square().mean(0).sum()]).cpu()
    first, second = (totals / len(noise)).tolist()
    return first, second


def _deviations(velocity: Field, noise: Tensor, labels, interval, steps: int) -> Tensor:
    """|v - u| for each step and trajectory, (steps, B), float64."""
    begin, end = interval
    h = (end - begin) / steps
    z, velocities = (1 - begin) * noise, []
    for i in range(steps):
        t = begin + i * h
        first = velocity(z, noise.new_full((len(z),), t), labels)
        second = velocity(z + h * first, noise.new_full((len(z),), t + h), labels)
        velocities.append(((first + second) / 2).flatten(1))
        z = z + h * velocities[-1].view_as(z)
    field = torch.stack(velocities).double()
    return (field - field.mean(0)).norm(dim=2)
