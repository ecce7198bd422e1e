"""Noise levels sigma: the grids that samplers walk down, and the laws that training draws from."""

import torch
from torch import Tensor

from flowbench import coordinates


def karras(steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Tensor:
    """EDM's `steps` levels from `high` to `low`, float64 (EDM, eq. 5)."""
    u = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    return warp(u, low, high, rho)


def warp(u: Tensor, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Tensor:
    """Map u in [0, 1] to a level from `high` (u = 0) to `low` (u = 1) along EDM's schedule."""
    return (high ** (1 / rho) + u * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def uniform(steps: int, high: float = 80.0) -> Tensor:
    """`steps` levels from `high` at equal distances of canonical time on the way to t = 1."""
    start = 1 / (1 + high)
    u = torch.arange(steps, dtype=torch.float64) / steps
    return coordinates.sigma(start + (1 - start) * u)


def draw_log_normal(n: int, mean: float, std: float, device: str) -> Tensor:
    """`n` levels with ln(sigma) ~ N(mean, std^2) (EDM, Table 1)."""
    return (mean + std * torch.randn(n, device=device)).exp()


def draw_uniform(n: int, low: float, high: float, device: str) -> Tensor:
    """`n` levels whose canonical time is uniform."""
    start, end = 1 / (1 + high), 1 / (1 + low)
    return coordinates.sigma(start + (end - start) * torch.rand(n, device=device))


def draw_karras(n: int, low: float, high: float, rho: float, device: str) -> Tensor:
    """`n` levels whose place u on EDM's schedule is uniform."""
    return warp(torch.rand(n, device=device), low, high, rho)


def draw_from(levels: Tensor, n: int, device: str) -> Tensor:
    """`n` of the given levels, float32, each as likely as the others."""
    rows = torch.randint(len(levels), (n,), device=device)
    return levels.to(device, torch.float32, non_blocking=True)[rows]
