"""What a picture shows of a canonical field: its trajectories, and the field at one time."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flowbench import solvers
from flowbench.coordinates import Field
from flowbench.metrics.straightness import steps_between
from flowbench.noise import unit_noise

STEPS = 100
DRAWS = 32  # of the coordinates that a picture of two does not show


@torch.no_grad()
def follow(
    velocity: Field,
    noise: Tensor,
    labels: Tensor | None = None,
    interval: tuple[float, float] = (0.0, 1.0),
    knots: Sequence[float] = (),
    steps: int = STEPS,
) -> tuple[Tensor, Tensor]:
    """Times (T,), float64, and canonical states (T, B, *shape) along trajectories from `noise`.

    They start at z = (1 - t_start) noise and take Heun steps on the grid of a straightness:
    `steps` over `interval`, or in each part of it between two `knots`, where the field jumps.
    """
    z = (1 - interval[0]) * noise
    times, states = [interval[0]], [z]
    for begin, end in steps_between(interval, knots, steps):
        z = solvers.heun(velocity, z, labels, 2, begin, end)
        times.append(end)
        states.append(z)
    return torch.tensor(times, dtype=torch.float64), torch.stack(states)


@torch.no_grad()
def plane(
    velocity: Field,
    points: Tensor,
    t: float,
    shape: Sequence[int],
    labels: Tensor | None = None,
    draws: int = DRAWS,
) -> Tensor:
    """The first two coordinates of the field at `points` (G, 2) and time `t`, (G, 2).

    States have `shape` (D,). The other coordinates are (1 - t) noise, as at the start of a
    trajectory, and the field is averaged over `draws` of them; `labels` (draws,) go with these.
    """
    noise = unit_noise(0, range(draws), shape, device=str(points.device))
    rest = (1 - t) * noise[:, 2:].to(points)
    z = torch.cat([points.repeat_interleave(draws, 0), rest.repeat(len(points), 1)], dim=1)
    y = None if labels is None else labels.repeat(len(points))
    field = velocity(z, z.new_full((len(z),), t), y)[:, :2]
    return field.reshape(len(points), draws, 2).mean(1)
