"""Likelihood by the change of variables along a canonical field (Chen et al. 2018, eq. 8)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vjp, vmap

from flowbench.coordinates import Field
from flowbench.metrics.straightness import parts_between

STEPS = 20  # of four evaluations, between two knots


def nll(
    velocity: Field,
    rows: Tensor,
    knots: Sequence[float] = (),
    labels: Tensor | None = None,
    steps: int | None = STEPS,
) -> float:
    """Mean negative log-likelihood of `rows` (B, D) in nats; see `log_density`."""
    return -log_density(velocity, rows, labels, knots, steps).mean().item()


@torch.no_grad()
def log_density(
    velocity: Field,
    x: Tensor,
    labels: Tensor | None = None,
    knots: Sequence[float] = (),
    steps: int | None = STEPS,
) -> Tensor:
    """ln p(x) in nats, (B,), of data `x` (B, *shape) at t = 1 where noise at t = 0 is N(0, I).

    One solve carries each state back to its noise together with the integral of the divergence,
    whose trace is exact: D derivatives for each evaluation, so this is for vectors. Each part
    between two `knots`, where the field jumps, takes `steps` Runge-Kutta steps of order 4, or,
    with `steps` None, as many of Dormand-Prince as a tolerance of 1e-6 asks for.
    """
    z, total = x, x.new_zeros(len(x))
    for part in reversed(parts_between((0.0, 1.0), knots)):
        z, total = _back(velocity, z, total, labels, part, steps)
    size = z[0].numel()
    normal = z.flatten(1).square().sum(1).double() + size * math.log(2 * math.pi)
    return -normal / 2 - total.double()


def _back(velocity: Field, z: Tensor, total: Tensor, labels, part, steps: int | None):
    """States and integrals of the divergence at the begin of a part, from those at its end."""
    from torchdiffeq import odeint

    def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return velocity_and_divergence(velocity, state[0], t, labels)

    # The reversed solve subtracts, so the integral enters with its sign turned.
    times = torch.linspace(part[1], part[0], (steps or 1) + 1, dtype=z.dtype, device=z.device)
    adaptive = {"method": "dopri5", "options": {"step_t": times[1:]}, "atol": 1e-6, "rtol": 1e-6}
    path = odeint(field, (z, -total), times, **({"method": "rk4"} if steps else adaptive))
    return path[0][-1], -path[1][-1]


def velocity_and_divergence(velocity: Field, z: Tensor, t: Tensor, labels: Tensor | None = None):
    """v (B, *shape) and its exact divergence (B,) at states `z` (B, *shape) and one time `t`."""
    times = t.to(z.dtype).expand(len(z))

    def field(state: Tensor) -> Tensor:
        return velocity(state, times, labels)

    value, pull = vjp(field, z)[:2]
    basis = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device).view(-1, 1, *z.shape[1:])
    rows = vmap(lambda direction: pull(direction.expand_as(z))[0])(basis)  # (D, B, *shape)
    return value, rows.flatten(2).diagonal(dim1=0, dim2=2).sum(1)
