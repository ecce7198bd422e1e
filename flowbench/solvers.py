"""ODE solvers. Each spends exactly the evaluations that it is asked for.

Solvers of a `velocity(z, t, labels)` run from `begin` to `end`, forwards or backwards. Solvers of
a denoiser `(x, sigma, labels)` run down a list of noise levels and end at 0; their state is
float64, as in EDM. Times reach the network as (B,).
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from flowbench.coordinates import Field, like


@torch.no_grad()
def euler(
    velocity: Field,
    z: Tensor,
    labels: Tensor | None,
    nfe: int,
    begin: float = 0.0,
    end: float = 1.0,
) -> Tensor:
    """Euler on a uniform grid: `nfe` steps of one evaluation."""
    return _fixed_steps(velocity, z, labels, [_euler_step] * nfe, begin, end)


@torch.no_grad()
def midpoint(
    velocity: Field,
    z: Tensor,
    labels: Tensor | None,
    nfe: int,
    begin: float = 0.0,
    end: float = 1.0,
) -> Tensor:
    """The midpoint rule, two evaluations a step; an odd `nfe` ends with one Euler step."""
    rules = [_midpoint_step] * (nfe // 2) + [_euler_step] * (nfe % 2)
    return _fixed_steps(velocity, z, labels, rules, begin, end)


@torch.no_grad()
def heun(
    velocity: Field,
    z: Tensor,
    labels: Tensor | None,
    nfe: int,
    begin: float = 0.0,
    end: float = 1.0,
) -> Tensor:
    """Heun's rule, two evaluations a step; an odd `nfe` ends with one Euler step."""
    rules = [_heun_step] * (nfe // 2) + [_euler_step] * (nfe % 2)
    return _fixed_steps(velocity, z, labels, rules, begin, end)


@torch.no_grad()
def dopri5(
    velocity: Field,
    z: Tensor,
    labels: Tensor | None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    begin: float = 0.0,
    end: float = 1.0,
) -> Tensor:
    """torchdiffeq's adaptive Dormand-Prince 5(4); it takes as many evaluations as it needs.

    One step sequence serves the whole batch. A step is made to stop at `end`: left alone, the
    solver would step past it, where a field need not exist, and interpolate back.
    """
    from torchdiffeq import odeint

    def field(t: Tensor, state: Tensor) -> Tensor:
        return velocity(state, t.to(z.dtype).expand(len(z)), labels)

    times = z.new_tensor([begin, end])
    ends = {"step_t": times[1:]}
    return odeint(field, z, times, rtol=rtol, atol=atol, method="dopri5", options=ends)[-1]


def _fixed_steps(
    velocity: Field, z: Tensor, labels: Tensor | None, rules: list, begin: float, end: float
) -> Tensor:
    n, span = len(rules), end - begin
    times = [begin + span * (i / n) for i in range(n)] + [end]  # sums may round to more than `end`
    for rule, time, target in zip(rules, times, times[1:], strict=False):
        z = rule(lambda z, t: velocity(z, z.new_full((len(z),), t), labels), z, time, target)
    return z


def _euler_step(field: Callable, z: Tensor, t: float, end: float) -> Tensor:
    return z + (end - t) * field(z, t)


def _midpoint_step(field: Callable, z: Tensor, t: float, end: float) -> Tensor:
    h = end - t
    half = z + h / 2 * field(z, t)
    return z + h * field(half, t + h / 2)


def _heun_step(field: Callable, z: Tensor, t: float, end: float) -> Tensor:
    h = end - t
    first = field(z, t)
    second = field(z + h * first, end)
    return z + h / 2 * (first + second)


@torch.no_grad()
def sigma_euler(denoiser: Field, x: Tensor, labels: Tensor | None, levels: Tensor) -> Tensor:
    """Euler (DDIM) down `levels` (N,) to 0, one evaluation a level; `x` is at `levels[0]`."""
    return sigma_heun(denoiser, x, labels, levels, corrected=range(0))


@torch.no_grad()
def sigma_heun(
    denoiser: Field,
    x: Tensor,
    labels: Tensor | None,
    levels: Tensor,
    corrected: range | None = None,
    churn: Callable[[Tensor, float], tuple[Tensor, float]] | None = None,
) -> Tensor:
    """EDM's Heun sampler (Algorithm 1) down `levels` (N,) to 0: 2N - 1 evaluations.

    `corrected` names the steps that get Heun's correction (all but the last, which ends at 0,
    where the field is not defined). `churn` raises the noise before a step (Algorithm 2).
    """
    corrected = range(len(levels) - 1) if corrected is None else corrected
    ends = [*levels.tolist(), 0.0]
    state = x.double()

    def slope(state: Tensor, level: float) -> Tensor:
        sigmas = torch.full((len(x),), level, dtype=x.dtype, device=x.device)
        return (state - denoiser(state.to(x.dtype), sigmas, labels).double()) / level

    for i in range(len(levels)):
        level, target = ends[i], ends[i + 1]
        if churn is not None:
            state, level = churn(state, level)
        first = slope(state, level)
        moved = state + (target - level) * first
        if i in corrected:
            moved = state + (target - level) / 2 * (first + slope(moved, target))
        state = moved
    return state.to(x.dtype)


def heun_paths(denoiser: Field, x: Tensor, labels: Tensor | None, levels: Tensor) -> Tensor:
    """Heun's rule down `levels` (K + 1, B), a path of its own for each row of `x` (B, *shape)."""
    for t, u in pairwise(levels):
        slope = (x - denoiser(x, t, labels)) / like(t, x)
        step = like(u - t, x)
        moved = x + step * slope
        x = x + step / 2 * (slope + (moved - denoiser(moved, u, labels)) / like(u, x))
    return x
